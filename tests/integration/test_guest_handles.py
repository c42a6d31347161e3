"""Resources of a guest as handles: constructors, methods, statics, and what keeps an instance alive."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import time
from collections import UserList, deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloche.app import Host
from cloche.engine.instance import Control
from cloche.errors import ClocheError, GuestTrap, LimitError, UsageError
from cloche.model import State
from cloche.runtime import pool as pool_module
from cloche.runtime.plugin import ExtensionPoint
from support.life_plugin import component_of
from support.wat_plugins import fuel_of, load, open_host

WORLD = """package test:counters;
interface counters {
  resource counter {
    constructor(start: u32);
    increment: func() -> u32;
    spin: func();
    found: static func(start: u32) -> counter;
    dropped: static func() -> u32;
  }
  record pair { left: borrow<counter>, right: u32 }
  add: func(counters: list<borrow<counter>>) -> u32;
  add-pair: func(pair: pair) -> u32;
  consume: func(counter: counter) -> u32;
  swap: func(lent: borrow<counter>, moved: counter) -> u32;
  calls: func() -> u32;
  crash: func();
}
world counting { export counters; }
"""

EXPORT = "test:counters/counters#"

CORE = f"""(module
  (import "[export]test:counters/counters" "[resource-new]counter" (func $new (param i32) (result i32)))
  (import "[export]test:counters/counters" "[resource-rep]counter" (func $rep (param i32) (result i32)))
  (import "[export]test:counters/counters" "[resource-drop]counter" (func $drop (param i32)))
  (memory (export "memory") 1)
  (global $top (mut i32) (i32.const 4096))
  (global $next (mut i32) (i32.const 64))
  (global $dropped (mut i32) (i32.const 0))
  (global $calls (mut i32) (i32.const 0))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096))
  (func $make (param i32) (result i32) (local $at i32)
    (local.set $at (global.get $next))
    (global.set $next (i32.add (global.get $next) (i32.const 4)))
    (i32.store (local.get $at) (local.get 0))
    (call $new (local.get $at)))
  (func (export "{EXPORT}[constructor]counter") (param i32) (result i32) (call $make (local.get 0)))
  (func (export "{EXPORT}[static]counter.found") (param i32) (result i32) (call $make (local.get 0)))
  (func (export "{EXPORT}[static]counter.dropped") (result i32) (global.get $dropped))
  (func (export "{EXPORT}[method]counter.increment") (param i32) (result i32)
    (i32.store (local.get 0) (i32.add (i32.load (local.get 0)) (i32.const 1))) (i32.load (local.get 0)))
  (func (export "{EXPORT}[method]counter.spin") (param i32) (loop (br 0)))
  (func (export "{EXPORT}[dtor]counter") (param i32)
    (if (i32.eq (i32.load (local.get 0)) (i32.const 666)) (then unreachable))
    (if (i32.eq (i32.load (local.get 0)) (i32.const 777)) (then (loop (br 0))))
    (global.set $dropped (i32.add (global.get $dropped) (i32.const 1))))
  (func (export "{EXPORT}add") (param i32 i32) (result i32) (local $sum i32)
    (block $done (loop $more
      (br_if $done (i32.eqz (local.get 1)))
      (local.set $sum (i32.add (local.get $sum) (i32.load (i32.load (local.get 0)))))
      (local.set 0 (i32.add (local.get 0) (i32.const 4)))
      (local.set 1 (i32.sub (local.get 1) (i32.const 1)))
      (br $more)))
    (local.get $sum))
  (func (export "{EXPORT}add-pair") (param i32 i32) (result i32) (i32.add (i32.load (local.get 0)) (local.get 1)))
  (func (export "{EXPORT}consume") (param i32) (result i32) (local $value i32)
    (local.set $value (i32.load (call $rep (local.get 0)))) (call $drop (local.get 0)) (local.get $value))
  (func (export "{EXPORT}swap") (param i32 i32) (result i32) (local $value i32)
    (local.set $value (i32.load (call $rep (local.get 1)))) (call $drop (local.get 1)) (local.get $value))
  (func (export "{EXPORT}calls") (result i32)
    (global.set $calls (i32.add (global.get $calls) (i32.const 1))) (global.get $calls))
  (func (export "{EXPORT}crash") unreachable))
