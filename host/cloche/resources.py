"""Finds the files that come with the program: WIT packages, the guests' sources and the guest SDK.

In an installed wheel they lie in `cloche/_data`, in a working tree at its root. Nothing is read at import time.
"""

from __future__ import annotations

from pathlib import Path

from cloche.errors import EngineError

_PACKAGE = Path(__file__).parent


def wit_dir() -> Path:
    """The directory with one folder for each WIT package, and `deps/` with the standard ones. Added in 0.1.

    Raises: EngineError (`engine.internal`) when the installation is incomplete; so do the other functions here.
    """
    return _find("wit")


def guests_dir() -> Path:
    """The directory with the example plugins, one folder each. Added in 0.1."""
    return _find("guests")


def sdk_dir() -> Path:
    """The directory that holds the Python package `cloche_guest` and, in `c/`, the header for C. Added in 0.1."""
    return guests_dir() / "sdk"


def _find(name: str) -> Path:
    # `_data` first: a wheel installed inside a working tree must not pick up that tree's files.
    for root in (_PACKAGE / "_data", _PACKAGE.parents[1]):
        path = root / name
        if path.is_dir():
            return path
    raise EngineError(f"the installation of cloche lacks its directory {name!r}; install it again")
