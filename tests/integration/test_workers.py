"""The untrusted tier: plugins in locked-down worker processes that are killed, lie, and start again."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cloche.app import Host
from cloche.capabilities.api import EventKind, Session
from cloche.engine.codec.wire import WirePlan
from cloche.engine.endings import UnreachedError
from cloche.engine.slots import Import, host_slots
from cloche.errors import CapabilityError, ClocheError, EngineError, GrantError, GuestError, LimitError, UsageError
from cloche.grants.policy_file import parse_policy
from cloche.grants.schema import Params
from cloche.model import Limits, Tier, Usage
from cloche.runtime.plugin import ExtensionPoint, Plugin
from cloche.wit.types import Export, Function, FunctionKind, Param, Prim
from cloche.worker import house as house_module
from cloche.worker.channel import Channel, ChannelClosed, lane
from cloche.worker.instance import RemoteInstance, RemoteSettings
from cloche.worker.messages import (
    Call,
    Condition,
    Cost,
    Done,
    Failed,
    HostCall,
    Made,
    Make,
    encode,
    from_host,
    from_worker,
)
from cloche.worker.plain import MARK, PlainExport
from cloche.worker.watch import Watch
from support.gate_capability import GATE_WAT, Gate, GateHost
from support.guests import built, guest_home
from support.life_plugin import component_of
from support.open_schema import open_schema
from support.resource_component import INTERFACE as BUCKETS
from support.resource_component import WAT as RESOURCES
from support.wat_plugins import BASICS, TRUSTED, events, open_host, write_plugin

# -- guests ------------------------------------------------------------------------------------------------------------

IO = """package wasi:io@0.2.0;
interface poll { resource pollable { block: func(); } }
interface error { resource error { } }
interface streams {
  use error.{error};
  variant stream-error { last-operation-failed(error), closed }
  resource output-stream { blocking-write-and-flush: func(contents: list<u8>) -> result<_, stream-error>; }
}
"""

CLI = """package wasi:cli@0.2.0;
interface stdout { use wasi:io/streams@0.2.0.{output-stream}; get-stdout: func() -> output-stream; }
interface exit { exit: func(status: result); }
"""

CLOCKS = """package wasi:clocks@0.2.0;
interface monotonic-clock {
  use wasi:io/poll@0.2.0.{pollable};
  type duration = u64;
  subscribe-duration: func(when: duration) -> pollable;
}
"""

SYSTEM_WORLD = """package test:system;
world system {
  import wasi:cli/stdout@0.2.0;
  import wasi:cli/exit@0.2.0;
  import wasi:clocks/monotonic-clock@0.2.0;
  export print: func(size: u32, turns: u32);
  export leave: func(failed: u32);
  export sleep: func(nanoseconds: u64);
  export answer: func() -> u32;
}
"""

SYSTEM = """(module
  (import "wasi:cli/stdout@0.2.0" "get-stdout" (func $stdout (result i32)))
  (import "wasi:cli/exit@0.2.0" "exit" (func $exit (param i32)))
  (import "wasi:clocks/monotonic-clock@0.2.0" "subscribe-duration" (func $subscribe (param i64) (result i32)))
  (import "wasi:io/poll@0.2.0" "[method]pollable.block" (func $block (param i32)))
  (import "wasi:io/streams@0.2.0" "[method]output-stream.blocking-write-and-flush"
    (func $write (param i32 i32 i32 i32)))
  (memory (export "memory") 1)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 16384))
  (func (export "print") (param $size i32) (param $turns i32) (local $to i32)
    (local.set $to (call $stdout))
    (memory.fill (i32.const 1024) (i32.const 97) (i32.const 4096))
    (block $done (loop $more
      (br_if $done (i32.eqz (local.get $turns)))
      (call $write (local.get $to) (i32.const 1024) (local.get $size) (i32.const 16))
      (local.set $turns (i32.sub (local.get $turns) (i32.const 1)))
      (br $more))))
  (func (export "leave") (param i32) (call $exit (local.get 0)))
  (func (export "sleep") (param i64) (call $block (call $subscribe (local.get 0))))
  (func (export "answer") (result i32) (i32.const 42)))
"""

COUNTING_WORLD = """package test:counters;
interface counters {
  resource counter {
    constructor(start: u32);
    increment: func() -> u32;
    dropped: static func() -> u32;
  }
  consume: func(counter: counter) -> u32;
  crash: func();
}
world counting { export counters; }
"""

EXPORT = "test:counters/counters#"

COUNTING = f"""(module
  (import "[export]test:counters/counters" "[resource-new]counter" (func $new (param i32) (result i32)))
  (import "[export]test:counters/counters" "[resource-rep]counter" (func $rep (param i32) (result i32)))
  (import "[export]test:counters/counters" "[resource-drop]counter" (func $drop (param i32)))
  (memory (export "memory") 1)
  (global $next (mut i32) (i32.const 64))
  (global $dropped (mut i32) (i32.const 0))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096))
  (func (export "{EXPORT}[constructor]counter") (param i32) (result i32) (local $at i32)
    (local.set $at (global.get $next))
    (global.set $next (i32.add (global.get $next) (i32.const 4)))
    (i32.store (local.get $at) (local.get 0))
    (call $new (local.get $at)))
  (func (export "{EXPORT}[static]counter.dropped") (result i32) (global.get $dropped))
  (func (export "{EXPORT}[method]counter.increment") (param i32) (result i32)
    (i32.store (local.get 0) (i32.add (i32.load (local.get 0)) (i32.const 1))) (i32.load (local.get 0)))
  (func (export "{EXPORT}[dtor]counter") (param i32)
    (global.set $dropped (i32.add (global.get $dropped) (i32.const 1))))
  (func (export "{EXPORT}consume") (param i32) (result i32) (local $value i32)
    (local.set $value (i32.load (call $rep (local.get 0)))) (call $drop (local.get 0)) (local.get $value))
  (func (export "{EXPORT}crash") unreachable))
