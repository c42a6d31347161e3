"""The secret with which cache entries are authenticated: 32 random bytes in a file for its owner only."""

from __future__ import annotations

import contextlib
import os
import stat

from cloche.engine.cache_entry import CREATE_FLAGS, READ_FLAGS, remove

KEY_NAME = "key"
"""The file's name in the cache directory."""
_KEY_BYTES = 32


class BadKeyError(Exception):
    """The key file is not what we made, or others could read it."""


def read_key(directory: int) -> bytes:
    """The key. Raises: FileNotFoundError; OSError; BadKeyError when it must not be used."""
    file = os.open(KEY_NAME, READ_FLAGS, dir_fd=directory)
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
            raise BadKeyError("others could read or change it")
        secret = os.read(file, _KEY_BYTES + 1)
    finally:
        os.close(file)
    if len(secret) != _KEY_BYTES:
        raise BadKeyError(f"it has {len(secret)} bytes and not {_KEY_BYTES}")
    return secret


def make_key(directory: int) -> bytes:
    """Written whole under another name, then linked: two processes at once end up with the same key.

    Raises: OSError; BadKeyError when what another process made meanwhile is unusable.
    """
    temporary = f"key-{os.urandom(8).hex()}"
    file = os.open(temporary, CREATE_FLAGS, 0o600, dir_fd=directory)
    try:
        try:
            os.write(file, os.urandom(_KEY_BYTES))
            os.fsync(file)
        finally:
            os.close(file)
        with contextlib.suppress(FileExistsError):
            os.link(temporary, KEY_NAME, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
    finally:
        remove(directory, temporary)
    return read_key(directory)
