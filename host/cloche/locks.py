"""Locks among processes, each a file in a directory: it dies with its holder, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable

_POLL_SECONDS = 0.05

_held: set[int] = set()
"""Descriptors that hold, or are about to hold, a lock of this process."""


def acquire(
    directory: int,
    name: str,
    waiting: Callable[[float], None] | None,
    cancelled: Callable[[], bool] | None,
    *,
    shared: bool = False,
) -> int | None:
    """Wait for the lock `name` and return the descriptor that holds it, or None when `cancelled` answers True.

    Many may hold it `shared`, and nobody else then. To let go, `release` it. `waiting` is told the seconds waited.
    Raises: OSError.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    started = time.monotonic()
    while True:
        file = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory)
        _held.add(file)
        try:
            while True:
                try:
                    fcntl.flock(file, kind | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if cancelled is not None and cancelled():
                        _close(file)
                        return None
                    if waiting is not None:
                        waiting(time.monotonic() - started)
                    time.sleep(_POLL_SECONDS)
            # The holder removes the file before it lets go: a lock on a removed file guards nothing.
            with contextlib.suppress(FileNotFoundError):
                if os.fstat(file).st_ino == os.stat(name, dir_fd=directory, follow_symlinks=False).st_ino:
                    return file
        except BaseException:
            _close(file)
            raise
        _close(file)


def release(directory: int, name: str, held: int, *, shared: bool = False) -> None:
    """Let go of a lock. Its file goes first, unless others may still share it: a lock on a removed file is none.

    Does nothing in a child that was forked meanwhile: the lock is its parent's.
    """
    if held in _held:
        if not shared:
            _remove(directory, name)
        _close(held)


def remove_if_free(directory: int, name: str) -> None:
    """Remove a lock file that a dead process, or those who shared it, left; one that is held stays."""
    with contextlib.suppress(OSError):
        file = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(directory, name)
        finally:
            os.close(file)


def _remove(directory: int, name: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(name, dir_fd=directory)


def _close(file: int) -> None:
    if file in _held:
        _held.discard(file)
        os.close(file)


def _let_go() -> None:
    """In a forked child: a lock is shared with the parent's descriptor, and would outlive it here."""
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_let_go)