"""

STRICT = '[limits]\nfuel = 50000000\nmemory = "4MiB"\noutput = "10KiB"\n'
PATIENT = "[limits]\nfuel = 9000000000000000000\n"


@pytest.fixture(scope="module")
def system() -> bytes:
    return component_of(SYSTEM, SYSTEM_WORLD, {"io": IO, "cli": CLI, "clocks": CLOCKS})


@pytest.fixture(scope="module")
def counting() -> bytes:
    return component_of(COUNTING, COUNTING_WORLD, {})


@pytest.fixture
def host() -> Iterator[Host]:
    with open_host() as made:
        yield made


def lodge(host: Host, directory: Path, wat: str | bytes, **manifest: Any) -> Plugin:
    """Write a plugin and load it as nobody's friend."""
    return host.load(write_plugin(directory, wat, **manifest))


def pid_of(host: Host) -> int:
    """The worker that was started last."""
    started = [data for data in events(host, EventKind.WORKER) if "pid" in data]
    return int(started[-1]["pid"])


def pids_of(host: Host) -> list[int]:
    return [int(data["pid"]) for data in events(host, EventKind.WORKER) if "pid" in data]


def error_of(call: Callable[..., object], *args: object) -> ClocheError:
    """What a call fails with."""
    with pytest.raises(ClocheError) as caught:
        call(*args)
    return caught.value


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def crash(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)


def until_noticed(pid: int) -> None:
    """The worker is gone, and the thread that waits for it has seen that."""
    until(lambda: not is_alive(pid))
    time.sleep(0.1)


def figures(usage: Usage | None) -> tuple[object, ...]:
    """What must be the same wherever a guest runs."""
    assert usage is not None
    return (
        usage.guest_fuel,
        usage.host_fuel,
        usage.bytes_in,
        usage.bytes_out,
        usage.host_calls,
        usage.peak_memory,
        usage.instance_calls,
    )


# -- the same as in the trusted tier -----------------------------------------------------------------------------------


@pytest.mark.parametrize("instances", ["per-call", "pooled", "single"])
def test_values_and_usage_are_those_of_the_trusted_tier(host: Host, tmp_path: Path, instances: str) -> None:
    """Where the guest runs shows neither in values nor in what a call cost."""
    near = host.load(write_plugin(tmp_path / "a", BASICS, plugin_id="acme/near", instances=instances), trust=TRUSTED)
    far = lodge(host, tmp_path / "b", BASICS, plugin_id="acme/far", instances=instances)
    assert (near.tier, far.tier) == (Tier.TRUSTED, Tier.UNTRUSTED)
    calls: list[tuple[str, tuple[object, ...]]] = [
        ("add", (3, 4)),
        ("next", ()),
        ("next", ()),
        ("work", (1000,)),
        ("echo", (bytes(70_000),)),
        ("give", (5000,)),
    ]
    for name, args in calls:
        here, there = (plugin[""][name].call(*args) for plugin in (near, far))
        assert here.value == there.value
        assert figures(here.usage) == figures(there.usage), name
        assert there.usage.fuel is not None
    assert far[""].echo(bytes(range(256)) * 8192) == bytes(range(256)) * 8192


FAILURES = ["unreachable", "out-of-bounds", "divide", "recurse", "eat", "spin", "bad-text", "add", "echo"]


@pytest.mark.parametrize("name", FAILURES)
def test_failures_are_those_of_the_trusted_tier(host: Host, tmp_path: Path, name: str) -> None:
    """Code, blame and cost are the same, and the call after it works."""
    found = []
    args: dict[str, tuple[object, ...]] = {"divide": (1, 0), "add": (-1, 0), "echo": (bytes(5000),)}
    for trust in (TRUSTED, None):
        directory = write_plugin(tmp_path, BASICS, plugin_id="acme/failing", instances="pooled", more=STRICT)
        plugin = host.load(directory, trust=trust)
        point = plugin[""]
        function = point[name].options(payload=1000) if name == "echo" else point[name]
        error = error_of(function, *args.get(name, ()))
        cost = None if error.usage is None else (error.usage.guest_fuel, error.usage.host_fuel, error.usage.bytes_in)
        found.append((type(error), error.code, error.blame, error.plugin, cost))
        assert point.add(3, 4) == 7
        host.unload(plugin.id)
    assert found[0] == found[1]


@pytest.mark.parametrize("name", ["leave", "print", "spin"])
def test_the_system_is_that_of_the_trusted_tier(host: Host, tmp_path: Path, system: bytes, name: str) -> None:
    """Exit, output that is cut, and a deadline in a loop."""
    found: list[object] = []
    for trust in (TRUSTED, None):
        data: str | bytes = BASICS if name == "spin" else system
        more = PATIENT if name == "spin" else STRICT
        plugin = host.load(write_plugin(tmp_path / name, data, plugin_id="acme/system", more=more), trust=trust)
        point = plugin[""]
        if name == "print":
            point.print(4096, 50)
            told = events(host, "output")[-1]
            found.append((told["dropped_bytes"], told["text"]))
            assert told["dropped_bytes"] == 50 * 4096 - 10 * 1024
        else:
            function = point[name] if name == "leave" else point[name].options(deadline=0.3)
            error = error_of(function, *((1,) if name == "leave" else ()))
            found.append((type(error), error.code, error.blame))
        assert point.add(1, 2) == 3 if name == "spin" else point.answer() == 42
        host.unload(plugin.id)
    assert found[0] == found[1]


def test_a_deadline_ends_a_sleeping_guest(host: Host, tmp_path: Path, system: bytes) -> None:
    """The caller has its answer soon after the deadline, and the plugin goes on."""
    point = lodge(host, tmp_path, system, instances="pooled")[""]
    point.answer()
    begin = time.monotonic()
    error = error_of(point.sleep.options(deadline=1), 60 * 10**9)
    assert time.monotonic() - begin < 1.5
    assert (error.code, type(error)) == ("limit.deadline", LimitError)
    assert point.answer() == 42