"""

MODES = ["per-call", "pooled", "single"]


@pytest.fixture(scope="module")
def component() -> bytes:
    return component_of(CORE, WORLD, {})


@pytest.fixture
def host() -> Iterator[Host]:
    with open_host() as made:
        yield made


@pytest.fixture(params=MODES)
def point(request: pytest.FixtureRequest, host: Host, tmp_path: Path, component: bytes) -> ExtensionPoint:
    """The counters, in each way that instances live."""
    return load(host, tmp_path, component, plugin_id="acme/counters", instances=request.param)["test:counters/counters"]


def test_constructor_methods_and_statics(point: ExtensionPoint) -> None:
    """A resource is made by its name, its methods are on the handle, its statics on the extension point."""
    counter = point.counter(5)
    assert [counter.increment() for _ in range(3)] == [6, 7, 8]
    assert point.counter_found(10).increment() == 11
    assert "increment" in dir(counter)
    assert "open" in repr(counter)
    with pytest.raises(AttributeError, match="no method decrement"):
        counter.decrement()


def test_a_handle_keeps_its_instance(point: ExtensionPoint) -> None:
    """Each handle finds its own state again, whatever other calls happen in between."""
    counters = [point.counter(100 * n) for n in range(10)]
    for turn in range(1, 4):
        assert point.calls() >= 1
        assert [counter.increment() for counter in counters] == [100 * n + turn for n in range(10)]


def test_handles_do_not_use_up_the_places(point: ExtensionPoint) -> None:
    """However many handles are held, other calls need not wait for them (ten times the cores)."""
    held = [point.counter(1) for _ in range(20)]
    assert point.calls.options(deadline=5)() >= 1
    assert len(held) == 20


def test_handles_inside_values_find_their_instance(point: ExtensionPoint) -> None:
    """A handle in a list or a record leads the call to its instance just as well."""
    counter = point.counter(5)
    assert point.add([counter, counter]) == 10
    assert point.add_pair({"left": counter, "right": 3}) == 8


@pytest.mark.parametrize("hold", [deque, tuple, UserList, lambda handles: np.array([*handles, None], object)[:-1]])
def test_any_list_of_handles_finds_its_instance(point: ExtensionPoint, hold: Callable[[list[Any]], Any]) -> None:
    """Whatever is taken as a list leads the call to the instance of the handles in it."""
    counter = point.counter(5)
    assert point.add(hold([counter, counter])) == 10


def test_copying_a_handle_is_refused_cleanly(point: ExtensionPoint, capsys: pytest.CaptureFixture[str]) -> None:
    """A handle cannot be copied; trying leaves no half-made one behind, and the handle as it was."""
    counter = point.counter(5)
    for copied in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="cannot be copied or pickled"):
            copied(counter)
    with pytest.raises(AttributeError):
        counter._secret  # noqa: B018
    gc.collect()
    assert capsys.readouterr().err == ""
    assert counter.increment() == 6


def test_what_is_lent_cannot_move_in_the_same_call(host: Host, tmp_path: Path, component: bytes) -> None:
    """The refusal costs a single plugin nothing: neither its state nor its other handles."""
    plugin = load(host, tmp_path, component, plugin_id="acme/counters", instances="single")
    counters = plugin["test:counters/counters"]
    counter, other = counters.counter(5), counters.counter(1)
    for _ in range(10):
        with pytest.raises(UsageError) as caught:
            counters.swap(counter, counter)
        assert caught.value.code == "usage.value"
    assert counters.swap(counter, other) == 1
    assert counter.increment() == 6
    assert plugin.state is State.ACTIVE


def test_a_moved_handle_is_gone(point: ExtensionPoint) -> None:
    """Handing a handle over as `own` closes it for its former holder."""
    counter = point.counter(5)
    assert point.consume(counter) == 5
    for use in (counter.increment, lambda: point.consume(counter)):
        with pytest.raises(UsageError) as caught:
            use()
        assert caught.value.code == "usage.closed"


def test_a_refused_call_moves_nothing(point: ExtensionPoint) -> None:
    """A call that is refused before the guest is entered leaves an `own` handle with its holder."""
    counter = point.counter(5)
    with pytest.raises(LimitError):
        point.consume.options(payload=1)(counter)
    with pytest.raises(LimitError):
        point.consume.options(fuel=1)(counter)
    assert counter.increment() == 6
    assert point.consume(counter) == 6


@pytest.mark.parametrize("instances", ["pooled", "single"])
def test_a_cancelled_call_enters_no_destructor(host: Host, tmp_path: Path, component: bytes, instances: str) -> None:
    """A call that is cancelled before it begins costs no instance, also where a destructor waits to be run."""
    plugin = load(host, tmp_path, component, plugin_id="acme/counters", instances=instances)
    point = plugin["test:counters/counters"]
    kept = point.counter(1)
    assert point.add([kept]) == 1
    point.counter_found(5).close() if instances == "single" else kept.close()
    control = Control()
    control.cancel()
    with pytest.raises(UsageError) as caught:
        point._backend.invoke(point.calls._export, (), plugin.limits, control)
    assert caught.value.code == "usage.interrupted"
    assert point.counter_dropped() == 1


class Endless(Sequence[object]):
    """Says that it has one item, and gives handles of nothing without end."""

    def __init__(self) -> None:
        self.given = 0

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: Any) -> Any:
        raise AssertionError("read one by one")

    def __iter__(self) -> Iterator[object]:
        while self.given < 10_000_000:
            self.given += 1
            yield None


def test_looking_for_handles_has_an_end(point: ExtensionPoint) -> None:
    """Finding the instance of a call reads no more of its arguments than the call itself would take."""
    given = Endless()
    with pytest.raises(LimitError) as caught:
        point.add.options(payload="64KiB")(given)
    assert caught.value.code == "limit.payload"
    assert given.given < 1_000_000
    with pytest.raises(LimitError) as caught:
        point.add(range(1 << 40))
    assert caught.value.code == "limit.payload"


def test_closed_and_foreign_handles_are_refused(
    point: ExtensionPoint, host: Host, tmp_path: Path, component: bytes
) -> None:
    """A closed handle is `usage.closed`; another plugin's, or a plain number, is `usage.value` with the name."""
    counter = point.counter(1)
    counter.close()
    counter.close()
    with pytest.raises(UsageError) as caught:
        counter.increment()
    assert caught.value.code == "usage.closed"
    other = load(host, tmp_path / "other", component, plugin_id="acme/other")["test:counters/counters"]
    with other.counter(1) as foreign:
        for wrong in (foreign, 7, None, "counter"):
            with pytest.raises(UsageError, match="counter") as caught:
                point.consume(wrong)
            assert caught.value.code == "usage.value"
        assert foreign.increment() == 2


