"""A worker of the real kind that serves nobody: how far does this system let one be locked in?"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cloche.confine import landlock
from cloche.confine.level import Level
from cloche.confine.shortage import shortage
from cloche.engine.bounds import StoreBounds
from cloche.engine.code import CodeStore, NativeCode
from cloche.engine.profile import Profile
from cloche.errors import EngineError
from cloche.model import MIB, Digest, Limits, Metering
from cloche.worker.house import House
from cloche.worker.orders import Lodging
from cloche.worker.ready import ReadyWorkers

_EMPTY_COMPONENT = b"\0asm\x0d\0\x01\0"
_CACHE_BYTES = 16 * MIB
_PROFILE = Profile(Metering.BOTH)
_RESOURCES = {
    "Max data size": "data_bytes",
    "Max open files": "open_files",
    "Max core file size": "core_bytes",
    "Max locked memory": "locked_bytes",
    "Max msgqueue size": "message_queue_bytes",
}
"""Lines of /proc/PID/limits: what the worker sets, by the names of `Trial.limits`."""


@dataclass(frozen=True, slots=True)
class Trial:
    """How a worker was locked in, as the kernel says of all its threads. Its self-test found nothing. Added in 0.1.

    `privileges` is the kernel's mask of root's rights that it has; `limits` are the resource limits that it is held to,
    without those that are not set.
    """

    level: Level
    no_new_privileges: bool
    privileges: int
    limits: Mapping[str, int]


def try_worker() -> Trial:
    """Start a worker with a component that does nothing, ask the kernel about it, and end it. Blocks for a second.

    Raises: EngineError: `engine.worker-start` when it cannot be started, or could do what it must not; what compiling
        raises; `engine.unsupported` where /proc does not tell.
    """
    said: dict[str, object] = {}

    def lodge(native: NativeCode) -> House:
        return House(_lodging(native), lambda _, data: said.update(data), ReadyWorkers(0))

    with _directory() as home:
        code = CodeStore(Path(home), _PROFILE, emit=lambda *_: None, max_bytes=_CACHE_BYTES, background=False)
        try:
            house = code.load(_EMPTY_COMPONENT, Digest(hashlib.sha256(_EMPTY_COMPONENT).hexdigest()), lodge)
            try:
                return _seen(Path(f"/proc/{said['pid']}"), str(said["level"]))
            finally:
                house.close()
        finally:
            code.close()


def _directory() -> tempfile.TemporaryDirectory[str]:
    try:
        return tempfile.TemporaryDirectory(prefix="cloche-trial-")
    except OSError as error:
        raise shortage("there is nowhere to compile the code of a worker", error) from error


def _lodging(native: NativeCode) -> Lodging:
    return Lodging(
        plugin="cloche/doctor",
        profile=_PROFILE,
        component=native.component_fd,
        modules=native.modules,
        imports=(),
        exports=(),
        limits=Limits(),
        bounds=StoreBounds(1 * MIB, 1, 1, 1, 1),
        probe=None,
        mounts=(),
        concurrency=1,
        lockdown="none",
    )


def _seen(process: Path, word: str) -> Trial:
    """What the kernel says about a worker that says that it is locked in by `word`. Every thread has to be."""
    try:
        tasks = [_fields((task / "status").read_text()) for task in (process / "task").iterdir()]
        limits = _resource_limits((process / "limits").read_text())
    except OSError as error:
        raise EngineError(f"nothing is known about a worker: {error}", code="engine.unsupported") from error
    filtered = all(task.get("Seccomp") == "2" for task in tasks)
    return Trial(
        level=Level(landlock.abi() if "landlock" in word else 0, filtered, bool(limits)),
        no_new_privileges=all(task.get("NoNewPrivs") == "1" for task in tasks),
        privileges=max((int(task.get("CapEff", "0"), 16) for task in tasks), default=0),
        limits=limits,
    )


def _fields(text: str) -> dict[str, str]:
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


def _resource_limits(text: str) -> dict[str, int]:
    found = {}
    for line in text.splitlines():
        name = next((name for name in _RESOURCES if line.startswith(name)), None)
        if name is not None and (soft := line.removeprefix(name).split()[0]) != "unlimited":
            found[_RESOURCES[name]] = int(soft)
    return found
