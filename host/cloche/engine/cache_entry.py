"""One entry of the native-code cache: what it is known by, how it stands in its file, and when it verifies.

A file is: magic, MAC, length of the label, label (JSON, for people), code. The MAC is keyed BLAKE3, which is four times
as fast as HMAC-SHA256 and so a third of the time that a start takes for 60 MB. It is over the magic, every
field of the key, the label and the code, each with its length.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
import sys
from hmac import compare_digest
from mmap import mmap
from pathlib import Path

from blake3 import blake3

from cloche.confine.memory import new_memory_file
from cloche.engine import sealed
from cloche.frozen import dataclass
from cloche.model import GIB, Digest

READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
"""How a file of the cache is opened: never through a link, never waiting for a pipe."""
CREATE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
"""How a file of the cache is made: it must be new."""
MAX_ENTRY_BYTES = 2 * GIB
"""An entry larger than this is neither kept nor read."""

_MAGIC = b"CLOCHE-NATIVE-2\n"
_MAC_BYTES = 32
_MAX_LABEL_BYTES = 4096
_HEADER_BYTES = len(_MAGIC) + _MAC_BYTES + 4
_DIGEST = re.compile(r"[0-9a-f]{64}")
_KIND = re.compile(r"[a-z]{1,16}")


@dataclass(frozen=True, slots=True)
class EntryKey:
    """Everything that native code depends on. `kind` says what the bytes are (`component`, `module`, `split`).

    `engine_version` names one build of the engine, and not only its release.
    """

    digest: Digest
    kind: str
    engine_version: str
    profile: bytes
    target: str

    def encode(self) -> bytes:
        """The key as bytes: every field with its length before it, so that no two keys look alike."""
        parts = (
            self.digest.encode(),
            self.kind.encode(),
            self.engine_version.encode(),
            self.profile,
            self.target.encode(),
        )
        return b"".join(len(part).to_bytes(8, "little") + part for part in parts)

    @property
    def name(self) -> str:
        """The stem of the entry's file name."""
        return hashlib.sha256(self.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """One entry as `cloche cache` lists it. The label is unverified, for people; times are seconds since 1970."""

    name: str
    digest: str
    kind: str
    size_bytes: int
    last_used: float


def target() -> str:
    """The system and processor that native code is made for, with the processor's features. Reads one file."""
    features = b""
    with contextlib.suppress(OSError), Path("/proc/cpuinfo").open("rb") as info:
        match = re.search(rb"^(?:flags|Features)\s*:\s*(.*)$", info.read(64 * 1024), re.MULTILINE)
        features = b" ".join(sorted(match[1].split())) if match else b""
    return f"{sys.platform}-{os.uname().machine}-{hashlib.sha256(features).hexdigest()[:32]}"


def verified_copy(file: int, key: EntryKey, secret: bytes) -> int | None:
    """Copy, seal, then check the copy: what was checked is what is used, whatever happens to the file.

    Returns: a descriptor, sealed where this system can, or None when the entry is not one that we made for `key`.
    Raises: OSError.
    """
    status = os.fstat(file)
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_size > MAX_ENTRY_BYTES:
        return None
    header = os.pread(file, _HEADER_BYTES, 0)
    if len(header) != _HEADER_BYTES or not header.startswith(_MAGIC):
        return None
    label_bytes = int.from_bytes(header[-4:], "little")
    offset = _HEADER_BYTES + label_bytes
    if label_bytes > _MAX_LABEL_BYTES or offset > status.st_size:
        return None
    label = os.pread(file, label_bytes, _HEADER_BYTES)
    descriptor = new_memory_file(f"cloche-{key.kind}")
    try:
        sealed.copy(file, offset, status.st_size - offset, descriptor)
        sealed.seal(descriptor)
        with sealed.contents(descriptor) as code:
            expected = _mac(secret, key, label, code)
        if compare_digest(header[len(_MAGIC) : len(_MAGIC) + _MAC_BYTES], expected):
            return descriptor
    except EOFError:
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def write_entry(directory: int, name: str, key: EntryKey, secret: bytes, descriptor: int) -> None:
    """Write the code behind `descriptor` whole or not at all: a new file, flushed, renamed over the old one.

    Raises: OSError, after which nothing is left behind.
    """
    label = json.dumps({"digest": key.digest, "kind": key.kind}).encode()
    size = os.fstat(descriptor).st_size
    with sealed.contents(descriptor) as code:
        header = _MAGIC + _mac(secret, key, label, code) + len(label).to_bytes(4, "little") + label
    temporary = f"new-{os.urandom(8).hex()}"
    file = os.open(temporary, CREATE_FLAGS, 0o600, dir_fd=directory)
    try:
        try:
            written = os.write(file, header)
            if written != len(header):
                raise OSError("the header was not written whole")
            sealed.copy(descriptor, 0, size, file)
            os.fchmod(file, 0o400)
            os.fsync(file)
        finally:
            os.close(file)
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        remove(directory, temporary)
        raise
    os.fsync(directory)


def is_plausible(status: os.stat_result) -> bool:
    """Whether a file could be an entry at all: a pipe, a directory or an empty file cannot."""
    return stat.S_ISREG(status.st_mode) and status.st_size >= _HEADER_BYTES


def describe(directory: int, name: str) -> CacheEntry | None:
    """What the entry's file says about itself; None when it is no plausible entry or cannot be read."""
    try:
        file = os.open(name, READ_FLAGS, dir_fd=directory)
        try:
            status = os.fstat(file)
            if not is_plausible(status):
                return None
            header = os.pread(file, _HEADER_BYTES + _MAX_LABEL_BYTES, 0)
        finally:
            os.close(file)
    except OSError:
        return None
    label: object = None
    length = int.from_bytes(header[_HEADER_BYTES - 4 : _HEADER_BYTES], "little")
    with contextlib.suppress(ValueError, RecursionError):
        label = json.loads(header[_HEADER_BYTES : _HEADER_BYTES + length])
    known = label if isinstance(label, dict) else {}
    return CacheEntry(
        name=name.removesuffix(".native"),
        digest=_word(known.get("digest"), _DIGEST),
        kind=_word(known.get("kind"), _KIND),
        size_bytes=status.st_size,
        last_used=status.st_mtime,
    )


def _word(value: object, pattern: re.Pattern[str]) -> str:
    # The label is not verified: it may say anything, at any length.
    return value if isinstance(value, str) and pattern.fullmatch(value) else "unknown"


def remove(directory: int, name: str) -> bool:
    """Remove one file, or a directory with all that it holds; False when it is not there or cannot be removed."""
    try:
        os.unlink(name, dir_fd=directory)
    except OSError:
        try:
            import shutil  # noqa: PLC0415 - it imports every compressor, and this is rare

            shutil.rmtree(name, dir_fd=directory)
        except OSError:
            return False
    return True


def _mac(secret: bytes, key: EntryKey, label: bytes, code: mmap | bytes) -> bytes:
    mac = blake3(_MAGIC, key=secret)
    mac.update(key.encode())
    mac.update(len(label).to_bytes(8, "little") + label + len(code).to_bytes(8, "little"))
    mac.update(code)
    return mac.digest()
