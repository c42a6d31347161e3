"""Which GPUs this machine has, asked of the driver through NVML."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU: its number, its name and its memory in bytes."""

    number: int
    name: str
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Devices:
    """The driver's version and its GPUs; without a usable driver no version, no devices and the reason."""

    driver: str | None
    devices: tuple[Device, ...]
    reason: str = ""


def find_devices() -> Devices:
    """Ask NVML. Blocks for a few milliseconds; a missing driver is an answer, not an error."""
    import pynvml  # noqa: PLC0415 - only those who ask for devices pay for it

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return Devices(None, (), str(error))
    try:
        found = []
        for number in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(number)
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
            found.append(Device(number, str(pynvml.nvmlDeviceGetName(handle)), int(memory.total)))
        return Devices(str(pynvml.nvmlSystemGetDriverVersion()), tuple(found))
    except pynvml.NVMLError as error:
        return Devices(None, (), str(error))
    finally:
        pynvml.nvmlShutdown()
