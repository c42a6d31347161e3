"""One path, many forms of a call: asyncio, threads, builtin objects; and what it costs is the same everywhere."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloche import loading
from cloche.app import Host
from cloche.errors import CapabilityError, ClocheError, GuestError, LimitError, UsageError
from cloche.model import Err, Metering, Ok, Outcome, State, Tier
from cloche.runtime import builtin
from cloche.runtime.plugin import ExtensionPoint
from support.gate_capability import Gate, GateHost
from support.wat_plugins import BASICS, fuel_of, load, open_host

GREETER = """package test:greeting@1.2.0;
/// Greets.
interface greeter {
    /// Greets somebody.
    greet: func(name: string) -> result<string, string>;
    /// Counts its calls.
    next: func() -> u32;
}
"""


@pytest.fixture
def host() -> Iterator[Host]:
    with open_host() as made:
        yield made


def basics(host: Host, directory: Path, **manifest: Any) -> ExtensionPoint:
    return load(host, directory, BASICS, **manifest)[""]


# -- asyncio -----------------------------------------------------------------------------------------------------------


def test_results_and_errors_come_through_asyncio(host: Host, tmp_path: Path) -> None:
    """An awaited call gives the same value, Usage and errors as a blocking one."""
    point = basics(host, tmp_path, instances="pooled")

    async def run() -> None:
        outcome = await point.add.call_async(3, 4)
        assert outcome.value == 7
        assert outcome.usage.fuel == point.add.call(3, 4).usage.fuel
        with pytest.raises(ClocheError) as caught:
            await point.unreachable.call_async()
        assert caught.value.code == "guest.trap"
        assert caught.value.usage is not None
        with pytest.raises(UsageError):
            await point.add.call_async(1)

    asyncio.run(run())


@pytest.mark.parametrize("instances", ["per-call", "pooled", "single"])
def test_many_awaited_calls(host: Host, tmp_path: Path, instances: str) -> None:
    """Twenty calls at once all answer, in the order asked for."""
    point = basics(host, tmp_path, instances=instances)

    async def run() -> list[int]:
        outcomes = await asyncio.gather(*(point.add.call_async(n, 1) for n in range(20)))
        return [outcome.value for outcome in outcomes]

    assert asyncio.run(run()) == list(range(1, 21))


@pytest.mark.parametrize("how", ["cancel", "timeout"])
def test_cancelling_stops_an_endless_loop(gate: Gate, side: GateHost, how: str) -> None:
    """A cancelled or timed-out await stops the guest, raises once its instance is gone, and the next call works."""
    point = gate.load(instances="pooled")
    backend = point._backend

    async def run() -> None:
        side.entered.clear()
        side.action = side.entered.set
        if how == "timeout":
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await point.act_spin.call_async()
        else:
            task = asyncio.create_task(point.act_spin.call_async())
            await asyncio.to_thread(side.entered.wait, 30)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert not backend._house._engine.instances  # type: ignore[attr-defined]
        assert (await point.many.call_async(3)).value == 3

    for _ in range(2):
        asyncio.run(run())


def test_cancelling_a_call_that_waits(gate: Gate, side: GateHost) -> None:
    """A call cancelled before it has an instance never enters the guest, and the one that runs is not touched."""
    point = gate.load(instances="single")

    async def run() -> None:
        busy = asyncio.create_task(point.block.call_async())
        await asyncio.to_thread(side.entered.wait, 30)
        waiting = asyncio.create_task(point.next.call_async())
        while len(point._backend._pending) < 2:  # type: ignore[attr-defined]
            await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        side.go.set()
        await busy
        assert (await point.next.call_async()).value == 1

    asyncio.run(run())


def test_cancelled_calls_do_not_stop_later_ones(host: Host, tmp_path: Path) -> None:
    """Cancelling at any moment of a small call leaves the next calls of the same pooled instance alone."""
    point = basics(host, tmp_path, instances="pooled")

    async def run() -> None:
        for _ in range(100):
            task = asyncio.create_task(point.work.call_async(100_000))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            assert (await point.add.call_async(1, 1)).value == 2

    asyncio.run(run())


# -- cost --------------------------------------------------------------------------------------------------------------


def costs(point: ExtensionPoint, calls: int) -> list[int]:
    found = []
    for turn in range(calls):
        usage = point.echo.call(bytes(turn)).usage
        found.append(fuel_of(usage))
        found.append(fuel_of(point.work.call(1000 + turn).usage))
    return found


def test_the_nth_call_costs_the_same_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeated, in another host, on other threads, with and without the memory probe: the same fuel."""
    seen: list[list[int]] = []
    with open_host() as host:
        seen.append(costs(basics(host, tmp_path, plugin_id="acme/a", instances="pooled"), 40))
        point = basics(host, tmp_path, plugin_id="acme/b", instances="pooled")
        thread = threading.Thread(target=lambda: seen.append(costs(point, 40)))
        thread.start()
        thread.join()
        small = basics(host, tmp_path, plugin_id="acme/c", instances="single")
        before = threading.stack_size(128 * 1024)
        try:
            thread = threading.Thread(target=lambda: seen.append(costs(small, 40)))
            thread.start()
        finally:
            threading.stack_size(before)
        thread.join()
    monkeypatch.setattr(loading, "add_probe", lambda component: None)
    with open_host() as host:
        point = basics(host, tmp_path, plugin_id="acme/a", instances="pooled")
        assert point.add.call(1, 1).usage.peak_memory is None
        host.unload("acme/a")
        seen.append(costs(basics(host, tmp_path, plugin_id="acme/a", instances="pooled"), 40))
    assert len(seen) == 4
    assert all(found == seen[0] for found in seen)


