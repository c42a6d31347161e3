"""One suite over all tiers: a Python object, a trusted and an untrusted component serve the same extension point.

What is not the same everywhere is tested at the end, and stands in the table of docs/embedding.md.
"""

from __future__ import annotations

import asyncio
import copy
import gc
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloche.errors import CapabilityError, ClocheError, GuestError, GuestTrap, LimitError, ManifestError, UsageError
from cloche.model import Err, Ok, Some, State, Tier
from cloche.observe.events import Event, EventKind
from cloche.runtime.plugin import ExtensionPoint
from cloche.values import Case, same
from support.desk import POINT, TIERS, Counter, Desk, Hall, open_hall
from support.wat_plugins import open_host, write_plugin

COMPONENTS = (Tier.TRUSTED, Tier.UNTRUSTED)


@pytest.fixture(scope="module")
def open_desks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hall]:
    """A hall with a plugin in each tier, for tests that leave them as they are."""
    with open_hall(tmp_path_factory.mktemp("hall")) as made:
        for tier in TIERS:
            made.serve(tier, instances="pooled")
        yield made


@pytest.fixture(scope="module")
def points(open_desks: Hall) -> list[ExtensionPoint]:
    """The extension point in each tier."""
    return [plugin[POINT] for plugin in open_desks.host.providers(POINT)]


@pytest.fixture
def hall(tmp_path: Path) -> Iterator[Hall]:
    """A hall of the test's own."""
    with open_hall(tmp_path) as made:
        yield made


@pytest.fixture(params=TIERS)
def tier(request: pytest.FixtureRequest) -> Tier:
    """Each tier."""
    found: Tier = request.param
    return found


def error_of(call: Callable[..., object], *args: object) -> ClocheError:
    """What a call fails with."""
    with pytest.raises(ClocheError) as caught:
        call(*args)
    return caught.value


