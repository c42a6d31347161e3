"""One lock for each cache entry, so that two processes do not compile the same; it dies with its holder."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable

from cloche.engine.cache_entry import remove

_POLL_SECONDS = 0.05


def acquire(
    directory: int, name: str, waiting: Callable[[float], None] | None, cancelled: Callable[[], bool] | None
) -> int | None:
    """Wait for the lock `name` and return the descriptor that holds it, or None when `cancelled` answers True.

    To let go, remove the file and then close the descriptor. `waiting` is told the seconds waited. Raises: OSError.
    """
    started = time.monotonic()
    while True:
        file = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory)
        try:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
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


def remove_if_free(directory: int, name: str) -> None:
    """Remove a lock file that a dead process left; one that is held stays."""
    with contextlib.suppress(OSError):
        file = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove(directory, name)
        finally:
            os.close(file)
