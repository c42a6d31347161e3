"""Values that every room shares: tiers, limits, usage, ids, and the carriers of WIT results and options.

Nothing here knows files, engines or grants.
"""

from __future__ import annotations

import re
import sys
from enum import StrEnum
from typing import Any, Generic, NamedTuple, NewType, TypeVar

from cloche.errors import LimitError
from cloche.frozen import dataclass
from cloche.text import show

PluginId = NewType("PluginId", str)
"""`publisher/name`, lower-case kebab."""
Digest = NewType("Digest", str)
"""Lower-case hexadecimal sha256 of exact bytes, 64 characters."""

PLUGIN_ID = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*/[a-z][a-z0-9]*(-[a-z0-9]+)*")

T = TypeVar("T")
E = TypeVar("E")


class Tier(StrEnum):
    """How far a plugin is trusted. A plugin never chooses its own."""

    BUILTIN = "builtin"
    TRUSTED = "trusted"
    UNTRUSTED = "untrusted"


class Instances(StrEnum):
    """How instances of a plugin live: a fresh one for each call, a pool, or one that keeps its state."""

    PER_CALL = "per-call"
    POOLED = "pooled"
    SINGLE = "single"


class Metering(StrEnum):
    """What stops a guest: fuel and a deadline, fuel only, or a deadline only (fuel is then reported as None)."""

    BOTH = "both"
    FUEL = "fuel"
    DEADLINE = "deadline"


class State(StrEnum):
    """Where a plugin is in its life. These words are used everywhere."""

    DISCOVERED = "discovered"
    VERIFIED = "verified"
    LOADED = "loaded"
    INITIALIZED = "initialized"
    ACTIVE = "active"
    DRAINING = "draining"
    STOPPED = "stopped"
    FAILED = "failed"
    QUARANTINED = "quarantined"


@dataclass(frozen=True, slots=True)
class Trusted:
    """The embedder's own word that a plugin may run in this process; pass it as `load(..., trust=Trusted())`.

    `reason` is kept in the events. A policy can forbid this form (`[trust] allow-in-code = false`).
    """

    reason: str = "trusted by the embedding program"


def same(left: object, right: object) -> bool:
    """Whether two values are equal, arrays inside them compared as a whole: dtype, shape and items.

    It is what `==` means for `Ok`, `Err`, `Some`, `Case` and the generated classes. NaN differs from itself.
    """
    numpy = sys.modules.get("numpy")  # where nobody imported it there are no arrays
    if numpy is not None and (isinstance(left, numpy.ndarray) or isinstance(right, numpy.ndarray)):
        return (
            isinstance(left, numpy.ndarray)
            and isinstance(right, numpy.ndarray)
            and left.dtype == right.dtype
            and bool(numpy.array_equal(left, right))
        )
    if isinstance(left, list | tuple):
        return type(left) is type(right) and len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return (
            isinstance(right, dict)
            and left.keys() == right.keys()
            and all(same(item, right[key]) for key, item in left.items())
        )
    return bool(left == right)


class _Wrapped(Generic[T]):
    """Equality of one value in a wrapper."""

    __slots__ = ()
    value: T

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and same(self.value, other.value)

    def __hash__(self) -> int:
        return hash((type(self), self.value))


@dataclass(frozen=True, slots=True, eq=False)
class Ok(_Wrapped[T]):
    """The success case of a WIT `result` inside values."""

    value: T


@dataclass(frozen=True, slots=True, eq=False)
class Err(_Wrapped[E]):
    """The error case of a WIT `result` inside values."""

    value: E


@dataclass(frozen=True, slots=True, eq=False)
class Some(_Wrapped[T]):
    """A present value of an `option` whose payload is itself an `option`."""

    value: T


@dataclass(frozen=True, slots=True)
class Bound:
    """Range and meaning of one limit: smallest, largest and default value, and the unit in words."""

    least: int
    most: int
    default: int
    unit: str


KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

