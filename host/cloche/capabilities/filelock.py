"""A lock between threads and processes for a plugin's storage, with a bound on how long anyone waits for it."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK_WAIT_SECONDS = 5.0
"""How long a call waits for another writer, each of which holds a lock for one short change. Nothing interrupts the
wait, neither a deadline nor Ctrl-C, so a holder that was stopped must not make it long."""
_FIRST_PAUSE_SECONDS = 0.0005
_LONGEST_PAUSE_SECONDS = 0.01


@contextmanager
def locked_file(path: Path) -> Iterator[int]:
    """Hold the lock of the file `path`, which is made when it is not there; gives its descriptor. Not re-entrant.

    Raises: TimeoutError when somebody else held it for `LOCK_WAIT_SECONDS`; OSError.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        _acquire(descriptor)
        try:
            yield descriptor
        finally:
            # Closing would not do: a child that was forked meanwhile has the descriptor too, and with it the lock.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def _acquire(descriptor: int) -> None:
    last, pause = time.monotonic() + LOCK_WAIT_SECONDS, _FIRST_PAUSE_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > last:
                text = f"another writer held the lock for {LOCK_WAIT_SECONDS:g} seconds"
                raise TimeoutError(errno.ETIMEDOUT, text) from None
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        else:
            return
