"""Every way in which a guest can be stopped: the exact error, its usage, and that the next call works."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloche.app import Host
from cloche.engine.traps import parse_trap
from cloche.errors import ClocheError, GuestTrap, LimitError
from cloche.model import MIB, Tier
from cloche.observe.events import EventKind
from cloche.runtime.plugin import ExtensionPoint
from support.wat_plugins import BASICS, START, load, open_host, shared_home, write_plugin

LEAST, MINUS_ONE = -(2**31), -1

# function, arguments, options, class, code, kind of trap
TRAPS: list[tuple[str, tuple[Any, ...], dict[str, Any], type[ClocheError], str, str | None]] = [
    ("unreachable", (), {}, GuestTrap, "guest.trap", "unreachable"),
    ("out_of_bounds", (), {}, GuestTrap, "guest.trap", "out-of-bounds"),
    ("table_out_of_bounds", (), {}, GuestTrap, "guest.trap", "table-out-of-bounds"),
    ("undefined_element", (), {}, GuestTrap, "guest.trap", "table-out-of-bounds"),
    ("null_element", (), {}, GuestTrap, "guest.trap", "null-reference"),
    ("wrong_type", (), {}, GuestTrap, "guest.trap", "indirect-call-type"),
    ("divide", (1, 0), {}, GuestTrap, "guest.trap", "divide-by-zero"),
    ("divide", (LEAST, MINUS_ONE), {}, GuestTrap, "guest.trap", "integer-overflow"),
    ("convert", (float("nan"),), {}, GuestTrap, "guest.trap", "invalid-conversion"),
    ("convert", (1e30,), {}, GuestTrap, "guest.trap", "integer-overflow"),
    ("bad_text", (), {}, GuestTrap, "guest.invalid-value", "invalid-value"),
    ("recurse", (), {}, LimitError, "limit.stack", None),
    ("spin", (), {"fuel": 100_000}, LimitError, "limit.fuel", None),
    ("spin", (), {"deadline": 0.05}, LimitError, "limit.deadline", None),
    ("eat", (), {}, LimitError, "limit.memory", None),
]

STARTS: list[tuple[str, int, str, type[ClocheError], str]] = [
    ("unreachable", 1, "", GuestTrap, "guest.trap"),
    ("(loop (br 0))", 1, "fuel = 100000", LimitError, "limit.fuel"),
    ("(loop (br 0))", 1, 'deadline = "50ms"', LimitError, "limit.deadline"),
    ("(loop (br_if 0 (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable", 1, "", LimitError,
     "limit.memory"),
]  # fmt: skip

EXIT = """
(component
  (import "wasi:cli/exit@0.2.0" (instance $exit (export "exit" (func (param "status" (result))))))
  (core func $quit (canon lower (func $exit "exit")))
  (core module $m (import "h" "exit" (func $exit (param i32)))
    (func (export "leave") (param i32) (call $exit (local.get 0)))
    (func (export "answer") (result i32) (i32.const 42)))
  (core instance $i (instantiate $m (with "h" (instance (export "exit" (func $quit))))))
  (func (export "leave") (param "bad" bool) (canon lift (core func $i "leave")))
  (func (export "answer") (result u32) (canon lift (core func $i "answer"))))