# The table is docs/limits-and-usage.md. A limit is checked against its bound before it reaches the engine (H4).
BOUNDS: dict[str, Bound] = {
    "fuel": Bound(1, (1 << 63) - 1, 10_000_000_000, "fuel units, guest and host together, per call"),
    "deadline_ms": Bound(1, 24 * 3600 * 1000, 30_000, "milliseconds of wall time per call"),
    "memory_bytes": Bound(64 * KIB, 4 * GIB, 256 * MIB, "bytes of memories and tables of one instance"),
    "stack_bytes": Bound(32 * KIB, 1 * MIB, 512 * KIB, "bytes of wasm stack"),
    "payload_bytes": Bound(0, 1 * GIB, 64 * MIB, "bytes of arguments, and of results, per call"),
    "output_bytes": Bound(0, 1 * GIB, 1 * MIB, "bytes of stdout and stderr together per call"),
    "log_lines_per_second": Bound(0, 1_000_000, 200, "log lines per second"),
    "host_calls": Bound(0, 1 << 40, 10_000, "calls of the host per call of the guest"),
    "host_call_bytes": Bound(0, 1 << 40, 64 * MIB, "bytes handed to and from the host by host calls, per call"),
    "handles": Bound(0, 90_000, 1_000, "live resources of one instance"),
    "data_bytes": Bound(0, 1 << 50, 64 * MIB, "bytes of the plugin in each of wasi:keyvalue and cloche:host/data"),
    "data_files": Bound(0, 10_000_000, 1_000, "keys in wasi:keyvalue; files and directories in cloche:host/data"),
    "concurrency": Bound(0, 4096, 0, "calls at once; 0 means one for each core"),
    "queue": Bound(0, 1_000_000, 64, "calls that may wait for a free instance"),
    "restarts_per_minute": Bound(0, 10_000, 5, "restarts per minute before quarantine"),
}


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one plugin or one call, in the units of `BOUNDS`. Each is an int inside its bound, never a bool.

    Raises: LimitError (`limit.range`) naming the limit, the value and its range.
    """

    fuel: int = BOUNDS["fuel"].default
    deadline_ms: int = BOUNDS["deadline_ms"].default
    memory_bytes: int = BOUNDS["memory_bytes"].default
    stack_bytes: int = BOUNDS["stack_bytes"].default
    payload_bytes: int = BOUNDS["payload_bytes"].default
    output_bytes: int = BOUNDS["output_bytes"].default
    log_lines_per_second: int = BOUNDS["log_lines_per_second"].default
    host_calls: int = BOUNDS["host_calls"].default
    host_call_bytes: int = BOUNDS["host_call_bytes"].default
    handles: int = BOUNDS["handles"].default
    data_bytes: int = BOUNDS["data_bytes"].default
    data_files: int = BOUNDS["data_files"].default
    concurrency: int = BOUNDS["concurrency"].default
    queue: int = BOUNDS["queue"].default
    restarts_per_minute: int = BOUNDS["restarts_per_minute"].default

    def __post_init__(self) -> None:
        for name in BOUNDS:
            ensure_limit(name, getattr(self, name))


def ensure_limit(name: str, value: object) -> int:
    """Return `value` if it is an int inside the bound of limit `name`.

    Raises: LimitError (`limit.range`) for a bool, a float, a string, NaN or a number out of range.
    """
    bound = BOUNDS[name]
    if type(value) is not int or not bound.least <= value <= bound.most:
        raise LimitError(
            f"limit {name} must be an integer from {bound.least} to {bound.most} ({bound.unit}), not {show(value)}",
            code="limit.range",
        )
    return value


class Usage(NamedTuple):
    """What one call cost. Fuel is None where the metering mode does not count it.

    Units: fuel units; wall_ms and cpu_ms milliseconds (cpu of the thread that ran the guest; the wall time for a call
    under one millisecond, and at most that for the first long call of a function); peak_memory bytes of the instance's
    memories at their last reading, which is after every larger call and every sixteenth small one (None when it cannot
    be read); host_calls count; bytes_in and bytes_out canonical-ABI bytes of arguments and results; gpu_memory_peak
    bytes; gpu_work units; instance_calls the number of calls that this instance has served, this one included. After a
    deadline guest_fuel counts up to the last host call only. A named tuple, because making a frozen dataclass would
    cost a tenth of a small call.
    """

    guest_fuel: int | None = None
    host_fuel: int | None = None
    wall_ms: float = 0.0
    cpu_ms: float = 0.0
    peak_memory: int | None = None
    host_calls: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    gpu_memory_peak: int = 0
    gpu_work: int = 0
    instance_calls: int = 0

    def __add__(self, later: Usage) -> Usage:  # type: ignore[override]  # a tuple of figures, not a sequence to extend
        """Both together: sums, but the peak of the later reading, and the later count of the instance's calls."""

        def total(one: int | None, other: int | None) -> int | None:
            return None if one is None and other is None else (one or 0) + (other or 0)

        return Usage(
            guest_fuel=total(self.guest_fuel, later.guest_fuel),
            host_fuel=total(self.host_fuel, later.host_fuel),
            wall_ms=self.wall_ms + later.wall_ms,
            cpu_ms=self.cpu_ms + later.cpu_ms,
            peak_memory=max(
                (found for found in (self.peak_memory, later.peak_memory) if found is not None), default=None
            ),
            host_calls=self.host_calls + later.host_calls,
            bytes_in=self.bytes_in + later.bytes_in,
            bytes_out=self.bytes_out + later.bytes_out,
            gpu_memory_peak=max(self.gpu_memory_peak, later.gpu_memory_peak),
            gpu_work=self.gpu_work + later.gpu_work,
            instance_calls=later.instance_calls,
        )

    @property
    def fuel(self) -> int | None:
        """Guest and host fuel together: what the limit is on."""
        return None if self.guest_fuel is None else self.guest_fuel + (self.host_fuel or 0)

    def to_json(self) -> dict[str, Any]:
        """The usage as plain values."""
        return self._asdict()


class Outcome(NamedTuple, Generic[T]):
    """The value that a call returned, and what it cost."""

    value: T
    usage: Usage
