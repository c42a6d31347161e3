"""Locks among processes, each a file in a directory: it dies with its holder, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable

_POLL_SECONDS = 0.05


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
        try:
            while True:
                try:
                    fcntl.flock(file, kind | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if cancelled is not None and cancelled():
                        os.close(file)
                        return None
                    if waiting is not None:
                        waiting(time.monotonic() - started)
                    time.sleep(_POLL_SECONDS)
            # The holder removes the file before it lets go: a lock on a removed file guards nothing.
            with contextlib.suppress(FileNotFoundError):
                if os.fstat(file).st_ino == os.stat(name, dir_fd=directory, follow_symlinks=False).st_ino:
                    return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)


def release(directory: int, name: str, held: int, *, shared: bool = False) -> None:
    """Let go of a lock. Its file goes first, unless others may still share it: a lock on a removed file is none."""
    if not shared:
        _remove(directory, name)
    os.close(held)


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
