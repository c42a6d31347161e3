"""How instances live: fresh, pooled and single ones, their lifecycle hooks, re-entry and closing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cloche.app import Host
from cloche.errors import ClocheError, GuestError, UsageError
from cloche.model import State
from cloche.runtime import call as call_module
from cloche.runtime import pool as pool_module
from support.gate_capability import Gate, GateHost
from support.life_plugin import life_component
from support.wat_plugins import BASICS, TRUSTED, events, load, open_host, write_plugin


@pytest.fixture
def host() -> Iterator[Host]:
    with open_host() as made:
        yield made


class Hooks:
    """Records what the guest of `life_plugin` says, and lets a hook refuse."""

    def __init__(self, side: GateHost) -> None:
        self.said: list[int] = []
        self.refused: set[int] = set()
        side.twice = self.twice  # type: ignore[method-assign]

    def twice(self, n: int) -> int:
        self.said.append(n)
        return 1000 if n in self.refused else 0


ASKS = '[capabilities."wasi:config"]\nkeys = ["a", "b"]\n'


def life(gate: Gate, directory: Path, instances: str, more: str = "") -> Host:
    load(gate.host, directory, life_component(), plugin_id="acme/life", instances=instances, more=more)
    return gate.host


def test_fresh_instances_share_nothing(host: Host, tmp_path: Path) -> None:
    """Nothing that a call leaves behind is there for the next call of a `per-call` plugin."""
    point = load(host, tmp_path, BASICS, plugin_id="acme/fresh")[""]
    assert [point.next() for _ in range(5)] == [1] * 5
    assert point._backend.pool.made == 5  # type: ignore[attr-defined]


def test_pooled_instances_are_used_again_until_they_are_worn(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pooled instance serves exactly as many calls as allowed and is then replaced."""
    monkeypatch.setattr(pool_module, "RECYCLE_CALLS", 3)
    point = load(host, tmp_path, BASICS, plugin_id="acme/pooled", instances="pooled")[""]
    assert [point.next() for _ in range(7)] == [1, 2, 3, 1, 2, 3, 1]
    assert point._backend.pool.made == 3  # type: ignore[attr-defined]


