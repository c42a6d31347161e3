"""Take large core modules out of a component, so that what many plugins share is compiled once.

All guests of one componentize-py version carry the same 6.3 MB of interpreter, which is nearly all of their compile
time (docs/decisions/0009-shared-modules.md). `wasm-tools component unbundle` turns such modules into imports of the
component's root; the linker supplies them by name. Each is known by the sha256 of its bytes and compiled in a child of
its own, so a hostile module never meets a shared one before both are native code.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cloche.binary.header import is_component
from cloche.confine.child import ChildOutcome, run_confined
from cloche.confine.limits import ChildLimits
from cloche.model import KIB, MIB, Digest
from cloche.text import one_line
from cloche.wit.tools import wasm_tools

SPLIT_LEAST_BYTES = 2 * MIB
"""Smaller components are compiled whole: that takes about a second, and splitting costs 0.15 s."""
MODULE_LEAST_BYTES = 256 * KIB
"""Smaller modules stay inside: each one outside costs an instance 0.4 ms, and compiles in less than 0.3 s."""
MAX_MODULES = 16
"""A component with more large modules is compiled whole."""

_MESSAGE_CHARS = 300
_MODULE_FILE = re.compile(r"(unbundled-module(?:0|[1-9][0-9]{0,3}))\.wasm")


@dataclass(frozen=True, slots=True, repr=False)
class SplitModule:
    """One core module that was taken out: the name under which the rest imports it, its digest and its bytes."""

    name: str
    digest: Digest
    data: bytes


@dataclass(frozen=True, slots=True, repr=False)
class Split:
    """A component without its large core modules, and those modules in the order of their names."""

    rest: bytes
    rest_digest: Digest
    modules: tuple[SplitModule, ...]


class SplitError(Exception):
    """A component could not be taken apart; the text says why. It may compile as a whole."""


def split_component(component: bytes, workspace: Path, *, cancelled: Callable[[], bool] | None = None) -> Split | None:
    """Take the large core modules out of `component`; None when there are none.

    `workspace` is an empty directory that the child may write to. Blocks for a confined child, 0.15 s for 18 MB, at
    most 30 s. The answer is a stranger's: it is only ever used for the component that it came from.
    Raises: SplitError; OSError when the workspace cannot be read; EngineError `engine.unsupported`, `engine.resources`
        where no child can be started. Added in 0.1.
    """
    if len(component) < SPLIT_LEAST_BYTES or not is_component(component):
        return None
    limits = ChildLimits(
        wall_ms=30_000,
        cpu_seconds=20,
        memory_bytes=64 * MIB + 8 * len(component),
        output_bytes=len(component),
        file_bytes=len(component),
    )
    result = run_confined(
        [
            str(wasm_tools()),
            *("component", "unbundle", "--threshold", str(MODULE_LEAST_BYTES), "--module-dir", str(workspace)),
        ],
        stdin=component,
        limits=limits,
        writable=(str(workspace),),
        watch=None if cancelled is None else (lambda _: not cancelled()),
    )
    if result.outcome is not ChildOutcome.OK or not is_component(result.stdout):
        said = one_line(result.stderr.decode("utf-8", "replace").strip())[:_MESSAGE_CHARS]
        raise SplitError(said or f"wasm-tools ended with {result.outcome}")
    modules = _read_modules(workspace, len(component))
    if not modules:
        return None
    return Split(result.stdout, _digest(result.stdout), modules)


def _read_modules(directory: Path, max_bytes: int) -> tuple[SplitModule, ...]:
    """What the child wrote, or nothing if it is not what it should be."""
    found: list[SplitModule] = []
    for entry in sorted(directory.iterdir(), key=lambda path: (len(path.name), path.name)):
        match = _MODULE_FILE.fullmatch(entry.name)
        data = _read_plain(entry, max_bytes)
        if match is None or data is None or len(found) == MAX_MODULES:
            return ()
        max_bytes -= len(data)
        found.append(SplitModule(match[1], _digest(data), data))
    return tuple(found)


def _read_plain(path: Path, max_bytes: int) -> bytes | None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > max_bytes:
            return None
        return file.read(max_bytes)


def _digest(data: bytes) -> Digest:
    return Digest(hashlib.sha256(data).hexdigest())
