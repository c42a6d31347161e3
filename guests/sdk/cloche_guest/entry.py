"""The frame around each exported function: what starts an instance, and what has to happen before a call returns.

componentize-py runs a plugin's modules once, while it builds, and freezes the result. Every instance starts from that
picture, so whatever was random then is the same in each of them.
"""

from __future__ import annotations

import functools
import linecache
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any, TypeVar

from cloche_guest.bindings import has_entropy

C = TypeVar("C", bound=type)
F = TypeVar("F", bound=Callable[[], object])

_ASYNC = 0x80 | 0x100 | 0x200  # code flags: coroutine, iterable coroutine, asynchronous generator
_MOST_SOURCE_BYTES = 1 << 20  # of one module, kept for tracebacks

# Where it is not known, componentize-py has seeded the module `random` itself if it could: that is the second source.
_HAS_ENTROPY = has_entropy()


class _Instance:
    """What is remembered between the calls of one instance. Frozen at build, before any call."""

    def __init__(self) -> None:
        self.is_started = False
        self.is_inside = False
        self.generators: list[random.Random] = []
        self.hooks: list[Callable[[], object]] = []
        # The plugin's main module is among them: it is what imports the SDK, directly or not.
        specs = [getattr(module, "__spec__", None) for module in list(sys.modules.values())]
        self.loading = [spec for spec in specs if _is_executing(spec)]

    def ensure_started(self) -> None:
        """Start, once; but not for a call at module level, which is part of the build."""
        if not self.is_started and not any(map(_is_executing, self.loading)):
            self.start()

    def start(self) -> None:
        self.is_started = True
        if _HAS_ENTROPY:
            random.seed(int.from_bytes(os.urandom(32), "little"))
        for generator in self.generators:
            generator.seed(random.getrandbits(256))
        for hook in self.hooks:
            hook()


def _is_executing(spec: object) -> bool:
    """Whether the import system is executing the module of `spec` right now."""
    return bool(getattr(spec, "_initializing", False))


_instance = _Instance()


def at_start(function: F) -> F:
    """Have `function` called once in each instance, before its first exported function. Usable as a decorator.

    For what must not be frozen into the component: seeds, caches of configuration, handles of the host.
    """
    _instance.hooks.append(function)
    return function


def fresh_random() -> random.Random:
    """A generator for module level that is seeded anew in each instance, as the module `random` always is.

    Not for secrets: use `os.urandom` or `secrets`, inside a call.
    """
    generator = random.Random()  # noqa: S311 - not for secrets, as the docstring says
    _instance.generators.append(generator)
    return generator


def export(plugin: C) -> C:
    """Class decorator for every exported interface, resource and for `Lifecycle`.

    Each public method then starts the instance when it is the first call, and delivers what was printed before it
    returns: Python writes standard output in blocks, and an instance may be dropped right after the call. An exception
    other than `Err` leaves as it is; the host shows its traceback, with the lines of source that were read at build.

    So does the constructor of a resource. That of an interface's class runs at build, and starts nothing.
    """
    is_resource = any(each.__module__.startswith("wit_world.exports.") for each in plugin.__mro__)
    for name in dir(plugin):
        found = next(vars(each)[name] for each in plugin.__mro__ if name in vars(each))
        method = getattr(found, "__func__", found)  # of a static or class method
        if not isinstance(method, FunctionType) or method.__code__.co_flags & _ASYNC or _is_abstract(method):
            continue
        if name == "__init__" or not name.startswith("_"):
            framed = _framed(method, starts=is_resource or name != "__init__")
            setattr(plugin, name, framed if method is found else type(found)(framed))
    _keep_source(plugin.__module__)
    return plugin


def flush() -> None:
    """Deliver what was printed. Called at the end of each exported function."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):  # closed, or taken away by the plugin
            continue


def _is_abstract(method: FunctionType) -> bool:
    """Whether the plugin did not write it: a binding's own method, or the constructor that `Protocol` puts there."""
    return getattr(method, "__isabstractmethod__", False) or method.__module__ == "typing"


def _framed(method: Callable[..., Any], *, starts: bool) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        if _instance.is_inside:  # the plugin calls a method of its own
            return method(*args, **kwargs)
        _instance.is_inside = True
        try:
            if starts:
                _instance.ensure_started()
            return method(*args, **kwargs)
        finally:
            _instance.is_inside = False
            flush()

    return call


def _keep_source(module: str) -> None:
    """Read the source of `module` and of its neighbours, because a call cannot: it has no files."""
    home = Path(getattr(sys.modules.get(module), "__file__", None) or os.devnull).parent
    for loaded in list(sys.modules.values()):
        path = getattr(loaded, "__file__", None)
        if not isinstance(path, str) or path in linecache.cache or home not in Path(path).parents:
            continue
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        if len(text) <= _MOST_SOURCE_BYTES:
            # No time of change: with one, the traceback's printer would look for the file and forget the lines.
            linecache.cache[path] = (len(text), None, text.splitlines(keepends=True), path)
