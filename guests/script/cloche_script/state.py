"""What a script finds when it starts, and what is put back when it has ended."""

import atexit
import builtins
import contextlib
import gc
import io
import keyword
import linecache
import logging
import os
import sys
import time
import types

from cloche_script import functions, loop

MOST_FRAMES = 2000  # twice what is usual: a cached function takes two of them here (library.py)


class InvalidScript(Exception):
    """A field of the script cannot be used."""


class NoDirectory(Exception):
    """The script's directory cannot be changed to."""


class _Kept:
    """What lives between the scripts of one instance."""

    main: types.ModuleType | None = None
    is_used = False
    """Whether a script without `keep` has run."""
    names: tuple[str, ...] = ()
    """Functions of the host that the last script with `keep` was given."""
    lines: dict[types.CodeType, list[str]] = {}
    has_run = False
    """Whether any script has run."""
    undo: "_Undo | None" = None
    """What the last script may have changed."""
    modules: dict[str, types.ModuleType] = {}
    builtins: dict[str, object] = {}


def start() -> None:
    """Once in each instance: forget where the component was built."""
    sys.path[:] = []
    sys.path_importer_cache.clear()
    sys.dont_write_bytecode = True
    logging._startTime = time.time_ns()
    sys.setrecursionlimit(MOST_FRAMES)
    loop.install()


def check(script) -> None:
    """Raise InvalidScript for what Python could not be told."""
    _undo_last()
    if _Kept.is_used:
        gc.collect()  # cheap: what was there when the component was built is frozen
    if "\0" in script.name:
        raise InvalidScript("name: it has a NUL character")
    for name, value in script.environment:
        if not name or "=" in name or "\0" in name or "\0" in value:
            raise InvalidScript(f"environment: {name!r} is no variable")
    for name in script.functions:
        if not name.isidentifier() or keyword.iskeyword(name):
            raise InvalidScript(f"functions: {name!r} cannot be the name of a global")


def main_module(script) -> types.ModuleType:
    """The module `__main__` that the script runs in."""
    module = _Kept.main if script.keep else None
    if module is None:
        module = types.ModuleType("__main__")
        module.__builtins__ = __builtins__
    if script.keep:
        for name in _Kept.names:
            if isinstance(vars(module).get(name), functions.HostFunction):
                delattr(module, name)
        _Kept.main, _Kept.names = module, tuple(script.functions)
    module.__file__ = script.name
    for name in script.functions:
        setattr(module, name, functions.HostFunction(name))
    return module


def remember_source(name: str, code: str) -> None:
    """Have tracebacks and `inspect` find the script's lines."""
    linecache.cache[name] = (len(code), None, io.StringIO(code).readlines(), name)


def forget(name: str, main: types.ModuleType) -> None:
    """Let go of a script without `keep`. Its memory is free for the next one of this instance."""
    linecache.cache.pop(name, None)
    vars(main).clear()
    _Kept.is_used = True


def remember_code(code: types.CodeType, text: str) -> None:
    """Have tracebacks find the lines of a script with `keep`, also once another one has the same name."""
    lines = io.StringIO(text).readlines()
    left = [code]
    while left:
        each = left.pop()
        _Kept.lines[each] = lines
        left += [part for part in each.co_consts if isinstance(part, types.CodeType)]


def lines_of(code: types.CodeType) -> list[str]:
    """The lines of the script with `keep` that `code` is of; empty when it is of none."""
    return _Kept.lines.get(code, [])


def _stream(descriptor: int, errors: str) -> io.TextIOWrapper:
    raw = io.FileIO(descriptor, "wb", closefd=False)
    stream = io.TextIOWrapper(
        io.BufferedWriter(raw), encoding="utf-8", errors=errors, newline="\n", line_buffering=True
    )
    raw.name = {1: "<stdout>", 2: "<stderr>"}[descriptor]
    stream.mode = "w"
    return stream


@contextlib.contextmanager
def prepared(script, main: types.ModuleType):
    """The process that the script finds. What it changes is undone when another one comes. Raises: NoDirectory."""
    undo = _Undo(script.keep)
    _change_to(script.directory)
    streams = _stream(1, "strict"), _stream(2, "backslashreplace")
    sys.stdin = sys.__stdin__ = io.TextIOWrapper(io.BytesIO(script.stdin), encoding="utf-8", errors="strict")
    sys.stdin.mode = "r"
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__ = streams
    sys.argv = [script.name, *script.arguments]
    sys.orig_argv = ["python", *sys.argv]
    if script.directory is not None:
        sys.path.insert(0, os.getcwd())
    sys.modules["__main__"] = main
    _set_environment(dict(script.environment))
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr, *streams):
            with contextlib.suppress(Exception):
                stream.flush()
        sys.settrace(None)
        sys.setprofile(None)
        undo.streams()
        atexit._clear()
        _Kept.undo = undo


def built() -> None:
    """Remember the modules and builtins that there are: what the first script of an instance finds."""
    _Kept.modules, _Kept.builtins = dict(sys.modules), dict(vars(builtins))


class _Undo:
    """What a script may change, as it was before.

    A fresh instance does not copy what it was built with, and nothing is put back before there is another script: both
    would touch every module, and each page of memory that is touched for the first time costs the host microseconds.
    """

    def __init__(self, keep: bool) -> None:
        is_first, _Kept.has_run = not _Kept.has_run, True
        self._keep = keep
        self._sys = {name: getattr(sys, name) for name in _SYS}
        self._modules = _Kept.modules if is_first else dict(sys.modules)
        self._builtins = _Kept.builtins if is_first else dict(vars(builtins))
        self._path, self._limit, self._meta = sys.path[:], sys.getrecursionlimit(), sys.meta_path[:]
        self._home = _directory()

    def streams(self) -> None:
        """Put back what the frame around the call prints with."""
        vars(sys).update(self._sys)

    def all(self) -> None:
        """Put back everything; after a script with `keep`, what it added stays."""
        names = vars(builtins)
        if not self._keep:
            names.update(self._builtins)
            for name in set(sys.modules) - set(self._modules):
                del sys.modules[name]
            sys.meta_path[:] = self._meta
            for name in set(names) - set(self._builtins):
                del names[name]
            if self._home is not None:
                with contextlib.suppress(OSError):
                    os.chdir(self._home)
        sys.setrecursionlimit(self._limit)
        sys.path[:] = self._path
        sys.modules.update(self._modules)
        _set_environment({})


def _undo_last() -> None:
    undo, _Kept.undo = _Kept.undo, None
    if undo is not None:
        undo.all()


_SYS = (
    "stdin", "stdout", "stderr", "__stdin__", "__stdout__", "__stderr__", "argv", "orig_argv", "excepthook",
    "displayhook", "unraisablehook", "breakpointhook",
)  # fmt: skip


def _directory() -> str | None:
    try:
        return os.getcwd()
    except OSError:
        return None


def _change_to(directory: str | None) -> None:
    if directory is None:
        return
    try:
        os.chdir(directory)
    except (OSError, ValueError) as error:
        raise NoDirectory(f"{directory!r}: {getattr(error, 'strerror', None) or error}") from None


def _set_environment(wanted: dict[str, str]) -> None:
    if os.environ:
        os.environ.clear()
    if wanted:
        os.environ.update(wanted)
