"""The conformance table through plugins in WAT, Python, JavaScript and C, by the public API: all that each can express.

The rows of WAT are in test_codec_conformance.py; here are its handles.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import cloche
from cloche.model import Err, Ok
from cloche.wit.names import snake
from cloche.wit.types import ResultType
from support.cells import CELLS, HANDLE_ROWS, HandleRow
from support.conformance import INTERFACE, ROWS, Row, agree
from support.echo_guests import write_plugin, write_unsupported
from support.guests import build_cache, build_directory, guest_home
from support.toolchains import (
    EXPECTED_DIFFERENCES,
    LANGUAGES,
    REFUSED_AT_BUILD,
    UNSUPPORTED,
    Difference,
    Language,
    Unsupported,
)

SLOW: tuple[Language, ...] = ("python", "js")


def _param(language: Language, *rest: Any, name: str = "") -> Any:
    marks = pytest.mark.slow if language in SLOW else ()
    return pytest.param(language, *rest, marks=marks, id=f"{language}-{name}" if name else language)


def _passing(language: Language) -> tuple[Row, ...]:
    return tuple(row for row in ROWS if language != "wat" and (language, row.name) not in REFUSED_AT_BUILD)


EVERY_ROW = pytest.mark.parametrize(
    ("language", "row"),
    [_param(language, row, name=row.name) for language in LANGUAGES for row in _passing(language)],
)
EVERY_LANGUAGE = pytest.mark.parametrize("language", [_param(language) for language in LANGUAGES])


def new_host() -> cloche.Host:
    """A host that shares built components and native code with the other tests."""
    return cloche.Host(home=guest_home(), tenant="test-toolchains", policy=cloche.Policy())


@pytest.fixture(scope="module")
def host() -> Iterator[cloche.Host]:
    """One host for this file."""
    with new_host() as host:
        yield host


@pytest.fixture(scope="module")
def load(host: cloche.Host, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Language], cloche.Plugin]:
    """Loads the plugin of a language, with every row that it can express."""
    return lambda language: host.load(
        write_plugin(language, tmp_path_factory.mktemp("echo"), _passing(language)), trust=cloche.Trusted("a test")
    )


# A fixture for each language, so that one which cannot be built fails once and not for every row.
@pytest.fixture(scope="module")
def wat_plugin(load: Callable[[Language], cloche.Plugin]) -> cloche.Plugin:
    return load("wat")


@pytest.fixture(scope="module")
def python_plugin(load: Callable[[Language], cloche.Plugin]) -> cloche.Plugin:
    return load("python")


@pytest.fixture(scope="module")
def js_plugin(load: Callable[[Language], cloche.Plugin]) -> cloche.Plugin:
    return load("js")


@pytest.fixture(scope="module")
def c_plugin(load: Callable[[Language], cloche.Plugin]) -> cloche.Plugin:
    return load("c")


@pytest.fixture
def plugin(language: Language, request: pytest.FixtureRequest) -> cloche.Plugin:
    """The plugin of the test's language."""
    chosen: cloche.Plugin = request.getfixturevalue(f"{language}_plugin")
    return chosen


def echo(plugin: cloche.Plugin, row: Row, value: Any) -> Any:
    """What comes back; a result at the top level as Ok or Err."""
    try:
        back = getattr(plugin[INTERFACE], snake(f"echo-{row.name}"))(value)
    except cloche.GuestError as error:
        return Err(error.payload)
    return Ok(back) if isinstance(row.type, ResultType) else back


@EVERY_ROW
def test_good_values_come_back(language: Language, row: Row, plugin: cloche.Plugin) -> None:
    """Every good value comes back normalised, except those that the table names, which come back as it says."""
    found = EXPECTED_DIFFERENCES.get((language, row.name))
    pending = list(found.values) if found else []
    for case in row.good:
        difference = next((each for each in pending if agree(each.given, case.given)), None)
        if difference is None:
            assert agree(case.expected, echo(plugin, row, case.given)), case
        else:
            pending.remove(difference)
            assert_differs(plugin, row, difference)
    assert pending == [], "differences of values that the row does not have"


def assert_differs(plugin: cloche.Plugin, row: Row, difference: Difference) -> None:
    if not difference.code:
        assert agree(difference.back, echo(plugin, row, difference.given)), difference
        return
    with pytest.raises(cloche.ClocheError) as caught:
        echo(plugin, row, difference.given)
    assert caught.value.code == difference.code


@EVERY_ROW
def test_bad_values_are_refused(language: Language, row: Row, plugin: cloche.Plugin) -> None:
    """Every bad value raises usage.value with its path, whatever the plugin is written in."""
    for case in row.bad:
        with pytest.raises(cloche.UsageError) as caught:
            echo(plugin, row, case.given)
        assert caught.value.code == "usage.value"
        assert f"argument 1 (x){case.path}: " in caught.value.message, case
        assert case.words in caught.value.message, case