def test_handles_of_two_instances_do_not_mix(host: Host, tmp_path: Path, component: bytes) -> None:
    """Two handles of different instances in one call are refused: neither instance knows the other's."""
    point = load(host, tmp_path, component, plugin_id="acme/mixed")["test:counters/counters"]
    left, right = point.counter(1), point.counter(2)
    with pytest.raises(UsageError, match="another instance"):
        point.add([left, right])
    assert (left.increment(), right.increment()) == (2, 3)


@pytest.mark.parametrize("how", ["close", "with", "garbage"])
def test_dropping_runs_the_guests_destructor(host: Host, tmp_path: Path, component: bytes, how: str) -> None:
    """Closing, leaving `with`, or losing the last reference drops the resource before the instance's next call."""
    point = load(host, tmp_path, component, plugin_id="acme/drop", instances="single")["test:counters/counters"]
    counter = point.counter(1)
    if how == "with":
        with counter:
            pass
    elif how == "close":
        counter.close()
    else:
        del counter
        gc.collect()
    assert point.counter_dropped() == 1


def test_making_an_instance_is_charged_to_its_first_call_only(host: Host, tmp_path: Path) -> None:
    """Further calls with a handle of a `per-call` instance cost what they cost, and their limits are whole."""
    busy = """(func $init (local $n i32) (local.set $n (i32.const 1000))
      (loop $more (br_if $more (local.tee $n (i32.sub (local.get $n) (i32.const 1))))))
    (start $init)
    (global $calls"""
    component = component_of(CORE.replace("(global $calls", busy), WORLD, {})
    point = load(host, tmp_path, component, instances="per-call")["test:counters/counters"]
    first = point.counter.call(5)
    assert fuel_of(first.usage) > 4000
    assert point.counter.options(fuel=fuel_of(first.usage)).call(5).usage.fuel == first.usage.fuel
    for number in (6, 7):
        outcome = point["[method]counter.increment"].options(fuel=1000).call(first.value)
        assert outcome.value == number
        assert fuel_of(outcome.usage) < 100


def test_an_instance_ends_with_its_last_handle(host: Host, tmp_path: Path, component: bytes) -> None:
    """A `per-call` instance that lives on for a handle only is gone once the handle is, at the next call."""
    point = load(host, tmp_path, component, plugin_id="acme/last")["test:counters/counters"]
    pool = point._backend.pool  # type: ignore[attr-defined]
    counters = [point.counter(n) for n in range(3)]
    assert pool.aside == 3
    assert pool.alive == 0
    del counters[0]
    gc.collect()
    point.calls()
    assert pool.aside == 2
    with counters.pop() as last:
        pass
    del last, counters
    gc.collect()
    point.calls()
    assert (pool.aside, pool.alive) == (0, 0)


