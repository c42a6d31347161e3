"""The failures of the data directory: the cases of `error` in wit/host/data.wit, as one exception."""

from __future__ import annotations

import errno
from enum import StrEnum


class Reason(StrEnum):
    """A case of the WIT variant `error`, except `other`."""

    ACCESS_DENIED = "access-denied"
    INVALID_PATH = "invalid-path"
    NOT_FOUND = "not-found"
    WRONG_KIND = "wrong-kind"
    ALREADY_EXISTS = "already-exists"
    QUOTA_EXCEEDED = "quota-exceeded"
    TOO_LARGE = "too-large"


class DataError(Exception):
    """A call failed for a reason that the guest may know."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.value)
        self.reason = reason


_REASONS = {
    errno.ENOENT: Reason.NOT_FOUND,
    errno.ENOTDIR: Reason.WRONG_KIND,
    errno.EISDIR: Reason.WRONG_KIND,
    errno.EEXIST: Reason.ALREADY_EXISTS,
    errno.ELOOP: Reason.ACCESS_DENIED,  # a symbolic link stands somewhere in the path
    errno.EXDEV: Reason.ACCESS_DENIED,  # out of the directory, or onto another file system
    errno.EACCES: Reason.ACCESS_DENIED,
    errno.EPERM: Reason.ACCESS_DENIED,
    errno.ENXIO: Reason.ACCESS_DENIED,  # a FIFO without reader, or a socket
    errno.ENAMETOOLONG: Reason.INVALID_PATH,
    errno.EFBIG: Reason.TOO_LARGE,
}


def reason_of(error: OSError) -> Reason | None:
    """What the guest may know of `error`; None for a failure of the host (disk full, damaged, out of descriptors)."""
    return None if error.errno is None else _REASONS.get(error.errno)