def test_a_python_guest_keeps_its_tracebacks(tmp_path: Path) -> None:
    """The exception of a Python guest, its error values, its exit and its resources arrive from a worker as well."""
    with Host(home=guest_home(), tenant="test-workers", policy=parse_policy(b"format-version = 1\n")) as host:
        noop = host.load(built("noop"))
        assert noop.tier is Tier.UNTRUSTED
        assert noop["cloche:noop/scalar"].add(2, 3) == 5
        odd: Any = noop["cloche:noop/misbehave"]
        error: Any = error_of(odd.crash, "boom")
        assert error.code == "guest.trap"
        assert "RuntimeError: boom" in (error.traceback or "")
        failed: Any = error_of(odd.fail, "no")
        assert (type(failed), failed.payload) == (GuestError, "no")
        left: Any = error_of(odd.exit, 3)
        assert (left.code, left.exit_status_of_guest) == ("guest.exit", 1)
        counters: Any = noop["cloche:noop/counters"]
        with counters.counter(5) as kept:
            assert kept.increment(2) == 7
        assert noop["cloche:noop/scalar"].add(2, 3) == 5


# -- host functions ----------------------------------------------------------------------------------------------------


class LodgedGate(Gate):
    """A gate whose guest lives in a worker."""

    def load(self, plugin_id: str = "acme/gated", **manifest: Any) -> ExtensionPoint:
        folder = self._directory / plugin_id.replace("/", "-")
        self.plugin = lodge(self.host, folder, GATE_WAT, plugin_id=plugin_id, **manifest)
        return self.plugin[""]


@pytest.fixture
def gate(side: GateHost, tmp_path: Path) -> Iterator[LodgedGate]:
    with LodgedGate(side, tmp_path) as made:
        yield made


def test_host_functions_are_called_and_counted(gate: LodgedGate, side: GateHost) -> None:
    """As in the trusted tier: arguments, results, the count and the price."""
    said: list[int] = []

    def twice(n: int) -> int:
        said.append(n)
        return 2 * n

    side.twice = twice  # type: ignore[method-assign]
    point = gate.load(instances="pooled")
    usage = point.many.call(7).usage
    assert said == [7] * 7
    assert (usage.host_calls, usage.host_fuel) == (7, 7 * 1000 + 7 * 8 + 8)
    assert point.many.options(host_calls=7)(7) == 7
    assert error_of(point.many.options(host_calls=6), 7).code == "limit.host-calls"
    assert error_of(point.many.options(host_bytes=7 * 8 - 1), 7).code == "limit.host-calls"
    assert point.many(1) == 1


def test_an_exception_of_the_host_is_the_hosts(gate: LodgedGate, side: GateHost) -> None:
    """It ends the call as `CapabilityError` with its cause; the guest learns nothing and is not blamed."""
    mistake = ValueError("a secret of the host")

    def fail() -> None:
        raise mistake

    point = gate.load(instances="pooled")
    assert point.next() == 1
    side.action = fail
    error = error_of(point.act)
    assert isinstance(error, CapabilityError)
    assert error.__cause__ is mistake
    side.action = lambda: None
    point.act()
    assert point.next() == 1
    assert len(pids_of(gate.host)) == 1


def test_a_closed_import_is_denied(side: GateHost, tmp_path: Path) -> None:
    """The function of an interface without a grant is `GrantError`; the host's side is never called."""
    policy = 'format-version = 1\n[plugins."*"]\ndeny = ["test:gate"]\n'
    with LodgedGate(side, tmp_path, policy=policy) as gate:
        point = gate.load(instances="pooled")
        error = error_of(point.act)
        assert (type(error), error.code) == (GrantError, "grant.denied")
        assert "act" in str(error)
        assert point.next() == 1
        assert side.opened == 0


@pytest.mark.parametrize("instances", ["per-call", "pooled", "single"])
def test_host_objects_are_closed_once(gate: LodgedGate, side: GateHost, instances: str) -> None:
    """When the guest drops one, when it gives one back, and when the instance ends in any way."""
    point = gate.load(instances=instances)
    point.make_drop()
    assert [thing.closed for thing in side.things] == [1]
    point.make_take()
    assert side.taken == side.things[1:]
    assert [thing.closed for thing in side.taken] == [0]
    point.keep(3)
    if instances != "per-call":
        assert [thing.closed for thing in side.things[2:]] == [0] * 3
    assert error_of(point.keep_crash, 2).code == "guest.trap"
    assert [thing.closed for thing in side.things] == [1, 0, 1, 1, 1, 1, 1]
    point.keep(1)
    gate.host.unload(gate.plugin.id)
    assert side.things[-1].closed == 1


def test_host_objects_are_closed_after_a_kill(gate: LodgedGate, side: GateHost) -> None:
    """The host's side of a worker that is gone is cleaned up like any other."""
    point = gate.load(instances="single")
    point.keep(4)
    side.action = lambda: crash(pid_of(gate.host))
    assert error_of(point.act).code == "engine.worker-lost"
    assert [thing.closed for thing in side.things] == [1] * 4
    assert point.next() == 1


def test_handles_are_bounded_by_the_host(gate: LodgedGate, side: GateHost) -> None:
    """One more than the limit ends the call, and each is closed once."""
    point = gate.load(more="[limits]\nhandles = 5\n")
    point.keep(5)
    assert error_of(point.keep, 6).code == "limit.handles"
    assert [thing.closed for thing in side.things] == [1] * 11


@dataclass(eq=False)
class Bucket:
    number: int
    closed: int = 0

    def close(self) -> None:
        self.closed += 1


