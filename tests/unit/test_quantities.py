"""Sizes, durations and fuel: what is read, what is refused, and that people's form reads back."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.quantities import (
    MAX_RESULT,
    QuantityError,
    format_count,
    format_duration_ms,
    format_fuel,
    format_size,
    parse_count,
    parse_duration_ms,
    parse_fuel,
    parse_size,
)

GOOD: list[tuple[Callable[..., int], object, int]] = [
    (parse_size, "256MiB", 256 << 20),
    (parse_size, "512Ki", 512 << 10),
    (parse_size, "1_000", 1000),
    (parse_size, "1.5GiB", 3 << 29),
    (parse_size, "64kB", 64_000),
    (parse_size, "0B", 0),
    (parse_size, " 7 B ", 7),
    (parse_size, 4096, 4096),
    (parse_duration_ms, "10s", 10_000),
    (parse_duration_ms, "250ms", 250),
    (parse_duration_ms, "2m", 120_000),
    (parse_duration_ms, "0.5s", 500),
    (parse_duration_ms, "1h", 3_600_000),
    (parse_duration_ms, 0.5, 500),
    (parse_duration_ms, 0.1, 100),
    (parse_duration_ms, 3, 3000),
    (parse_duration_ms, 1e-9, 1),
    (parse_fuel, "10G", 10**10),
    (parse_fuel, "5_000_000_000", 5 * 10**9),
    (parse_fuel, "2.5M", 2_500_000),
    (parse_fuel, MAX_RESULT, MAX_RESULT),
    (parse_count, "10_000", 10_000),
]

PARSERS: tuple[Callable[..., int], ...] = (parse_size, parse_duration_ms, parse_fuel, parse_count)

ODD_VALUES: tuple[object, ...] = (
    True,
    False,
    None,
    -1,
    1 << 64,
    10**4000,
    float("nan"),
    float("inf"),
    "",
    "-1",
    "+1s",
    "1__0B",
    "_1B",
    "1e9",
    "1x",
    "nan",
    "0x10",
    "\uff11\uff10s",
    "1\n",
    "9" * 39,
    "9" * 1000,
    b"1",
    [1],
)

BAD: list[tuple[Callable[..., int], object]] = [(parse, value) for parse in PARSERS for value in ODD_VALUES] + [
    (parse_size, "1K"),
    (parse_size, "256mib"),
    (parse_size, "1.5"),
    (parse_size, "0.1B"),
    (parse_size, 1.0),
    (parse_duration_ms, "1"),
    (parse_duration_ms, "0.1ms"),
    (parse_duration_ms, -0.5),
    (parse_duration_ms, 1e300),
    (parse_fuel, "1g"),
    (parse_fuel, "1.0"),
    (parse_fuel, "0.0001K"),
    (parse_fuel, "9_223_372_036_854_775_808"),
    (parse_count, "1K"),
    (parse_count, 1.0),
]


@pytest.mark.parametrize(("parse", "value", "expected"), GOOD)
def test_good_quantities_are_read(parse: Callable[..., int], value: object, expected: int) -> None:
    """Each accepted form gives the exact number."""
    assert expected == parse(value)


@pytest.mark.parametrize(("parse", "value"), BAD)
def test_bad_quantities_are_refused_by_name(parse: Callable[..., int], value: object) -> None:
    """Each refusal is short, names the value and says what to write."""
    with pytest.raises(QuantityError) as caught:
        parse(value)
    assert "; write " in str(caught.value)
    assert len(str(caught.value)) < 200


def test_text_is_not_told_to_be_a_number() -> None:
    """A bare number is seconds in Python and a mistake in text, and the refusal names what fits there."""
    for value, is_offered in ((True, True), ("1", False)):
        with pytest.raises(QuantityError) as caught:
            parse_duration_ms(value)
        assert ("seconds as a number" in str(caught.value)) is is_offered


@pytest.mark.parametrize(
    ("parse", "value"),
    [(parse_size, "1"), (parse_fuel, "1"), (parse_count, "1"), (parse_duration_ms, 1), (parse_duration_ms, 0.5)],
)
def test_files_need_units_in_text(parse: Callable[..., int], value: object) -> None:
    """What a command line or the API may leave out, a file must say."""
    assert parse(value) > 0
    with pytest.raises(QuantityError):
        parse(value, unit_required=True)


@given(st.integers(min_value=0, max_value=MAX_RESULT))
def test_formatted_quantities_read_back(number: int) -> None:
    """The form for people is exact."""
    assert number == parse_size(format_size(number), unit_required=True)
    assert number == parse_duration_ms(format_duration_ms(number))
    assert number == parse_fuel(format_fuel(number))
    assert number == parse_count(format_count(number))


@given(st.text(max_size=50))
def test_any_text_is_a_number_or_a_refusal(text: str) -> None:
    """Hostile text never raises anything else and never gives a number out of range."""
    for parse in (parse_size, parse_fuel, parse_duration_ms, parse_count):
        try:
            number = parse(text)
        except QuantityError:
            continue
        assert 0 <= number <= MAX_RESULT


@pytest.mark.parametrize(
    ("expected", "shown"),
    [
        ("256MiB", format_size(256 << 20)),
        ("1_000B", format_size(1000)),
        ("0B", format_size(0)),
        ("30s", format_duration_ms(30_000)),
        ("2m", format_duration_ms(120_000)),
        ("10G", format_fuel(10**10)),
        ("1_234_567", format_fuel(1_234_567)),
    ],
)
def test_people_see_short_forms(expected: str, shown: str) -> None:
    """The largest unit without a rest is used."""
    assert expected == shown
