"""What a process holds, taken before something bad happens and compared afterwards: whatever is more has leaked."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import re
import resource
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PATIENCE_S = 15.0
"""How long a thread or process that was told to end may take, on a busy machine, until it counts as leaked."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """Counts of descriptors (by what they lead to), threads, children and files below `places`; resident memory."""

    counts: Counter[str]
    resident_bytes: int
    places: tuple[Path, ...]

    @classmethod
    def take(cls, *places: Path) -> Ledger:
        """What this process holds now."""
        gc.collect()
        counts = Counter(f"descriptor of {_kind(name)}" for name in _links())
        counts["threads"] = len(os.listdir("/proc/self/task"))  # noqa: PTH208 - the names are not wanted
        counts["children"] = len(children())
        for place in places:
            counts.update(f"file {path}" for path in place.rglob("*"))
        return cls(counts, resident_bytes(), places)

    def ensure_kept(self, most_grown_bytes: int) -> None:
        """Fail unless nothing is held that was not held then, and memory has not grown by more. Waits a little."""
        end = time.monotonic() + PATIENCE_S
        while more := (now := Ledger.take(*self.places)).counts - self.counts:
            assert time.monotonic() < end, f"leaked: {dict(more)}"
            time.sleep(0.02)
        grown = now.resident_bytes - self.resident_bytes
        assert grown <= most_grown_bytes, f"memory grew by {grown} bytes, {most_grown_bytes} are allowed"


def resident_bytes(process: int | None = None) -> int:
    """Memory of a process now; of this one, once what is free was given back."""
    if process is None:
        with contextlib.suppress(AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)
    return int(Path(f"/proc/{process or 'self'}/statm").read_bytes().split()[1]) * resource.getpagesize()


def grown(sizes: Sequence[int]) -> int:
    """How much memory grew from the second of these on; the first comes with what is made once."""
    return max(sizes[1:]) - sizes[1] if len(sizes) > 2 else 0


def children() -> set[int]:
    """Processes that this one has to reap."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            found.update(map(int, (task / "children").read_text().split()))
    return found


def _links() -> list[str]:
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(str(link.readlink()))
    return found


def _kind(name: str) -> str:
    """What a descriptor leads to, without the numbers that are another's each time."""
    return re.sub(r"\d+", "#", name)
