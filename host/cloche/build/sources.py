"""The files that a build reads: collected once, within bounds, used from memory: what is hashed is built."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from cloche.build.failure import build_error

MAX_FILES = 4000  # the largest pure Python package that was tried (sympy) has 1500
MAX_TOTAL_BYTES = 64 << 20  # a build copies all of it, and a component may hold all of it
NATIVE_SUFFIXES = (".so", ".pyd", ".dylib", ".dll", ".o", ".a")

_SKIPPED_DIRECTORIES = frozenset({"__pycache__", "node_modules", "tests", "dist", "build", "wit_world"})
_SKIPPED_SUFFIXES = (".wasm", ".pyc", ".md", ".cloche")
_SKIPPED_FILES = frozenset({"plugin.toml"})

Files = Mapping[PurePosixPath, bytes]


def collect(root: Path, name: str, *, everything: bool = False) -> dict[PurePosixPath, bytes]:
    """Read the files below `root`, by path relative to it, sorted.

    Left out: hidden files, caches, tests, documentation and built components; `everything` keeps all but caches.
    Raises: ContractError (`component.build`) for too many files or bytes, and for a link that leads outside.
    """
    files: dict[PurePosixPath, bytes] = {}
    total = 0
    outside = root.resolve()
    for path in _walk(root, everything):
        if not path.is_file():  # also a link in a circle, which cannot be resolved
            continue
        if path.is_symlink() and not path.resolve().is_relative_to(outside):
            raise build_error(name, f"{path.name!r} is a link that leads out of the plugin's directory")
        data = read_at_most(path, MAX_TOTAL_BYTES - total + 1)
        total += len(data)
        files[PurePosixPath(path.relative_to(root).as_posix())] = data
        if len(files) > MAX_FILES or total > MAX_TOTAL_BYTES:
            raise build_error(
                name,
                f"its directory holds more than {MAX_FILES} files or {MAX_TOTAL_BYTES >> 20} MiB",
                advice="Keep only the plugin's sources there",
            )
    return dict(sorted(files.items()))


def read_at_most(path: Path, most: int) -> bytes:
    """The first `most` bytes of a file: how large it is need not be believed, and a sparse one costs nothing."""
    with path.open("rb") as file:
        return file.read(most)


def place(files: Files, directory: Path) -> None:
    """Write `files` below `directory`, which is private to this build."""
    for relative, data in files.items():
        path = directory / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def native_files(files: Files) -> list[str]:
    """The compiled libraries among `files`; none of them can run inside a component."""
    return [str(path) for path in files if path.name.endswith(NATIVE_SUFFIXES) or ".so." in path.name]


def _walk(root: Path, everything: bool) -> Iterator[Path]:
    for directory, children, names in os.walk(root):
        children[:] = sorted(
            child
            for child in children
            if child != "__pycache__" and (everything or (child not in _SKIPPED_DIRECTORIES and child[0] != "."))
        )
        for name in sorted(names):
            if name.endswith(".pyc"):
                continue
            if everything or not (
                name.startswith((".", "test_")) or name.endswith(_SKIPPED_SUFFIXES) or name in _SKIPPED_FILES
            ):
                yield Path(directory) / name