@EVERY_LANGUAGE
def test_resources_pass_in_every_direction(language: Language, plugin: cloche.Plugin) -> None:
    """A guest's own resource as own, borrow and in lists; an own one that was passed has moved."""
    cells: Any = plugin[CELLS]
    with cells.cell(2**31 - 1) as alone:
        assert alone.get() == 2**31 - 1
        assert cells.read(alone) == 2**31 - 1
        with cells.pass_(alone) as moved:
            assert moved.get() == 2**31 - 1
            with pytest.raises(cloche.UsageError) as caught:
                alone.get()
            assert caught.value.code == "usage.closed"
    assert cells.make_many([]) == []
    many = cells.make_many([1, 2, 3])
    assert [each.get() for each in many] == [1, 2, 3]
    assert cells.sum(many) == 6
    assert cells.sum(many[:1] * 3) == 3
    for each in many:
        each.close()
    with pytest.raises(cloche.UsageError):
        cells.sum(many)
    for bad in (None, 1, "cell", many):
        with pytest.raises(cloche.UsageError):
            cells.read(bad)


@pytest.mark.parametrize(
    ("language", "row"), [_param(language, row, name=row.name) for language in LANGUAGES for row in HANDLE_ROWS]
)
def test_handles_pass_in_every_place(language: Language, row: HandleRow, tmp_path: Path) -> None:
    """A fresh guest takes handles and gives them back inside every kind of type, except where the table says not."""
    found = EXPECTED_DIFFERENCES.get((language, row.name))
    with new_host() as host:
        cells: Any = host.load(write_plugin(language, tmp_path, _passing(language)), trust=cloche.Trusted("a test"))[
            CELLS
        ]
        if found is None:
            assert row.ask(cells) == row.answer
            return
        (difference,) = found.values
        with pytest.raises(cloche.ClocheError) as caught:
            row.ask(cells)
        assert caught.value.code == difference.code


@EVERY_LANGUAGE
def test_owned_handles_move_also_when_the_guest_traps(language: Language, tmp_path: Path) -> None:
    """What went to a guest as `own` in a list has moved, however the call ended."""
    with new_host() as host:
        cells: Any = host.load(write_plugin(language, tmp_path, _passing(language)), trust=cloche.Trusted("a test"))[
            CELLS
        ]
        many = cells.make_many([1, 2, 3])
        with contextlib.suppress(cloche.GuestTrap):
            cells.pass_many(many)
        with pytest.raises(cloche.UsageError) as moved:
            cells.pass_many(many)
        assert moved.value.code == "usage.closed"


@pytest.mark.parametrize(
    ("language", "name"),
    [pytest.param(*key, id="-".join(key), marks=pytest.mark.slow) for key in REFUSED_AT_BUILD],
)
def test_refused_types_fail_the_build(language: Language, name: str, tmp_path: Path) -> None:
    """A type that a toolchain does not have fails the build as component.build with the tool's words."""
    directory = write_plugin(language, tmp_path, [row for row in ROWS if row.name == name])
    with pytest.raises(cloche.ContractError) as caught:
        build_directory(directory, cache=build_cache())
    assert caught.value.code == "component.build"
    assert REFUSED_AT_BUILD[language, name].words in caught.value.message


@pytest.mark.parametrize(
    ("language", "unsupported"),
    [_param(language, each, name=each.wit) for language in LANGUAGES for each in UNSUPPORTED],
)
def test_unsupported_types_are_refused(
    language: Language, unsupported: Unsupported, host: cloche.Host, tmp_path: Path
) -> None:
    """What Cloche cannot carry is refused: by the toolchain at build, or else at load as contract.unsupported."""
    directory = write_unsupported(language, tmp_path, unsupported)
    refusal = unsupported.refusals.get(language)
    with pytest.raises(cloche.ContractError) as caught:
        host.load(directory, trust=cloche.Trusted("a test"))
    assert caught.value.code == ("component.build" if refusal else "contract.unsupported")
    assert refusal is None or refusal.words in caught.value.message


def test_the_tables_name_rows_that_exist() -> None:
    """A renamed row does not leave a stale line behind."""
    names = {row.name for row in ROWS} | {row.name for row in HANDLE_ROWS}
    assert len(names) == len(ROWS) + len(HANDLE_ROWS)
    assert {name for _, name in (*REFUSED_AT_BUILD, *EXPECTED_DIFFERENCES)} <= names
    assert REFUSED_AT_BUILD.keys().isdisjoint(EXPECTED_DIFFERENCES)