def test_fresh_instances_cost_what_a_first_call_costs(host: Host, tmp_path: Path) -> None:
    """Every call of a `per-call` plugin costs what the first call of a pooled instance costs."""
    fresh = basics(host, tmp_path, plugin_id="acme/fresh")
    pooled = basics(host, tmp_path, plugin_id="acme/pooled", instances="pooled")
    first = pooled.next.call().usage.fuel
    assert {fresh.next.call().usage.fuel for _ in range(10)} == {first}


@pytest.mark.parametrize("metering", list(Metering))
def test_metering_modes(tmp_path: Path, metering: Metering) -> None:
    """Fuel is counted the same with and without epochs, and is None where only the deadline is metered."""
    with open_host(metering=metering) as host:
        point = basics(host, tmp_path, instances="pooled")
        usage = point.work.call(1000).usage
        if metering is Metering.DEADLINE:
            assert (usage.guest_fuel, usage.host_fuel, usage.fuel) == (None, None, None)
        else:
            assert usage.host_fuel == 8
            assert 5008 <= fuel_of(usage) < 5018
            with pytest.raises(LimitError):
                point.spin.options(fuel=1000)()
        if metering is not Metering.FUEL:
            with pytest.raises(LimitError) as caught:
                point.spin.options(deadline=0.05)()
            assert caught.value.code == "limit.deadline"


def test_usage_counts_calls_and_bytes(host: Host, tmp_path: Path) -> None:
    """Usage tells canonical bytes each way, the instance's calls, its memory, and times that are not negative."""
    point = basics(host, tmp_path, instances="pooled")
    first, second = point.echo.call(bytes(100)).usage, point.echo.call(bytes(100)).usage
    assert (first.bytes_in, first.bytes_out) == (108, 108)
    assert (first.instance_calls, second.instance_calls) == (1, 2)
    assert first.peak_memory == 65536
    assert first.wall_ms > 0
    assert first.cpu_ms > 0
    point.grow(10)
    assert point.work.call(100_000).usage.peak_memory == 11 * 65536


# -- the builtin tier --------------------------------------------------------------------------------------------------


class Greeter:
    def __init__(self) -> None:
        self.count = self.closed = 0

    def greet(self, name: str) -> object:
        return Ok(f"Hello, {name}!") if name else Err("who?")

    def next(self) -> int:
        self.count += 1
        return self.count

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def greeting(tmp_path: Path) -> Iterator[Host]:
    (tmp_path / "greeting").mkdir()
    (tmp_path / "greeting" / "greeter.wit").write_text(GREETER)
    with open_host(extension_points=[tmp_path / "greeting"]) as made:
        yield made


def test_a_builtin_behaves_like_a_plugin(greeting: Host) -> None:
    """A Python object serves an extension point: values, `result` as value or GuestError, Usage, asyncio, one close."""
    subject = Greeter()
    plugin = greeting.add_builtin("acme/builtin", {"test:greeting/greeter": subject}, version="2.0.0")
    assert (plugin.id, plugin.version, plugin.tier, plugin.state) == (
        "acme/builtin",
        "2.0.0",
        Tier.BUILTIN,
        State.ACTIVE,
    )
    for name in ("test:greeting/greeter", "test:greeting/greeter@1.2.0"):
        assert plugin[name].greet("Ada") == "Hello, Ada!"
    point = plugin["test:greeting/greeter"]
    with pytest.raises(GuestError) as caught:
        point.greet("")
    assert caught.value.payload == "who?"
    outcome = point.next.call()
    assert outcome.value == 1
    assert outcome.usage.guest_fuel is None
    assert outcome.usage.wall_ms >= 0
    assert asyncio.run(point.next.call_async()).value == 2
    plugin.close()
    plugin.close()
    assert subject.closed == 1
    with pytest.raises(UsageError) as refused:
        point.next()
    assert refused.value.code == "usage.closed"


TWO = """package test:two@1.0.0;
interface first { wait: func(); }
interface second { ping: func() -> u32; }
"""


class Waiting:
    """Serves both interfaces; `wait` lasts until `go`."""

    def __init__(self, trouble: Exception | None = None) -> None:
        self.trouble, self.closed, self.go = trouble, 0, threading.Event()
        self.waiting = threading.Semaphore(0)

    def wait(self) -> None:
        self.waiting.release()
        assert self.go.wait(60)

    def ping(self) -> int:
        return 1

    def close(self) -> None:
        self.closed += 1
        if self.trouble is not None:
            raise self.trouble


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Host]:
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "two.wit").write_text(TWO)
    with open_host(extension_points=[tmp_path / "two"]) as made:
        yield made