@dataclass
class BucketHost:
    """The host of `support.resource_component`."""

    made: list[Bucket] = field(default_factory=list)
    looked: list[Bucket] = field(default_factory=list)

    def make(self, n: int) -> Bucket:
        self.made.append(Bucket(n))
        return self.made[-1]

    def take(self, b: Bucket) -> int:
        return b.number

    def look(self, a: Bucket) -> int:
        self.looked.append(a)
        return a.number

    def add(self, a: Bucket, b: Bucket) -> int:
        return a.number + b.number

    def close(self) -> None:
        """The instance is gone."""


BUCKETS_WIT = """package test:res;
/// Buckets.
interface host {
    /// A bucket.
    resource bucket { }
    /// A new one.
    make: func(n: u32) -> bucket;
    /// Takes one over.
    take: func(b: bucket) -> u32;
    /// Looks at one.
    look: func(a: borrow<bucket>) -> u32;
    /// Looks at two.
    add: func(a: borrow<bucket>, b: borrow<bucket>) -> u32;
}
"""


class BucketCapability:
    def __init__(self, side: BucketHost, directory: Path) -> None:
        self._side, self._directory = side, directory
        self.schema = open_schema("test:res", "0.0.0", "Buckets", BUCKETS)

    def wit(self) -> Path:
        self._directory.mkdir(parents=True, exist_ok=True)
        (self._directory / "res.wit").write_text(BUCKETS_WIT)
        return self._directory

    def open(self, grant: Params, session: Session) -> Mapping[str, Any]:
        return {BUCKETS: self._side}


def without_counters() -> str:
    """The guest of `support.resource_component` with none of its own resources, which WIT wants inside an interface."""
    head, *lifts = RESOURCES.replace('(export $counter "counter" (type $counterd))', "").split("\n  (func (export ")
    kept = [lift for lift in lifts if "$counter)" not in lift]
    return "\n  (func (export ".join([head, *kept])


@pytest.mark.parametrize("instances", ["per-call", "pooled"])
def test_host_objects_go_both_ways(tmp_path: Path, instances: str) -> None:
    """Lent and given, by the host and by its caller: the same object comes back, and is closed by its last owner."""
    side = BucketHost()
    with open_host(capabilities=[BucketCapability(side, tmp_path / "wit")]) as host:
        point = lodge(host, tmp_path / "plugin", without_counters(), instances=instances)[""]
        assert point.own_sum(4) == 8
        assert [bucket.closed for bucket in side.made] == [1, 1]
        mine, other = Bucket(7), Bucket(8)
        assert point.lend(mine) == 7
        assert side.looked == [mine]
        assert point.sum(mine, other) == 15
        assert error_of(point.own_and_lent, mine, mine).code == "usage.value"
        assert (mine.closed, other.closed) == (0, 0)
        assert point.give(mine) == 7
        assert mine.closed == 0
        point.drop(other)
        assert other.closed == 1
        lost = Bucket(9)
        assert error_of(point.crash, lost).code == "guest.trap"
        assert lost.closed == 1
        fetched = point.fetch(5)
        assert fetched is side.made[-1]
        assert fetched.closed == 0


@pytest.mark.parametrize("instances", ["per-call", "pooled", "single"])
def test_resources_of_the_guest_are_handles(host: Host, tmp_path: Path, counting: bytes, instances: str) -> None:
    """Methods, statics, moving, closing; a killed worker takes them along and says so."""
    point: Any = lodge(host, tmp_path, counting, instances=instances)["test:counters/counters"]
    counter, other = point.counter(5), point.counter(100)
    assert [counter.increment() for _ in range(3)] == [6, 7, 8]
    assert other.increment() == 101
    assert point.consume(counter) == 8
    assert error_of(counter.increment).code == "usage.closed"
    with other:
        assert other.increment() == 102
    assert error_of(other.increment).code == "usage.closed"
    if instances == "single":
        assert point.counter_dropped() == 2
    kept = point.counter(1)
    crash(pid_of(host))
    until_noticed(pid_of(host))
    error = error_of(kept.increment)
    assert error.code in {"usage.closed", "engine.worker-lost"}
    assert point.counter(3).increment() == 4
    with pytest.raises(UsageError):
        kept.increment()


# -- workers that die --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("instances", ["per-call", "pooled", "single"])
def test_a_worker_that_dies_idle_is_replaced(host: Host, tmp_path: Path, instances: str) -> None:
    """The next call does not notice, but that a kept state is gone."""
    point = lodge(host, tmp_path, BASICS, instances=instances)[""]
    point.next()
    first = pid_of(host)
    crash(first)
    until_noticed(first)
    assert point.next() == 1
    assert pid_of(host) != first


@pytest.mark.parametrize("instances", ["per-call", "pooled", "single"])
def test_a_worker_that_dies_in_a_call_fails_it(host: Host, tmp_path: Path, instances: str) -> None:
    """The call is `engine.worker-lost`, soon; the next one works."""
    point = lodge(host, tmp_path, BASICS, instances=instances, more=PATIENT)[""]
    point.next()
    pid = pid_of(host)
    timer = threading.Timer(0.2, crash, [pid])
    timer.start()
    begin = time.monotonic()
    error = error_of(point.spin)
    timer.join()
    assert time.monotonic() - begin < 2
    assert (type(error), error.code, error.plugin) == (EngineError, "engine.worker-lost", "acme/test")
    assert error.usage is not None
    assert point.next() == 1
    assert not is_alive(pid)


