"""Native code in memory that nobody can change any more, and how the engine loads it from there.

A mapped file is live: editing it later changes code that runs, truncating it kills the process (H25). A sealed memory
file cannot be changed by anybody, has no name, is shared by all processes that map it, and is loaded copy-on-write.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
from collections.abc import Iterator

from cloche.confine.memory import can_seal

_CHUNK_BYTES = 1 << 20


def seal(descriptor: int) -> None:
    """Make the contents of a memory file final. Checks come after this: only then do they hold.

    Does nothing to a file that cannot be sealed, as `is_sealed` then says. Raises: OSError (EBUSY) while somebody maps
    it writable. Added in 0.1.
    """
    if not can_seal():
        return
    seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
    try:
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EPERM):  # a file on a disk, or in a file system in memory
            raise


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
    held = memoryview(bytearray(min(length, _CHUNK_BYTES)))
    while offset < end:
        size = os.preadv(source, [held[: end - offset]], offset)
        if not size:
            raise EOFError(f"the file ends {end - offset} bytes early")
        offset += size
        chunk = held[:size]
        while chunk:
            chunk = chunk[os.write(target, chunk) :]


@contextlib.contextmanager
def contents(descriptor: int) -> Iterator[mmap.mmap | bytes]:
    """The bytes behind a descriptor while the context lasts: mapped read-only when it is sealed, else a copy.

    Raises: OSError. Added in 0.1.
    """
    size = os.fstat(descriptor).st_size
    if size == 0 or not is_sealed(descriptor):
        held = bytearray()
        while chunk := os.pread(descriptor, _CHUNK_BYTES, len(held)):
            held += chunk
        yield bytes(held)
        return
    with mmap.mmap(descriptor, size, prot=mmap.PROT_READ) as view:
        yield view


def loading_path(descriptor: int) -> bytes | None:
    """What to hand to the engine's `deserialize_file` for a sealed descriptor; None: load from `contents` instead.

    Added in 0.1.
    """
    return b"/proc/self/fd/%d" % descriptor if is_sealed(descriptor) else None
