"""The conformance table through a WAT guest: Python → engine → guest → host → guest → Python, and every refusal."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cloche.engine.codec.function import HostPlan
from cloche.engine.ffi import VAL_BYTES
from cloche.errors import CapabilityError, LimitError, UsageError
from support.conformance import ROWS, Row, agree, markdown, wit_text
from support.echo_component import HOST_INTERFACE, assemble, echo_function, echo_wat
from support.engine_rig import Rig
from support.toolchains import EXPECTED_DIFFERENCES, LANGUAGES, REFUSED_AT_BUILD

FUNCTIONS = {row.name: echo_function(index, row.type) for index, row in enumerate(ROWS)}


class Echo:
    """The host's side: answers with what it got."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def __call__(self, value: Any) -> Any:
        self.seen.append(value)
        return value


@pytest.fixture(scope="module")
def echo() -> Echo:
    return Echo()


@pytest.fixture(scope="module")
def rig(echo: Echo) -> Iterator[Rig]:
    functions = list(FUNCTIONS.values())
    with Rig(assemble(echo_wat(functions)), {HOST_INTERFACE: [(function, echo) for function in functions]}) as made:
        yield made


def _id(case: Any) -> str:
    return case.name if isinstance(case, Row) else ""


@pytest.mark.parametrize("row", ROWS, ids=_id)
def test_good_values_pass_both_ways(row: Row, rig: Rig, echo: Echo) -> None:
    """Every good value reaches the host normalised, and comes back so."""
    for case in row.good:
        echo.seen.clear()
        back = rig.call(FUNCTIONS[row.name], case.given)
        assert agree(case.expected, back), (case, back)
        assert agree(case.expected, echo.seen[0]), (case, echo.seen)


@pytest.mark.parametrize("row", ROWS, ids=_id)
def test_bad_arguments_are_refused_before_the_call(row: Row, rig: Rig, echo: Echo) -> None:
    """Every bad value raises usage.value with its path, and the guest is not entered."""
    echo.seen.clear()
    for case in row.bad:
        with pytest.raises(UsageError) as caught:
            rig.call(FUNCTIONS[row.name], case.given)
        assert caught.value.code == "usage.value"
        assert f"argument 1 (x){case.path}: " in caught.value.message, case
        assert case.words in caught.value.message, case
    assert echo.seen == []


@pytest.mark.parametrize("row", ROWS, ids=_id)
def test_bad_host_results_are_the_capabilitys_fault(row: Row, rig: Rig) -> None:
    """The same bad values as results of a host function raise capability.invalid; nothing leaks or is freed twice."""
    with place_for_one_result() as at:
        plan = HostPlan(FUNCTIONS[row.name])
        for case in row.bad:
            with pytest.raises(CapabilityError) as caught:
                plan.lower(case.given, at, rig.bridge, 1 << 30)
            assert caught.value.code == "capability.invalid"
            assert f"the host's result{case.path}: " in caught.value.message, case
            assert ctypes.string_at(at, VAL_BYTES) == bytes(VAL_BYTES)


@contextmanager
def place_for_one_result() -> Iterator[int]:
    memory = ctypes.create_string_buffer(VAL_BYTES)
    yield ctypes.addressof(memory)


def test_a_bad_host_result_stops_the_guest() -> None:
    """The host's mistake reaches the caller as raised, and the guest as an opaque error."""
    function = FUNCTIONS["string"]
    with (
        Rig(assemble(echo_wat([function])), {HOST_INTERFACE: [(function, lambda _: 5)]}) as alone,
        pytest.raises(CapabilityError, match="expected string, got 5"),
    ):
        alone.call(function, "a")


@pytest.mark.parametrize(
    "row", [row for row in ROWS if row.name in ("string", "list-u8", "list-f32", "list-point", "map")], ids=_id
)
def test_too_large_arguments_name_the_bound(row: Row, rig: Rig) -> None:
    """One byte less than a value needs is refused as limit.payload; exactly enough passes."""
    function = FUNCTIONS[row.name]
    value = next(case.given for case in row.good if len(case.expected))
    _, buffer = rig.export(function)
    rig.call(function, value)
    need = buffer.bytes_in
    assert buffer.bytes_out == need
    assert agree(rig.call(function, value, max_bytes=need), rig.call(function, value))
    with pytest.raises(LimitError, match=f"{need - 1} bytes") as caught:
        rig.call(function, value, max_bytes=need - 1)
    assert caught.value.code == "limit.payload"


def test_the_page_for_users_is_current() -> None:
    """docs/values.md is what the table renders."""
    page = Path(__file__).parents[2] / "docs" / "values.md"
    assert page.read_text() == markdown()


def test_the_table_promises_everything_of_wat() -> None:
    """What this file shows for every row is what the page says of WAT."""
    assert {language for language, _ in (*REFUSED_AT_BUILD, *EXPECTED_DIFFERENCES)} <= set(LANGUAGES) - {"wat"}


def test_the_table_is_valid_wit() -> None:
    """The WIT package of the table has one echo function for each row."""
    text = wit_text()
    assert text.count(": func(") == len(ROWS)