def children() -> set[int]:
    """Processes that this one has to reap."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):
            found.update(map(int, (task / "children").read_text().split()))
    return found


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_many_kills_leave_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever it comes, a kill makes calls fail in our own way or not at all, and everything is given back."""
    monkeypatch.setattr(house_module, "BACK_OFF_S", (0.0,))
    before = descriptors(), set(threading.enumerate()), children()
    policy = 'format-version = 1\n[plugins."*".limits]\nrestarts = 10000\n'
    odd: list[BaseException] = []
    codes: set[str] = set()
    served = [0]
    stop = threading.Event()
    with open_host(policy) as host:
        plugin = lodge(host, tmp_path, BASICS, instances="pooled", more="[limits]\nrestarts = 10000\n")
        point = plugin[""]

        def work() -> None:
            while not stop.is_set():
                try:
                    assert point.work(20_000) == 0
                    assert point.echo(b"abc") == b"abc"
                    served[0] += 1
                except ClocheError as error:
                    codes.add(error.code)
                except BaseException as error:
                    odd.append(error)
                    return

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        randomness = random.Random(7)
        for turn in range(20):
            known, before_it = len(pids_of(host)), served[0]
            if turn % 4 == 0:  # on a slow machine a worker might otherwise never get to serve
                until(lambda before_it=before_it: served[0] > before_it or bool(odd), 20)  # type: ignore[misc]
            time.sleep(randomness.random() * 0.15)
            crash(pid_of(host))
            until(lambda known=known: len(pids_of(host)) > known or bool(odd), 20)  # type: ignore[misc]
        stop.set()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
        assert odd == []
        assert codes <= {"engine.worker-lost"}
        assert point.work(10) == 0
        assert served[0] > 0
        pids = set(pids_of(host))
    until(lambda: not pids & children())
    until(lambda: set(threading.enumerate()) <= before[1])
    assert children() <= before[2]
    assert descriptors() <= before[0]


@pytest.mark.parametrize("instances", ["per-call", "pooled"])
def test_a_worker_that_keeps_dying_is_quarantined(tmp_path: Path, instances: str) -> None:
    """The third crash within a minute is one too many, until the plugin is reset."""
    with open_host('format-version = 1\n[plugins."*".limits]\nrestarts = 2\n') as host:
        plugin = lodge(host, tmp_path, BASICS, instances=instances)
        point = plugin[""]
        for _ in range(2):
            crash(pid_of(host))
            until_noticed(pid_of(host))
            assert point.add(1, 1) == 2
        crash(pid_of(host))
        until_noticed(pid_of(host))
        for _ in range(2):
            error = error_of(point.add, 1, 1)
            assert (type(error), error.code) == (LimitError, "limit.restarts")
        plugin.reset()
        assert point.add(1, 1) == 2


def test_a_worker_ends_with_its_plugin_and_its_host(tmp_path: Path) -> None:
    """Unloading ends it, and so does closing the host."""
    with open_host() as host:
        plugin = lodge(host, tmp_path, BASICS, instances="single")
        assert plugin[""].next() == 1
        unloaded = pid_of(host)
        assert is_alive(unloaded)
        host.unload(plugin.id)
        until(lambda: not is_alive(unloaded))
        lodge(host, tmp_path, BASICS, instances="pooled")[""].next()
        closed = pid_of(host)
        assert is_alive(closed)
    until(lambda: not is_alive(closed), 2)


# -- asyncio -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["spin", "sleep"])
def test_cancelling_ends_a_call(host: Host, tmp_path: Path, system: bytes, name: str) -> None:
    """A loop is stopped and a sleeper is killed, soon; the next call works."""
    data: str | bytes = BASICS if name == "spin" else system
    point = lodge(host, tmp_path, data, instances="pooled", more=PATIENT)[""]

    async def run() -> float:
        arguments = () if name == "spin" else (60 * 10**9,)
        task = asyncio.create_task(point[name].call_async(*arguments))
        await asyncio.sleep(0.3)
        assert not task.done()
        begin = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        took = time.monotonic() - begin
        again = await (point.add.call_async(1, 41) if name == "spin" else point.answer.call_async())
        assert again.value == 42
        return took

    assert asyncio.run(run()) < 1.5


# -- confinement -------------------------------------------------------------------------------------------------------

FILES = """format-version = 1
id = "acme/files"
name = "Files"
version = "1.0.0"
instances = "pooled"
[component]
path = "noop.wasm"
[capabilities."wasi:filesystem"]
read = ["input"]
write = ["work"]
"""


def test_mounts_are_all_that_a_worker_reaches(tmp_path: Path) -> None:
    """A read-only mount reads and refuses writes, a read-write one does both, and nothing else is there."""
    for name in ("in", "work", "plugin"):
        (tmp_path / name).mkdir()
    (tmp_path / "in" / "given.txt").write_text("given")
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "in" / "way-out").symlink_to("../secret.txt")
    (tmp_path / "plugin" / "plugin.toml").write_text(FILES)
    (tmp_path / "plugin" / "noop.wasm").write_bytes(built("noop").read_bytes())
    rules = f"""format-version = 1
[plugins."acme/files"]
mounts.input = {{ path = "{tmp_path / "in"}", mode = "ro" }}
mounts.work = {{ path = "{tmp_path / "work"}", mode = "rw" }}
"""
    with Host(home=guest_home(), tenant="test-workers", policy=parse_policy(rules.encode())) as host:
        plugin = host.load(tmp_path / "plugin")
        assert plugin.tier is Tier.UNTRUSTED
        files: Any = plugin["cloche:noop/misbehave"]
        assert files.read_file("/input/given.txt") == b"given"
        assert type(error_of(files.write_file, "/input/new.txt", b"x")) is GuestError
        files.write_file("/work/new.txt", b"made")
        assert files.read_file("/work/new.txt") == b"made"
        assert list(files.list_files("/work")) == ["new.txt"]
        for path in ("/etc/passwd", "/input/../secret.txt", "/input/way-out", "/proc/self/environ"):
            assert type(error_of(files.read_file, path)) is GuestError, path
    assert (tmp_path / "work" / "new.txt").read_bytes() == b"made"
    assert sorted(path.name for path in (tmp_path / "in").iterdir()) == ["given.txt", "way-out"]


