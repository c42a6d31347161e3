"""Guests that try to harm their host, one function for each way, and the capability that one of them calls.

`liar()` breaks the canonical ABI: pointers, lengths, discriminants, handles, reallocation, post-return, and the host
calls of `test:hostile/host`. `dweller()` misuses what WASI offers. Both export `answer`, which says that they are well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from cloche.capabilities.api import Session
from cloche.grants.schema import Params
from cloche.version import WASI_VERSION
from support.gate_capability import Thing
from support.life_plugin import component_of
from support.open_schema import open_schema

DEPS = Path(__file__).parents[2] / "wit" / "deps"
HOST = "test:hostile/host@1.0.0"
LIES = "test:liar/lies"

HOST_WIT = """package test:hostile@1.0.0;
/// What a guest may lie to.
interface host {
    /// Colors.
    enum color { red, green }
    /// Something to hold.
    resource thing { }
    /// Takes a text; its length.
    say: func(text: string) -> u32;
    /// Takes numbers; their count.
    total: func(numbers: list<u64>) -> u32;
    /// Takes texts; their count.
    texts: func(texts: list<string>) -> u32;
    /// Takes a color.
    paint: func(color: color);
    /// Takes a letter.
    spell: func(letter: char);
    /// Gives a text of that many letters.
    tell: func(size: u32) -> string;
    /// A new thing.
    make: func() -> thing;
    /// Takes a thing over.
    take: func(thing: thing);
    /// Looks at a thing.
    look: func(thing: borrow<thing>);
    /// Does what the test wants.
    act: func();
}
"""

LIAR_WORLD = """package test:liar;
interface lies {
    enum color { red, green, blue }
    flags marks { a, b, c }
    variant shape { dot, line(u32), words(string) }
    resource cell;
    bytes: func(at: u32, size: u32) -> list<u8>;
    text: func(at: u32, size: u32) -> string;
    numbers: func(at: u32, size: u32) -> list<u64>;
    texts: func(at: u32, size: u32) -> list<string>;
    area: func(at: u32) -> string;
    get-color: func(n: u32) -> color;
    get-marks: func(n: u32) -> marks;
    letter: func(n: u32) -> char;
    truth: func(n: u32) -> bool;
    small: func(n: u32) -> u8;
    get-shape: func(n: u32) -> shape;
    perhaps: func(n: u32) -> option<u32>;
    outcome: func(n: u32) -> result<u32>;
    get-cell: func(n: u32) -> cell;
    cells: func(n: u32);
    real: func(bits: u64) -> f64;
    arm: func(mode: u32);
    swallow: func(data: list<u8>) -> u32;
    swallow-numbers: func(data: list<u64>) -> u32;
    late-trap: func() -> string;
    late-spin: func() -> string;
    late-call: func() -> string;
}
world liar {
    import test:hostile/host@1.0.0;
    export lies;
    export answer: func() -> u32;
    export next: func() -> u32;
    export say: func(at: u32, size: u32) -> u32;
    export total: func(at: u32, size: u32) -> u32;
    export texts: func(at: u32, size: u32) -> u32;
    export paint: func(n: u32);
    export spell: func(n: u32);
    export hear: func(size: u32) -> u32;
    export shout: func(size: u32, turns: u32);
    export act: func(turns: u32);
    export act-trap: func();
    export hold: func(n: u32);
    export give: func(n: u32);
    export show: func(n: u32);
    export forget: func(n: u32);
    export drop-twice: func();
    export give-twice: func();
    export show-dropped: func();
}
"""

_PLAIN = "".join(
    f'(func (export "{LIES}#{name}") (param i32) (result i32) (local.get 0))'
    for name in ("area", "get-color", "get-marks", "letter", "truth", "small", "get-cell")
)
"""What the host gets is what its caller said."""
_PAIRS = "".join(
    f'(func (export "{LIES}#{name}") (param i32 i32) (result i32) (call $pair (local.get 0) (local.get 1)))'
    for name in ("bytes", "text", "numbers", "texts")
)
_CASES = "".join(
    f'(func (export "{LIES}#{name}") (param i32) (result i32) (call $pair (local.get 0) (i32.const -1)))'
    for name in ("get-shape", "perhaps", "outcome")
)

LIAR = f"""(module
  (import "{HOST}" "say" (func $say (param i32 i32) (result i32)))
  (import "{HOST}" "total" (func $total (param i32 i32) (result i32)))
  (import "{HOST}" "texts" (func $texts (param i32 i32) (result i32)))
  (import "{HOST}" "paint" (func $paint (param i32)))
  (import "{HOST}" "spell" (func $spell (param i32)))
  (import "{HOST}" "tell" (func $tell (param i32 i32)))
  (import "{HOST}" "make" (func $make (result i32)))
  (import "{HOST}" "take" (func $take (param i32)))
  (import "{HOST}" "look" (func $look (param i32)))
  (import "{HOST}" "act" (func $act))
  (import "{HOST}" "[resource-drop]thing" (func $drop (param i32)))
  (import "[export]{LIES}" "[resource-new]cell" (func $new (param i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 256) "\\ff\\fe\\80")
  (data (i32.const 272) "\\ed\\a0\\80")
  (global $mode (mut i32) (i32.const 0))
  (global $count (mut i32) (i32.const 0))
  (func $forever (loop (br 0)))
  (func $deeper (call $deeper))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (block $default (block $deep (block $host (block $full (block $spin (block $trap (block $odd (block $far
      (br_table $default $far $odd $trap $spin $full $host $deep $default (global.get $mode)))
      (return (i32.const 0xffffff00)))
      (return (i32.const 4099)))
      unreachable)
      (call $forever) unreachable)
      (loop $more (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable)
      (call $act) (return (i32.const 4096)))
      (call $deeper) unreachable)
    (i32.const 4096))
  (func $pair (param i32 i32) (result i32)
    (i32.store (i32.const 16) (local.get 0)) (i32.store (i32.const 20) (local.get 1)) (i32.const 16))
  {_PLAIN} {_PAIRS} {_CASES}
  (func (export "{LIES}#cells") (param i32)
    (loop $more (drop (call $new (local.get 0)))
      (br_if $more (local.tee 0 (i32.sub (local.get 0) (i32.const 1))))))
  (func (export "{LIES}#real") (param i64) (result f64) (f64.reinterpret_i64 (local.get 0)))
  (func (export "{LIES}#arm") (param i32) (global.set $mode (local.get 0)))
  (func (export "{LIES}#swallow") (param i32 i32) (result i32) (local.get 1))
  (func (export "{LIES}#swallow-numbers") (param i32 i32) (result i32) (local.get 1))
  (func (export "{LIES}#late-trap") (result i32) (call $pair (i32.const 0) (i32.const 0)))
  (func (export "cabi_post_{LIES}#late-trap") (param i32) unreachable)
  (func (export "{LIES}#late-spin") (result i32) (call $pair (i32.const 0) (i32.const 0)))
  (func (export "cabi_post_{LIES}#late-spin") (param i32) (call $forever))
  (func (export "{LIES}#late-call") (result i32) (call $pair (i32.const 0) (i32.const 0)))
  (func (export "cabi_post_{LIES}#late-call") (param i32) (call $act))
  (func (export "answer") (result i32) (i32.const 42))
  (func (export "next") (result i32)
    (global.set $count (i32.add (global.get $count) (i32.const 1))) (global.get $count))
  (func (export "say") (param i32 i32) (result i32) (call $say (local.get 0) (local.get 1)))
  (func (export "total") (param i32 i32) (result i32) (call $total (local.get 0) (local.get 1)))
  (func (export "texts") (param i32 i32) (result i32) (call $texts (local.get 0) (local.get 1)))
  (func (export "paint") (param i32) (call $paint (local.get 0)))
  (func (export "spell") (param i32) (call $spell (local.get 0)))
  (func (export "hear") (param i32) (result i32)
    (call $tell (local.get 0) (i32.const 32)) (i32.load (i32.const 36)))
  (func (export "shout") (param i32 i32)
    (loop $more (drop (call $say (i32.const 1024) (local.get 0)))
      (br_if $more (local.tee 1 (i32.sub (local.get 1) (i32.const 1))))))
  (func (export "act") (param i32)
    (loop $more (call $act) (br_if $more (local.tee 0 (i32.sub (local.get 0) (i32.const 1))))))
  (func (export "act-trap") (call $act) unreachable)
  (func (export "hold") (param i32)
    (loop $more (drop (call $make)) (br_if $more (local.tee 0 (i32.sub (local.get 0) (i32.const 1))))))
  (func (export "give") (param i32) (call $take (local.get 0)))
  (func (export "show") (param i32) (call $look (local.get 0)))
  (func (export "forget") (param i32) (call $drop (local.get 0)))
  (func (export "drop-twice") (local i32)
    (local.set 0 (call $make)) (call $drop (local.get 0)) (call $drop (local.get 0)))
  (func (export "give-twice") (local i32)
    (local.set 0 (call $make)) (call $take (local.get 0)) (call $take (local.get 0)))
  (func (export "show-dropped") (local i32)
    (local.set 0 (call $make)) (call $drop (local.get 0)) (call $look (local.get 0))))
"""
"""`arm(mode)` says how it reallocates from then on: 1 outside of memory, 2 misaligned, 3 traps, 4 spins, 5 takes all
memory, 6 calls the host, 7 recurses."""

DWELLER_WORLD = f"""package test:dweller;
world dweller {{
    import wasi:io/poll@{WASI_VERSION};
    import wasi:cli/environment@{WASI_VERSION};
    import wasi:cli/exit@{WASI_VERSION};
    import wasi:cli/stdin@{WASI_VERSION};
    import wasi:cli/stdout@{WASI_VERSION};
    import wasi:cli/stderr@{WASI_VERSION};
    import wasi:clocks/monotonic-clock@{WASI_VERSION};
    import wasi:random/random@{WASI_VERSION};
    import wasi:filesystem/preopens@{WASI_VERSION};
    import wasi:logging/logging@0.1.0-draft;
    export answer: func() -> u32;
    export sleep: func(nanoseconds: u64);
    export wait: func(nanoseconds: u64, times: u32);
    export watch: func(nanoseconds: u64);
    export subscribe: func(times: u32);
    export print: func(to-stderr: bool, size: u32, turns: u32);
    export leave: func(failed: bool);
    export found: func() -> u32;
    export now: func() -> u64;
    export dice: func(bytes: u64) -> u32;
    export log: func(level: u32, at: u32, size: u32, turns: u32);
}}
"""

DWELLER = f"""(module
  (import "wasi:io/poll@{WASI_VERSION}" "[method]pollable.block" (func $block (param i32)))
  (import "wasi:io/poll@{WASI_VERSION}" "[method]pollable.ready" (func $ready (param i32) (result i32)))
  (import "wasi:io/poll@{WASI_VERSION}" "poll" (func $poll (param i32 i32 i32)))
  (import "wasi:clocks/monotonic-clock@{WASI_VERSION}" "subscribe-duration" (func $subscribe (param i64) (result i32)))
  (import "wasi:clocks/monotonic-clock@{WASI_VERSION}" "now" (func $now (result i64)))
  (import "wasi:random/random@{WASI_VERSION}" "get-random-bytes" (func $random (param i64 i32)))
  (import "wasi:cli/environment@{WASI_VERSION}" "get-environment" (func $environment (param i32)))
  (import "wasi:cli/environment@{WASI_VERSION}" "get-arguments" (func $arguments (param i32)))
  (import "wasi:cli/exit@{WASI_VERSION}" "exit" (func $exit (param i32)))
  (import "wasi:cli/stdin@{WASI_VERSION}" "get-stdin" (func $stdin (result i32)))
  (import "wasi:cli/stdout@{WASI_VERSION}" "get-stdout" (func $stdout (result i32)))
  (import "wasi:cli/stderr@{WASI_VERSION}" "get-stderr" (func $stderr (result i32)))
  (import "wasi:io/streams@{WASI_VERSION}" "[method]input-stream.blocking-read" (func $read (param i32 i64 i32)))
  (import "wasi:io/streams@{WASI_VERSION}" "[method]output-stream.blocking-write-and-flush"
    (func $write (param i32 i32 i32 i32)))
  (import "wasi:filesystem/preopens@{WASI_VERSION}" "get-directories" (func $directories (param i32)))
  (import "wasi:logging/logging@0.1.0-draft" "log" (func $log (param i32 i32 i32 i32 i32)))
  (memory (export "memory") 20)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 16384))
  (func (export "answer") (result i32) (i32.const 42))
  (func (export "sleep") (param i64) (call $block (call $subscribe (local.get 0))))
  (func (export "wait") (param i64 i32) (local $at i32)
    (loop $more
      (i32.store (i32.add (i32.const 65536) (i32.mul (i32.const 4) (local.get $at))) (call $subscribe (local.get 0)))
      (br_if $more (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 1))) (local.get 1))))
    (call $poll (i32.const 65536) (local.get 1) (i32.const 16)))
  (func (export "watch") (param i64) (local $on i32)
    (local.set $on (call $subscribe (local.get 0)))
    (loop $more (br_if $more (i32.eqz (call $ready (local.get $on))))))
  (func (export "subscribe") (param i32)
    (loop $more (drop (call $subscribe (i64.const 1)))
      (br_if $more (local.tee 0 (i32.sub (local.get 0) (i32.const 1))))))
  (func (export "print") (param i32 i32 i32) (local $to i32)
    (local.set $to (if (result i32) (local.get 0) (then (call $stderr)) (else (call $stdout))))
    (memory.fill (i32.const 1024) (i32.const 97) (i32.const 4096))
    (loop $more
      (call $write (local.get $to) (i32.const 1024) (local.get 1) (i32.const 16))
      (br_if $more (local.tee 2 (i32.sub (local.get 2) (i32.const 1))))))
  (func (export "leave") (param i32) (call $exit (local.get 0)))
  (func (export "found") (result i32)
    (call $environment (i32.const 16)) (call $arguments (i32.const 24)) (call $directories (i32.const 32))
    (call $read (call $stdin) (i64.const 100) (i32.const 48))
    (i32.add (i32.load (i32.const 20)) (i32.add (i32.load (i32.const 28)) (i32.add (i32.load (i32.const 36))
      (i32.eqz (i32.load8_u (i32.const 48)))))))
  (func (export "now") (result i64) (call $now))
  (func (export "dice") (param i64) (result i32)
    (call $random (local.get 0) (i32.const 16)) (i32.load (i32.load (i32.const 16))))
  (func (export "log") (param i32 i32 i32 i32)
    (loop $more
      (call $log (local.get 0) (local.get 1) (local.get 2) (local.get 1) (local.get 2))
      (br_if $more (local.tee 3 (i32.sub (local.get 3) (i32.const 1)))))))
