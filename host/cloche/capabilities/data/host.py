"""Host side of `cloche:host/data`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from cloche.beneath import Opener, choose_opener
from cloche.capabilities.api import EventKind, HostInterface, Session
from cloche.capabilities.data.directory import Directory, Found
from cloche.capabilities.data.failure import DataError, Reason, reason_of
from cloche.capabilities.data.grant import INTERFACE, SCHEMA, Access, DataParams
from cloche.capabilities.data.paths import split
from cloche.grants.schema import Params
from cloche.model import Err, Ok
from cloche.resources import wit_dir
from cloche.values import Case

MAX_CALL_BYTES = 2 << 20
"""Most bytes that one call reads or writes; larger files go in ranges. Below what the engine takes of a guest (2.7
million bytes): beyond that the guest would get a trap instead of an answer."""

T = TypeVar("T")


class DataHost:
    """`cloche:host/data` for one instance. Source: wit/host/data.wit.

    Every method may block on the disk and answers with `Err(Case(...))` for whatever a guest can cause. When the disk
    itself fails the guest sees `other` and the operator a `backend-error` event with the cause. The first time that the
    quota keeps an instance from growing, the operator sees a `limit` event.
    """

    def __init__(self, access: Access, max_call_bytes: int, quota: tuple[int, int], session: Session, opener: Opener):
        self._access, self._max_call_bytes, self._quota, self._session = access, max_call_bytes, quota, session
        self._directory = Directory(session.storage, opener, *quota)
        self._has_told_full = False

    def read(self, path: str) -> Ok[bytes] | Err[Case]:
        """The whole file; `too-large` when it does not fit in one call."""
        return self._attempt(lambda: self._directory.read(split(path), 0, self._max_call_bytes, whole=True))

    def read_range(self, path: str, offset_bytes: int, max_bytes: int) -> Ok[bytes] | Err[Case]:
        """Up to `max_bytes` from `offset_bytes`, empty past the end; `too-large` for more than one call carries."""

        def read() -> bytes:
            self._ensure_size(max_bytes)
            return self._directory.read(split(path), offset_bytes, max_bytes)

        return self._attempt(read)

    def write(self, path: str, contents: bytes) -> Ok[None] | Err[Case]:
        """Make or replace the whole file in one step."""

        def write() -> None:
            self._ensure_writing()
            self._ensure_size(len(contents))
            self._directory.write(split(path), contents)

        return self._attempt(write)

    def write_range(self, path: str, offset_bytes: int, contents: bytes) -> Ok[None] | Err[Case]:
        """Write in place, making or growing the file; a gap counts towards the quota."""

        def write() -> None:
            self._ensure_writing()
            self._ensure_size(len(contents))
            self._directory.write_range(split(path), offset_bytes, contents)

        return self._attempt(write)

    def list_directory(self, path: str) -> Ok[list[dict[str, Any]]] | Err[Case]:
        """The entries of a directory, sorted by name; the empty path is the data directory itself."""
        return self._attempt(
            lambda: [_entry(found) for found in self._directory.list_directory(split(path, directory=True))]
        )

    def stat(self, path: str) -> Ok[dict[str, Any]] | Err[Case]:
        """What stands at `path`."""
        return self._attempt(lambda: _entry(self._directory.stat(split(path))))

    def remove(self, path: str) -> Ok[None] | Err[Case]:
        """Remove a file, and directories that it leaves empty."""

        def remove() -> None:
            self._ensure_writing()
            self._directory.remove(split(path))

        return self._attempt(remove)

    def rename(self, old_path: str, new_path: str) -> Ok[None] | Err[Case]:
        """Move a file to a path where nothing stands."""

        def rename() -> None:
            self._ensure_writing()
            self._directory.rename(split(old_path), split(new_path))

        return self._attempt(rename)

    def usage(self) -> Ok[dict[str, int]] | Err[Case]:
        """How full the directory is, and what is allowed."""

        def usage() -> dict[str, int]:
            used_bytes, used_files = self._directory.usage()
            return {
                "used_bytes": used_bytes,
                "max_bytes": self._quota[0],
                "used_files": used_files,
                "max_files": self._quota[1],
                "max_call_bytes": self._max_call_bytes,
            }

        return self._attempt(usage)

    def close(self) -> None:
        """Close the directory."""
        self._directory.close()

    def _ensure_writing(self) -> None:
        if self._access is not Access.READ_WRITE:
            raise DataError(Reason.ACCESS_DENIED)

    def _ensure_size(self, size_bytes: int) -> None:
        if size_bytes > self._max_call_bytes:
            raise DataError(Reason.TOO_LARGE)

    def _attempt(self, action: Callable[[], T]) -> Ok[T] | Err[Case]:
        try:
            return Ok(action())
        except DataError as error:
            if error.reason is Reason.QUOTA_EXCEEDED and not self._has_told_full:
                self._has_told_full = True
                full = f"its directory may hold {self._quota[0]} bytes and {self._quota[1]} files and directories"
                self._session.emit(EventKind.LIMIT, {"code": "limit.data", "limit": "data", "message": full})
            return Err(Case(error.reason.value))
        except OSError as error:
            reason = reason_of(error)
            if reason is not None:
                return Err(Case(reason.value))
            # Only the system's own words: the path belongs to the host and may hold the guest's text.
            self._session.emit(EventKind.BACKEND_ERROR, {"cause": str(error.strerror)})
            return Err(Case("other", "the storage failed"))


def _entry(found: Found) -> dict[str, Any]:
    return {
        "name": found.name,
        "kind": "directory" if found.is_directory else "file",
        "size_bytes": found.size_bytes,
        "modified_ms": found.modified_ms,
    }


class Data:
    """The capability `cloche:host/data`. `opener` opens paths; by default the safest way that the system has."""

    schema = SCHEMA

    def __init__(self, opener: Opener | None = None) -> None:
        self._opener = opener or choose_opener()

    def wit(self) -> Path:
        """The directory of the WIT package."""
        return wit_dir() / "host"

    def open(self, grant: Params, session: Session) -> Mapping[str, HostInterface]:
        """The host object for one instance. The quota is the lower of grant and limit (`data`)."""
        assert isinstance(grant, DataParams)
        limits = session.limits
        quota = (
            limits.data_bytes if grant.bytes is None else min(grant.bytes, limits.data_bytes),
            limits.data_files if grant.files is None else min(grant.files, limits.data_files),
        )
        max_call_bytes = min(MAX_CALL_BYTES, limits.host_call_bytes)
        return {INTERFACE: DataHost(grant.access, max_call_bytes, quota, session, self._opener)}
