"""A capability of a test's own: host functions that wait, fail, call back and hand out resources, and a guest of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cloche.capabilities.api import Session
from cloche.grants.schema import Params
from cloche.runtime.plugin import ExtensionPoint, Plugin
from support.open_schema import open_schema
from support.wat_plugins import load, open_host

INTERFACE = "test:gate/gate@1.0.0"

WIT = """package test:gate@1.0.0;

/// What a test does on the host's side.
interface gate {
    /// Something to hold.
    resource thing { }
    /// Twice the number.
    twice: func(n: u32) -> u32;
    /// Waits until the test says so.
    wait: func();
    /// Does whatever the test wants.
    act: func();
    /// A new thing.
    make: func() -> thing;
    /// Takes a thing over.
    take: func(thing: thing);
}
"""

GATE_WAT = """
(component
  (import "test:gate/gate@1.0.0" (instance $gate
    (export "thing" (type $thing (sub resource)))
    (export "twice" (func (param "n" u32) (result u32)))
    (export "wait" (func))
    (export "act" (func))
    (export "make" (func (result (own $thing))))
    (export "take" (func (param "thing" (own $thing))))))
  (alias export $gate "thing" (type $thing))
  (core func $twice (canon lower (func $gate "twice")))
  (core func $wait (canon lower (func $gate "wait")))
  (core func $act (canon lower (func $gate "act")))
  (core func $make (canon lower (func $gate "make")))
  (core func $take (canon lower (func $gate "take")))
  (core func $drop (canon resource.drop $thing))
  (core module $m
    (import "h" "twice" (func $twice (param i32) (result i32)))
    (import "h" "wait" (func $wait))
    (import "h" "act" (func $act))
    (import "h" "make" (func $make (result i32)))
    (import "h" "take" (func $take (param i32)))
    (import "h" "drop" (func $drop (param i32)))
    (memory (export "memory") 1)
    (global $count (mut i32) (i32.const 0))
    (func (export "many") (param i32) (result i32) (local $done i32)
      (loop $more
        (drop (call $twice (local.get 0)))
        (local.set $done (i32.add (local.get $done) (i32.const 1)))
        (br_if $more (i32.lt_u (local.get $done) (local.get 0))))
      (local.get $done))
    (func (export "next") (result i32)
      (global.set $count (i32.add (global.get $count) (i32.const 1))) (global.get $count))
    (func (export "block") (call $wait))
    (func (export "act") (call $act))
    (func (export "act-spin") (call $act) (loop (br 0)))
    (func (export "spin") (loop (br 0)))
    (func (export "crash") unreachable)
    (func (export "keep") (param i32)
      (loop $more
        (drop (call $make))
        (br_if $more (local.tee 0 (i32.sub (local.get 0) (i32.const 1))))))
    (func (export "keep-crash") (param i32)
      (loop $more
        (drop (call $make))
        (br_if $more (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))
      unreachable)
    (func (export "make-take") (call $take (call $make)))
    (func (export "make-drop") (call $drop (call $make))))
  (core instance $i (instantiate $m (with "h" (instance
    (export "twice" (func $twice)) (export "wait" (func $wait)) (export "act" (func $act))
    (export "make" (func $make)) (export "take" (func $take)) (export "drop" (func $drop))))))
  (func (export "many") (param "n" u32) (result u32) (canon lift (core func $i "many")))
  (func (export "next") (result u32) (canon lift (core func $i "next")))
  (func (export "block") (canon lift (core func $i "block")))
  (func (export "act") (canon lift (core func $i "act")))
  (func (export "act-spin") (canon lift (core func $i "act-spin")))
  (func (export "spin") (canon lift (core func $i "spin")))
  (func (export "crash") (canon lift (core func $i "crash")))
  (func (export "keep") (param "n" u32) (canon lift (core func $i "keep")))
  (func (export "keep-crash") (param "n" u32) (canon lift (core func $i "keep-crash")))
  (func (export "make-take") (canon lift (core func $i "make-take")))
  (func (export "make-drop") (canon lift (core func $i "make-drop"))))
"""


@dataclass
class Thing:
    """A host resource that counts how often it was closed, and may do something then."""

    on_close: Callable[[], None] = lambda: None
    closed: int = 0

    def close(self) -> None:
        self.closed += 1
        self.on_close()


@dataclass
class GateHost:
    """The host's side, shared by all instances; a test sets what happens."""

    action: Callable[[], None] = lambda: None
    on_thing_close: Callable[[], None] = lambda: None
    on_close: Callable[[], None] = lambda: None
    entered: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)
    things: list[Thing] = field(default_factory=list)
    taken: list[Thing] = field(default_factory=list)
    opened: int = 0
    closed: int = 0

    def twice(self, n: int) -> int:
        return 2 * n

    def wait(self) -> None:
        self.entered.set()
        assert self.go.wait(60)

    def act(self) -> None:
        self.action()

    def make(self) -> Thing:
        self.things.append(Thing(self.on_thing_close))
        return self.things[-1]

    def take(self, thing: Thing) -> None:
        self.taken.append(thing)

    def close(self) -> None:
        self.closed += 1
        self.on_close()


class GateCapability:
    """The capability `test:gate`, granted to everybody."""

    def __init__(self, host: GateHost, directory: Path) -> None:
        self._host = host
        self._directory = directory
        self.schema = open_schema("test:gate", "1.0.0", "What a test needs", INTERFACE)

    def wit(self) -> Path:
        self._directory.mkdir(parents=True, exist_ok=True)
        (self._directory / "gate.wit").write_text(WIT)
        return self._directory

    def open(self, grant: Params, session: Session) -> Mapping[str, Any]:
        self._host.opened += 1
        return {INTERFACE: self._host}


class Gate:
    """A host with the gate, and plugins that use it."""

    def __init__(self, host: GateHost, directory: Path, **options: Any) -> None:
        self._directory = directory
        self._open = open_host(capabilities=[GateCapability(host, directory / "gate-wit")], **options)
        self.host = self._open.__enter__()
        self.plugin: Plugin

    def load(self, plugin_id: str = "acme/gated", **manifest: Any) -> ExtensionPoint:
        """Load the guest; its functions."""
        folder = self._directory / plugin_id.replace("/", "-")
        self.plugin = load(self.host, folder, GATE_WAT, plugin_id=plugin_id, **manifest)
        return self.plugin[""]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)