def test_a_worker_is_confined(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel says so: no new privileges, a filter, no capabilities; and nothing of our environment is there."""
    monkeypatch.setenv("CLOCHE_TEST_MARKER", "a-secret-of-ours")
    assert lodge(host, tmp_path, BASICS)[""].add(1, 1) == 2
    process = Path(f"/proc/{pid_of(host)}")
    threads = list((process / "task").iterdir())
    assert len(threads) > 2  # the engine's own among them
    for thread in threads:
        lines = (line.partition(":") for line in (thread / "status").read_text().splitlines())
        status = {name: value.strip() for name, _, value in lines}
        assert (status["NoNewPrivs"], status["Seccomp"], int(status["CapEff"], 16)) == ("1", "2", 0)
    environment = (process / "environ").read_bytes()
    assert b"MARKER" not in environment
    assert b"a-secret-of-ours" not in environment
    assert {item.partition(b"=")[0] for item in environment.split(b"\0") if item} <= {
        b"OPENBLAS_NUM_THREADS",
        b"LC_CTYPE",
    }
    opened = [str(link.readlink()) for link in (process / "fd").iterdir()]
    known = ("socket:", "pipe:", "/dev/null", "/memfd:cloche-", f"{process}/maps")
    assert [name for name in opened if not name.startswith(known)] == []


# -- workers that lie --------------------------------------------------------------------------------------------------


class FakeWorker:
    """What `RemoteInstance` uses of a worker, with a script of ours at the other end of each lane."""

    def __init__(self, answers: list[bytes], *, hangs: bool) -> None:
        self.is_usable = True
        self.ran_out_of_memory = False
        self.reason = "a fake"
        self.killed: list[str] = []
        self.watch = Watch(self)
        self._lane, (inward, outward) = lane()
        self._theirs = Channel(inward, outward)
        self._ending = threading.Lock()
        self._thread = threading.Thread(target=self._serve, args=(answers, hangs), daemon=True)
        self._thread.start()

    def borrow_lane(self) -> Channel:
        if not self.is_usable:
            raise ChannelClosed
        return self._lane

    def return_lane(self, lane: Channel) -> None:
        assert lane is self._lane

    def interrupt(self, instance: int) -> None:
        pass

    def kill(self, why: str, *, is_crash: bool = False, over_memory: bool = False) -> None:
        self.is_usable, self.ran_out_of_memory = False, over_memory
        self.killed.append(why)
        self._hang_up()

    def wait(self, timeout_s: float) -> bool:
        return True

    def memory_bytes(self) -> int:
        return 0

    def end(self) -> None:
        self.kill("over")
        self.watch.end()
        self._lane.close()
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _hang_up(self) -> None:
        """The end of all that it says."""
        with self._ending:
            if self._theirs.outward >= 0:
                os.close(self._theirs.outward)
                self._theirs.outward = -1

    def _serve(self, answers: list[bytes], hangs: bool) -> None:
        with suppress(ChannelClosed):
            for answer in answers:
                message = self._theirs.receive(1 << 20)[0]
                assert message[0] == MARK or isinstance(from_host(message), Make | Call)
                self._theirs.write(answer)
            if not hangs:
                self._hang_up()
            while True:
                self._theirs.read()
        self._hang_up()
        self._theirs.close()


ADD = Function("add", FunctionKind.FREE, (Param("a", Prim.U32),), Prim.U32)
SAY = Function("say", FunctionKind.FREE, (Param("text", Prim.STRING),), Prim.STRING)
EXPORTED = Export(None, SAY)
SHORT = Limits(deadline_ms=300)


def remote_settings() -> RemoteSettings:
    imports = (
        Import("test:fake/open", "test:fake", (ADD, SAY), (), False, {}),
        Import("test:fake/closed", "test:closed", (ADD,), (), True, {}),
    )
    slots = tuple(host_slots(imports))
    return RemoteSettings(
        plugin="acme/fake",
        limits=SHORT,
        slots=slots,
        slot_plans=tuple(WirePlan(slot.function) for slot in slots),
        hosts=frozenset(),
        exports={
            (None, "say"): (0, WirePlan(SAY), None),
            (None, "add"): (1, WirePlan(ADD), PlainExport.of(WirePlan(ADD), 1)),
        },
        memory_bytes=1 << 30,
    )


COST = Cost(1, 1, 0.1, 0.1, None, 0, 1, 1, 1)
WELL = Condition(True, False, False, {}, [], 0, 0, 0, 0)
MADE = encode(Made(COST, WELL))


def frame(message: bytes, body: bytes = b"") -> bytes:
    return len(message).to_bytes(4, "little") + len(body).to_bytes(4, "little") + message + body


def wire(text: str) -> bytes:
    """A string on the wire."""
    written = WirePlan(SAY).write_result(text, None, 1 << 20, by_host=True)
    return b"".join(written.segments)


def lies(seed: int) -> bytes:
    """What a worker may say: noise, or a good frame with some bytes changed, cut, doubled or mislabelled."""
    rng = random.Random(seed)
    noted = Condition(True, False, False, {rng.choice([0, 2, 9]): 1}, rng.choice([[], [1], [0]]), 3, 2, 0, 0)
    fail = Failed(
        rng.choice(["guest.trap", "limit.fuel", "engine.lock", "no.code"]),
        "x",
        rng.random() < 0.3,
        None,
        None,
        None,
        None,
        COST,
        WELL,
    )
    good = [
        frame(encode(Done(COST, WELL)), wire("hello")),
        frame(encode(Done(COST, noted)), wire("hello") + b"outer"),
        frame(encode(HostCall(rng.choice([0, 1, 2, 3, 2**31 - 1]), rng.choice([[], [1]]))), rng.randbytes(4)),
        frame(encode(HostCall(1, [])), wire("text")),
        frame(encode(fail)),
        frame(MADE),
    ]
    kind = rng.randrange(7)
    if kind == 0:
        return rng.randbytes(rng.randrange(1, 200))
    if kind == 1:
        return rng.randbytes(8)
    if kind == 2:  # lengths that promise much
        return rng.choice([2**32 - 1, 2**31, 2**20, 1000]).to_bytes(4, "little") * 2 + rng.randbytes(50)
    if kind == 3:  # a message of noise in a frame that is right
        return frame(rng.randbytes(rng.randrange(100)), rng.randbytes(rng.randrange(100)))
    data = bytearray(rng.choice(good))
    for _ in range(rng.randrange(1, 5)):
        at = rng.randrange(len(data))
        match rng.randrange(4):
            case 0:
                data[at] = rng.randrange(256)
            case 1:
                data[at] ^= 1 << rng.randrange(8)
            case 2:
                del data[at:]
            case _:
                data[at:at] = rng.randbytes(rng.randrange(5))
        if not data:
            break
    return bytes(data) + (rng.choice(good) if kind == 6 else b"")


def test_text_that_is_no_utf8_is_no_message() -> None:
    """The decoder's own error for it is another than for everything else."""
    with pytest.raises(msgspec.DecodeError):
        from_worker(b"\x93\x0c\xa2\xc2a\xa1a")


@contextmanager
def bounded_memory() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()


def lied_to(seed: int, *, is_made: bool, hangs: bool) -> str:
    """The code with which a conversation with a liar ends; `ok` where what it said could have been true."""
    return told([frame(MADE), lies(seed)] if is_made else [lies(seed)], EXPORTED, ("hello",), hangs=hangs)


def told(answers: list[bytes], export: Export, args: tuple[object, ...], *, hangs: bool) -> str:
    """The code with which a call ends that is answered so."""
    worker = FakeWorker(answers, hangs=hangs)
    targets = [lambda a: a, lambda text: text, lambda a: a]
    begin = time.monotonic()
    try:
        instance = RemoteInstance(worker, remote_settings(), lambda _: targets)  # type: ignore[arg-type]
        try:
            value, usage = instance.call(export, args, SHORT)
            assert type(value) is type(args[0])
            assert isinstance(usage, Usage)
            return "ok"
        finally:
            instance.close()
    except ClocheError as error:
        return error.code if error.plugin == "acme/fake" else f"{error.code} of {error.plugin}"
    finally:
        assert time.monotonic() - begin < 2.5
        worker.end()


EXPECTED = {
    "ok",
    "engine.worker-protocol",
    "engine.worker-lost",
    "limit.deadline",
    "limit.payload",
    "guest.trap",
    "limit.fuel",
}


@pytest.mark.adversarial
@pytest.mark.parametrize("is_made", [False, True])
def test_a_lying_worker_gets_nowhere(is_made: bool) -> None:
    """300 frames of noise and near-truth: each ends in an error of ours, soon, in little memory."""
    with bounded_memory():
        found = [lied_to(seed, is_made=is_made, hangs=False) for seed in range(150 * is_made, 150 * is_made + 150)]
    assert set(found) <= EXPECTED, set(found) - EXPECTED
    assert found.count("engine.worker-protocol") > 50
    assert found.count("ok") < 30


@pytest.mark.adversarial
def test_a_worker_that_hangs_after_a_lie_is_killed() -> None:
    """What never ends its frame is stopped at the deadline."""
    with bounded_memory():
        found = [lied_to(seed, is_made=True, hangs=True) for seed in range(1000, 1012)]
    assert set(found) <= EXPECTED, set(found) - EXPECTED


LIES = {
    "a closed function": frame(encode(HostCall(2, [])), bytes(4)),
    "a function that there is none": frame(encode(HostCall(3, [])), bytes(4)),
    "an object that is not there": frame(encode(HostCall(0, [5])), bytes(4)),
    "arguments that cannot be read": frame(encode(HostCall(0, [])), bytes(3)),
    "a made instance for an answer": frame(MADE),
    "no text": frame(encode(Done(COST, WELL)), b"\x02\0\0\0\xff\xff"),
    "less output than it says": frame(
        encode(Done(COST, Condition(True, False, False, {}, [], 10**6, 0, 0, 0))), wire("a")
    ),
    "a denial of an open function": frame(
        encode(Done(COST, Condition(True, False, False, {0: 1}, [], 0, 0, 0, 0))), wire("a")
    ),
    "a code of its own": frame(encode(Failed("engine.lock", "x", False, None, None, None, None, COST, WELL))),
    "an answer and more": frame(encode(Done(COST, WELL)), wire("a")) + b"\0",
    "a body beyond all bounds": (4).to_bytes(4, "little") + (2**32 - 1).to_bytes(4, "little"),
    "a message beyond all bounds": (2**32 - 1).to_bytes(4, "little") + bytes(4),
}


@pytest.mark.parametrize("what", LIES)
def test_each_lie_is_the_end_of_its_worker(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """Things that no worker of ours says are `engine.worker-protocol`, at once, and the worker is killed."""
    monkeypatch.setattr(f"{__name__}.lies", lambda _: LIES[what])
    assert lied_to(0, is_made=True, hangs=True) == "engine.worker-protocol"


SUM = Export(None, ADD)
PLAIN = PlainExport(WirePlan(ADD), 1)
SHORT_ANSWER = PLAIN.done(Usage(1, 8, 0.1, 0.1, None, 0, 4, 4), 7) or b""

SHORT_LIES = {
    "one byte less": SHORT_ANSWER[:-1],
    "one byte more": SHORT_ANSWER + b"\0",
    "twice": SHORT_ANSWER * 2,
    "the call itself": PLAIN.call_head(1) + PLAIN.pack(7),
    "a larger value than there may be": frame(SHORT_ANSWER[8:33], bytes(8)),
    "no value": frame(SHORT_ANSWER[8:33]),
    "fuel below nothing": SHORT_ANSWER[:9] + b"\xff" * 8 + SHORT_ANSWER[17:],
    "no time that is a number": SHORT_ANSWER[:25] + b"\xff" * 8 + SHORT_ANSWER[33:],
    "an answer after a host call that was none": frame(encode(HostCall(0, [])), bytes(4)) + SHORT_ANSWER,
}


def test_a_short_answer_is_taken() -> None:
    """And so is a long one to the same call."""
    long_answer = frame(encode(Done(COST, WELL)), (7).to_bytes(4, "little"))
    for answer in (SHORT_ANSWER, long_answer):
        assert told([frame(MADE), answer], SUM, (7,), hangs=True) == "ok"


@pytest.mark.parametrize("what", SHORT_LIES)
def test_each_short_lie_is_the_end_of_its_worker(what: str) -> None:
    """What is not exactly a short answer is read like any other frame, and refused."""
    assert told([frame(MADE), SHORT_LIES[what]], SUM, (7,), hangs=False) in {
        "engine.worker-protocol",
        "engine.worker-lost",
    }


@pytest.mark.adversarial
def test_noise_in_a_short_answer_gets_nowhere() -> None:
    """Any byte of its frame replaced: a value and figures that could be, or the end."""
    rng = random.Random(11)
    found = set()
    for at in range(len(SHORT_ANSWER)):
        lie = bytearray(SHORT_ANSWER)
        lie[at] ^= rng.randrange(1, 256)
        code = told([frame(MADE), bytes(lie)], SUM, (7,), hangs=False)
        assert at >= 9 or code != "ok", at
        found.add(code)
    assert found <= {"ok", "engine.worker-protocol", "engine.worker-lost"}


# -- calls that never reached their worker -----------------------------------------------------------------------------


class DyingWorker(FakeWorker):
    """Makes an instance, and then hangs up after it has read so many bytes of the next frame."""

    def __init__(self, reads: int) -> None:
        self._reads = reads
        self.gone = threading.Event()
        super().__init__([], hangs=False)

    def _serve(self, answers: list[bytes], hangs: bool) -> None:
        del answers, hangs
        self._theirs.receive(1 << 20)
        self._theirs.write(frame(MADE))
        if self._reads:
            self._theirs.read(self._reads)
        with self._ending:
            self._theirs.close()
        self.gone.set()


@pytest.mark.parametrize(("export", "args"), [(EXPORTED, ("hello",)), (SUM, (7,))], ids=["long", "short"])
@pytest.mark.parametrize("reads", [0, 1, 10_000])
def test_a_call_is_unreached_until_a_byte_of_it_was_read(export: Export, args: tuple[object, ...], reads: int) -> None:
    """Only then it may go to another instance; afterwards nobody knows whether it took effect."""
    worker = DyingWorker(reads)
    instance = RemoteInstance(worker, remote_settings(), lambda _: [])  # type: ignore[arg-type]
    assert reads or worker.gone.wait(10)
    error = error_of(instance.call, export, args, SHORT)
    assert (error.code, isinstance(error, UnreachedError)) == ("engine.worker-lost", reads == 0)
    assert error.usage is not None
    instance.close()
    worker.end()


@pytest.mark.parametrize("instances", ["pooled", "single"])
def test_a_call_in_the_instant_after_its_worker_died(host: Host, tmp_path: Path, instances: str) -> None:
    """It goes to a fresh instance, also while nobody has noticed, and no event tells of a failure."""
    point = lodge(host, tmp_path, BASICS, instances=instances, more="[limits]\nrestarts = 100\n")[""]
    for _ in range(5):
        assert point.add(1, 2) == 3
        assert point.next() > 0
        pid = pid_of(host)
        crash(pid)
        with suppress(ChildProcessError):
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert point.next() == 1
    assert list(events(host, EventKind.TRAP)) == []


def test_the_payload_limit_holds_for_scalars(host: Host, tmp_path: Path) -> None:
    """Arguments that are larger are refused before they go anywhere, so the instance lives on."""
    point = lodge(host, tmp_path, BASICS, instances="pooled", more='[limits]\npayload = "4B"\n')[""]
    assert point.next() == 1
    error = error_of(point.add, 1, 2)
    assert (error.code, error.usage) == ("limit.payload", Usage())
    assert point.next() == 2


def test_two_calls_may_be_cancelled_at_once(host: Host, tmp_path: Path) -> None:
    """Both are told apart by their worker, which goes on."""
    plugin = lodge(host, tmp_path, BASICS, instances="pooled", more=PATIENT + "concurrency = 4\n")
    point = plugin[""]

    async def run() -> None:
        tasks = [asyncio.create_task(point.spin.call_async()) for _ in range(4)]
        await asyncio.sleep(0.3)
        for task in tasks:
            task.cancel()
        for task in tasks:
            with pytest.raises(asyncio.CancelledError):
                await task

    for _ in range(3):
        asyncio.run(run())
        assert point.add(1, 2) == 3
    assert len(pids_of(host)) == 1


def test_an_endless_row_of_host_calls_is_counted() -> None:
    """However many frames a worker sends at once, no more host calls are served than the limit allows."""
    said: list[str] = []

    def say(text: str) -> str:
        said.append(text)
        return text

    def same(a: int) -> int:
        return a

    worker = FakeWorker([frame(MADE), frame(encode(HostCall(1, [])), wire("hi")) * 200], hangs=True)
    instance = RemoteInstance(worker, remote_settings(), lambda _: [same, say, same])  # type: ignore[arg-type]
    error = error_of(instance.call, EXPORTED, ("hello",), Limits(deadline_ms=300, host_calls=50))
    assert error.code == "engine.worker-protocol"
    assert said == ["hi"] * 50
    instance.close()
    worker.end()
