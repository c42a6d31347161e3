"""Paths as a guest writes them, checked as text before anything touches the disk."""

from __future__ import annotations

from cloche.capabilities.data.failure import DataError, Reason

MAX_PATH_BYTES = 1024
"""Longest path, in bytes of UTF-8."""
MAX_NAME_BYTES = 255
"""Longest name; file systems take no more."""
MAX_NAMES = 16
"""Deepest path; every name may cost a directory."""


def split(path: str, *, directory: bool = False) -> tuple[bytes, ...]:
    """The names of a relative path, as bytes; the empty path is allowed for a directory only.

    Raises: DataError (`invalid-path`) for an absolute path, an empty name, `.` or `..`, a control character, a
    backslash, and for anything too long or too deep. The answer depends on the text alone, so it reveals nothing.
    """
    if directory and path == "":
        return ()
    if len(path) > MAX_PATH_BYTES:
        raise DataError(Reason.INVALID_PATH)
    names = tuple(name.encode() for name in path.split("/"))
    if (
        len(names) > MAX_NAMES
        or sum(map(len, names)) + len(names) - 1 > MAX_PATH_BYTES
        or any(name in (b"", b".", b"..") or len(name) > MAX_NAME_BYTES for name in names)
        or any(character < " " or character in "\x7f\\" for character in path)
    ):
        raise DataError(Reason.INVALID_PATH)
    return names
