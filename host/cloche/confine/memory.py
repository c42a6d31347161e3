"""Files in memory: with no name in any directory, to be handed to a child or sealed."""

from __future__ import annotations

import errno
import fcntl
import os

_NO_EXEC_SEAL = 0x0008  # MFD_NOEXEC_SEAL, Linux 6.3; some systems demand it


def can_seal() -> bool:
    """Whether this system knows memory files with seals; a filter may still refuse them. Added in 0.1."""
    return hasattr(os, "memfd_create") and hasattr(fcntl, "F_ADD_SEALS")


def new_memory_file(name: str) -> int:
    """A writable descriptor without a name in any directory; the caller closes it. It can be sealed later.

    Where memory files are missing or refused it is a file on disk whose name is gone, which cannot be sealed.
    Raises: OSError when there are no descriptors left, or no usable temporary directory either. Added in 0.1.
    """
    if can_seal():
        flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
        for more in (_NO_EXEC_SEAL, 0):  # older kernels do not know the first
            try:
                return os.memfd_create(name, flags | more)
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
                    raise
    from tempfile import TemporaryFile  # noqa: PLC0415 - with all that it imports, for systems without memory files

    with TemporaryFile() as file:
        return os.dup(file.fileno())
