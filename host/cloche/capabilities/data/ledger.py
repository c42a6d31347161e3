"""How much a plugin's directory holds, kept in a small file beside it and changed under a lock.

Walking the directory for each write would cost more than the write. The file says whether its numbers can be trusted: a
writer marks them unsure before it touches the directory and sure afterwards, so a host that was killed in between only
causes a new count. Whoever changes the directory by hand removes `data.ledger`.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cloche.capabilities.data.failure import DataError, Reason
from cloche.capabilities.filelock import locked_file

FILE_NAME = "data.ledger"
_FORMAT = struct.Struct("<8sQQB")
_MAGIC = b"clocheD2"


class Ledger:
    """Bytes and files of one directory while its lock is held. Directories count as files: each costs the disk as much.

    `ensure_room` before growing, `add` after changing.
    """

    def __init__(self, used_bytes: int, used_files: int, max_bytes: int, max_files: int) -> None:
        self.used_bytes, self.used_files = used_bytes, used_files
        self._max_bytes, self._max_files = max_bytes, max_files

    def ensure_room(self, more_bytes: int, more_files: int) -> None:
        """Raises: DataError (`quota-exceeded`) when the directory would grow and then be over a bound."""
        if (more_bytes > 0 and self.used_bytes + more_bytes > self._max_bytes) or (
            more_files > 0 and self.used_files + more_files > self._max_files
        ):
            raise DataError(Reason.QUOTA_EXCEEDED)

    def add(self, more_bytes: int, more_files: int) -> None:
        """Note a change that happened; never below zero."""
        self.used_bytes = max(0, self.used_bytes + more_bytes)
        self.used_files = max(0, self.used_files + more_files)


@contextmanager
def locked(storage: Path, count: Callable[[], tuple[int, int]], max_bytes: int, max_files: int) -> Iterator[Ledger]:
    """Hold the plugin's writing lock, across threads and processes; waits for another writer's one operation.

    `count` walks the directory and is called when there are no trusted numbers. When the body fails unexpectedly the
    numbers stay marked as unsure, and the next writer counts anew. Raises: TimeoutError when the lock was not let go.
    """
    with locked_file(storage / FILE_NAME) as descriptor:
        found = os.pread(descriptor, _FORMAT.size, 0)
        magic, used_bytes, used_files, sure = _FORMAT.unpack(found) if len(found) == _FORMAT.size else (b"", 0, 0, 0)
        if magic != _MAGIC or not sure:
            used_bytes, used_files = count()
        ledger = Ledger(used_bytes, used_files, max_bytes, max_files)
        os.pwrite(descriptor, _FORMAT.pack(_MAGIC, used_bytes, used_files, 0), 0)
        try:
            yield ledger
        except DataError:
            os.pwrite(descriptor, _FORMAT.pack(_MAGIC, ledger.used_bytes, ledger.used_files, 1), 0)
            raise
        os.pwrite(descriptor, _FORMAT.pack(_MAGIC, ledger.used_bytes, ledger.used_files, 1), 0)
