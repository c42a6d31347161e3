"""The limits of a call: at the bound it works, one over it does not, and options lower but never raise."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cloche import app
from cloche.app import Host
from cloche.engine.bounds import StoreBounds
from cloche.errors import ClocheError, LimitError, UsageError
from cloche.model import State
from cloche.runtime.plugin import ExtensionPoint, Plugin
from support.gate_capability import Gate, GateHost
from support.wat_plugins import BASICS, fuel_of, load, open_host


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with open_host() as made:
        yield made


@pytest.fixture(scope="module")
def basics(host: Host, tmp_path_factory: pytest.TempPathFactory) -> ExtensionPoint:
    return load(host, tmp_path_factory.mktemp("plugin"), BASICS, plugin_id="acme/limits", instances="pooled")[""]


def code_of(call: Any, *args: Any) -> str:
    """The code with which a call fails."""
    with pytest.raises(ClocheError) as caught:
        call(*args)
    assert caught.value.usage is not None
    return caught.value.code


def state_of(plugin: Plugin) -> State:
    """Its state now; the type checker would take an attribute for constant."""
    return plugin.state


def test_fuel_is_on_the_sum_of_guest_and_host(basics: ExtensionPoint) -> None:
    """Exactly the fuel that a call used is enough for it, host fuel included; one unit less is not."""
    usage = basics.echo.call(bytes(1000)).usage
    assert fuel_of(usage) > usage.bytes_in + usage.bytes_out
    assert usage.host_fuel == usage.bytes_in + usage.bytes_out == 2 * (1000 + 8)
    enough = basics.echo.options(fuel=usage.fuel).call(bytes(1000)).usage
    assert (enough.guest_fuel, enough.host_fuel) == (usage.guest_fuel, usage.host_fuel)
    assert code_of(basics.echo.options(fuel=fuel_of(usage) - 1), bytes(1000)) == "limit.fuel"


def test_arguments_alone_can_exceed_the_fuel(basics: ExtensionPoint) -> None:
    """Arguments that cost more than the whole limit never reach the guest, and the instance lives on."""
    basics.add(1, 1)
    made = basics._backend.pool.made  # type: ignore[attr-defined]
    with pytest.raises(LimitError) as caught:
        basics.size.options(fuel=100)(bytes(1000))
    assert caught.value.code == "limit.fuel"
    usage = caught.value.usage
    assert usage is not None
    assert (usage.guest_fuel, usage.host_fuel, usage.bytes_in, usage.instance_calls) == (0, 1008, 1008, 1)
    assert usage.wall_ms > 0
    assert basics.size(bytes(1000)) == 1000
    assert basics._backend.pool.made == made  # type: ignore[attr-defined]


def test_payload_in_at_the_bound_and_one_over(basics: ExtensionPoint) -> None:
    """Arguments of exactly the payload limit pass; one byte more is refused before the guest sees any."""
    most = basics.size.call(bytes(5000)).usage.bytes_in
    assert basics.size.options(payload=most)(bytes(5000)) == 5000
    assert code_of(basics.size.options(payload=most), bytes(5001)) == "limit.payload"


def test_payload_out_at_the_bound_and_one_over(basics: ExtensionPoint) -> None:
    """A result of exactly the payload limit passes; one byte more is refused."""
    most = basics.give.call(5000).usage.bytes_out
    assert len(basics.give.options(payload=most)(5000)) == 5000
    assert code_of(basics.give.options(payload=most), 5001) == "limit.payload"
    assert len(basics.give(5001)) == 5001


def test_not_even_a_number_comes_out_above_the_payload(basics: ExtensionPoint) -> None:
    """A result of fixed size counts like any other."""
    most = basics.next.call().usage.bytes_out
    assert basics.next.options(payload=most)() > 0
    assert code_of(basics.next.options(payload=most - 1)) == "limit.payload"


def test_options_lower_and_never_raise(host: Host, tmp_path: Path) -> None:
    """An option above the plugin's limit leaves the plugin's limit in force."""
    point = load(host, tmp_path, BASICS, plugin_id="acme/strict", more="[limits]\nfuel = 1000\n")[""]
    assert code_of(point.work.options(fuel=10**9), 1000) == "limit.fuel"
    assert point.work.options(fuel=900)(10) == 0
    assert code_of(point.work.options(fuel=10), 10) == "limit.fuel"
    assert code_of(point.work.options(fuel=10).options(deadline=1), 10) == "limit.fuel"


NUMBERS = ["fuel", "deadline", "payload", "output", "host_calls", "host_bytes"]


@pytest.mark.parametrize("value", [-1, 2**64, "1", True, float("nan"), float("inf"), None, [], "-1", "∞"])
@pytest.mark.parametrize("name", NUMBERS)
def test_odd_numbers_are_no_limits(basics: ExtensionPoint, name: str, value: Any) -> None:
    """What is not a number in range is `limit.range`, for each option, and is never passed on to the engine (H4)."""
    with pytest.raises(LimitError) as caught:
        basics.add.options(**{name: value})
    assert caught.value.code == "limit.range"


@pytest.mark.parametrize("name", ["fuel", "deadline"])
def test_zero_fuel_or_time_is_no_limit(basics: ExtensionPoint, name: str) -> None:
    """No call can be made with nothing, so zero is refused rather than failing each call."""
    with pytest.raises(LimitError) as caught:
        basics.add.options(**{name: 0})
    assert caught.value.code == "limit.range"


def test_unknown_options_are_refused(basics: ExtensionPoint) -> None:
    """A misspelt option is an error that lists the known ones."""
    with pytest.raises(UsageError, match="fuel, deadline, payload"):
        basics.add.options(feul=1)


@pytest.fixture
def gate() -> GateHost:
    return GateHost()


@pytest.fixture
def gated(gate: GateHost, tmp_path: Path) -> Iterator[Gate]:
    with Gate(gate, tmp_path) as made:
        yield made


def test_host_calls_are_counted(gated: Gate) -> None:
    """Exactly as many host calls as allowed pass; one more traps the guest with `limit.host-calls`."""
    point = gated.load()
    usage = point.many.call(7).usage
    assert usage.host_calls == 7
    assert usage.host_fuel == 7 * 1000 + 7 * 8 + 8
    assert point.many.options(host_calls=7)(7) == 7
    assert code_of(point.many.options(host_calls=6), 7) == "limit.host-calls"
    assert point.many(1) == 1


def test_host_call_bytes_are_counted(gated: Gate) -> None:
    """Bytes of all host calls of one call are counted together, both ways."""
    point = gated.load()
    assert point.many.options(host_bytes=7 * 8)(7) == 7
    assert code_of(point.many.options(host_bytes=7 * 8 - 1), 7) == "limit.host-calls"


def test_host_calls_cost_fuel(gated: Gate) -> None:
    """The price of host calls is taken from the guest's fuel while it runs, so a flood of them ends."""
    point = gated.load()
    usage = point.many.call(7).usage
    again = point.many.options(fuel=usage.fuel).call(7).usage
    assert again.fuel == usage.fuel
    with pytest.raises(LimitError) as caught:
        point.many.options(fuel=fuel_of(usage) - 1)(7)
    assert caught.value.code == "limit.fuel"
    with pytest.raises(LimitError) as caught:
        point.many.options(fuel=2500)(7)
    told = caught.value.usage
    assert told is not None
    assert told.host_calls == 3
    assert told.host_fuel == 2 * 1008 + 1000 + 4  # two calls, the price of the third, the argument of `many`
    assert told.host_fuel < fuel_of(told) < told.host_fuel + 200


