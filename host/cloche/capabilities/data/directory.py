"""One plugin's data directory on the disk: `data/` in its storage, with `data.tmp/` and `data.ledger` beside it.

Nothing here follows a link or opens anything but regular files with one name and directories: a link, FIFO, device or
hard link that somebody planted answers `access-denied`. Changes happen under the ledger's lock, one at a time for each
plugin; reads take no lock.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cloche.beneath import Opener
from cloche.capabilities.data.failure import DataError, Reason, reason_of
from cloche.capabilities.data.ledger import Ledger, locked
from cloche.capabilities.data.paths import split

MAX_ENTRIES = 10_000
"""Most entries of one directory that a listing reads; more answer `too-large`."""

Names = tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """What stands at a path. `size_bytes` is 0 for a directory; `modified_ms` counts from 1970-01-01 UTC."""

    name: str
    is_directory: bool
    size_bytes: int
    modified_ms: int


class Directory:
    """Files below `storage`/data. Opened on first use. Every method may raise DataError or OSError."""

    def __init__(self, storage: Path, opener: Opener, max_bytes: int, max_files: int) -> None:
        self._storage, self._open_beneath = storage, opener
        self._max_bytes, self._max_files = max_bytes, max_files
        self._descriptors: tuple[int, int] | None = None

    def read(self, names: Names, offset_bytes: int, max_bytes: int, *, whole: bool = False) -> bytes:
        """Up to `max_bytes` from `offset_bytes`; with `whole`, `too-large` when the file is bigger than `max_bytes`."""
        with self._file(names, os.O_RDONLY) as (descriptor, size_bytes):
            if whole and size_bytes > max_bytes:
                raise DataError(Reason.TOO_LARGE)
            pieces = []
            # Never more than the file has: the buffer is made before the read.
            wanted = min(max_bytes, max(0, size_bytes - offset_bytes))
            while wanted and (piece := os.pread(descriptor, wanted, offset_bytes)):
                pieces.append(piece)
                offset_bytes += len(piece)
                wanted -= len(piece)
            return b"".join(pieces)

    def write(self, names: Names, contents: bytes) -> None:
        """Make or replace the whole file in one step, through a temporary file."""
        with self._changing() as ledger:
            old = self._regular(self._look(names))
            more_bytes = len(contents) - (old.st_size if old else 0)
            ledger.ensure_room(more_bytes, 0 if old else self._missing(names) + 1)
            temporary = self._write_temporary(contents)
            try:
                with self._made_parent(names, ledger) as parent:
                    os.rename(temporary, names[-1], src_dir_fd=self._temporary, dst_dir_fd=parent)
            except BaseException:
                os.unlink(temporary, dir_fd=self._temporary)
                raise
            ledger.add(more_bytes, 0 if old else 1)

    def write_range(self, names: Names, offset_bytes: int, contents: bytes) -> None:
        """Write in place, making or growing the file."""
        with self._changing() as ledger:
            old = self._regular(self._look(names))
            size_bytes = old.st_size if old else 0
            grown = max(size_bytes, offset_bytes + len(contents)) if contents else size_bytes
            ledger.ensure_room(grown - size_bytes, 0 if old else self._missing(names) + 1)
            with self._made_parent(names, ledger), self._file(names, os.O_RDWR | os.O_CREAT) as (descriptor, _):
                rest = memoryview(contents)
                while rest:
                    written = os.pwrite(descriptor, rest, offset_bytes)
                    offset_bytes += written
                    rest = rest[written:]
            ledger.add(grown - size_bytes, 0 if old else 1)

    def remove(self, names: Names) -> None:
        """Remove a file and the directories that it leaves empty."""
        with self._changing() as ledger:
            old = self._existing(names)
            with self._parent(names) as parent:
                os.unlink(names[-1], dir_fd=parent)
            ledger.add(-old.st_size, -1)
            self._prune(names, ledger)

    def rename(self, old_names: Names, new_names: Names) -> None:
        """Move a file to a path where nothing stands, and remove the directories that it leaves empty."""
        with self._changing() as ledger:
            self._existing(old_names)
            if self._look(new_names) is not None:
                raise DataError(Reason.ALREADY_EXISTS)
            ledger.ensure_room(0, self._missing(new_names))
            with self._parent(old_names) as source, self._made_parent(new_names, ledger) as target:
                os.rename(old_names[-1], new_names[-1], src_dir_fd=source, dst_dir_fd=target)
            self._prune(old_names, ledger)

    def stat(self, names: Names) -> Found:
        """What stands at the path."""
        found = self._look(names)
        if found is None:
            raise DataError(Reason.NOT_FOUND)
        if not stat.S_ISDIR(found.st_mode):
            self._regular(found)
        return _found(names[-1].decode(), found)

    def list_directory(self, names: Names) -> list[Found]:
        """The entries that a guest can use, sorted by name."""
        descriptor = self._opened(names, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with os.scandir(descriptor) as entries:
                listed = []
                for count, entry in enumerate(entries):
                    if count >= MAX_ENTRIES:
                        raise DataError(Reason.TOO_LARGE)
                    with suppress(OSError, DataError, UnicodeError):
                        name = os.fsencode(entry.name).decode()
                        split(name)
                        status = os.stat(entry.name, dir_fd=descriptor, follow_symlinks=False)
                        if stat.S_ISDIR(status.st_mode) or self._regular(status):
                            listed.append(_found(name, status))
        finally:
            os.close(descriptor)
        return sorted(listed, key=lambda found: found.name)

    def usage(self) -> tuple[int, int]:
        """Bytes in the directory, and files and directories."""
        with self._changing() as ledger:
            return ledger.used_bytes, ledger.used_files

    def close(self) -> None:
        """Close the descriptors, if they were ever opened."""
        descriptors, self._descriptors = self._descriptors, None
        for descriptor in descriptors or ():
            os.close(descriptor)

    @property
    def _root(self) -> int:
        return self._both()[0]

    @property
    def _temporary(self) -> int:
        return self._both()[1]

    def _both(self) -> tuple[int, int]:
        if self._descriptors is None:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            self._storage.mkdir(mode=0o700, parents=True, exist_ok=True)
            opened: list[int] = []
            try:
                for name in ("data", "data.tmp"):
                    with suppress(FileExistsError):
                        (self._storage / name).mkdir(0o700)
                    opened.append(os.open(self._storage / name, flags))
            except BaseException:
                for descriptor in opened:
                    os.close(descriptor)
                raise
            self._descriptors = (opened[0], opened[1])
        return self._descriptors

    @contextmanager
    def _changing(self) -> Iterator[Ledger]:
        self._both()
        with locked(self._storage, self._count, self._max_bytes, self._max_files) as ledger:
            yield ledger

    def _count(self) -> tuple[int, int]:
        """Bytes, and files and directories, counted by walking. Removes what a host that was killed left behind:
        temporary files and empty directories."""
        with os.scandir(self._temporary) as leftovers:
            for leftover in leftovers:
                os.unlink(leftover.name, dir_fd=self._temporary)
        used_bytes = used_files = 0
        for _, directories, files, descriptor in os.fwalk(".", topdown=False, follow_symlinks=False, dir_fd=self._root):
            for name in files:
                with suppress(FileNotFoundError):
                    used_bytes += os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_size
                    used_files += 1
            for name in directories:
                try:
                    os.rmdir(name, dir_fd=descriptor)
                except FileNotFoundError:
                    continue
                except OSError:  # it is not empty, or a link to a directory
                    used_files += 1
        return used_bytes, used_files

    def _opened(self, names: Names, flags: int) -> int:
        """A descriptor below the root; what a guest may know of a failure becomes a DataError."""
        try:
            return self._open_beneath(self._root, names, flags)
        except OSError as error:
            reason = reason_of(error)
            if reason is None:
                raise
            raise DataError(reason) from None

    @contextmanager
    def _file(self, names: Names, flags: int) -> Iterator[tuple[int, int]]:
        """An open regular file with one name, and its size in bytes."""
        descriptor = self._opened(names, flags)
        try:
            status = os.fstat(descriptor)
            self._regular(status)
            yield descriptor, status.st_size
        finally:
            os.close(descriptor)

    @contextmanager
    def _parent(self, names: Names) -> Iterator[int]:
        """The directory that holds the last name."""
        descriptor = self._opened(names[:-1], os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _missing(self, names: Names) -> int:
        """How many of the directories above the last name are not there."""
        return sum(self._look(names[:depth]) is None for depth in range(1, len(names)))

    @contextmanager
    def _made_parent(self, names: Names, ledger: Ledger) -> Iterator[int]:
        """The directory that holds the last name, made with everything above it; gone again when the body fails."""
        try:
            for depth in range(1, len(names)):
                with self._parent(names[:depth]) as above, suppress(FileExistsError):
                    os.mkdir(names[depth - 1], 0o700, dir_fd=above)
                    ledger.add(0, 1)
            with self._parent(names) as parent:
                yield parent
        except BaseException:
            self._prune(names, ledger)
            raise

    def _look(self, names: Names) -> os.stat_result | None:
        """The status of what stands at the path, links not followed; None when nothing does."""
        try:
            with self._parent(names) as parent:
                return os.stat(names[-1], dir_fd=parent, follow_symlinks=False)
        except DataError as error:
            if error.reason is Reason.NOT_FOUND:
                return None
            raise
        except FileNotFoundError:
            return None

    def _existing(self, names: Names) -> os.stat_result:
        found = self._regular(self._look(names))
        if found is None:
            raise DataError(Reason.NOT_FOUND)
        return found

    @staticmethod
    def _regular(found: os.stat_result | None) -> os.stat_result | None:
        """`found` if it is a regular file with one name; a second name may lie outside."""
        if found is None:
            return None
        if stat.S_ISDIR(found.st_mode):
            raise DataError(Reason.WRONG_KIND)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
            raise DataError(Reason.ACCESS_DENIED)
        return found

    def _write_temporary(self, contents: bytes) -> str:
        name = secrets.token_hex(16)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(name, flags, 0o600, dir_fd=self._temporary)
        try:
            rest = memoryview(contents)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        except BaseException:
            os.unlink(name, dir_fd=self._temporary)
            raise
        finally:
            os.close(descriptor)
        return name

    def _prune(self, names: Names, ledger: Ledger) -> None:
        """Remove the directories above the last name that are empty now, innermost first."""
        for depth in range(len(names) - 1, 0, -1):
            with suppress(OSError, DataError), self._parent(names[:depth]) as above:
                os.rmdir(names[depth - 1], dir_fd=above)
                ledger.add(0, -1)


def _found(name: str, status: os.stat_result) -> Found:
    is_directory = stat.S_ISDIR(status.st_mode)
    return Found(name, is_directory, 0 if is_directory else status.st_size, max(0, status.st_mtime_ns // 1_000_000))
