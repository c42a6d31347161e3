"""Finding accelerators."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloche_accel.devices import find_devices


def test_a_machine_without_a_driver_gives_a_reason() -> None:
    """Without a driver there is an answer that says why, and no exception."""
    if Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has an NVIDIA driver")
    found = find_devices()
    assert found.driver is None
    assert found.devices == ()
    assert found.reason


def test_devices_have_names_and_memory() -> None:
    """With a driver every device tells its name and memory."""
    found = find_devices()
    if not found.devices:
        pytest.skip(f"no GPU here: {found.reason}")
    assert all(device.name and device.memory_bytes > 0 for device in found.devices)