def test_a_host_call_that_cannot_be_paid_takes_nothing_over(gated: Gate, gate: GateHost) -> None:
    """An owned resource of a call that fails for lack of fuel is still closed, once."""
    point = gated.load()
    usage = point.make_take.call().usage
    assert [thing.closed for thing in gate.taken] == [0]
    with pytest.raises(LimitError) as caught:
        point.make_take.options(fuel=fuel_of(usage) - 4)()
    assert caught.value.code == "limit.fuel"
    assert len(gate.taken) == 1
    assert [thing.closed for thing in gate.things] == [0, 1]


def test_a_full_queue_refuses_and_a_wait_ends_at_its_deadline(gated: Gate, gate: GateHost) -> None:
    """With the only instance busy one caller may wait, until its deadline; the next is refused at once."""
    point = gated.load(instances="single", more="[limits]\nqueue = 1\n")
    backend = point._backend
    busy = threading.Thread(target=point.block)
    busy.start()
    gate.entered.wait(30)
    outcome: list[str] = []
    waiter = threading.Thread(target=lambda: outcome.append(code_of(point.many.options(deadline=1.5), 1)))
    waiter.start()
    while not backend.pool._line:  # type: ignore[attr-defined]
        pass
    assert code_of(point.many, 1) == "limit.queue"
    waiter.join(60)
    assert outcome == ["limit.deadline"]
    gate.go.set()
    busy.join(60)
    assert point.many(1) == 1


def test_a_single_plugin_that_keeps_failing_is_quarantined(gated: Gate) -> None:
    """After its restarts of a minute a `single` plugin is refused and says so, until it is reset."""
    point = gated.load(instances="single", more="[limits]\nrestarts = 2\n")
    plugin = gated.plugin
    for _ in range(3):
        assert code_of(point.crash) == "guest.trap"
    assert state_of(plugin) is State.LOADED
    for _ in range(2):
        assert code_of(point.many, 1) == "limit.restarts"
        assert state_of(plugin) is State.QUARANTINED
    plugin.reset()
    assert point.many(1) == 1
    assert state_of(plugin) is State.ACTIVE


def test_handles_are_bounded(gated: Gate, gate: GateHost) -> None:
    """A guest may keep as many host resources as its limit says; one more ends the call, and each is closed once."""
    point = gated.load(more="[limits]\nhandles = 5\n")
    point.keep(5)
    assert code_of(point.keep, 6) == "limit.handles"
    assert [thing.closed for thing in gate.things] == [1] * 11


@pytest.mark.adversarial
@pytest.mark.parametrize("name", ["memory_bytes", "memories", "tables", "table_elements", "instances"])
def test_the_engine_holds_each_bound_of_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """What a component holds is counted before it is loaded; should that ever be too low, the engine refuses."""

    def planned(*bounds: int) -> StoreBounds:
        return replace(StoreBounds(*bounds), **{name: 0})

    monkeypatch.setattr(app, "StoreBounds", planned)
    with open_host() as host:
        point = load(host, tmp_path, BASICS)[""]
        assert code_of(point.add, 1, 1) == "engine.instantiate"
