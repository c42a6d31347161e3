"""The plugin's own data directory, through `cloche:host/data`: files that no other plugin sees, with a quota.

Paths are relative, with `/` between names. Every function raises Unavailable without the import, FileNotFoundError and
FileExistsError where they fit, Denied when the grant does not cover it, and ServiceError otherwise (`quota_exceeded`,
`too_large`, `invalid_path`, `wrong_kind`, `other`). One call carries `usage().max_call_bytes`, 2 MiB at most: `read`
takes several for a larger file, and what is larger than that is written with `write_range`, part by part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cloche_guest import lowering
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
    """How full the data directory is, and what is allowed. Directories count as files."""

    used_bytes: int
    max_bytes: int
    used_files: int
    max_files: int
    max_call_bytes: int


def is_available() -> bool:
    """Whether the plugin's world imports `cloche:host/data`."""
    return _host is not None


def read(path: str) -> bytes:
    """The whole file. One that is larger than one call carries is read part by part, so a write may come in between."""
    try:
        content: bytes = _ask("read", path)
    except ServiceError as error:
        if error.case != "too_large":
            raise
        most = lowering.MAX_ARGUMENT_BYTES
        parts = [read_range(path, 0, most)]
        while len(parts[-1]) == most:
            parts.append(read_range(path, len(parts) * most, most))
        content = b"".join(parts)
    return content


def read_text(path: str) -> str:
    """The whole file as UTF-8 text."""
    return read(path).decode("utf-8")


def read_range(path: str, offset_bytes: int, max_bytes: int) -> bytes:
    """A part of the file; shorter only at its end, empty past it. Raises: ValueError for a number out of range."""
    offset = lowering.integer("offset_bytes", offset_bytes, 0, lowering.U64_MAX)
    most = lowering.integer("max_bytes", max_bytes, 0, lowering.U32_MAX)
    content: bytes = _ask("read_range", path, values=(offset, most))
    return content


def write(path: str, contents: bytes | bytearray | memoryview) -> None:
    """Make or replace the whole file in one step; `too_large` for more than one call carries."""
    _ask("write", path, values=(lowering.contents(f"data write {path!r}", contents),))


def write_text(path: str, text: str) -> None:
    """Make or replace the whole file with a text in UTF-8."""
    write(path, text.encode("utf-8"))


def write_range(path: str, offset_bytes: int, contents: bytes | bytearray | memoryview) -> None:
    """Write at an offset, making or growing the file. Raises: ValueError for an offset out of range."""
    offset = lowering.integer("offset_bytes", offset_bytes, 0, lowering.U64_MAX)
    _ask("write_range", path, values=(offset, lowering.contents(f"data write_range {path!r}", contents)))


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


def _ask(function: str, *paths: str, values: tuple[int | bytes, ...] = ()) -> Any:
    if _host is None:
        raise Unavailable("cloche:host/data")
    what = " ".join([f"data {function}", *map(repr, paths[:1])])
    try:
        return asked(what, getattr(_host, function), *(lowering.exact(what, path) for path in paths), *values)
    except ServiceError as error:
        if error.case == "not_found":
            raise FileNotFoundError(str(error)) from None
        if error.case == "already_exists":
            raise FileExistsError(str(error)) from None
        raise
