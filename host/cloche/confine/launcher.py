"""What a confined child does first: limits, Landlock, no privileges, seccomp; then it becomes the program.

Run as `python -I -S -B launcher.py PLAN`, where PLAN is JSON made by `cloche.confine.child`. A program is executed, or
supervised where it may start others; a Python entry point is imported, *prepared* with files still in reach, locked in,
and then run. What was reached is told on a descriptor of its own, closed before foreign code runs. Starting by exec
keeps clear of forked locks and of the engine's threads (H19).
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from ctypes import CDLL, c_int, c_ulong
from importlib import import_module
from types import ModuleType
from typing import Any

_SET_PARENT_DEATH_SIGNAL = 1

FAILED_STATUS = 120
"""Exit status when the child could not be locked in or the program could not be started."""


def main(plan: dict[str, Any]) -> int:
    """Lock this process in as `plan` says and run what it names; returns the status of a Python entry point."""
    report = int(plan["report"])
    os.set_inheritable(report, False)  # not for the program that follows
    try:
        _bind_to_parent(int(plan["parent"]), signal.SIGKILL)
        _limit(plan["rlimits"], int(plan["nice"]))
        _make_package(str(plan["package"]))
        sys.path[:0] = [str(path) for path in plan["path"]]
        if plan["program"] is not None:
            _tell(report, {"level": _lock(plan)})
            program = [str(part) for part in plan["program"]]
            if plan["supervised"]:
                return _supervise(program)
            os.execve(program[0], program, {})  # noqa: S606 - a list, never a shell string
        run = import_module(str(plan["module"])).prepare(list(plan["arguments"]))
        _tell(report, {"level": _lock(plan)})
        os.close(report)
    except Exception as error:
        _tell(report, {"error": f"{type(error).__name__}: {error}"[:2000]})
        return FAILED_STATUS
    return int(run())


def _bind_to_parent(parent: int, number: signal.Signals) -> None:
    if sys.platform == "linux":
        CDLL(None).prctl(c_int(_SET_PARENT_DEATH_SIGNAL), c_ulong(number), c_ulong(0), c_ulong(0), c_ulong(0))
    if os.getppid() != parent:  # it died before the line above
        os._exit(FAILED_STATUS)


def _supervise(program: list[str]) -> int:
    """Run the program with this environment and wait for it; returns or repeats how it ended.

    The death of the parent reaches one process only, and a compiler starts others: so this one, which leads the
    session, stays, and takes all of them along.
    """
    signal.signal(signal.SIGTERM, _end_session)
    _bind_to_parent(os.getppid(), signal.SIGTERM)
    # Python ignores these two, and a program that was started by it would, too.
    child = os.posix_spawn(program[0], program, os.environ, setsigdef=[signal.SIGPIPE, signal.SIGXFSZ])
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status >= 0:
        return status
    signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
    return FAILED_STATUS


def _end_session(number: int, frame: object) -> None:
    del number, frame
    os.killpg(0, signal.SIGKILL)


def _limit(limits: dict[str, int], nice: int) -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    os.umask(0o077)
    if nice:
        os.nice(nice)
    for name, value in limits.items():
        which = getattr(resource, name, None)
        if which is None:
            continue
        ceiling = resource.getrlimit(which)[1]
        bound = value if ceiling == resource.RLIM_INFINITY else min(value, ceiling)
        if name == "RLIMIT_CPU":
            bound = max(1, bound - 1)  # so that SIGXCPU, which names the cause, comes before SIGKILL
            resource.setrlimit(which, (bound, bound + 1))
        else:
            resource.setrlimit(which, (bound, bound))


def _make_package(directory: str) -> None:
    # The package's own __init__ is for embedders; a child must start fast and needs none of it.
    package = ModuleType("cloche")
    package.__path__ = [directory]
    sys.modules["cloche"] = package
    # So is this: msgspec takes it where it is, and with it a third of what a worker imports.
    sys.modules["typing_extensions"] = None  # type: ignore[assignment]


def _lock(plan: dict[str, Any]) -> dict[str, Any]:
    from cloche.confine import landlock, privileges, seccomp  # noqa: PLC0415 - the package is known only now

    if sys.platform == "linux":
        seccomp.set_no_new_privileges()
    abi, filtered = 0, False
    if plan["executable"] is not None:
        abi = landlock.restrict(readable=plan["readable"], writable=plan["writable"], executable=plan["executable"])
    privileges.drop(keep_files=plan["program"] is not None)
    if plan["groups"] is not None:
        filtered = seccomp.restrict([seccomp.Group(name) for name in plan["groups"]])
    return {"landlock_abi": abi, "seccomp": filtered, "rlimits": True}


def _tell(report: int, message: dict[str, Any]) -> None:
    os.write(report, json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
