"""Finds the generated bindings of the interfaces that the plugin's world imports and exports.

componentize-py generates `wit_world` for each build and loads modules only while it builds: an import that first
happens in a call fails. So the SDK looks for its interfaces when it is imported, which is always at build time, and
remembers what it found.
"""

from __future__ import annotations

import importlib
from typing import Any


def optional_module(name: str) -> Any:
    """The module `name`, or None where there is none."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


# `cloche build` writes this module: whether the component has WASI. None when something else built it.
_WASI: bool | None = getattr(optional_module("cloche_build_info"), "WASI", None)


def has_entropy() -> bool:
    """Whether it is known that asking for entropy does not trap."""
    return _WASI is True


def imported(*names: str, having: str, standard: bool = False) -> Any:
    """The first of the binding modules `names` that exists and has the attribute `having`, or None.

    `standard` interfaces are those of the namespace `wasi`: a build without WASI replaces all of them, logging and
    configuration included, by functions that trap, so they count as not imported there.

    Several names, because `store` is the name of an interface of both `wasi:config` and `wasi:keyvalue`: the module is
    called `store` in a world that imports one of them, and carries its package's name in a world that imports both.
    """
    if standard and _WASI is False:
        return None
    for name in names:
        module = optional_module(f"wit_world.imports.{name}")
        if hasattr(module, having):
            return module
    return None


def exported(name: str) -> Any:
    """The binding module of an exported interface, or None when the world does not export it."""
    return optional_module(f"wit_world.exports.{name}")


def case_of(value: object) -> str:
    """The name of a variant's case in snake_case: `no_such_store` for `Error_NoSuchStore()`; an enum's own name."""
    _, mark, case = type(value).__name__.partition("_")
    if not mark:
        return str(getattr(value, "name", type(value).__name__)).lower()
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in case).lstrip("_")


def payload_of(value: object) -> object:
    """What a variant's case carries, or None."""
    return getattr(value, "value", None)