def test_pooled_instances_are_replaced_by_bytes(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An instance that returned as many bytes as allowed is replaced, because guests leak what they return."""
    monkeypatch.setattr(pool_module, "RECYCLE_BYTES", 2 * 1008)
    point = load(host, tmp_path, BASICS, plugin_id="acme/bytes", instances="pooled")[""]
    for _ in range(4):
        point.give(1000)
    assert point._backend.pool.made == 2  # type: ignore[attr-defined]


def test_a_poisoned_instance_is_never_used_again(host: Host, tmp_path: Path) -> None:
    """After a trap the next call of a pooled plugin begins from nothing (H14)."""
    point = load(host, tmp_path, BASICS, plugin_id="acme/poison", instances="pooled")[""]
    assert [point.next(), point.next()] == [1, 2]
    with pytest.raises(ClocheError):
        point.unreachable()
    assert point.next() == 1


def test_a_callers_mistake_costs_no_instance(host: Host, tmp_path: Path) -> None:
    """Wrong arguments are refused before the guest is entered: a pooled instance keeps its state."""
    point = load(host, tmp_path, BASICS, plugin_id="acme/mistake", instances="pooled")[""]
    assert point.next() == 1
    with pytest.raises(UsageError):
        point.add(1)
    with pytest.raises(UsageError):
        point.add(1, -1)
    assert point.next() == 2


def test_a_single_instance_gets_all_hooks_and_keeps_its_state(gate: Gate, side: GateHost, tmp_path: Path) -> None:
    """`initialize` with the settings that it asked for and `start` once before the first call, `stop` at the end."""
    hooks = Hooks(side)
    with Gate(
        side, tmp_path / "x", policy='format-version = 1\n[plugins."*"]\nconfig = { a = "1", b = "2", c = "3" }\n'
    ) as other:
        point = life(other, tmp_path / "p", "single", ASKS).plugin("acme/life")[""]
        assert hooks.said == []
        assert [point.next() for _ in range(3)] == [1, 2, 3]
        assert hooks.said == [2, 100]
        assert other.host.plugin("acme/life").state is State.ACTIVE
        plugin = other.host.plugin("acme/life")
        other.host.unload("acme/life")
        assert hooks.said == [2, 100, 200]
        assert plugin.state is State.STOPPED
        plugin.close()
        assert hooks.said == [2, 100, 200]


@pytest.mark.parametrize(
    ("more", "policy"), [("", ""), (ASKS, 'deny = ["wasi:config"]'), (ASKS, 'allow."wasi:config" = { keys = [] }')]
)
def test_initialize_gets_no_setting_without_a_grant(side: GateHost, tmp_path: Path, more: str, policy: str) -> None:
    """Settings that a plugin did not ask for, or was not granted, reach it no way."""
    hooks = Hooks(side)
    rules = f'format-version = 1\n[plugins."*"]\nconfig = {{ a = "1", b = "2" }}\n{policy}\n'
    with Gate(side, tmp_path / "x", policy=rules) as gate:
        life(gate, tmp_path / "p", "per-call", more).plugin("acme/life")[""].next()
        assert hooks.said == [0]


@pytest.mark.parametrize("instances", ["per-call", "pooled"])
def test_other_instances_get_initialize_only(gate: Gate, side: GateHost, tmp_path: Path, instances: str) -> None:
    """Each fresh or pooled instance is initialized, and neither started nor stopped."""
    hooks = Hooks(side)
    point = life(gate, tmp_path / "p", instances).plugin("acme/life")[""]
    point.next()
    point.next()
    gate.host.unload("acme/life")
    assert hooks.said == ([0, 0] if instances == "per-call" else [0])


def test_a_single_instance_is_restarted_after_a_trap(gate: Gate, side: GateHost, tmp_path: Path) -> None:
    """The next call after a trap finds a new instance, initialized and started, and the restart is reported."""
    hooks = Hooks(side)
    plugin = life(gate, tmp_path / "p", "single").plugin("acme/life")
    point = plugin[""]
    point.next()
    with pytest.raises(ClocheError):
        point.crash()
    assert plugin.state is State.LOADED
    assert point.next() == 1
    assert hooks.said == [0, 100, 0, 100]
    assert len(events(gate.host, "restart")) == 1
    assert [data["event"] for data in events(gate.host, "state")][-5:] == [
        "initialize", "activate", "crash", "initialize", "activate",
    ]  # fmt: skip


@pytest.mark.parametrize("hook", [0, 100])
def test_a_hook_that_refuses_fails_the_call(gate: Gate, side: GateHost, tmp_path: Path, hook: int) -> None:
    """`initialize` or `start` answering with an error is a GuestError; it is tried again, and at last quarantined."""
    hooks = Hooks(side)
    hooks.refused = {hook}
    more = "[limits]\nrestarts = 2\n"
    plugin = life(gate, tmp_path / "p", "single", more).plugin("acme/life")
    for _ in range(3):
        with pytest.raises(GuestError) as caught:
            plugin[""].next()
        assert caught.value.payload.case == "other"
        assert caught.value.usage is not None
        assert plugin.state is State.LOADED
    with pytest.raises(ClocheError) as refused:
        plugin[""].next()
    assert refused.value.code == "limit.restarts"
    assert plugin.state is State.QUARANTINED
    plugin.reset()
    hooks.refused = set()
    assert plugin[""].next() == 1


@pytest.mark.parametrize("instances", ["per-call", "pooled"])
def test_an_instance_that_refuses_to_initialize_takes_no_place(
    gate: Gate, side: GateHost, tmp_path: Path, instances: str
) -> None:
    """However often `initialize` refuses, the plugin serves again once it stops refusing."""
    hooks = Hooks(side)
    hooks.refused = {0}
    point = life(gate, tmp_path / "p", instances).plugin("acme/life")[""]
    for _ in range(10):
        with pytest.raises(GuestError):
            point.next()
    hooks.refused = set()
    assert point.next() == 1


def test_a_stop_that_fails_does_not_keep_the_plugin(gate: Gate, side: GateHost, tmp_path: Path) -> None:
    """A `stop` that traps or refuses is reported, and the plugin is stopped all the same."""
    side.twice = lambda n: 1 / 0 if n == 200 else 0  # type: ignore[method-assign,assignment,return-value]
    plugin = life(gate, tmp_path / "p", "single").plugin("acme/life")
    plugin[""].next()
    gate.host.unload("acme/life")
    assert plugin.state is State.STOPPED
    assert [data["function"] for data in events(gate.host, "backend-error")] == ["stop"]


def test_health_is_the_plugins_own_word(gate: Gate, side: GateHost, tmp_path: Path) -> None:
    """`health` answers with the status that the plugin gives, and None where it exports no lifecycle."""
    hooks = Hooks(side)
    assert life(gate, tmp_path / "p", "single").plugin("acme/life").health().case == "ok"
    assert hooks.said == [0, 100, 300]
    gate.load()
    assert gate.plugin.health() is None


def test_a_single_plugin_cannot_be_entered_again(gate: Gate, side: GateHost) -> None:
    """A host function that calls its own `single` plugin is refused at once, not after a deadline (H13)."""
    point = gate.load(instances="single")
    caught: list[str] = []

    def again() -> None:
        try:
            point.next()
        except ClocheError as error:
            caught.append(error.code)

    side.action = again
    begun = time.monotonic()
    point.act()
    assert caught == ["usage.re-entry"]
    assert time.monotonic() - begun < 20  # the deadline of a call is 30 s
    assert point.next() == 1


@pytest.mark.parametrize("instances", ["per-call", "pooled"])
def test_another_instance_serves_a_call_back(gate: Gate, side: GateHost, instances: str) -> None:
    """A host function may call its own plugin when another instance can serve it, as deep as there are instances."""
    point = gate.load(instances=instances, more="[limits]\nconcurrency = 1\n")
    side.action = point.next
    with pytest.raises(UsageError) as refused:
        point.act()
    assert refused.value.code == "usage.re-entry"
    gate.host.unload("acme/gated")
    point = gate.load(instances=instances)
    values: list[int] = []
    side.action = lambda: values.append(point.next())
    point.act()
    assert values == [1]


def test_an_instance_refuses_a_second_call(gate: Gate, side: GateHost) -> None:
    """Below the pool an instance itself refuses to be entered while it serves a call, from any thread (H13, H17)."""
    point = gate.load(instances="single")
    pool = point._backend.pool  # type: ignore[attr-defined]
    point.next()
    instance = pool._free[0]
    export = point.next._export
    codes: list[str] = []

    def again() -> None:
        for thread in (None, threading.Thread(target=enter)):
            if thread is None:
                enter()
            else:
                thread.start()
                thread.join()

    def enter() -> None:
        try:
            instance.call(export, (), point._backend.limits)
        except ClocheError as error:
            codes.append(error.code)

    side.action = again
    point.act()
    assert codes == ["usage.re-entry"] * 2
    assert point.next() == 2


def test_closing_waits_for_running_calls(gate: Gate, side: GateHost) -> None:
    """`unload` from another thread returns after the call has; the call gives its value; later calls are refused."""
    point = gate.load(instances="pooled")
    order: list[str] = []

    def run() -> None:
        point.block()
        order.append("call")

    def stop() -> None:
        gate.host.unload("acme/gated")
        order.append("unload")

    running = threading.Thread(target=run)
    running.start()
    side.entered.wait(30)
    closing = threading.Thread(target=stop)
    closing.start()
    while not point._backend.pool._closed:  # type: ignore[attr-defined]
        time.sleep(0.001)
    with pytest.raises(UsageError) as refused:
        point.next()
    assert refused.value.code == "usage.closed"
    side.go.set()
    running.join(30)
    closing.join(30)
    assert order == ["call", "unload"]
    assert side.closed == 1


def test_closing_stops_calls_that_never_end(gate: Gate, side: GateHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that outlives the patience of `close` is stopped, so that a host can always be closed."""
    monkeypatch.setattr(call_module, "CLOSE_TIMEOUT_S", 0.3)
    point = gate.load(instances="pooled")
    codes: list[str] = []
    side.action = side.entered.set

    def run() -> None:
        try:
            point.act_spin()
        except ClocheError as error:
            codes.append(error.code)

    running = threading.Thread(target=run)
    running.start()
    side.entered.wait(30)
    gate.host.unload("acme/gated")
    running.join(30)
    assert codes == ["usage.interrupted"]


def test_a_plugin_cannot_be_closed_from_inside(gate: Gate, side: GateHost) -> None:
    """A host function that unloads its own plugin or closes the host is refused at once; nothing is half closed."""
    point = gate.load(instances="pooled")
    codes: list[str] = []

    def close() -> None:
        attempts: list[Callable[[], None]] = [
            lambda: gate.host.unload("acme/gated"),
            gate.plugin.close,
            gate.host.close,
        ]
        for attempt in attempts:
            try:
                attempt()
            except UsageError as error:
                codes.append(error.code)

    side.action = close
    point.act()
    assert codes == ["usage.re-entry"] * 3
    assert point.next() == 1
    assert gate.host.plugin("acme/gated") is gate.plugin


def test_closed_plugins_and_hosts_refuse(tmp_path: Path) -> None:
    """After closing, calls and loads are `usage.closed`, and closing again does nothing."""
    with open_host() as host:
        plugin = load(host, tmp_path, BASICS, plugin_id="acme/closed", instances="pooled")
        point = plugin[""]
        point.add(1, 2)
        plugin.close()
        plugin.close()
        with pytest.raises(UsageError) as caught:
            point.add(1, 2)
        assert caught.value.code == "usage.closed"
        host.close()
        host.close()
        with pytest.raises(UsageError) as caught:
            host.load(write_plugin(tmp_path, BASICS), trust=TRUSTED)
        assert caught.value.code == "usage.closed"


def test_one_id_is_loaded_once(host: Host, tmp_path: Path) -> None:
    """A second plugin of the same id is refused and leaves the first as it was; after `unload` it may come."""
    first = load(host, tmp_path, BASICS, plugin_id="acme/one")
    with pytest.raises(UsageError, match="acme/one"):
        load(host, tmp_path, BASICS, plugin_id="acme/one")
    assert host.plugin("acme/one") is first
    assert first[""].add(1, 2) == 3
    host.unload("acme/one")
    assert load(host, tmp_path, BASICS, plugin_id="acme/one")[""].add(1, 2) == 3
    with pytest.raises(UsageError, match="acme/two"):
        host.unload("acme/two")


def test_host_objects_are_opened_once_per_instance_and_closed_once(gate: Gate, side: GateHost) -> None:
    """A capability is opened on first use of each instance and closed when that instance ends."""
    point = gate.load()
    point.next()
    assert (side.opened, side.closed) == (0, 0)
    point.many(3)
    point.many(3)
    assert (side.opened, side.closed) == (2, 2)


def test_everything_behind_handles_is_closed_after_a_trap(gate: Gate, side: GateHost) -> None:
    """A guest that opens a thousand things and traps leaves none open, and each was closed exactly once (H9)."""
    point = gate.load(instances="pooled")
    with pytest.raises(ClocheError) as caught:
        point.keep_crash(1000)
    assert caught.value.code == "guest.trap"
    assert [thing.closed for thing in side.things] == [1] * 1000
    point.keep(10)
    gate.host.unload("acme/gated")
    assert [thing.closed for thing in side.things] == [1] * 1010


def test_the_address_of_a_store_is_forgotten_before_it_is_free(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine's table knows no store that is being deleted: another thread's new store may get its address."""
    point = gate.load()
    engine = point._backend._house._engine  # type: ignore[attr-defined]
    lib, known = engine.lib, list[int]()

    class Watching:
        """The library, watched while it deletes stores."""

        def __getattr__(self, name: str) -> object:
            if name == "wasmtime_store_delete":
                known.append(len(engine.instances))
            return getattr(lib, name)

    monkeypatch.setattr(engine, "lib", Watching())
    point.next()
    assert known == [0]


def test_closing_an_instance_is_never_missed(gate: Gate) -> None:
    """`close` while a call is inside takes effect when the call ends, also when it comes at the very last moment."""
    point = gate.load(instances="single")
    point.next()
    instance = point._backend.pool._free[0]  # type: ignore[attr-defined]
    lock, turns = instance._lock, list[int]()

    class Late:
        """The instance's lock, with somebody who closes the instance just after the call gave the lock back."""

        def acquire(self, blocking: bool = True) -> bool:
            return bool(lock.acquire(blocking=blocking))

        def release(self) -> None:
            if not turns:
                turns.append(1)
                instance.close()
                assert not instance.finished
            lock.release()

    instance._lock = Late()
    assert point.next() == 2
    assert instance.finished
    assert point.next() == 1
