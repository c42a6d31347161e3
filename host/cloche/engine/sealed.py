"""Native code in memory that nobody can change any more, and how the engine loads it from there.

A mapped file is live: editing it later changes code that runs, truncating it kills the process (H25). A sealed memory
file cannot be changed by anybody, has no name, is shared by all processes that map it, and is loaded copy-on-write.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import tempfile
from collections.abc import Iterator

_CHUNK_BYTES = 1 << 20
_NO_EXEC_SEAL = 0x0008  # MFD_NOEXEC_SEAL, Linux 6.3; some systems demand it


def can_seal() -> bool:
    """Whether this system has memory files with seals. Without them code is loaded from bytes. Added in 0.1."""
    return hasattr(os, "memfd_create") and hasattr(fcntl, "F_ADD_SEALS")


def new_memory_file(name: str) -> int:
    """A writable descriptor without a name in any directory, to be sealed later; the caller closes it.

    Raises: OSError when there are no descriptors left. Added in 0.1.
    """
    if not can_seal():
        with tempfile.TemporaryFile() as file:
            return os.dup(file.fileno())
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create(name, flags | _NO_EXEC_SEAL)
    except OSError:
        return os.memfd_create(name, flags)


def seal(descriptor: int) -> None:
    """Make the contents of a memory file final. Checks come after this: only then do they hold.

    Does nothing where seals are missing. Raises: OSError (EBUSY) while somebody maps it writable. Added in 0.1.
    """
    if can_seal():
        fcntl.fcntl(
            descriptor,
            fcntl.F_ADD_SEALS,
            fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL,
        )


def is_sealed(descriptor: int) -> bool:
    """Whether nobody can change the contents any more. Added in 0.1."""
    if not can_seal():
        return False
    needed = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
    try:
        return fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & needed == needed
    except OSError:
        return False


def copy(source: int, offset: int, length: int, target: int) -> None:
    """Copy `length` bytes from `offset` of the file `source` to where `target` stands. Blocks on the disk.

    Raises: OSError; EOFError when the source is shorter. Added in 0.1.
    """
    end = offset + length
    while offset < end:
        chunk = memoryview(os.pread(source, min(end - offset, _CHUNK_BYTES), offset))
        if not chunk:
            raise EOFError(f"the file ends {end - offset} bytes early")
        offset += len(chunk)
        while chunk:
            chunk = chunk[os.write(target, chunk) :]


@contextlib.contextmanager
def contents(descriptor: int) -> Iterator[mmap.mmap | bytes]:
    """The bytes behind a descriptor, mapped read-only while the context lasts. Raises: OSError. Added in 0.1."""
    size = os.fstat(descriptor).st_size
    if size == 0:
        yield b""
        return
    with mmap.mmap(descriptor, size, prot=mmap.PROT_READ) as view:
        yield view


def loading_path(descriptor: int) -> bytes | None:
    """What to hand to the engine's `deserialize_file` for a sealed descriptor; None: load from `contents` instead.

    Added in 0.1.
    """
    return b"/proc/self/fd/%d" % descriptor if is_sealed(descriptor) else None
