"""Bounds of one child process."""

from __future__ import annotations

from cloche.errors import LimitError
from cloche.frozen import dataclass
from cloche.model import GIB, MIB, Bound
from cloche.text import show

BOUNDS: dict[str, Bound] = {
    "wall_ms": Bound(1, 24 * 3600 * 1000, 30_000, "milliseconds from start to end"),
    "cpu_seconds": Bound(1, 24 * 3600, 60, "seconds of processor time, all threads together"),
    # Less than 64 MiB does not hold the interpreter that sets the limits up.
    "memory_bytes": Bound(64 * MIB, 256 * GIB, 1 * GIB, "bytes of resident and of private writable memory"),
    "output_bytes": Bound(0, 4 * GIB, 16 * MIB, "bytes on standard output"),
    "file_bytes": Bound(0, 16 * GIB, 0, "bytes of each file that it writes"),
    "open_files": Bound(16, 4096, 64, "open descriptors"),
}
"""Range, default and unit of each field of `ChildLimits`."""


@dataclass(frozen=True, slots=True)
class ChildLimits:
    """Bounds of one child process, in the units of `BOUNDS`. Each one *refuses at once*: the child is ended.

    Raises: LimitError (`limit.range`) naming the limit, the value and its range. Added in 0.1.
    """

    wall_ms: int = BOUNDS["wall_ms"].default
    cpu_seconds: int = BOUNDS["cpu_seconds"].default
    memory_bytes: int = BOUNDS["memory_bytes"].default
    output_bytes: int = BOUNDS["output_bytes"].default
    file_bytes: int = BOUNDS["file_bytes"].default
    open_files: int = BOUNDS["open_files"].default

    def __post_init__(self) -> None:
        for name, bound in BOUNDS.items():
            value = getattr(self, name)
            if type(value) is not int or not bound.least <= value <= bound.most:
                raise LimitError(
                    f"limit {name} of a child process must be an integer from {bound.least} to {bound.most} "
                    f"({bound.unit}), not {show(value)}",
                    code="limit.range",
                )
