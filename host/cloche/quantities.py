"""Sizes, durations and amounts of fuel: strict reading, and an exact form for people.

Every `format_*` result is read back by its `parse_*` to the same number. Results are integers: bytes, milliseconds,
fuel units. Nothing here knows which limit a number is for; the ranges are `model.BOUNDS`.

A number without a unit means bytes or fuel units and may be an `int` or, on a command line, text (`1_000`). A duration
in text always needs a unit; as a Python number it is seconds. With `unit_required=True` (TOML files) text without a
unit is refused, because `"1"` there is nearly always a mistake, and so is a duration that is a bare number.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from cloche.text import show

if TYPE_CHECKING:
    from fractions import Fraction

MAX_TEXT_CHARACTERS = 40  # the longest sensible form, 1_099_511_627_776 B, has half of that
MAX_RESULT = (1 << 63) - 1  # what the engine's signed counters and SQLite hold

SIZE_FORMS = '"256MiB", "512Ki", "64kB" or a number of bytes'
DURATION_FORMS = '"250ms", "10s", "2m", "1h"'
FUEL_FORMS = '"10G", "500M" or a number of fuel units'

_NUMBER = re.compile(r"([0-9]+(?:_[0-9]+)*)(\.[0-9]+)? ?([A-Za-z]*)")

_SIZE_UNITS: Mapping[str, int] = {
    "B": 1,
    "Ki": 1 << 10,
    "KiB": 1 << 10,
    "Mi": 1 << 20,
    "MiB": 1 << 20,
    "Gi": 1 << 30,
    "GiB": 1 << 30,
    "Ti": 1 << 40,
    "TiB": 1 << 40,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
}
_DURATION_UNITS: Mapping[str, int] = {"ms": 1, "s": 1000, "m": 60_000, "min": 60_000, "h": 3_600_000}
_FUEL_UNITS: Mapping[str, int] = {"K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


class QuantityError(ValueError):
    """A size, duration or amount of fuel cannot be read. The text names the value and the accepted forms.

    It has no error code: the room that reads a file or a command line gives it one. Added in 0.1.
    """


def parse_size(value: object, *, unit_required: bool = False) -> int:
    """Bytes from an int or from text such as `256MiB`, `512Ki`, `64kB`, `1_000`.

    Binary units (Ki, Mi, Gi, Ti, with or without B) are powers of 1024; kB, MB, GB and TB are powers of 1000. A lone
    K, M or G is refused, because people read it both ways. Raises: QuantityError.
    """
    return _parse(value, "a size", _SIZE_UNITS, SIZE_FORMS, unit_required=unit_required)


def parse_fuel(value: object, *, unit_required: bool = False) -> int:
    """Fuel units from an int or from text such as `10G`, `2.5M`, `5_000_000_000`; K, M, G, T are powers of 1000.

    Raises: QuantityError.
    """
    return _parse(value, "an amount of fuel", _FUEL_UNITS, FUEL_FORMS, unit_required=unit_required)


def parse_count(value: object, *, unit_required: bool = False) -> int:
    """A count from an int or, unless `unit_required`, from text of digits such as `10_000`. Raises: QuantityError."""
    return _parse(value, "a count", {}, "a whole number", unit_required=unit_required)


def parse_duration_ms(value: object, *, unit_required: bool = False) -> int:
    """Whole milliseconds from text with a unit (`250ms`, `1.5s`, `2m`, `1h`) or, as an int or float, from seconds.

    A float is rounded up to a whole millisecond, so a tiny deadline never becomes zero. With `unit_required` numbers
    are refused. Raises: QuantityError for text without a unit, a bool, NaN, infinity, a negative or a huge value.
    """
    is_number_taken = not unit_required and not isinstance(value, str)
    forms = DURATION_FORMS + (" or seconds as a number" if is_number_taken else "")
    if is_number_taken and type(value) in (int, float):
        assert isinstance(value, (int, float))
        if not 0 <= value <= MAX_RESULT // 1000:  # NaN compares false
            raise _refuse(value, "a duration", forms)
        # repr keeps 0.1 at 100 ms, where the exact binary value would be rounded up to 101 ms.
        return math.ceil(_exact(repr(value)) * 1000)
    if not isinstance(value, str):
        raise _refuse(value, "a duration", forms)
    return _parse(value, "a duration", _DURATION_UNITS, forms, unit_required=True)


def format_size(size_bytes: int) -> str:
    """The largest binary unit that divides `size_bytes` without rest: `256MiB`, `1000B`."""
    return _format(size_bytes, (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)))


def format_duration_ms(duration_ms: int) -> str:
    """The largest unit that divides `duration_ms` without rest: `30s`, `250ms`, `2m`."""
    return _format(duration_ms, (("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)))


def format_fuel(fuel_units: int) -> str:
    """`10G`, `500M`, or digits in groups of three where no unit divides the number: `1_234_567`."""
    return _format(fuel_units, (("T", 10**12), ("G", 10**9), ("M", 10**6), ("K", 10**3), ("", 1)))


def format_count(count: int) -> str:
    """Digits in groups of three: `10_000`."""
    return f"{count:_}"


def _parse(value: object, what: str, units: Mapping[str, int], forms: str, *, unit_required: bool) -> int:
    if type(value) is int:
        if not 0 <= value <= MAX_RESULT:
            raise _refuse(value, what, forms)
        return value
    if not isinstance(value, str) or len(value) > MAX_TEXT_CHARACTERS:
        raise _refuse(value, what, forms)
    match = _NUMBER.fullmatch(value.strip(" "))
    if match is None:
        raise _refuse(value, what, forms)
    digits, fraction, unit = match.groups()
    if unit:
        if unit not in units:
            raise _refuse(value, what, forms)
    elif unit_required or fraction:
        raise _refuse(value, what, forms)
    exact = _exact(digits.replace("_", "") + (fraction or "")) * units.get(unit, 1)
    if exact.denominator != 1 or exact > MAX_RESULT:
        raise _refuse(value, what, forms)
    return exact.numerator


def _refuse(value: object, what: str, forms: str) -> QuantityError:
    return QuantityError(f"{show(value)} is not {what}; write {forms}")


def _format(amount: int, units: tuple[tuple[str, int], ...]) -> str:
    for name, factor in units:
        if amount % factor == 0 and (amount or factor == 1):
            return f"{amount // factor:_}{name}"
    raise AssertionError("the last unit is 1")


def _exact(digits: str) -> Fraction:
    from fractions import Fraction  # noqa: PLC0415 - it imports `decimal`, and many a start reads no quantity

    return Fraction(digits)
