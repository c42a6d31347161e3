"""The files that a build reads: collected once, within bounds, used from memory: what is hashed is built."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from cloche.beneath import open_inside
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
    Raises: ContractError (`component.build`) for too many files or bytes, for a link that leads outside, and for what
        cannot be read.
    """
    files: dict[PurePosixPath, bytes] = {}
    total = 0
    for path in _walk(root, name, everything):
        relative = path.relative_to(root).as_posix()
        if not path.is_file():  # a pipe, a device, a link that leads nowhere or in a circle
            continue
        data = read_inside(root, relative, MAX_TOTAL_BYTES - total + 1, name)
        total += len(data)
        files[PurePosixPath(relative)] = data
        if len(files) > MAX_FILES or total > MAX_TOTAL_BYTES:
            raise build_error(
                name,
                f"its directory holds more than {MAX_FILES} files or {MAX_TOTAL_BYTES >> 20} MiB",
                advice="Keep only the plugin's sources there",
            )
    return dict(sorted(files.items()))


def read_inside(root: Path, path: str, most: int, name: str) -> bytes:
    """The first `most` bytes of the regular file `path` below `root`, also while somebody changes what lies there.

    How large it is need not be believed, and a sparse one costs nothing.
    Raises: ContractError (`component.build`) for a link that leads outside, and for what cannot be read.
    """
    try:
        descriptor = open_inside(root, path)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # reading a pipe or a device might never end
                raise build_error(name, f"{path!r:.200} is not a regular file")
            return file.read(most)
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise build_error(name, f"{path!r:.200} is a link that leads out of the plugin's directory") from error
        raise build_error(name, f"{path!r:.200} cannot be read: {error.strerror or error}") from error


def place(files: Files, directory: Path) -> None:
    """Write `files` below `directory`, which is private to this build."""
    for relative, data in files.items():
        path = directory / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def native_files(files: Files) -> list[str]:
    """The compiled libraries among `files`; none of them can run inside a component."""
    return [str(path) for path in files if path.name.endswith(NATIVE_SUFFIXES) or ".so." in path.name]


def _walk(root: Path, name: str, everything: bool) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise build_error(name, f"the directory {error.filename!r:.200} cannot be read: {error.strerror}") from error

    for directory, children, names in os.walk(root, onerror=refuse):
        children[:] = sorted(
            child
            for child in children
            if child != "__pycache__" and (everything or (child not in _SKIPPED_DIRECTORIES and child[0] != "."))
        )
        for each in sorted(names):
            if each.endswith(".pyc"):
                continue
            if everything or not (
                each.startswith((".", "test_")) or each.endswith(_SKIPPED_SUFFIXES) or each in _SKIPPED_FILES
            ):
                yield Path(directory) / each
