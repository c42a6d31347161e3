"""Where the engine's shared library is installed, and which it is. Nothing is loaded."""

from __future__ import annotations

import re
import sys
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from cloche.errors import EngineError

_NAMES = {"linux": "_libwasmtime.so", "darwin": "_libwasmtime.dylib", "win32": "_wasmtime.dll"}


class EngineLibrary(NamedTuple):
    """The library's file, and the version of the package that it came with."""

    path: Path
    version: str


@lru_cache(maxsize=1)
def engine_library() -> EngineLibrary:
    """The library of the package `wasmtime`. Raises: EngineError (`engine.unsupported`) when there is none."""
    spec = find_spec("wasmtime")
    if spec is None or spec.origin is None:
        raise EngineError("the package `wasmtime` is not installed; install wasmtime 49.0.0", code="engine.unsupported")
    package = Path(spec.origin).parent
    found = sorted(package.glob("*/" + _NAMES.get(sys.platform, "_libwasmtime.so")))
    if not found:
        raise EngineError(
            f"the package `wasmtime` in use ships no library for {sys.platform}; install a wheel for this system",
            code="engine.unsupported",
        )
    return EngineLibrary(found[0], _version(package))


def engine_build() -> str:
    """Which engine compiles: two builds of one version may differ in what they make and take."""
    lib = engine_library()
    try:
        status = lib.path.stat()
    except OSError as error:
        raise EngineError(
            f"the engine library {lib.path} is gone: {error.strerror}; start anew", code="engine.unsupported"
        ) from error
    return f"{lib.version} {status.st_size} {int(status.st_mtime)}"


def _version(package: Path) -> str:
    """Read from the name of the dist-info directory: importlib.metadata would cost 10 ms and more."""
    for entry in package.parent.glob("wasmtime-*.dist-info"):
        match = re.fullmatch(r"wasmtime-([0-9][^-]*)\.dist-info", entry.name)
        if match:
            return match.group(1)
    return "unknown"
