"""One extension point served three times: by a Python object, by a trusted component and by an untrusted one.

The component gives back what it gets, keeps counters, and calls the gate (`support.gate_capability`); the Python object
does the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from cloche.app import Host
from cloche.model import Err, Ok, Tier
from cloche.runtime.plugin import ExtensionPoint, Plugin
from support.gate_capability import WIT as GATE_WIT
from support.gate_capability import GateCapability, GateHost
from support.life_plugin import component_of
from support.wat_plugins import TRUSTED, open_host, write_plugin

POINT = "test:tiers/desk"
TIERS = (Tier.BUILTIN, Tier.TRUSTED, Tier.UNTRUSTED)

WIT = """package test:tiers@1.0.0;
/// Gives back what it gets, and some more.
interface desk {
    /// Two.
    enum color { red, dark-blue }
    /// Both, one or none.
    flags access { read, write }
    /// A place.
    record point { x: u32, name: string }
    /// One of three.
    variant shape { dot, circle(u8), label(string) }
    /// Counts.
    resource counter {
        /// From here on.
        constructor(start: u32);
        /// One more.
        increment: func() -> u32;
        /// One that exists, if any.
        find: static func(start: u32) -> option<counter>;
        /// How many were dropped.
        dropped: static func() -> u32;
    }
    /// Something else to hold.
    resource token { constructor(); }
    /// A number.
    number: func(x: u8) -> u8;
    /// A text.
    text: func(x: string) -> string;
    /// Octets.
    octets: func(x: list<u8>) -> list<u8>;
    /// Numbers.
    numbers: func(x: list<u16>) -> list<u16>;
    /// Texts.
    texts: func(x: list<string>) -> list<string>;
    /// A colour.
    paint: func(x: color) -> color;
    /// Rights.
    allow: func(x: access) -> access;
    /// Perhaps.
    maybe: func(x: option<u8>) -> option<u8>;
    /// A point.
    move: func(x: point) -> point;
    /// A shape.
    draw: func(x: shape) -> shape;
    /// Two things.
    pair: func(x: tuple<u8, string>) -> tuple<u8, string>;
    /// Right, unless it is nothing.
    check: func(x: u8) -> result<u8, string>;
    /// Nothing.
    nothing: func();
    /// So many zeros.
    give: func(size: u32) -> list<u8>;
    /// What is no text.
    bad-text: func() -> string;
    /// What was counted.
    sum: func(counters: list<borrow<counter>>) -> u32;
    /// The end of one counter.
    consume: func(counter: counter) -> u32;
    /// One is lent and the other one goes.
    swap: func(lent: borrow<counter>, moved: counter) -> u32;
    /// Not the static function.
    counter-find: func() -> u32;
    /// Counts its calls.
    next: func() -> u32;
    /// Asks the gate for twice the number.
    twice: func(n: u32) -> u32;
    /// Lets the gate do what it wants.
    act: func();
    /// Waits at the gate.
    wait: func();
}
"""

WORLD = "package test:guest;\nworld guest { import test:gate/gate@1.0.0; export test:tiers/desk@1.0.0; }\n"

CORE = """(module
  (import "test:gate/gate@1.0.0" "twice" (func $twice (param i32) (result i32)))
  (import "test:gate/gate@1.0.0" "act" (func $act))
  (import "test:gate/gate@1.0.0" "wait" (func $wait))
  (import "[export]test:tiers/desk@1.0.0" "[resource-new]counter" (func $new (param i32) (result i32)))
  (import "[export]test:tiers/desk@1.0.0" "[resource-rep]counter" (func $rep (param i32) (result i32)))
  (import "[export]test:tiers/desk@1.0.0" "[resource-drop]counter" (func $drop (param i32)))
  (import "[export]test:tiers/desk@1.0.0" "[resource-new]token" (func $token (param i32) (result i32)))
  (memory (export "memory") 8)
  (data (i32.const 32) "zero")
  (data (i32.const 40) "\\ff")
  (global $top (mut i32) (i32.const 8192))
  (global $next (mut i32) (i32.const 64))
  (global $dropped (mut i32) (i32.const 0))
  (global $calls (mut i32) (i32.const 0))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (local $at i32)
    (if (i32.gt_u (global.get $top) (i32.const 0x40000)) (then (global.set $top (i32.const 8192))))
    (local.set $at (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
    (global.set $top (i32.add (local.get $at) (local.get 3)))
    (local.get $at))
  (func $list (param i32 i32) (result i32)
    (i32.store (i32.const 16) (local.get 0)) (i32.store (i32.const 20) (local.get 1)) (i32.const 16))
  (func $three (param i32 i32 i32) (result i32)
    (i32.store (i32.const 16) (local.get 0)) (i32.store (i32.const 20) (local.get 1))
    (i32.store (i32.const 24) (local.get 2)) (i32.const 16))
  (func $make (param i32) (result i32) (local $at i32)
    (local.set $at (global.get $next))
    (global.set $next (i32.add (global.get $next) (i32.const 4)))
    (i32.store (local.get $at) (local.get 0))
    (call $new (local.get $at)))
  (func $end (param i32) (result i32) (local $value i32)
    (local.set $value (i32.load (call $rep (local.get 0)))) (call $drop (local.get 0)) (local.get $value))
  (func (export "@number") (param i32) (result i32) (local.get 0))
  (func (export "@text") (param i32 i32) (result i32) (call $list (local.get 0) (local.get 1)))
  (func (export "@octets") (param i32 i32) (result i32) (call $list (local.get 0) (local.get 1)))
  (func (export "@numbers") (param i32 i32) (result i32) (call $list (local.get 0) (local.get 1)))
  (func (export "@texts") (param i32 i32) (result i32) (call $list (local.get 0) (local.get 1)))
  (func (export "@paint") (param i32) (result i32) (local.get 0))
  (func (export "@allow") (param i32) (result i32) (local.get 0))
  (func (export "@maybe") (param i32 i32) (result i32)
    (i32.store8 (i32.const 16) (local.get 0)) (i32.store8 (i32.const 17) (local.get 1)) (i32.const 16))
  (func (export "@move") (param i32 i32 i32) (result i32) (call $three (local.get 0) (local.get 1) (local.get 2)))
  (func (export "@draw") (param i32 i32 i32) (result i32) (call $three (local.get 0) (local.get 1) (local.get 2)))
  (func (export "@pair") (param i32 i32 i32) (result i32) (call $three (local.get 0) (local.get 1) (local.get 2)))
  (func (export "@check") (param i32) (result i32)
    (if (result i32) (local.get 0)
      (then (call $three (i32.const 0) (local.get 0) (i32.const 0)))
      (else (call $three (i32.const 1) (i32.const 32) (i32.const 4)))))
  (func (export "@nothing"))
  (func (export "@give") (param i32) (result i32) (call $list (i32.const 0x50000) (local.get 0)))
  (func (export "@bad-text") (result i32) (call $list (i32.const 40) (i32.const 1)))
  (func (export "@[constructor]counter") (param i32) (result i32) (call $make (local.get 0)))
  (func (export "@[static]counter.find") (param i32) (result i32)
    (i32.store8 (i32.const 16) (i32.ne (local.get 0) (i32.const 0)))
    (if (local.get 0) (then (i32.store (i32.const 20) (call $make (local.get 0)))))
    (i32.const 16))
  (func (export "@[static]counter.dropped") (result i32) (global.get $dropped))
  (func (export "@[method]counter.increment") (param i32) (result i32)
    (i32.store (local.get 0) (i32.add (i32.load (local.get 0)) (i32.const 1))) (i32.load (local.get 0)))
  (func (export "@[dtor]counter") (param i32)
    (global.set $dropped (i32.add (global.get $dropped) (i32.const 1))))
  (func (export "@[constructor]token") (result i32) (call $token (i32.const 1)))
  (func (export "@sum") (param i32 i32) (result i32) (local $sum i32)
    (block $done (loop $more
      (br_if $done (i32.eqz (local.get 1)))
      (local.set $sum (i32.add (local.get $sum) (i32.load (i32.load (local.get 0)))))
      (local.set 0 (i32.add (local.get 0) (i32.const 4)))
      (local.set 1 (i32.sub (local.get 1) (i32.const 1)))
      (br $more)))
    (local.get $sum))
  (func (export "@consume") (param i32) (result i32) (call $end (local.get 0)))
  (func (export "@swap") (param i32 i32) (result i32) (call $end (local.get 1)))
  (func (export "@counter-find") (result i32) (i32.const 42))
  (func (export "@next") (result i32)
    (global.set $calls (i32.add (global.get $calls) (i32.const 1))) (global.get $calls))
  (func (export "@twice") (param i32) (result i32) (call $twice (local.get 0)))
  (func (export "@act") (call $act))
  (func (export "@wait") (call $wait)))
""".replace('"@', '"test:tiers/desk@1.0.0#')


class Counter:
    """What stands behind a handle of the Python object."""

    def __init__(self, desk: Desk, value: int) -> None:
        self._desk, self.value = desk, value

    def increment(self) -> int:
        self.value += 1
        return self.value

    def close(self) -> None:
        self._desk.dropped += 1


class Desk:
    """The Python object behind the extension point."""

    def __init__(self, gate: GateHost) -> None:
        self.gate = gate
        self.dropped = self.calls = self.closed = 0
        self.got: list[Any] = []

    def number(self, x: Any) -> Any:
        self.got = [x]
        return x

    text = octets = numbers = texts = paint = allow = maybe = move = draw = pair = number

    def check(self, x: int) -> object:
        return Ok(x) if x else Err("zero")

    def nothing(self) -> None:
        pass

    def give(self, size: int) -> bytes:
        return bytes(size)

    def bad_text(self) -> str:
        return "\udcff"

    def counter(self, start: int) -> Counter:
        return Counter(self, start)

    def counter_find(self, start: int) -> Counter | None:
        return Counter(self, start) if start else None

    def counter_dropped(self) -> int:
        return self.dropped

    def token(self) -> object:
        return object()

    def sum(self, counters: list[Counter]) -> int:
        return sum(counter.value for counter in counters)

    def consume(self, counter: Counter) -> int:
        counter.close()
        return counter.value

    def swap(self, lent: Counter, moved: Counter) -> int:
        del lent
        return self.consume(moved)

    def counter_find_(self) -> int:
        return 42

    def next(self) -> int:
        self.calls += 1
        return self.calls

    def twice(self, n: int) -> int:
        return self.gate.twice(n)

    def act(self) -> None:
        self.gate.act()

    def wait(self) -> None:
        self.gate.wait()

    def close(self) -> None:
        self.closed += 1


@lru_cache(maxsize=1)
def desk_component() -> bytes:
    """The component behind the extension point."""
    return component_of(CORE, WORLD, {"gate": GATE_WIT, "tiers": WIT})


@dataclass
class Hall:
    """A host that knows the extension point and the gate."""

    host: Host
    gate: GateHost
    directory: Path
    desks: dict[str, Desk] = field(default_factory=dict)

    def serve(self, tier: Tier, plugin_id: str = "", **manifest: Any) -> Plugin:
        """Load the plugin in this tier."""
        plugin_id = plugin_id or f"acme/{tier.value}"
        if tier is Tier.BUILTIN:
            desk = self.desks[plugin_id] = Desk(self.gate)
            return self.host.add_builtin(plugin_id, {POINT: desk}, version="1.0.0")
        folder = write_plugin(
            self.directory / plugin_id.replace("/", "-"), desk_component(), plugin_id=plugin_id, **manifest
        )
        plugin = self.host.load(folder, trust=TRUSTED if tier is Tier.TRUSTED else None)
        assert plugin.tier is tier
        return plugin

    def point(self, tier: Tier, plugin_id: str = "", **manifest: Any) -> ExtensionPoint:
        """The same, and its functions."""
        return self.serve(tier, plugin_id, **manifest)[POINT]


@contextmanager
def open_hall(directory: Path, **options: Any) -> Iterator[Hall]:
    """Such a host, closed at the end."""
    (directory / "points").mkdir()
    (directory / "points" / "desk.wit").write_text(WIT)
    gate = GateHost()
    capability = GateCapability(gate, directory / "gate-wit")
    with open_host(capabilities=[capability], extension_points=[directory / "points"], **options) as host:
        yield Hall(host, gate, directory)