"""
"""`found` counts the variables, arguments and directories that it was given, and one more where stdin gave bytes."""


@lru_cache(maxsize=1)
def liar() -> bytes:
    """The guest that breaks the ABI."""
    return component_of(LIAR, LIAR_WORLD, {"host": HOST_WIT})


@lru_cache(maxsize=1)
def dweller() -> bytes:
    """The guest that misuses WASI."""
    deps = {path.parent.name: path.read_text() for path in DEPS.glob("*/package.wit")}
    return component_of(DWELLER, DWELLER_WORLD, deps)


@dataclass
class HostileHost:
    """The host's side of `test:hostile/host`; counts what it was told."""

    action: Callable[[], None] = lambda: None
    things: list[Thing] = field(default_factory=list)
    taken: list[Thing] = field(default_factory=list)
    calls: int = 0

    def say(self, text: str) -> int:
        self.calls += 1
        return len(text)

    def total(self, numbers: Any) -> int:
        self.calls += 1
        return len(numbers)

    def texts(self, texts: list[str]) -> int:
        self.calls += 1
        return len(texts)

    def paint(self, color: str) -> None:
        self.calls += 1

    def spell(self, letter: str) -> None:
        self.calls += 1

    def tell(self, size: int) -> str:
        self.calls += 1
        return "a" * size

    def make(self) -> Thing:
        self.calls += 1
        self.things.append(Thing())
        return self.things[-1]

    def take(self, thing: Thing) -> None:
        self.calls += 1
        self.taken.append(thing)

    def look(self, thing: Thing) -> None:
        self.calls += 1
        assert not thing.closed

    def act(self) -> None:
        self.calls += 1
        self.action()

    def close(self) -> None:
        """An instance is gone."""

    def forget(self) -> list[int]:
        """How often each thing was closed that was not taken over; from then on there were none."""
        closed = [thing.closed for thing in self.things if not any(thing is each for each in self.taken)]
        self.things.clear()
        self.taken.clear()
        self.action = lambda: None
        return closed


class HostileCapability:
    """The capability `test:hostile`, granted to everybody."""

    def __init__(self, side: HostileHost, directory: Path) -> None:
        self._side, self._directory = side, directory
        self.schema = open_schema("test:hostile", "1.0.0", "What a guest may lie to", HOST)

    def wit(self) -> Path:
        self._directory.mkdir(parents=True, exist_ok=True)
        (self._directory / "hostile.wit").write_text(HOST_WIT)
        return self._directory

    def open(self, grant: Params, session: Session) -> Mapping[str, Any]:
        return {HOST: self._side}
