"""Reading files that somebody named: whole, within a bound, and without waiting for what is no file."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def read_regular(path: str | Path, most_bytes: int) -> bytes:
    """The first `most_bytes` of a regular file; who wants to know whether there are more asks for one more.

    Raises: OSError, also for a pipe or a device, which is not waited for: reading one might never end.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except ValueError as error:  # a NUL in the path
        raise OSError(errno.EINVAL, str(error)) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # before it becomes a file object, which a directory cannot
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file")
    with os.fdopen(descriptor, "rb") as file:
        return file.read(most_bytes)