def answer_of(point: ExtensionPoint, name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The value with its type and its bytes, or the error, of a call with little payload."""
    try:
        outcome = getattr(point, name).options(payload=1000).call(*args)
    except ClocheError as error:
        is_whole = error.plugin is not None and error.usage is not None
        return type(error), error.code, error.blame, error.message, getattr(error, "payload", None), is_whole
    return type(outcome.value), outcome.value, outcome.usage.bytes_in, outcome.usage.bytes_out


# -- values and errors -------------------------------------------------------------------------------------------------

CALLS: list[tuple[str, tuple[Any, ...]]] = [
    ("number", (7,)),
    ("number", (np.int64(7),)),
    ("number", (300,)),
    ("number", (True,)),
    ("number", (None,)),
    ("number", ()),
    ("number", (1, 2)),
    ("text", ("é",)),
    ("text", ("\ud800",)),
    ("text", (b"x",)),
    ("text", ("x" * 2000,)),
    ("octets", (bytearray(b"ab"),)),
    ("octets", ([1, 2],)),
    ("octets", ([1, 256],)),
    ("octets", (bytes(992),)),
    ("octets", (bytes(993),)),
    ("give", (992,)),
    ("give", (993,)),
    ("numbers", ([1, 2],)),
    ("numbers", (np.arange(3),)),
    ("numbers", ([1, "2"],)),
    ("texts", (("a", "b"),)),
    ("texts", (["a", 5],)),
    ("texts", ({"a"},)),
    ("paint", ("dark-blue",)),
    ("paint", ("green",)),
    ("allow", ({"read"},)),
    ("allow", (["read", "write"],)),
    ("allow", ({"delete"},)),
    ("maybe", (None,)),
    ("maybe", (Some(5),)),
    ("maybe", (-1,)),
    ("move", ({"x": 1, "name": "a"},)),
    ("move", ({"x": 1},)),
    ("move", ({"x": 1, "name": 2},)),
    ("draw", ("dot",)),
    ("draw", (Case("circle", 3),)),
    ("draw", (Case("label", "a"),)),
    ("draw", (Case("label", 3),)),
    ("draw", (Case("square"),)),
    ("pair", ((1, "a"),)),
    ("pair", ((1,),)),
    ("check", (5,)),
    ("check", (0,)),
    ("check", ("5",)),
    ("nothing", ()),
    ("nothing", (1,)),
    ("twice", (4,)),
    ("counter_find", (0,)),
    ("counter_find", ("x",)),
    ("counter", (-1,)),
    ("consume", (5,)),
    ("sum", ([],)),
    ("sum", ([None],)),
]


@pytest.mark.parametrize(("name", "args"), CALLS, ids=[f"{number}-{call[0]}" for number, call in enumerate(CALLS)])
def test_answers_are_the_same(points: list[ExtensionPoint], name: str, args: tuple[Any, ...]) -> None:
    """The same arguments give the same value of the same type for the same bytes, or the same error in the same words.

    Every error names its plugin and has a cost.
    """
    first, *others = [answer_of(point, name, args) for point in points]
    assert first[-1] is not False
    assert all(same(first, other) for other in others), (first, *others)


def test_an_error_value_names_its_plugin(open_desks: Hall) -> None:
    """`GuestError` has the payload, the plugin and the cost."""
    for plugin in open_desks.host.providers(POINT):
        error = error_of(plugin[POINT].check, 0)
        assert isinstance(error, GuestError)
        assert (error.code, error.payload, error.plugin) == ("guest.error", "zero", plugin.id)
        assert str(error) == "check answered with an error: 'zero'"
        assert error.usage is not None


def test_a_result_that_is_none_is_the_plugins_fault(open_desks: Hall) -> None:
    """What is no text is refused on its way out; the next call is served."""
    for plugin in open_desks.host.providers(POINT):
        error = error_of(plugin[POINT].bad_text)
        assert (type(error), error.code, error.plugin) == (GuestTrap, "guest.invalid-value", plugin.id)
        assert plugin[POINT].number(3) == 3


def test_plugins_show_the_same_of_themselves(open_desks: Hall) -> None:
    """Names, functions and versions; all of them serve the extension point, in order of their ids."""
    served = list(open_desks.host.providers(POINT))
    assert [(plugin.id, plugin.tier) for plugin in served] == [(f"acme/{tier}", tier) for tier in sorted(TIERS)]
    for plugin in served:
        assert (plugin.version, plugin.state) == ("1.0.0", State.ACTIVE)
        assert plugin.interfaces() == [f"{POINT}@1.0.0"]
        assert POINT in plugin
        assert plugin.serves(f"{POINT}@1.0.0")
        assert not plugin.serves(f"{POINT}@1.1.0")
        assert plugin.health() is None
        plugin.reset()
        assert dir(plugin[POINT]) == dir(served[0][POINT])
        assert [function.wit for function in plugin[POINT]] == [function.wit for function in served[0][POINT]]
        assert error_of(plugin.__getitem__, "test:tiers/none").code == "usage.not-found"


def test_options_are_the_same(points: list[ExtensionPoint]) -> None:
    """Every option is taken, also by an object that has no such limit, and odd ones are refused in the same words."""
    for point in points:
        careful = point.number.options(
            fuel="1G", deadline="10s", payload="1KiB", output="1KiB", host_calls=5, host_bytes="1KiB"
        )
        assert careful(3) == 3
        for wrong in ({"fuel": "many"}, {"deadline": 0}, {"speed": 3}):
            refused = error_of(lambda wrong=wrong, point=point: point.number.options(**wrong))
            assert refused.message == error_of(lambda wrong=wrong: points[0].number.options(**wrong)).message


SAME_USAGE = ("bytes_in", "bytes_out", "instance_calls", "gpu_memory_peak", "gpu_work")
COMPONENT_USAGE = (*SAME_USAGE, "guest_fuel", "host_fuel", "peak_memory", "host_calls")


def test_usage_is_the_same(hall: Hall) -> None:
    """Exactly, between components; a Python object has no meters, and what it calls is no host call."""
    desks = [hall.point(tier, instances="pooled") for tier in TIERS]
    calls: list[tuple[str, tuple[Any, ...]]] = [
        ("number", (7,)),
        ("octets", (bytes(700),)),
        ("texts", (["a"] * 50,)),
        ("give", (5000,)),
        ("twice", (21,)),
        ("next", ()),
    ]
    for number, (name, args) in enumerate(calls, 1):
        builtin, trusted, untrusted = (desk[name].call(*args).usage for desk in desks)
        for each in SAME_USAGE:
            assert getattr(builtin, each) == getattr(trusted, each), (name, each)
        for each in COMPONENT_USAGE:
            assert getattr(trusted, each) == getattr(untrusted, each), (name, each)
        assert (builtin.fuel, builtin.peak_memory, builtin.host_calls) == (None, None, 0)
        assert trusted.host_calls == (name == "twice")
        assert builtin.instance_calls == number
        assert min(usage.wall_ms for usage in (builtin, trusted, untrusted)) > 0


# -- handles -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def desk(hall: Hall, tier: Tier) -> ExtensionPoint:
    """The extension point in each tier, with one instance that keeps its state."""
    return hall.point(tier, instances="single")


def test_a_handle_is_a_context_manager(desk: ExtensionPoint) -> None:
    """Constructor, methods and statics; what leaves its block is dropped once, and closed for its holder."""
    with desk.counter(5) as counter:
        assert [counter.increment() for _ in range(3)] == [6, 7, 8]
        assert desk["[method]counter.increment"](counter) == 9
        assert "increment" in dir(counter)
        assert repr(counter) == "<counter test:tiers/desk@1.0.0.counter open>"
        with pytest.raises(AttributeError, match="resource counter has no method decrement"):
            counter.decrement()
    assert not counter.is_open
    assert error_of(counter.increment).code == "usage.closed"
    counter.close()
    assert desk.counter_dropped() == 1
    assert desk.counter_find(0) is None
    assert desk.counter_find(3).increment() == 4
    assert desk.counter_find_() == 42


def test_a_lost_handle_is_dropped(desk: ExtensionPoint) -> None:
    """Losing the last reference is as good as closing it."""
    counter = desk.counter(5)
    assert desk.counter_dropped() == 0
    del counter
    gc.collect()
    assert desk.counter_dropped() == 1


def test_what_is_moved_is_gone(desk: ExtensionPoint) -> None:
    """An `own` belongs to the plugin, which drops it; a call that is refused moves nothing."""
    counter, other = desk.counter(5), desk.counter(1)
    assert type(error_of(desk.consume.options(payload=1), counter)) is LimitError
    assert error_of(desk.swap, counter, counter).code == "usage.value"
    assert counter.increment() == 6
    assert desk.consume(counter) == 6
    for use in (counter.increment, lambda: desk.consume(counter), lambda: desk.sum([other, counter])):
        assert error_of(use).code == "usage.closed"
    assert desk.swap(other, desk.counter(9)) == 9
    assert desk.sum([other, other]) == 2
    assert desk.counter_dropped() == 2


def test_only_its_own_handles_are_taken(hall: Hall, tier: Tier, desk: ExtensionPoint) -> None:
    """One of another plugin, of another resource, or none at all is refused, and stays as it was."""
    elsewhere = hall.point(tier, "acme/other", instances="single").counter(1)
    for wrong in (elsewhere, desk.token(), 7, None, "counter", object(), Counter(Desk(hall.gate), 1)):
        error = error_of(desk.consume, wrong)
        assert (type(error), error.code) == (UsageError, "usage.value")
        assert "argument 1 (counter): " in error.message
    assert elsewhere.increment() == 2
    with pytest.raises(TypeError, match="cannot be copied or pickled"):
        copy.copy(elsewhere)


def test_handles_end_with_the_plugin(hall: Hall, tier: Tier, desk: ExtensionPoint) -> None:
    """After `unload` a handle is closed and says so; dropping it later touches nothing."""
    counter = desk.counter(1)
    hall.host.unload(f"acme/{tier}")
    assert not counter.is_open
    assert error_of(counter.increment).code == "usage.closed"
    counter.close()


# -- calls at once -----------------------------------------------------------------------------------------------------


def test_many_threads(points: list[ExtensionPoint]) -> None:
    """Calls from many threads, with handles of their own and with one that all of them have, all count."""
    for point in points:
        shared, values, failures = point.counter(0), [], []  # type: ignore[var-annotated]

        def work(number: int, point: Any = point, shared: Any = shared, values: Any = values) -> None:
            try:
                for turn in range(20):
                    assert point.octets(bytes([number, turn])) == bytes([number, turn])
                    with point.counter(turn) as counter:
                        assert counter.increment() == turn + 1
                    values.append(shared.increment())
            except BaseException as error:
                failures.append(error)  # noqa: B023 - joined before the next turn

        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert failures == []
        assert sorted(values) == list(range(1, 121))
        shared.close()


def test_asyncio(points: list[ExtensionPoint]) -> None:
    """Awaited calls give values, costs and errors, many at once."""

    async def run(point: ExtensionPoint) -> None:
        outcomes = await asyncio.gather(*(point.number.call_async(n) for n in range(20)))
        assert [outcome.value for outcome in outcomes] == list(range(20))
        assert outcomes[0].usage.bytes_in == 1
        with pytest.raises(GuestError):
            await point.check.call_async(0)
        with pytest.raises(UsageError):
            await point.number.call_async(300)
        counter = (await point.counter.call_async(5)).value
        assert (await point["[method]counter.increment"].call_async(counter)).value == 6

    for point in points:
        asyncio.run(run(point))


def test_a_cancelled_call_is_waited_for(hall: Hall, tier: Tier) -> None:
    """It raises `CancelledError` once nothing of it runs any more, the host's own function included."""
    point = hall.point(tier, instances="pooled")

    async def run() -> None:
        task = asyncio.create_task(point.wait.call_async())
        await asyncio.to_thread(hall.gate.entered.wait, 30)
        task.cancel()
        await asyncio.sleep(0.05)
        assert not task.done()
        hall.gate.go.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await point.number.call_async(1)).value == 1

    asyncio.run(run())


