"""The error for a system that has run out of something that every program needs."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from cloche.errors import EngineError

_REMEDIES = {
    errno.EMFILE: "raise this process's limit on open files (`ulimit -n`), or close some",
    errno.ENFILE: "close files in other programs, or raise the system's limit on open files",
    errno.EAGAIN: "raise the limit on processes (`ulimit -u`, or the container's), or end some",
    errno.ENOMEM: "free memory, or raise the limit of this process or container",
}


def shortage(what: str, error: OSError) -> EngineError:
    """The error to raise when `what` ("a child process cannot be started") is so because the system refused.

    `engine.resources` when it lacks descriptors, processes or memory, else `engine.unsupported`. Added in 0.1.
    """
    reason = f"{what}: {error.strerror or error}"
    remedy = _REMEDIES.get(error.errno or 0)
    if remedy is None:
        return EngineError(f"{reason}; `cloche doctor` says what this system offers", code="engine.unsupported")
    return EngineError(f"{reason}; {remedy}", code="engine.resources")


@contextmanager
def starting_threads() -> Iterator[None]:
    """Around what starts a thread. Raises: EngineError (`engine.resources`) when the system has none to give."""
    try:
        yield
    except RuntimeError as error:  # Python has no exception of its own for this
        if "start new thread" not in str(error):
            raise
        text = f"no thread can be started; {_REMEDIES[errno.EAGAIN]}"
        raise EngineError(text, code="engine.resources") from error