def test_an_object_behind_two_points_is_closed_once(two: Host) -> None:
    """One object may serve several extension points, but each of them has one object."""
    both = Waiting()
    two.add_builtin("acme/both", {"test:two/first": both, "test:two/second": both}).close()
    assert both.closed == 1
    with pytest.raises(UsageError, match="twice"):
        two.add_builtin("acme/twice", {"test:two/first": both, "test:two/first@1.0.0": Waiting()})


def test_an_object_that_cannot_be_closed_keeps_no_other_open(two: Host) -> None:
    """What closing raises comes out once, after the other objects were closed; closing again finishes it."""
    bad, good = Waiting(OSError("cannot")), Waiting()
    plugin = two.add_builtin("acme/pair", {"test:two/first": bad, "test:two/second": good})
    with pytest.raises(OSError, match="cannot"):
        plugin.close()
    assert (bad.closed, good.closed) == (1, 1)
    plugin.close()
    assert (bad.closed, good.closed, two.plugins()) == (1, 1, [])


def test_awaited_calls_that_closing_overtakes(two: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that waits for a thread while its plugin is closed is refused; nobody cancelled it."""
    monkeypatch.setattr(builtin, "THREADS", 1)
    subject = Waiting()
    plugin = two.add_builtin("acme/slow", {"test:two/first": subject})
    wait = plugin["test:two/first"].wait

    async def run() -> list[object]:
        running, queued = asyncio.create_task(wait.call_async()), asyncio.create_task(wait.call_async())
        await asyncio.to_thread(subject.waiting.acquire)
        plugin.close()
        subject.go.set()
        return list(await asyncio.gather(running, queued, return_exceptions=True))

    done, refused = asyncio.run(run())
    assert isinstance(done, Outcome)
    assert isinstance(refused, UsageError)
    assert refused.code == "usage.closed"


def test_a_builtin_without_the_function_is_named(greeting: Host) -> None:
    """A function that the object lacks is the embedder's fault and is named; an unknown extension point too."""
    point = greeting.add_builtin("acme/empty", {"test:greeting/greeter": object()})["test:greeting/greeter"]
    with pytest.raises(CapabilityError, match="greet"):
        point.greet("x")
    with pytest.raises(UsageError) as caught:
        greeting.add_builtin("acme/other", {"test:greeting/nothing": object()})
    assert caught.value.code == "usage.not-found"


@pytest.mark.parametrize("name", ["", "acme", "Acme/x", "acme/x/y", "../x"])
def test_builtin_ids_are_ids(greeting: Host, name: str) -> None:
    """A builtin's id follows the same rule as every plugin's."""
    with pytest.raises(UsageError, match="id"):
        greeting.add_builtin(name, {"test:greeting/greeter": Greeter()})


def test_a_builtin_needs_something_to_serve(greeting: Host) -> None:
    """A builtin without any extension point is refused instead of breaking later."""
    with pytest.raises(UsageError):
        greeting.add_builtin("acme/none", {})


USING = """package test:using@1.0.0;
/// Makes things.
interface maker {
    /// A thing.
    resource thing { constructor(value: u32); value: func() -> u32; }
}
/// Takes things.
interface taker {
    use maker.{thing};
    /// Looks at some.
    sum: func(things: list<borrow<thing>>) -> u32;
    /// Takes one over.
    take: func(thing: thing) -> u32;
}
"""


class Thing:
    def __init__(self, value: int) -> None:
        self._value = value

    def value(self) -> int:
        return self._value


class Taker:
    def sum(self, things: list[Thing]) -> int:
        return sum(thing.value() for thing in things)

    def take(self, thing: Thing) -> int:
        return thing.value()


class Maker:
    thing = Thing


def test_a_resource_that_another_interface_uses(tmp_path: Path) -> None:
    """What one object of a builtin hands out, the other one takes: by its handle, or as the object itself."""
    (tmp_path / "using").mkdir()
    (tmp_path / "using" / "using.wit").write_text(USING)
    with open_host(extension_points=[tmp_path / "using"]) as host:
        plugin = host.add_builtin("acme/using", {"test:using/maker": Maker(), "test:using/taker": Taker()})
        thing, taker = plugin["test:using/maker"].thing(5), plugin["test:using/taker"]
        assert taker.sum([thing, Thing(3), thing]) == 13
        assert thing.value() == 5
        assert taker.take(thing) == 5
        with pytest.raises(UsageError) as caught:
            thing.value()
        assert caught.value.code == "usage.closed"


def test_providers_come_in_order(greeting: Host, tmp_path: Path) -> None:
    """`providers` gives every plugin of an extension point by id, however they were added, and no other."""
    for name in ("zeta/a", "acme/b", "acme/a"):
        greeting.add_builtin(name, {"test:greeting/greeter": Greeter()})
    load(greeting, tmp_path / "p", BASICS, plugin_id="acme/unrelated")
    assert [plugin.id for plugin in greeting.providers("test:greeting/greeter")] == ["acme/a", "acme/b", "zeta/a"]
    assert list(greeting.providers("test:greeting/greeter@2.0.0")) == []
