"""Imports the whole standard library while the component is built: a call finds no files to import from."""

import atexit
import builtins
import functools
import gc
import importlib
import importlib.util
import pkgutil
import sys
import types
import warnings
from pathlib import PurePosixPath

# Tests, what opens windows, what prints or browses when it is imported, and what only other programs use.
LEFT_OUT = frozenset(
    {"_testcapi", "antigravity", "ensurepip", "idlelib", "lib2to3", "test", "this", "tkinter", "turtle", "turtledemo"}
)
_ALLOCATIONS = 50_000
_LEFT_OUT_INSIDE = frozenset({"__main__", "test", "tests", "idle_test"})

imported: list[str] = []
failed: dict[str, str] = {}
"""Modules that cannot be imported, and what each says."""


def preload() -> None:
    """Import every module that this Python has."""
    before = dict(vars(builtins))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in sorted(sys.stdlib_module_names - LEFT_OUT):
            if not name.startswith(("_test", "_xxtest")):
                _import(name)
    vars(builtins).update(before)  # some modules put names there, such as `_` of gettext
    _replace_lru_cache()
    # What they would do at the end of a process; a script's own functions come afterwards.
    atexit._clear()


def freeze() -> None:
    """Have the collector look no more at what is there now, and come less often: each time it looks at every module."""
    sys.path_importer_cache.clear()
    gc.collect()
    gc.freeze()
    gc.set_threshold(_ALLOCATIONS)


def _import(name: str) -> None:
    try:
        module = importlib.import_module(name)
    except Exception as error:  # whatever it is, the list says it
        failed[name] = str(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
        return
    imported.append(name)
    for found in pkgutil.iter_modules(getattr(module, "__path__", ())):
        if found.name not in _LEFT_OUT_INSIDE:
            _import(f"{name}.{found.name}")


def _replace_lru_cache() -> None:
    """Have `functools.lru_cache` use its own form in Python, which needs none of the component's stack.

    A cached function that calls itself would use up the stack that the host gives at a depth of 200, and end the
    instance; in Python it gets a RecursionError where others do. Its frames count as ours: no traceback shows them.
    """
    spec = importlib.util.find_spec("functools")
    source = spec.loader.get_source("functools")
    twin = types.ModuleType("functools")
    native = sys.modules["_functools"]
    sys.modules["_functools"] = None
    try:
        here = str(PurePosixPath(__file__).parent / "functools.py")
        exec(compile(source, here, "exec", dont_inherit=True), vars(twin))  # noqa: S102 - Python's own
    finally:
        sys.modules["_functools"] = native
    functools._lru_cache_wrapper = twin._lru_cache_wrapper