"""


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with open_host() as made:
        yield made


@pytest.fixture(scope="module", params=["per-call", "pooled", "single"])
def basics(request: pytest.FixtureRequest, host: Host, tmp_path_factory: pytest.TempPathFactory) -> ExtensionPoint:
    """The basics in each way that instances live."""
    directory = tmp_path_factory.mktemp("plugin")
    more = '[limits]\nmemory = "16MiB"\n'
    plugin_id = f"acme/{request.param}"
    return load(host, directory, BASICS, plugin_id=plugin_id, instances=request.param, more=more)[""]


def ensure_clean(error: ClocheError) -> None:
    """No path of this machine and no address stands in what the embedder may show to anybody."""
    for text in (str(error), str(getattr(error, "backtrace", "")), repr(error.to_json())):
        assert str(shared_home()) not in text
        assert str(Path.home()) not in text
        assert "/tmp" not in text
        assert "site-packages" not in text


@pytest.mark.parametrize(("function", "arguments", "options", "kind", "code", "trap"), TRAPS)
def test_each_trap_is_named(
    host: Host,
    basics: ExtensionPoint,
    function: str,
    arguments: tuple[Any, ...],
    options: dict[str, Any],
    kind: type[ClocheError],
    code: str,
    trap: str | None,
) -> None:
    """A trap gives its class, code and kind, what the call has cost, one event, and a working next call."""
    basics._backend.reset()
    before = len(host.events.recent())
    with pytest.raises(kind) as caught:
        basics[function].options(**options)(*arguments)
    error = caught.value
    assert (type(error), error.code, getattr(error, "kind", None)) == (kind, code, trap)
    assert error.usage is not None
    assert error.usage.guest_fuel is not None
    assert error.usage.wall_ms > 0
    assert error.usage.instance_calls >= 1
    assert error.plugin is not None
    ensure_clean(error)
    told = [event for event in host.events.recent()[before:] if event.data.get("code") == code]
    assert len(told) == 1
    assert basics.add(3, 4) == 7


@pytest.mark.parametrize(("body", "pages", "limits", "kind", "code"), STARTS)
def test_a_start_function_is_under_the_same_limits(
    host: Host, tmp_path: Path, body: str, pages: int, limits: str, kind: type[ClocheError], code: str
) -> None:
    """Code that runs while an instance is made is stopped, named, metered and reported like a call."""
    more = f'[limits]\nmemory = "16MiB"\n{limits}\n'
    before = len(host.events.recent())
    plugin = load(host, tmp_path, START.format(body=body, pages=pages), plugin_id="acme/start", more=more)
    with pytest.raises(kind) as caught:
        plugin[""].answer()
    host.unload("acme/start")
    assert (type(caught.value), caught.value.code) == (kind, code)
    assert caught.value.usage is not None
    assert caught.value.usage.guest_fuel is not None
    assert caught.value.plugin == "acme/start"
    ensure_clean(caught.value)
    assert [event.data["code"] for event in host.events.recent()[before:] if "code" in event.data] == [code]


def test_a_memory_that_begins_too_large_is_refused_at_load(host: Host, tmp_path: Path) -> None:
    """A component whose memories do not fit as they begin is not even compiled: `limit.memory` names both numbers."""
    with pytest.raises(LimitError, match=str(17 * MIB)) as caught:
        load(host, tmp_path, START.format(body="", pages=17 * 16), more='[limits]\nmemory = "16MiB"\n')
    assert caught.value.code == "limit.memory"


@pytest.mark.parametrize(("bad", "status"), [(False, 0), (True, 1)])
def test_exit_ends_the_instance_and_not_the_host(host: Host, tmp_path: Path, bad: bool, status: int) -> None:
    """`exit` in a guest is `guest.exit` with its status, also when the status says success."""
    plugin = load(host, tmp_path, EXIT, plugin_id=f"acme/exit-{status}", instances="pooled")
    with pytest.raises(GuestTrap) as caught:
        plugin[""].leave(bad)
    assert (caught.value.code, caught.value.kind) == ("guest.exit", "exit")
    assert caught.value.exit_status_of_guest == status
    assert caught.value.usage is not None
    ensure_clean(caught.value)
    assert plugin[""].answer() == 42


def test_a_trap_is_not_taken_for_a_lack_of_memory(host: Host, tmp_path: Path) -> None:
    """A guest that traps far below its limit did not run out of memory, and its peak is told."""
    plugin = load(host, tmp_path, BASICS, plugin_id="acme/small", instances="pooled", more='[limits]\nmemory="16MiB"\n')
    assert plugin[""].grow(63) == 1
    with pytest.raises(GuestTrap) as caught:
        plugin[""].unreachable()
    assert caught.value.usage is not None
    assert caught.value.usage.peak_memory == 4 * MIB


def test_several_memories_share_the_limit(host: Host, tmp_path: Path) -> None:
    """Twenty memories and their tables stay inside one limit together; half-full ones are no lack of memory (H6)."""
    modules = "".join(
        f'(core module $m{n} (memory (export "memory") 1) (table (export "table") 1 funcref)'
        f' (func (export "grow") (result i32) (local i32)'
        f" (loop $more (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))"
        f' (memory.size)) (func (export "half") (drop (memory.grow (i32.const 7))) unreachable)'
        f' (func (export "widen") (result i32) (table.grow (ref.null func) (i32.const 10000000))))'
        f"(core instance $i{n} (instantiate $m{n}))"
        f'(func (export "grow{n}") (result u32) (canon lift (core func $i{n} "grow")))'
        f'(func (export "half{n}") (canon lift (core func $i{n} "half")))'
        f'(func (export "widen{n}") (result s32) (canon lift (core func $i{n} "widen")))'
        for n in range(20)
    )
    more = '[limits]\nmemory = "32MiB"\n'
    plugin = load(host, tmp_path, f"(component {modules})", plugin_id="acme/many", instances="pooled", more=more)
    point = plugin[""]
    with pytest.raises(GuestTrap):  # each memory may hold 1.6 MiB: half of that is far from the limit
        point.half0()
    assert [point[f"widen{n}"]() for n in range(20)] == [-1] * 20
    pages = [point[f"grow{n}"]() for n in range(20)]
    assert 16 * MIB < sum(pages) * 65536 <= 32 * MIB


def test_usage_says_how_far_fuel_went(host: Host, tmp_path: Path) -> None:
    """A call that runs out of fuel has used exactly its limit; the same call within the limit costs the same again."""
    point = load(host, tmp_path, BASICS, plugin_id="acme/fuel")[""]
    with pytest.raises(LimitError) as caught:
        point.spin.options(fuel=50_000)()
    assert caught.value.usage is not None
    assert caught.value.usage.fuel == 50_000


def test_unknown_text_of_the_engine_is_kept() -> None:
    """The classifier invents nothing: text that it does not know has kind `unknown` and stays readable."""
    assert parse_trap("something new") == parse_trap("something new")
    assert (parse_trap("something new").kind, parse_trap("something new").reason) == ("unknown", "something new")


def test_untrusted_plugins_run_elsewhere(host: Host, tmp_path: Path) -> None:
    """Without the operator's or embedder's word nothing of a plugin runs in this process."""
    plugin = host.load(write_plugin(tmp_path, BASICS, plugin_id="acme/nobody"))
    assert plugin.tier is Tier.UNTRUSTED
    (started,) = host.events.recent(kind=EventKind.WORKER)
    assert started.data["pid"] != os.getpid()
    plugin.close()