@pytest.mark.parametrize(("start", "kind", "code"), [(666, GuestTrap, "guest.trap"), (777, LimitError, "limit.fuel")])
def test_a_destructor_that_fails_is_named(
    host: Host, tmp_path: Path, component: bytes, start: int, kind: type[ClocheError], code: str
) -> None:
    """A destructor that traps or never ends is named by the next call of its instance, which is then finished."""
    more = "[limits]\nfuel = 1000000\n"
    point = load(host, tmp_path, component, plugin_id="acme/bad", instances="single", more=more)[
        "test:counters/counters"
    ]
    point.counter(start).close()
    with pytest.raises(kind, match=r"destructor|fuel") as caught:
        point.calls()
    assert caught.value.code == code
    assert caught.value.usage is not None
    assert point.calls() == 1


def test_a_destructor_has_limits_of_its_own(host: Host, tmp_path: Path, component: bytes) -> None:
    """Neither what an earlier call left of its fuel nor that call's deadline counts for it: the plugin's limits do."""
    more = "[limits]\nfuel = 100000000\n"
    plugin = load(host, tmp_path, component, plugin_id="acme/own", instances="single", more=more)
    point = plugin["test:counters/counters"]
    good, bad = point.counter(1), point.counter(777)
    point.calls.options(fuel=fuel_of(point.calls.call().usage))()
    good.close()
    assert point.counter_dropped() == 1
    point.calls.options(deadline=0.2)()
    time.sleep(0.25)
    bad.close()
    with pytest.raises(LimitError) as caught:
        point.calls()
    assert caught.value.code == "limit.fuel"
    assert fuel_of(caught.value.usage) >= 100_000_000


def test_handles_of_a_trapped_instance_are_closed(point: ExtensionPoint) -> None:
    """When a method traps, its instance is gone and so are its handles; others live on."""
    counter = point.counter(1)
    with pytest.raises(LimitError):
        counter.spin.func.options(fuel=10_000)(counter)
    assert not counter.is_open
    with pytest.raises(UsageError) as caught:
        counter.increment()
    assert caught.value.code == "usage.closed"
    assert point.counter(3).increment() == 4


def test_handles_end_with_the_plugin(point: ExtensionPoint, host: Host) -> None:
    """After `unload` a handle is closed and says so; dropping it later touches nothing."""
    counter = point.counter(1)
    host.unload("acme/counters")
    assert not counter.is_open
    with pytest.raises(UsageError) as caught:
        counter.increment()
    assert caught.value.code == "usage.closed"
    counter.close()


def test_one_handle_from_many_threads(point: ExtensionPoint) -> None:
    """Calls with one handle from many threads wait for each other, and each counts once."""
    counter = point.counter(0)
    values: list[int] = []
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(50):
                values.append(counter.increment())
                point.counter(5).increment()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert sorted(values) == list(range(1, 301))
    pool = point._backend.pool  # type: ignore[attr-defined]
    assert pool.alive >= 0


def test_handles_are_bounded(host: Host, tmp_path: Path, component: bytes) -> None:
    """More live handles of one instance than the limit is `limit.handles`."""
    more = "[limits]\nhandles = 3\n"
    point = load(host, tmp_path, component, plugin_id="acme/few", instances="single", more=more)[
        "test:counters/counters"
    ]
    held = [point.counter(n) for n in range(3)]
    with pytest.raises(LimitError) as caught:
        point.counter(4)
    assert caught.value.code == "limit.handles"
    assert not held[0].is_open


@pytest.mark.parametrize("instances", ["per-call", "pooled"])
def test_instances_that_live_on_for_handles_are_bounded(
    host: Host, tmp_path: Path, component: bytes, instances: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each kept handle keeps its instance; when too many do, new ones are refused until some are given up."""
    monkeypatch.setattr(pool_module, "MAX_ASIDE", 3)
    point = load(host, tmp_path, component, instances=instances)["test:counters/counters"]
    kept = [point.counter(number) for number in range(3)]
    with pytest.raises(LimitError, match="close handles first") as refused:
        point.counter(9)
    assert refused.value.code == "limit.handles"
    assert kept[1].increment() == 2
    kept.pop().close()
    assert point.counter(9).increment() == 10
