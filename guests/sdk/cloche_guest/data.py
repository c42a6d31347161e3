"""The plugin's own data directory, through `cloche:host/data`: files that no other plugin sees, with a quota.

Paths are relative, with `/` between names. Every function raises Unavailable without the import, FileNotFoundError and
FileExistsError where they fit, Denied when the grant does not cover it, and ServiceError otherwise (`quota_exceeded`,
`too_large`, `invalid_path`, `wrong_kind`, `other`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cloche_guest.bindings import imported
from cloche_guest.errors import ServiceError, Unavailable, asked

_host = imported("data", "cloche_host_data", having="read_range")


@dataclass(frozen=True)
class Entry:
    """A file or directory. Size in bytes, time of change in milliseconds since 1970-01-01 UTC."""

    name: str
    is_directory: bool
    size_bytes: int
    modified_ms: int


@dataclass(frozen=True)
class Quota:
    """How full the data directory is, and what is allowed."""

    used_bytes: int
    max_bytes: int
    used_files: int
    max_files: int
    max_call_bytes: int


def is_available() -> bool:
    """Whether the plugin's world imports `cloche:host/data`."""
    return _host is not None


def read(path: str) -> bytes:
    """The whole file; `too_large` when it is bigger than the quota's `max_call_bytes`: use `read_range` then."""
    content: bytes = _ask("read", path)
    return content


def read_text(path: str) -> str:
    """The whole file as UTF-8 text."""
    return read(path).decode("utf-8")


def read_range(path: str, offset_bytes: int, max_bytes: int) -> bytes:
    """A part of the file; shorter only at its end, empty past it."""
    content: bytes = _ask("read_range", path, offset_bytes, max_bytes)
    return content


def write(path: str, contents: bytes | bytearray | memoryview) -> None:
    """Make or replace the whole file in one step."""
    _ask("write", path, bytes(contents))


def write_text(path: str, text: str) -> None:
    """Make or replace the whole file with a text in UTF-8."""
    write(path, text.encode("utf-8"))


def write_range(path: str, offset_bytes: int, contents: bytes | bytearray | memoryview) -> None:
    """Write at an offset, making or growing the file."""
    _ask("write_range", path, offset_bytes, bytes(contents))


def list_directory(path: str = "") -> list[Entry]:
    """The entries of a directory, sorted by name; the empty path is the data directory itself."""
    return [_entry(entry) for entry in _ask("list_directory", path)]


def stat(path: str) -> Entry:
    """What stands at `path`."""
    return _entry(_ask("stat", path))


def exists(path: str) -> bool:
    """Whether a file or directory stands at `path`."""
    try:
        stat(path)
    except FileNotFoundError:
        return False
    return True


def remove(path: str) -> None:
    """Remove a file."""
    _ask("remove", path)


def rename(old_path: str, new_path: str) -> None:
    """Move a file to a new path, where nothing may stand yet."""
    _ask("rename", old_path, new_path)


def usage() -> Quota:
    """How full the directory is."""
    quota = _ask("usage")
    return Quota(quota.used_bytes, quota.max_bytes, quota.used_files, quota.max_files, quota.max_call_bytes)


def _entry(raw: Any) -> Entry:
    return Entry(raw.name, raw.kind.name == "DIRECTORY", raw.size_bytes, raw.modified_ms)


def _ask(function: str, *args: Any) -> Any:
    if _host is None:
        raise Unavailable("cloche:host/data")
    what = f"data {function} {args[0]!r}" if args else f"data {function}"
    try:
        return asked(what, getattr(_host, function), *args)
    except ServiceError as error:
        if error.case == "not_found":
            raise FileNotFoundError(str(error)) from None
        if error.case == "already_exists":
            raise FileExistsError(str(error)) from None
        raise
