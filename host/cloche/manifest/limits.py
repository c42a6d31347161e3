"""The limits by the names that manifests, policies and command lines use, and the units they are written in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from cloche import quantities
from cloche.model import BOUNDS
from cloche.quantities import QuantityError
from cloche.text import show


class LimitKind(StrEnum):
    """How the number of a limit is written."""

    FUEL = "fuel"
    SIZE = "size"
    DURATION = "duration"
    COUNT = "count"


@dataclass(frozen=True, slots=True)
class LimitKey:
    """One limit: its key in files and flags, its name in `model.BOUNDS` and `model.Limits`, and how it is written."""

    key: str
    name: str
    kind: LimitKind


LIMIT_KEYS: Mapping[str, LimitKey] = MappingProxyType(
    {
        key: LimitKey(key, name, kind)
        for key, name, kind in (
            ("fuel", "fuel", LimitKind.FUEL),
            ("memory", "memory_bytes", LimitKind.SIZE),
            ("deadline", "deadline_ms", LimitKind.DURATION),
            ("stack", "stack_bytes", LimitKind.SIZE),
            ("payload", "payload_bytes", LimitKind.SIZE),
            ("output", "output_bytes", LimitKind.SIZE),
            ("log-lines", "log_lines_per_second", LimitKind.COUNT),
            ("host-calls", "host_calls", LimitKind.COUNT),
            ("host-bytes", "host_call_bytes", LimitKind.SIZE),
            ("handles", "handles", LimitKind.COUNT),
            ("data", "data_bytes", LimitKind.SIZE),
            ("files", "data_files", LimitKind.COUNT),
            ("concurrency", "concurrency", LimitKind.COUNT),
            ("queue", "queue", LimitKind.COUNT),
            ("restarts", "restarts_per_minute", LimitKind.COUNT),
        )
    }
)
"""Every limit by its key; the order is the order in which limits are shown."""

KEY_OF_LIMIT: Mapping[str, str] = MappingProxyType({limit.name: limit.key for limit in LIMIT_KEYS.values()})
"""The key of a limit by its name in `model.BOUNDS`."""

_PARSE: Mapping[LimitKind, Callable[..., int]] = {
    LimitKind.FUEL: quantities.parse_fuel,
    LimitKind.SIZE: quantities.parse_size,
    LimitKind.DURATION: quantities.parse_duration_ms,
    LimitKind.COUNT: quantities.parse_count,
}
_FORMAT: Mapping[LimitKind, Callable[[int], str]] = {
    LimitKind.FUEL: quantities.format_fuel,
    LimitKind.SIZE: quantities.format_size,
    LimitKind.DURATION: quantities.format_duration_ms,
    LimitKind.COUNT: quantities.format_count,
}
_FORMS: Mapping[LimitKind, str] = {
    LimitKind.FUEL: quantities.FUEL_FORMS,
    LimitKind.SIZE: quantities.SIZE_FORMS,
    LimitKind.DURATION: quantities.DURATION_FORMS,
    LimitKind.COUNT: "a whole number",
}


def limit_expectation(key: str) -> str:
    """What the limit `key` accepts, in words: range, unit and forms."""
    limit = LIMIT_KEYS[key]
    bound, written = BOUNDS[limit.name], _FORMAT[limit.kind]
    return f"from {written(bound.least)} to {written(bound.most)} ({bound.unit}), written as {_FORMS[limit.kind]}"


def parse_limit(key: str, value: object, *, unit_required: bool) -> int:
    """The limit `key` in the unit of `model.BOUNDS`, checked against its bound.

    `unit_required` is True for files (text must carry a unit), False for command lines and the API.
    Raises: QuantityError naming the limit, the value and what is expected; KeyError for an unknown key.
    """
    limit = LIMIT_KEYS[key]
    bound = BOUNDS[limit.name]
    try:
        number = _PARSE[limit.kind](value, unit_required=unit_required)
    except QuantityError:
        number = -1
    if not bound.least <= number <= bound.most:
        raise QuantityError(f"limit {key} = {show(value)}: expected a value {limit_expectation(key)}")
    return number


def format_limit(name: str, number: int) -> str:
    """The limit with the `BOUNDS` name `name` for people: `256MiB`, `30s`, `10G`, `1_000`."""
    return _FORMAT[LIMIT_KEYS[KEY_OF_LIMIT[name]].kind](number)


def limit_value(name: str, number: int) -> str | int:
    """The same as a value that a manifest or policy accepts: text with a unit, or a plain number."""
    text = format_limit(name, number)
    return text if text[-1].isalpha() else number
