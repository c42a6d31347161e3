"""Native code on disk, private to one user and authenticated. What does not verify does not exist.

Native code that is loaded runs with all of our rights (H24), so an entry is taken only when its MAC fits: over the
digest of the wasm, the kind, the engine's version, the whole profile, the processor, and the code itself. The check is
made over a sealed copy in memory, and that copy is what gets loaded. Nothing here fails open: a doubt is a miss.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from cloche.engine.cache_entry import (
    MAX_ENTRY_BYTES,
    READ_FLAGS,
    CacheEntry,
    EntryKey,
    describe,
    is_plausible,
    remove,
    verified_copy,
    write_entry,
)
from cloche.engine.cache_secret import KEY_NAME, BadKeyError, make_key, read_key
from cloche.errors import RegistryError
from cloche.locks import acquire, release, remove_if_free
from cloche.model import GIB

DEFAULT_MAX_BYTES = 4 * GIB
"""All entries together; a Python guest has 40 MB of native code, 24 MB of them shared."""

_ENTRY = re.compile(r"[0-9a-f]{64}\.native")
_LOCK = re.compile(r"[0-9a-f]{64}\.lock")
_TEMPORARY = re.compile(r"(new|key|work)-[0-9a-f]{16}")
_STALE_SECONDS = 3600


class NativeCache:
    """The cache below one directory. Safe for many threads and processes; it holds no descriptor between calls.

    `warn` is told, once for each text, why something is not cached; code then compiles each time and everything still
    works. Added in 0.1.
    """

    def __init__(
        self, directory: Path, *, max_bytes: int = DEFAULT_MAX_BYTES, warn: Callable[[str], None] | None = None
    ) -> None:
        self._path, self._max_bytes, self._warn = directory, max_bytes, warn
        self._warned: set[str] = set()

    def load(self, key: EntryKey) -> int | None:
        """A sealed descriptor of the entry's code, checked after sealing; None when there is none that verifies.

        An entry that does not verify is removed. Blocks on the disk: about 50 ms for 38 MB. The caller closes it.
        """
        try:
            with self._directory() as directory:
                secret = self._secret(directory)
                try:
                    file = os.open(f"{key.name}.native", READ_FLAGS, dir_fd=directory)
                except FileNotFoundError:
                    return None
                try:
                    descriptor = verified_copy(file, key, secret)
                    if descriptor is not None:
                        with contextlib.suppress(OSError):  # a home that may only be read serves just as well
                            os.utime(file)
                        return descriptor
                finally:
                    os.close(file)
                self._tell(f"a cached entry for {key.kind} {key.digest[:12]} does not verify; it is compiled again")
                remove(directory, f"{key.name}.native")
        except FileNotFoundError:
            return None  # nothing was ever cached here
        except (OSError, BadKeyError, _UnusableError) as error:
            self._tell(f"the native-code cache cannot be read: {_reason(error)}")
        return None

    def store(self, key: EntryKey, descriptor: int) -> bool:
        """Keep the code behind `descriptor` (sealed, or read by nobody else) and make room for it. Blocks on the disk.

        Returns: False when it was not kept, after a warning; that is never an error.
        """
        try:
            with self._directory(create=True) as directory:
                secret = self._secret(directory, create=True)
                size = os.fstat(descriptor).st_size
                if size > min(self._max_bytes, MAX_ENTRY_BYTES):
                    self._tell(f"{size} bytes of native code do not fit into a cache of {self._max_bytes} bytes")
                    return False
                write_entry(directory, f"{key.name}.native", key, secret, descriptor)
                self._collect(directory, self._max_bytes, spare=f"{key.name}.native")
                return True
        except (OSError, EOFError, BadKeyError, _UnusableError) as error:
            self._tell(f"native code is not cached: {_reason(error)}")
            return False

    @contextlib.contextmanager
    def lock(
        self,
        key: EntryKey,
        *,
        waiting: Callable[[float], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Iterator[None]:
        """Hold the entry's lock, so that one process compiles it and the others wait and then load it.

        *Waits* as long as the holder lives, calling `waiting` with the seconds waited so far; a dead holder's lock is
        free at once. Goes on without the lock when `cancelled` answers True or the cache cannot be used.
        """
        with contextlib.ExitStack() as stack:
            try:
                directory = stack.enter_context(self._directory(create=True))
                held = acquire(directory, f"{key.name}.lock", waiting, cancelled)
            except (OSError, BadKeyError, _UnusableError) as error:
                self._tell(f"the native-code cache cannot be used: {_reason(error)}")
                held = None
            if held is not None:
                stack.callback(release, directory, f"{key.name}.lock", held)
            yield

    @contextlib.contextmanager
    def workspace(self) -> Iterator[Path]:
        """An empty directory for one piece of work, removed afterwards; what a killed process left, `gc` removes.

        Raises: RegistryError (`registry.io`) when it cannot be made.
        """
        name = f"work-{os.urandom(8).hex()}"
        try:
            with self._directory(create=True) as directory:
                os.mkdir(name, 0o700, dir_fd=directory)
        except (OSError, _UnusableError) as error:
            raise _io(self._path, error) from error
        try:
            yield (self._path / name).resolve()
        finally:
            with contextlib.suppress(OSError, _UnusableError), self._directory() as directory:
                remove(directory, name)

    def entries(self) -> tuple[CacheEntry, ...]:
        """What is cached, most recently used first. Raises: RegistryError (`registry.io`) when it cannot be read."""
        try:
            with self._directory() as directory:
                found = [describe(directory, name) for name in _names(directory) if _ENTRY.fullmatch(name)]
        except FileNotFoundError:
            return ()
        except (OSError, BadKeyError, _UnusableError) as error:
            raise _io(self._path, error) from error
        return tuple(sorted((entry for entry in found if entry), key=lambda entry: (-entry.last_used, entry.name)))

    def remove(self, key: EntryKey) -> None:
        """Forget one entry; nothing happens when there is none."""
        with contextlib.suppress(OSError, BadKeyError, _UnusableError), self._directory() as directory:
            remove(directory, f"{key.name}.native")

    def gc(self, max_bytes: int | None = None) -> int:
        """Remove the least recently used entries until the rest takes at most `max_bytes`, and what crashes left.

        Returns: bytes freed. Raises: RegistryError (`registry.io`) when the directory cannot be used.
        """
        try:
            with self._directory() as directory:
                return self._collect(directory, self._max_bytes if max_bytes is None else max_bytes)
        except FileNotFoundError:
            return 0
        except (OSError, BadKeyError, _UnusableError) as error:
            raise _io(self._path, error) from error

    def clear(self) -> int:
        """Remove every entry and the key; code that runs is not touched. Returns: bytes freed. Raises: as `gc`."""
        freed = self.gc(0)
        with contextlib.suppress(OSError, BadKeyError, _UnusableError), self._directory() as directory:
            remove(directory, KEY_NAME)
        return freed

    def _collect(self, directory: int, max_bytes: int, spare: str | None = None) -> int:
        now, freed, total = time.time(), 0, 0
        kept: list[tuple[float, str, int]] = []
        for name in _names(directory):
            try:
                status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            except FileNotFoundError:
                continue
            is_stale = _TEMPORARY.fullmatch(name) is not None and status.st_mtime < now - _STALE_SECONDS
            if _ENTRY.fullmatch(name) and is_plausible(status):
                total += status.st_size
                kept.append((status.st_mtime, name, status.st_size))
            elif _LOCK.fullmatch(name):
                remove_if_free(directory, name)
            elif is_stale or _ENTRY.fullmatch(name):
                freed += remove(directory, name) * (status.st_size if stat.S_ISREG(status.st_mode) else 0)
        for _, name, size in sorted(kept):
            if total <= max_bytes:
                break
            if name != spare and remove(directory, name):
                total, freed = total - size, freed + size
        return freed

    @contextlib.contextmanager
    def _directory(self, *, create: bool = False) -> Iterator[int]:
        """The directory, opened and checked for each use: nobody can swap it in between."""
        if create:
            self._path.mkdir(parents=True, mode=0o700, exist_ok=True)
        directory = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            status = os.fstat(directory)
            if status.st_uid != os.geteuid():
                raise _UnusableError(f"{self._path} belongs to user {status.st_uid}; remove it or choose another home")
            if status.st_mode & 0o077:
                raise _UnusableError(f"{self._path} is open to others; remove it, or its owner can `chmod 700` it")
            yield directory
        finally:
            os.close(directory)

    def _secret(self, directory: int, *, create: bool = False) -> bytes:
        """The key. One that others could read, or that is damaged, is replaced, and with it every entry."""
        try:
            return read_key(directory)
        except FileNotFoundError:
            if not create:
                raise
        except BadKeyError as error:
            self._tell(f"the key of the native-code cache is replaced: {error}")
            remove(directory, KEY_NAME)
        return make_key(directory)

    def _tell(self, text: str) -> None:
        if self._warn is not None and text not in self._warned:
            self._warned.add(text)
            self._warn(text)


class _UnusableError(Exception):
    """The directory is not ours alone."""


def _names(directory: int) -> list[str]:
    return os.listdir(directory)


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def _io(path: Path, error: Exception) -> RegistryError:
    return RegistryError(f"the native-code cache {path} cannot be used: {_reason(error)}", code="registry.io")