def test_a_host_function_may_call_the_plugin(hall: Hall, tier: Tier) -> None:
    """A call back is served by another instance, or by the object."""
    point = hall.point(tier, instances="pooled")
    counted: list[int] = []
    hall.gate.action = lambda: counted.append(point.next())
    point.act()
    assert counted == [1]


# -- the end -----------------------------------------------------------------------------------------------------------


def test_a_closed_plugin_refuses(hall: Hall, tier: Tier) -> None:
    """Every form of a call says that the plugin is closed; its id is free again, and nobody offers it any more."""
    for _ in range(2):
        plugin = hall.serve(tier, instances="pooled")
        point = plugin[POINT]
        assert point.number(1) == 1
        with plugin:
            pass
        plugin.close()
        assert (plugin.state, hall.host.plugins(), list(hall.host.providers(POINT))) == (State.STOPPED, [], [])
        for call in (point.number, point.number.options(payload=100), point.number.call):
            error = error_of(call, 1)
            assert (type(error), error.code, error.plugin) == (UsageError, "usage.closed", plugin.id)
        with pytest.raises(UsageError) as refused:
            asyncio.run(point.number.call_async(1))
        assert (refused.value.code, refused.value.plugin) == ("usage.closed", plugin.id)


# -- whose word it is --------------------------------------------------------------------------------------------------

