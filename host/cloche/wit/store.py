"""A cache of component types on disk, so that a component is read by the tool only once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from cloche.errors import ContractError
from cloche.model import MIB, Digest
from cloche.wit.document import MAX_DOCUMENT_BYTES
from cloche.wit.resolve import Package, resolve_package
from cloche.wit.tools import checked_world, describe_component, describe_package, wasm_tools_version
from cloche.wit.types import World

FORMAT = 1
# Quoting and the wrapper's own keys can double a document at most.
MAX_ENTRY_BYTES = 2 * MAX_DOCUMENT_BYTES + 4096
# All of WASI 0.2 is 60 files of 300 KiB together.
MAX_PACKAGE_ENTRIES = 5_000
MAX_PACKAGE_BYTES = 8 * MIB
# A CPython guest's entry takes 60 KiB.
MAX_STORE_BYTES = 64 * MIB


class TypeStore:
    """Types of components and WIT packages under `<home>/cache/types`, one file for each digest.

    An entry is believed only when it is a plain file of this user, names the same component and the same version of
    the tool, has the checksum that it states, and passes every check that a fresh answer has to pass. Anything else
    counts as absent and is written again. Safe under several processes: entries appear whole, by renaming. A cache
    that cannot be written costs time, never an error. Added in 0.1.
    """

    def __init__(self, home: Path) -> None:
        self._directory = home / "cache" / "types"

    def component_world(self, component: bytes, digest: Digest) -> World:
        """What `component`, whose sha256 is `digest`, imports and exports.

        Blocks for milliseconds when it was read before, else as `wit.tools.component_world`, and raises the same.
        """
        document = self._load(digest)
        if document is not None:
            with contextlib.suppress(ContractError):
                return checked_world(component, document)
        document = describe_component(component)
        world = checked_world(component, document)
        with contextlib.suppress(OSError):
            self._save(digest, document)
        return world

    def package(self, wit: Path) -> Package:
        """The WIT package in the directory (or single file) `wit`, read anew only when a `.wit` file in it changed.

        Blocks for milliseconds when it was read before, else as `wit.tools.read_package`, and raises the same.
        """
        try:
            digest = _digest_of_files(wit)
        except OSError as error:
            raise ContractError(f"There is no WIT package at {wit}: {error.strerror}.", code="contract.wit") from error
        document = self._load(digest)
        if document is not None:
            with contextlib.suppress(ContractError):
                return resolve_package(document)
        document = describe_package(wit)
        package = resolve_package(document)
        with contextlib.suppress(OSError):
            self._save(digest, document)
        return package

    def held(self) -> tuple[int, float]:
        """Bytes of all entries, and the last time that one was written, in seconds since 1970; zeros for none."""
        status = [entry.stat() for entry in self._directory.glob("*")]
        return sum(each.st_size for each in status), max((each.st_mtime for each in status), default=0.0)

    def clear(self) -> int:
        """Remove every entry; bytes freed. Raises: OSError."""
        size_bytes, _ = self.held()
        for entry in self._directory.glob("*"):
            entry.unlink(missing_ok=True)
        return size_bytes

    def _path(self, digest: Digest) -> Path:
        return self._directory / f"{digest}.json"

    def _load(self, digest: Digest) -> bytes | None:
        try:
            # Not through a link, and without waiting for a pipe that someone left there.
            descriptor = os.open(self._path(digest), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        found = os.fstat(descriptor)
        is_ours = found.st_uid == os.geteuid() and not stat.S_IMODE(found.st_mode) & 0o022
        if not (stat.S_ISREG(found.st_mode) and is_ours and found.st_size <= MAX_ENTRY_BYTES):
            os.close(descriptor)  # a directory cannot even become a file object
            return None
        with os.fdopen(descriptor, "rb") as file:
            try:
                entry = json.loads(file.read(MAX_ENTRY_BYTES))
                document = str(entry["document"]).encode()
                expected = _wrapper(digest, document)
            except (OSError, ValueError, KeyError, TypeError, RecursionError):
                return None
        return document if entry == expected else None

    def _save(self, digest: Digest, document: bytes) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = self._directory.stat()
        if found.st_uid != os.geteuid():
            return
        if stat.S_IMODE(found.st_mode) & 0o077:
            self._directory.chmod(0o700)
        # The tool indents its JSON, which triples it.
        compact = json.dumps(json.loads(document), separators=(",", ":")).encode()
        data = json.dumps(_wrapper(digest, compact)).encode()
        self._make_room(len(data))
        descriptor, name = tempfile.mkstemp(prefix=".new-", dir=self._directory)
        unfinished = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            unfinished.replace(self._path(digest))
        except BaseException:
            with contextlib.suppress(OSError):
                unfinished.unlink()
            raise

    def _make_room(self, size_bytes: int) -> None:
        """Drop the oldest entries, and what a killed process left half written, until `size_bytes` more fit."""
        entries = sorted((entry.stat().st_mtime, entry.stat().st_size, entry) for entry in self._directory.iterdir())
        total = sum(size for _, size, _ in entries) + size_bytes
        for _, size, entry in entries:
            if total <= MAX_STORE_BYTES:
                return
            entry.unlink(missing_ok=True)
            total -= size


def _digest_of_files(wit: Path) -> Digest:
    """sha256 over the names and contents of the `.wit` files in a package, its dependencies included."""
    digest = hashlib.sha256(b"wit package\0")
    size_bytes = 0
    for path in sorted(_files(wit)) if wit.is_dir() else [wit]:
        if path.suffix == ".wit":
            data = path.read_bytes()
            size_bytes += len(data)
            if size_bytes > MAX_PACKAGE_BYTES:
                _too_large(wit, f"more than {MAX_PACKAGE_BYTES // MIB} MiB of WIT")
            digest.update(f"{path.relative_to(wit)}\0{len(data)}\0".encode() + data)
    return Digest(digest.hexdigest())


def _files(wit: Path) -> Iterator[Path]:
    """Files below `wit`. Not `rglob`: dependencies may stand behind links. Links in circles end at the bound."""
    entries = 0
    for top, directories, names in os.walk(wit, followlinks=True):
        entries += len(directories) + len(names)
        if entries > MAX_PACKAGE_ENTRIES:
            _too_large(wit, f"more than {MAX_PACKAGE_ENTRIES} files and directories, or links in circles")
        yield from (Path(top) / name for name in names)


def _too_large(wit: Path, what: str) -> NoReturn:
    raise ContractError(f"The WIT package at {wit} has {what}; hand over the package alone.", code="contract.wit")


def _wrapper(digest: Digest, document: bytes) -> dict[str, object]:
    return {
        "format": FORMAT,
        "tool": wasm_tools_version(),
        "component": digest,
        "sha256": hashlib.sha256(document).hexdigest(),
        "document": document.decode(),
    }
