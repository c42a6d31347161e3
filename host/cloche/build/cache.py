"""Built components by what they were built from: found again, made once even by many processes, and bounded in size.

components/<key>.wasm   the component
components/<key>.json   its digest and how it was made; written last, so that its presence means both are whole
locks/<name>            one empty file for each thing being made
vendor/, npm/           packages that installers fetched
work-*/                 directories of builds in progress
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloche.errors import RegistryError

MAX_RECORD_BYTES = 64 << 10
_KEY = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """A built component in the cache. `used` is seconds since 1970 of its last use."""

    key: str
    path: Path
    digest: str
    size: int
    name: str
    language: str
    wall_ms: float
    notes: tuple[str, ...]
    used: float


class BuildCache:
    """The directory of built components. Nothing is made on disk before something is stored.

    It is for convenience, not for trust: whoever can write to it can also write to the sources. Damage is found by the
    digest and mended by building again. Raises: RegistryError (`registry.io`) when the disk refuses.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def find(self, key: str) -> CacheEntry | None:
        """The entry of `key` if it is there and whole; marks it as used."""
        entry = self._read(key)
        if entry is None:
            return None
        try:
            data = entry.path.read_bytes()
            if len(data) != entry.size or hashlib.sha256(data).hexdigest() != entry.digest:
                return None
        except OSError:
            return None
        with suppress(OSError):  # a home that may only be read serves just as well
            os.utime(entry.path)
        return entry

    def store(
        self, key: str, component: bytes, *, name: str, language: str, wall_ms: float, notes: tuple[str, ...]
    ) -> CacheEntry:
        """Keep `component` under `key`; a half-written entry is never seen, whatever happens on the way."""
        digest = hashlib.sha256(component).hexdigest()
        record = {
            "digest": digest,
            "size": len(component),
            "name": name,
            "language": language,
            "wall_ms": wall_ms,
            "notes": notes,
        }
        path = self._component(key)
        write_whole(path, component)
        write_whole(path.with_suffix(".json"), json.dumps(record).encode())
        return CacheEntry(key, path, digest, len(component), name, language, wall_ms, notes, path.stat().st_mtime)

    def entries(self) -> list[CacheEntry]:
        """Everything that is stored, the longest unused first. Contents are not checked."""
        keys = [path.stem for path in (self.root / "components").glob("*.json")]
        return sorted((entry for key in keys if (entry := self._read(key)) is not None), key=lambda entry: entry.used)

    def prune(self, keep_bytes: int) -> list[CacheEntry]:
        """Remove what was not used for longest until at most `keep_bytes` remain; returns what was removed."""
        entries = self.entries()
        total = sum(entry.size for entry in entries)
        removed = []
        for entry in entries:
            if total <= keep_bytes:
                break
            entry.path.with_suffix(".json").unlink(missing_ok=True)
            entry.path.unlink(missing_ok=True)
            total -= entry.size
            removed.append(entry)
        return removed

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold the lock `name` among all processes; waits for its holder, and ends with this process."""
        with _disk(self.root):
            path = self.root / "locks" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    @contextmanager
    def workspace(self) -> Iterator[Path]:
        """A directory for one build, removed afterwards; on the cache's file system, so that renaming works."""
        with _disk(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            directory = tempfile.TemporaryDirectory(prefix="work-", dir=self.root, ignore_cleanup_errors=True)
        with directory as name:
            yield Path(name).resolve()

    def _component(self, key: str) -> Path:
        return self.root / "components" / f"{key}.wasm"

    def _read(self, key: str) -> CacheEntry | None:
        path = self._component(key)
        try:
            with path.with_suffix(".json").open("rb") as file:
                record: Any = json.loads(file.read(MAX_RECORD_BYTES))
            used = path.stat().st_mtime
            if not _KEY.fullmatch(key) or not _KEY.fullmatch(record["digest"]):
                return None
            return CacheEntry(
                key,
                path,
                record["digest"],
                int(record["size"]),
                str(record["name"]),
                str(record["language"]),
                float(record["wall_ms"]),
                tuple(str(note) for note in record["notes"]),
                used,
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None


def write_whole(path: Path, data: bytes) -> None:
    """Make or replace a file in one step: a reader sees the old content or the new one.

    Raises: RegistryError (`registry.io`) naming the file and the reason, such as a full disk.
    """
    with _disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                os.fchmod(file.fileno(), 0o644)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RegistryError(
            f"{path} cannot be written ({error.strerror}); free space or choose another place"
        ) from error