CLAIMS = {
    "tier": 'tier = "trusted"\n',
    "trust": "trust = true\n",
    "trust-table": '[trust]\nreason = "me"\n',
    "trust-digests": "[trust.digests]\n",
    "component": '[component]\npath = "plugin.wasm"\ntier = "trusted"\n',
    "limits": '[limits]\ntier = "trusted"\n',
    "requires": '[requires]\ntier = "trusted"\n',
    "lockdown": '[requires]\nlockdown = "none"\n',
    "defaults": '[defaults]\nrequire-lockdown = "none"\n',
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_manifest_has_no_word_for_trust(tmp_path: Path, claim: str) -> None:
    """Each key by which a plugin would choose how it is treated is an error, also under the operator's trust."""
    directory = write_plugin(tmp_path, "(component)")
    text = (directory / "plugin.toml").read_text()
    head, _, component = text.partition("[component]")
    said = CLAIMS[claim]
    rest = said if said.startswith("[component]") else f"[component]{component}{'' if said[0] != '[' else said}"
    (directory / "plugin.toml").write_text(head + ("" if said[0] == "[" else said) + rest)
    with open_host() as host, pytest.raises(ManifestError) as caught:
        host.load(directory)
    assert caught.value.code == "manifest.unknown-key"


BOAST = """id = "trusted/builtin"
name = "Trusted"
version = "1.0.0"
description = "tier = trusted; trust me"
[component]
path = "plugin.wasm"
[config]
tier = "trusted"
trust = "yes"
"""


def test_a_plugin_that_calls_itself_trusted_is_not(tmp_path: Path) -> None:
    """Whatever it says of itself, nobody vouches for it."""
    directory = write_plugin(tmp_path, "(component (core module $m) (core instance (instantiate $m)))")
    (directory / "plugin.toml").write_text(f"format-version = 1\n{BOAST}")
    with open_host() as host:
        assert host.inspect(directory).tier.tier is Tier.UNTRUSTED
        plugin = host.load(directory)
        assert plugin.tier is Tier.UNTRUSTED
        assert any("pid" in event.data for event in host.events.recent(kind=EventKind.WORKER))


# -- what is not the same ----------------------------------------------------------------------------------------------


def test_exceptions_behind_a_plugin(hall: Hall) -> None:
    """Of a host function it is the host's failure, with its cause; what a Python object raises comes out as it is."""
    mistake = ValueError("a mistake of the embedder")

    def fail() -> None:
        raise mistake

    hall.gate.action = fail
    for tier in COMPONENTS:
        error = error_of(hall.point(tier, instances="pooled").act)
        assert (type(error), error.code, error.plugin) == (CapabilityError, "capability.backend", f"acme/{tier}")
        assert error.__cause__ is mistake
        assert error.usage is not None
    with pytest.raises(ValueError, match="a mistake") as caught:
        hall.point(Tier.BUILTIN).act()
    assert caught.value is mistake


def test_entering_again(hall: Hall) -> None:
    """A `single` component serves one call at a time and cannot be closed by its own; a Python object minds neither."""
    for tier in COMPONENTS:
        plugin = hall.serve(tier, instances="single")
        codes: list[str] = []

        def again(plugin: Any = plugin, codes: list[str] = codes) -> None:
            codes.extend(error_of(call).code for call in (plugin[POINT].next, plugin.close))

        hall.gate.action = again
        plugin[POINT].act()
        assert codes == ["usage.re-entry"] * 2
        assert plugin[POINT].next() == 1
    plugin = hall.serve(Tier.BUILTIN)
    counted: list[int] = []

    def close() -> None:
        counted.append(plugin[POINT].next())
        plugin.close()

    hall.gate.action = close
    plugin[POINT].act()
    assert (counted, plugin.state) == ([1], State.STOPPED)
    assert hall.desks[plugin.id].closed == 1


def test_calls_beyond_the_concurrency(hall: Hall) -> None:
    """They wait until their deadline for a component's turn; a Python object is called at once."""
    for tier in TIERS:
        point = hall.point(tier, instances="pooled", more="[limits]\nconcurrency = 1\n")
        hall.gate.entered.clear()
        hall.gate.go.clear()
        busy = threading.Thread(target=point.wait)
        busy.start()
        assert hall.gate.entered.wait(30)
        if tier is Tier.BUILTIN:
            assert point.number.options(deadline=0.2)(1) == 1
        else:
            error = error_of(point.number.options(deadline=0.2), 1)
            assert (type(error), error.code, error.plugin) == (LimitError, "limit.deadline", f"acme/{tier}")
        hall.gate.go.set()
        busy.join(30)
        assert point.number(1) == 1


def test_events(tmp_path: Path) -> None:
    """Components tell the same, but for their workers; a Python object makes no events."""
    seen: list[Event] = []

    def fail() -> None:
        raise ValueError

    with open_hall(tmp_path, sinks=[seen.append]) as hall:
        stories = []
        for tier in TIERS:
            point = hall.point(tier, f"acme/{tier}", instances="pooled")
            seen_before = len(seen)
            point.number(1)
            error_of(point.number, 300)
            error_of(point.check, 0)
            hall.gate.action = fail
            if tier is Tier.BUILTIN:
                hall.host.unload(f"acme/{tier}")
                assert [event for event in seen[seen_before:] if event.plugin == "acme/builtin"] == []
                continue
            error_of(point.act)
            error_of(point.bad_text)
            error_of(point.number.options(fuel=1), 1)
            error_of(point.text.options(payload=10), "x" * 20)
            hall.host.unload(f"acme/{tier}")
            story = [event for event in seen if event.plugin == f"acme/{tier}" and event.kind is not EventKind.WORKER]
            assert {event.tier for event in story if event.call_id is not None} == {tier}
            stories.append(
                [
                    (
                        event.kind,
                        event.state,
                        event.version,
                        event.capability,
                        event.call_id is None,
                        sorted(event.data),
                        event.data.get("code"),
                    )
                    for event in story
                ]
            )
        assert stories[0] == stories[1]
        kinds = {kind for kind, *_ in stories[0]}
        assert kinds == {
            EventKind.STATE,
            EventKind.GRANT,
            EventKind.INSTANCE,
            EventKind.CALL,
            EventKind.BACKEND_ERROR,
            EventKind.TRAP,
            EventKind.LIMIT,
        }
        workers = [event.data["event"] for event in seen if event.kind is EventKind.WORKER]
        assert workers == ["worker-started"]


# -- the Python object -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "args", "bad", "words"),
    [
        ("number", (1,), 300, "number: the result: expected u8"),
        ("number", (1,), None, "number: the result: expected u8"),
        ("texts", ([],), ["a", 5], r"texts: the result\[1\]: expected string"),
        ("check", (1,), 5, r"check: the result: expected Ok"),
        ("check", (1,), Ok("x"), r"check: the result\.value: expected u8"),
        ("check", (1,), Err(3), r"check: the result\.value: expected string"),
        ("nothing", (), 5, "nothing: the result: the function has none"),
        ("counter", (1,), 5, "counter: the result: expected a host object"),
    ],
)
def test_an_object_that_returns_something_else(
    points: list[ExtensionPoint],
    name: str,
    args: tuple[Any, ...],
    bad: object,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A value that breaks its type is reported with its path, like a guest's."""
    monkeypatch.setattr(Desk, name, lambda *_: bad)
    with pytest.raises(GuestTrap, match=words) as caught:
        getattr(points[0], name)(*args)
    assert (caught.value.code, caught.value.plugin) == ("guest.invalid-value", "acme/builtin")


def test_an_object_shares_nothing_with_its_caller(open_desks: Hall, points: list[ExtensionPoint]) -> None:
    """What it does to the lists and arrays that it gets is not seen by its caller, nor the other way round."""
    desk = open_desks.desks["acme/builtin"]
    mine, words = np.array([1, 2], np.uint16), ["a"]
    got = points[0].numbers(mine)
    desk.got[0][0] = 7
    said = points[0].texts(words)
    desk.got[0].append("b")
    assert (mine.tolist(), words, got.tolist(), said) == ([1, 2], ["a"], [1, 2], ["a"])


def test_an_object_gets_its_own_objects_back(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind each handle stands the very object that was handed out; it is closed once, however its handle ends."""
    made: list[Counter] = []
    got: list[list[Counter]] = []

    def make(desk: Desk, start: int) -> Counter:
        made.append(Counter(desk, start))
        return made[-1]

    def look(_: Desk, counters: list[Counter]) -> int:
        got.append(counters)
        return 0

    monkeypatch.setattr(Desk, "counter", make)
    monkeypatch.setattr(Desk, "sum", look)
    plugin = hall.serve(Tier.BUILTIN)
    point, desk = plugin[POINT], hall.desks[plugin.id]
    first, second, third = (point.counter(number) for number in range(3))
    point.sum([second, first])
    assert [id(item) for item in got[0]] == [id(made[1]), id(made[0])]
    first.close()
    assert desk.dropped == 0
    point.nothing()
    assert desk.dropped == 1
    point.consume(third)
    assert desk.dropped == 2
    plugin.close()
    assert (desk.dropped, desk.closed) == (3, 1)


def test_what_a_call_hands_out_after_the_end_is_closed(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing does not wait for calls of a Python object; what one of them still returns is not left open."""
    plugin = hall.serve(Tier.BUILTIN)
    point, desk = plugin[POINT], hall.desks[plugin.id]

    def make(desk: Desk, start: int) -> Counter:
        plugin.close()
        return Counter(desk, start)

    monkeypatch.setattr(Desk, "counter", make)
    counter = point.counter(5)
    assert (counter.is_open, desk.dropped, desk.closed) == (False, 1, 1)
    assert error_of(counter.increment).code == "usage.closed"


def test_an_object_that_does_not_close_is_named(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    """What closing one raises comes out of the next call, and keeps nothing else open."""

    def fail(_: Counter) -> None:
        raise OSError("cannot")

    plugin = hall.serve(Tier.BUILTIN)
    point, desk = plugin[POINT], hall.desks[plugin.id]
    kept = point.counter(1)
    monkeypatch.setattr(Counter, "close", fail)
    point.counter(2).close()
    with pytest.raises(OSError, match="cannot"):
        point.nothing()
    point.nothing()
    with pytest.raises(OSError, match="cannot"):
        plugin.close()
    assert (desk.closed, kept.is_open) == (1, False)
