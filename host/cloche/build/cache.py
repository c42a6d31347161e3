"""What building makes and fetches, by what it was made from: found again, made once even by many processes, bounded.

components/<key>.wasm   the component
components/<key>.json   its digest and how it was made; written last, so that its presence means both are whole
vendor/<key>/           Python packages that pip fetched
npm/<key>/              build tools that npm fetched
work-<token>/           the directory of a build in progress, or of one that was killed
locks/<name>            an empty file for each thing that somebody makes or uses now
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloche import locks
from cloche.errors import RegistryError

MAX_RECORD_BYTES = 64 << 10
FETCHED = ("vendor", "npm")
"""Directories of what installers fetched."""
QUIET_S = 1.0
"""Waiting for another process is told only when it takes longer."""

_KEY = re.compile(r"[0-9a-f]{64}")
_WORK = "work-"


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


@dataclass(frozen=True, slots=True)
class Held:
    """One thing that takes space here. `kind`: `built`, `vendor`, `npm`, or `work` for a build in progress or dead.

    `digest` is the component's, else what the thing is known by; `name` is the plugin that was built, else empty. Who
    makes or uses the thing holds `lock`. `used` is seconds since 1970 of its last use.
    """

    kind: str
    digest: str
    size: int
    used: float
    path: Path
    lock: str
    name: str = ""


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

    @contextmanager
    def fetched(
        self, kind: str, key: str, fetch: Callable[[Path], None], progress: Callable[[str], None]
    ) -> Iterator[Path]:
        """The directory `key` of what `kind` (one of `FETCHED`) brings, filled by `fetch` when it is not here.

        It stays while the block runs, whatever is pruned meanwhile. `fetch` gets an empty directory; what it leaves
        there is kept as a whole or, when it raises, not at all.
        """
        home, name = self.root.resolve() / kind / key, f"{kind}-{key}"
        while True:
            with self.lock(name, progress, shared=True):
                if home.is_dir():
                    with suppress(OSError):  # a cache that can only be read serves all the same
                        os.utime(home)
                    yield home
                    return
            with self.lock(name, progress):
                if not home.is_dir():
                    with self.workspace() as work:
                        (work / "made").mkdir()
                        fetch(work / "made")
                        home.parent.mkdir(exist_ok=True)
                        (work / "made").rename(home)

    def entries(self) -> list[Held]:
        """Everything that takes space, the longest unused first. Contents are not checked. Blocks on the disk."""
        found = []
        for path in (self.root / "components").glob("*"):
            key = match[0] if (match := _KEY.search(path.name)) else ""
            entry = self._read(key)
            if entry is not None and path == entry.path:
                held = Held("built", entry.digest, entry.size, entry.used, path, f"build-{key}", entry.name)
                found.append(held)
            elif entry is None or path != entry.path.with_suffix(".json"):
                found.append(_held("work", path, f"build-{key}"))  # half written, and its writer is gone or at it
        for kind in FETCHED:
            found += [_held(kind, path, f"{kind}-{path.name}") for path in (self.root / kind).glob("*")]
        found += [_held("work", path, path.name) for path in self.root.glob(f"{_WORK}*")]
        return sorted(found, key=lambda each: each.used)

    def gc(self, max_bytes: int) -> int:
        """Remove what was not used for longest until at most `max_bytes` remain, and what killed builds left.

        What is being made or used now stays. Returns: bytes freed.
        """
        freed = 0
        with _disk(self.root):
            entries = self.entries()
            total = sum(entry.size for entry in entries if entry.kind != "work")
            for entry in entries:
                if entry.kind == "work":
                    freed += self._remove_unless_held(entry)
                elif total > max_bytes:
                    gone = self._remove_unless_held(entry)
                    total, freed = total - gone, freed + gone
            self._forget_free_locks()
        return freed

    @contextmanager
    def lock(self, name: str, progress: Callable[[str], None] | None = None, *, shared: bool = False) -> Iterator[None]:
        """Hold the lock `name` among all processes, alone or `shared`; waits for its holder, ends with this process.

        `progress` is told when the wait is long.
        """

        def waiting(seconds: float) -> None:
            if progress is not None and seconds >= QUIET_S:
                progress(f"waiting for another process that builds this ({seconds:.0f} s)")

        with self._locks() as directory:
            with _disk(self.root):
                held = locks.acquire(directory, name, waiting, None, shared=shared)
            assert held is not None
            try:
                yield
            finally:
                locks.release(directory, name, held, shared=shared)

    @contextmanager
    def workspace(self) -> Iterator[Path]:
        """A directory for one build, removed afterwards; on the cache's file system, so that renaming works.

        What a killed process left there is known by the free lock of its name. Raises: RegistryError (`registry.io`)
        for what the disk refuses meanwhile.
        """
        work = self.root.resolve() / f"{_WORK}{secrets.token_hex(8)}"
        with self.lock(work.name), _disk(work):
            work.mkdir(mode=0o700)
            try:
                yield work
            finally:
                shutil.rmtree(work, ignore_errors=True)

    @contextmanager
    def _locks(self) -> Iterator[int]:
        with _disk(self.root):
            path = self.root / "locks"
            path.mkdir(parents=True, exist_ok=True)
            directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield directory
        finally:
            os.close(directory)

    def _remove_unless_held(self, entry: Held) -> int:
        """Remove what lies at `entry`, unless somebody holds its lock; the bytes that this freed."""
        with self._locks() as directory:
            held = locks.acquire(directory, entry.lock, None, lambda: True)
            if held is None:
                return 0
            try:
                if entry.path.is_dir():
                    shutil.rmtree(entry.path)
                else:
                    entry.path.with_suffix(".json").unlink(missing_ok=True)
                    entry.path.unlink(missing_ok=True)
            finally:
                locks.release(directory, entry.lock, held)
        return entry.size

    def _forget_free_locks(self) -> None:
        for path in (self.root / "locks").glob("*"):
            with self._locks() as directory:
                locks.remove_if_free(directory, path.name)

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


def _held(kind: str, path: Path, lock: str) -> Held:
    size, used = 0, 0.0
    with contextlib.suppress(OSError):  # it may go while it is looked at
        status = path.stat()
        size, used = status.st_size if path.is_file() else 0, status.st_mtime
        for top, _, names in os.walk(path):
            size += sum(Path(top, name).lstat().st_size for name in names)
    return Held(kind, path.name, size, used, path, lock)


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
            f"{path} cannot be written ({error.strerror or error}); free space or choose another place"
        ) from error
