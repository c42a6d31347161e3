"""How much linear memory an instance held, seen by what disappears from the process's memory map when it closes.

A component's memories cannot be asked for through the C API, and after a trap no guest function can be called any more,
so the map is the only witness of how far a trapped instance had grown. Used after traps only: reading the map twice
costs about a millisecond. Linux; elsewhere the answer is None.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_MAPS = Path("/proc/self/maps")
_LINE = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) (..)", re.MULTILINE)

RESERVATION_BYTES = 1 << 32
"""A linear memory is an accessible run at the start of a reservation at least this long."""

_READ_BYTES = 1 << 20
_held: int | None = None

_closing = threading.Lock()
"""One store is closed at a time while one is watched, so that what disappears belongs to one instance."""


class _Census:
    """Instances of this process that are being made, and how many began to be."""

    def __init__(self) -> None:
        self.lock, self.begun, self.inside = threading.Lock(), 0, 0


_census = _Census()


@contextmanager
def making_memories() -> Iterator[None]:
    """While an instance is made: its memories may come to lie where those of a closed one just were."""
    with _census.lock:
        _census.begun += 1
        _census.inside += 1
    try:
        yield
    finally:
        with _census.lock:
            _census.inside -= 1


def close_unmeasured(close: Callable[[], None]) -> None:
    """Run `close`, which deletes a store."""
    with _closing:
        close()


def close_and_measure(close: Callable[[], None]) -> tuple[int, ...] | None:
    """Run `close` (which deletes a store) and return the sizes of the memories that it gave back, in bytes, or None.

    None also when nothing disappeared while another instance was made, which may have taken the place.
    """
    with _closing:
        begun, inside = _census.begun, _census.inside
        before = _memories()
        close()
        after = _memories()
    if before is None or after is None:
        return None
    found = tuple(size for base, size in before.items() if base not in after)
    return found if found or (not inside and begun == _census.begun) else None


def hold_maps() -> None:
    """Open the map for good, for a process that is about to lose its files. Raises: OSError."""
    global _held  # noqa: PLW0603 - one map in each process
    _held = os.open(_MAPS, os.O_RDONLY | os.O_CLOEXEC)


def _read_maps() -> bytes | None:
    try:
        if _held is None:
            return _MAPS.read_bytes()
        parts, at = [], 0
        while part := os.pread(_held, _READ_BYTES, at):
            parts.append(part)
            at += len(part)
        return b"".join(parts)
    except OSError:
        return None


def _memories() -> dict[int, int] | None:
    """Accessible bytes at the start of each reservation, by base address."""
    text = _read_maps()
    if text is None:
        return None
    found: dict[int, int] = {}
    base = end = 0
    open_run = False
    for match in _LINE.finditer(text):
        low, high, mode = int(match[1], 16), int(match[2], 16), match[3]
        if mode == b"rw":
            if open_run and low == end:
                end = high
            else:
                base, end, open_run = low, high, True
        else:
            if open_run and mode == b"--" and low == end and high - base >= RESERVATION_BYTES:
                found[base] = end - base
            open_run = False
    return found
