"""One classifier from what the engine says to what the embedder sees. Counters first, text last.

Traps of the C API carry no code for components, so the text is all there is; `tests/integration/test_traps.py` provokes
each one.
"""

from __future__ import annotations

import re

from cloche.frozen import dataclass
from cloche.text import clean, one_line

FUEL_TEXT = "all fuel consumed by WebAssembly"
STACK_TEXT = "call stack exhausted"

# (kind, text of the engine)
KINDS: tuple[tuple[str, str], ...] = (
    ("fuel", FUEL_TEXT),
    ("stack", STACK_TEXT),
    ("out-of-bounds", "out of bounds memory access"),
    ("out-of-bounds", "memory fault at wasm address"),
    ("table-out-of-bounds", "out of bounds table access"),
    ("null-reference", "uninitialized element"),
    ("indirect-call-type", "indirect call type mismatch"),
    ("divide-by-zero", "integer divide by zero"),
    ("integer-overflow", "integer overflow"),
    ("invalid-conversion", "invalid conversion to integer"),
    ("unreachable", "wasm `unreachable` instruction executed"),
    ("poisoned", "cannot enter component instance"),
    ("cannot-leave", "cannot leave component instance"),
    ("misaligned", "unaligned atomic"),
    ("handles", "handle limit exceeded"),
    ("handles", "resource table has no free keys"),
    ("handle", "unknown handle index"),
    ("handle", "handle index"),
    ("handle", "resource table"),
    ("handle", "borrow handles still remain"),
    ("payload", "hostcall"),
    ("memory", "out of memory (failed to allocate"),
    ("invalid-value", "invalid utf-8"),
    ("invalid-value", "`char`"),
    ("invalid-value", "discriminant"),
    ("invalid-value", "pointer not aligned"),
    ("invalid-value", "pointer is not aligned"),
    ("invalid-value", "realloc return"),
    ("invalid-value", "out of bounds"),
)

CAUSES = "\nCaused by:\n"
BACKTRACE = "error while executing at wasm backtrace:"

# What allocators say when memory.grow failed; the guest then traps with `unreachable` or exits.
MEMORY_TEXT = re.compile(r"MemoryError|memory allocation of \d+ bytes failed|[Oo]ut of memory|OutOfMemory|bad_alloc")

# componentize-py's runtime is Rust: after the traceback it panics.
PANIC = re.compile(r"\nthread '.*?' .*?panicked at ")

# And so it does when it cannot turn what a function returned, or handed to an import, into the WIT type; the quotes
# are Rust's.
MISFIT = re.compile(
    r"`Result::unwrap\(\)` on an `Err` value: PyErr \{ type: <class '(?P<type>TypeError|AttributeError|ValueError"
    r"|OverflowError)'>, value: (?P=type)\((?P<quote>[\"']?)(?P<text>.*)(?P=quote)\), traceback: None \}"
)

MEMORY_NEAR_LIMIT = 0.9
"""A guest that traps with at least this share of its memory limit in use is taken to have run out of memory."""


@dataclass(frozen=True, slots=True)
class Trap:
    """What the engine's error text says: a word from `KINDS` (or `unknown`), the reason, and the wasm backtrace."""

    kind: str
    reason: str
    backtrace: str | None


def parse_trap(text: str) -> Trap:
    """Read an engine error. Unknown text gives kind `unknown`."""
    backtrace = None
    reason = text
    if text.startswith(BACKTRACE):
        # The last one, and below only the reason: the frames hold names that the guest chose.
        frames, _, causes = text[len(BACKTRACE) :].rpartition(CAUSES)
        backtrace = frames.strip("\n") or None
        lines = [re.sub(r"^\s*(\d+: )?", "", line) for line in causes.strip().splitlines()]
        reason = "; ".join(line for line in lines if line) or text
    reason = reason.removeprefix("wasm trap: ")
    kind = next((kind for kind, needle in KINDS if needle in reason), "unknown")
    return Trap(kind, reason, backtrace)


def python_traceback(stderr: str) -> str | None:
    """The last traceback that a Python guest left on its standard error, without what its runtime says after it."""
    start = stderr.rfind("Traceback (most recent call last):")
    if start < 0:
        return None
    return clean(PANIC.split(stderr[start:], maxsplit=1)[0]).rstrip()


def python_exception(traceback: str) -> str:
    """What was raised, from a Python traceback: type and text, as far as they stand on the line that begins with it."""
    lines = traceback.splitlines()[1:]
    # Frames are indented; the first line that is not names the exception, and what follows it is more of its text.
    return next((line for line in lines if line and not line[0].isspace()), lines[-1] if lines else "")


def python_misfit(stderr: str) -> str | None:
    """Why componentize-py's runtime could not turn a Python value into its WIT type: `TypeError: 'int' object is …`."""
    found = MISFIT.search(stderr[-2000:])
    return one_line(f"{found['type']}: {found['text']}") if found else None


def says_out_of_memory(stderr: str) -> bool:
    """Whether the end of a guest's standard error is an allocator's or Python's last word."""
    return MEMORY_TEXT.search(stderr[-2000:]) is not None
