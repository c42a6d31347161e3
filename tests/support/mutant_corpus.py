"""Small components of every shape, as a stock for mutants, and the capability that some of them import."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cloche.capabilities.api import Session
from cloche.grants.schema import GrantSchema, NoParams, Params, Verdict
from cloche.model import Ok
from cloche.values import Case
from support.binary_wat import NESTED, TWO_MEMORIES, parse, run_wasm_tools, wit_component
from support.cli_plugins import TOOLS
from support.wat_plugins import BASICS, START

INTERFACE = "test:mutants/host@1.0.0"

_HOST = """
  /// What the host does for mutants.
  interface host {
    enum level { low, high }
    record point { x: s32, y: f64 }
    variant shape { none, circle(f64), named(string) }
    resource bucket { }
    make: func(n: u32) -> bucket;
    take: func(b: bucket) -> u32;
    look: func(a: borrow<bucket>) -> u32;
    add: func(a: borrow<bucket>, b: borrow<bucket>) -> u32;
    say: func(level: level, text: string) -> result<string, string>;
    draw: func(points: list<point>) -> list<shape>;
  }
"""
HOST_WIT = f"package test:mutants@1.0.0;\n{_HOST}"

WIDE_WIT = f"""
package test:mutants@1.0.0;
{_HOST}
interface wide {{
  use host.{{level, point, shape, bucket}};
  flags marks {{ a, b, c }}
  resource counter {{
    constructor(n: u32);
    value: func() -> u32;
    merge: static func(a: counter, b: counter) -> counter;
  }}
  everything: func(l: level, p: point, s: shape, m: marks, t: tuple<u8, string>) -> result<list<point>, string>;
  pass: func(b: bucket) -> option<bucket>;
  nested: func(x: list<list<option<string>>>) -> option<option<u8>>;
}}
world both {{ import host; export wide; export plain: func(a: u32) -> string; }}
"""
"""Imports and exports with every kind of type, as wit-component lays them out; its functions trap."""

_ALLOCATOR = """
    (memory (export "memory") 1 16)
    (global $top (mut i32) (i32.const 4096))
    (func $realloc (export "realloc") (param i32 i32 i32 i32) (result i32) (local $at i32)
      (local.set $at (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
      (global.set $top (i32.add (local.get $at) (local.get 3)))
      (local.get $at))"""

SCALARS = """
(component
  (core module $m
    (func (export "narrow") (param i32 i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
    (func (export "wide") (param i64 f32 f64) (result f64) (f64.add (local.get 2) (f64.promote_f32 (local.get 1))))
    (func (export "letter") (param i32) (result i32) (i32.add (local.get 0) (i32.const 1)))
    (func (export "work") (param i32) (result i64) (local $sum i64)
      (loop $more
        (local.set $sum (i64.add (local.get $sum) (i64.extend_i32_u (local.get 0))))
        (br_if $more (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))
      (local.get $sum)))
  (core instance $i (instantiate $m))
  (func (export "narrow") (param "a" u8) (param "b" s16) (param "c" bool) (result u32)
    (canon lift (core func $i "narrow")))
  (func (export "wide") (param "a" u64) (param "b" f32) (param "c" f64) (result f64)
    (canon lift (core func $i "wide")))
  (func (export "letter") (param "c" char) (result char) (canon lift (core func $i "letter")))
  (func (export "work") (param "turns" u32) (result s64) (canon lift (core func $i "work"))))
"""

_DATA = (
    r"\01\00\00\00\00\01\00\00\03\00\00\00\02\00\00\00"
    r"\40\00\00\00\02\00\00\00\40\00\00\00\05\00\00\00\46\00\00\00\05\00\00\00"
)

VALUES_WIT = """
package test:mutants@1.0.0;
interface values {
  record entry { a: u8, b: f64, c: option<string> }
  variant choice { none, num(u64), text(string) }
  enum colour { red, green, blue }
  flags marks { a, b, c }
  pair: func(x: tuple<u32, string>) -> tuple<u32, string>;
  entry-of: func(x: entry) -> entry;
  choice-of: func(x: choice) -> choice;
  colour-of: func(x: colour) -> colour;
  marks-of: func(x: marks) -> marks;
  entries: func(x: list<entry>) -> result<list<u16>, string>;
  maybe: func(x: list<list<string>>) -> option<option<bool>>;
  numbers: func(x: list<f32>) -> list<s64>;
  texts: func(x: list<u8>) -> list<string>;
}
world values-world { export values; }
"""
_VALUES_ID = "test:mutants/values@1.0.0"

VALUES_CORE = f"""
(module {_ALLOCATOR}
  (export "cabi_realloc" (func $realloc))
  (data (i32.const 16) "{_DATA}")
  (data (i32.const 64) "hello, world")
  (func (export "{_VALUES_ID}#pair") (param i32 i32 i32) (result i32) (i32.const 28))
  (func (export "{_VALUES_ID}#entry-of") (param i32 f64 i32 i32 i32) (result i32) (i32.const 128))
  (func (export "{_VALUES_ID}#choice-of") (param i32 i64 i32) (result i32) (i32.const 16))
  (func (export "{_VALUES_ID}#colour-of") (param i32) (result i32) (local.get 0))
  (func (export "{_VALUES_ID}#marks-of") (param i32) (result i32) (local.get 0))
  (func (export "{_VALUES_ID}#entries") (param i32 i32) (result i32) (i32.const 16))
  (func (export "{_VALUES_ID}#maybe") (param i32 i32) (result i32) (i32.const 16))
  (func (export "{_VALUES_ID}#numbers") (param i32 i32) (result i32) (i32.const 32))
  (func (export "{_VALUES_ID}#texts") (param i32 i32) (result i32)
    (i32.store (i32.const 56) (i32.const 40)) (i32.store (i32.const 60) (i32.const 2)) (i32.const 56))
  (func (export "cabi_post_{_VALUES_ID}#texts") (param i32) (global.set $top (i32.const 4096))))
"""
"""Every compound type; the answers stand in data, where mutants change them."""

BUCKETS_WIT = f"""
package test:mutants@1.0.0;
{_HOST}
world buckets {{
  use host.{{bucket}};
  import host;
  export fetch: func(n: u32) -> bucket;
  export give: func(b: bucket) -> u32;
  export lend: func(a: borrow<bucket>) -> u32;
  export own-sum: func(n: u32) -> u32;
  export keep: func(n: u32);
}}
"""

BUCKETS_CORE = f"""
(module
  (import "{INTERFACE}" "make" (func $make (param i32) (result i32)))
  (import "{INTERFACE}" "take" (func $take (param i32) (result i32)))
  (import "{INTERFACE}" "look" (func $look (param i32) (result i32)))
  (import "{INTERFACE}" "add" (func $add (param i32 i32) (result i32)))
  (import "{INTERFACE}" "[resource-drop]bucket" (func $drop (param i32)))
  (memory (export "memory") 1)
  (func (export "fetch") (param i32) (result i32) (call $make (local.get 0)))
  (func (export "give") (param i32) (result i32) (call $take (local.get 0)))
  (func (export "lend") (param i32) (result i32) (call $look (local.get 0)) (call $drop (local.get 0)))
  (func (export "own-sum") (param i32) (result i32) (local $a i32) (local $b i32)
    (local.set $a (call $make (local.get 0))) (local.set $b (call $make (local.get 0)))
    (call $add (local.get $a) (local.get $b)) (call $drop (local.get $a)) (call $drop (local.get $b)))
  (func (export "keep") (param i32)
    (loop $more
      (drop (call $make (local.get 0)))
      (br_if $more (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))))
"""
"""Resources of the host: owned, lent, handed on, kept."""

TALKER = f"""
(component
  (import "{INTERFACE}" (instance $host
    (type $leveld (enum "low" "high"))
    (export "level" (type $level (eq $leveld)))
    (type $pointd (record (field "x" s32) (field "y" f64)))
    (export "point" (type $point (eq $pointd)))
    (type $shaped (variant (case "none") (case "circle" f64) (case "named" string)))
    (export "shape" (type $shape (eq $shaped)))
    (export "say" (func (param "level" $level) (param "text" string) (result (result string (error string)))))
    (export "draw" (func (param "points" (list $point)) (result (list $shape))))))
  (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock (export "now" (func (result u64)))))
  (import "wasi:random/random@0.2.0" (instance $random
    (export "get-random-bytes" (func (param "len" u64) (result (list u8))))
    (export "get-random-u64" (func (result u64)))))
  (core module $state {_ALLOCATOR})
  (core instance $s (instantiate $state))
  (alias core export $s "memory" (core memory $memory))
  (alias core export $s "realloc" (core func $realloc))
  (core func $say (canon lower (func $host "say") (memory $memory) (realloc $realloc)))
  (core func $draw (canon lower (func $host "draw") (memory $memory) (realloc $realloc)))
  (core func $now (canon lower (func $clock "now")))
  (core func $bytes (canon lower (func $random "get-random-bytes") (memory $memory) (realloc $realloc)))
  (core module $code
    (import "s" "memory" (memory 1))
    (import "h" "say" (func $say (param i32 i32 i32 i32)))
    (import "h" "draw" (func $draw (param i32 i32 i32)))
    (import "h" "now" (func $now (result i64)))
    (import "h" "bytes" (func $bytes (param i64 i32)))
    (data (i32.const 512) "\\01\\00\\00\\00\\00\\00\\00\\00\\00\\00\\00\\00\\00\\00\\f0\\3f")
    (func (export "say") (param i32 i32) (result i32)
      (call $say (i32.const 1) (local.get 0) (local.get 1) (i32.const 16)) (i32.const 16))
    (func (export "draw") (result i32)
      (call $draw (i32.const 512) (i32.const 2) (i32.const 16)) (i32.load (i32.const 20)))
    (func (export "many") (param i32)
      (loop $more
        (call $say (i32.const 0) (i32.const 512) (i32.const 1) (i32.const 16))
        (br_if $more (local.tee 0 (i32.sub (local.get 0) (i32.const 1))))))
    (func (export "now") (result i64) (call $now))
    (func (export "bytes") (param i32) (result i32)
      (call $bytes (i64.extend_i32_u (local.get 0)) (i32.const 16)) (i32.const 16)))
  (core instance $i (instantiate $code
    (with "s" (instance $s))
    (with "h" (instance (export "say" (func $say)) (export "draw" (func $draw)) (export "now" (func $now))
      (export "bytes" (func $bytes))))))
  (func (export "say") (param "text" string) (result (result string (error string)))
    (canon lift (core func $i "say") (memory $memory) (realloc $realloc)))
  (func (export "draw") (result u32) (canon lift (core func $i "draw")))
  (func (export "many") (param "times" u32) (canon lift (core func $i "many")))
  (func (export "now") (result u64) (canon lift (core func $i "now")))
  (func (export "bytes") (param "size" u32) (result (list u8)) (canon lift (core func $i "bytes") (memory $memory))))
"""
"""Calls the host with texts, records and variants, and asks WASI for the time and for random bytes."""

COUNTER = """
(component
  (core module $state
    (global $dropped (mut i32) (i32.const 0))
    (func (export "dtor") (param i32) (global.set $dropped (i32.add (global.get $dropped) (local.get 0)))))
  (core instance $s (instantiate $state))
  (type $counterd (resource (rep i32) (dtor (core func $s "dtor"))))
  (core func $new (canon resource.new $counterd))
  (core func $rep (canon resource.rep $counterd))
  (core func $drop (canon resource.drop $counterd))
  (core module $code
    (import "h" "new" (func $new (param i32) (result i32)))
    (import "h" "rep" (func $rep (param i32) (result i32)))
    (import "h" "drop" (func $drop (param i32)))
    (func (export "make") (param i32) (result i32) (call $new (local.get 0)))
    (func (export "value") (param i32) (result i32) (local.get 0))
    (func (export "join") (param i32 i32) (result i32) (local $sum i32)
      (local.set $sum (i32.add (call $rep (local.get 0)) (call $rep (local.get 1))))
      (call $drop (local.get 0)) (call $drop (local.get 1)) (call $new (local.get $sum))))
  (core instance $c (instantiate $code (with "h" (instance
    (export "new" (func $new)) (export "rep" (func $rep)) (export "drop" (func $drop))))))
  (component $shell
    (import "counter" (type $counter (sub resource)))
    (import "make" (func $make (param "n" u32) (result (own $counter))))
    (import "value" (func $value (param "self" (borrow $counter)) (result u32)))
    (import "join" (func $join (param "a" (own $counter)) (param "b" (own $counter)) (result (own $counter))))
    (export $c "counter" (type $counter))
    (export "[constructor]counter" (func $make) (func (param "n" u32) (result (own $c))))
    (export "[method]counter.value" (func $value) (func (param "self" (borrow $c)) (result u32)))
    (export "[static]counter.join" (func $join)
      (func (param "a" (own $c)) (param "b" (own $c)) (result (own $c)))))
  (func $make (param "n" u32) (result (own $counterd)) (canon lift (core func $c "make")))
  (func $value (param "self" (borrow $counterd)) (result u32) (canon lift (core func $c "value")))
  (func $join (param "a" (own $counterd)) (param "b" (own $counterd)) (result (own $counterd))
    (canon lift (core func $c "join")))
  (instance $counters (instantiate $shell (with "counter" (type $counterd)) (with "make" (func $make))
    (with "value" (func $value)) (with "join" (func $join))))
  (export "test:mutants/counters@1.0.0" (instance $counters)))
"""
"""A resource of the guest's own in an interface: constructor, method, static function, destructor."""


def corpus() -> tuple[bytes, ...]:
    """The originals, small enough to be compiled by the thousand."""
    texts = (
        SCALARS,
        BASICS,
        TOOLS,
        TALKER,
        COUNTER,
        NESTED,
        TWO_MEMORIES,
        START.format(pages="1 4", body="(i32.store (i32.const 0) (memory.grow (i32.const 2)))"),
    )
    return (
        *(parse(text) for text in texts),
        made(VALUES_CORE, VALUES_WIT, "values-world"),
        made(BUCKETS_CORE, BUCKETS_WIT, "buckets"),
        wit_component(WIDE_WIT, "both"),
        _composed(),
    )


def made(core: str, wit: str, world: str) -> bytes:
    """A component as wit-component makes it from a core module."""
    with tempfile.TemporaryDirectory() as name:
        files = {part: Path(name) / part for part in ("world.wit", "core.wasm", "embedded.wasm", "out.wasm")}
        files["world.wit"].write_text(wit)
        files["core.wasm"].write_bytes(parse(core))
        embed = ("-w", world, str(files["world.wit"]), str(files["core.wasm"]), "-o", str(files["embedded.wasm"]))
        run_wasm_tools("component", "embed", *embed)
        run_wasm_tools("component", "new", str(files["embedded.wasm"]), "-o", str(files["out.wasm"]))
        return files["out.wasm"].read_bytes()


def _composed() -> bytes:
    """Two components in one, which call each other with numbers."""
    wit = """
    package test:chain;
    interface back { twice: func(n: u32) -> u64; }
    interface front { run: func(n: u8) -> u64; }
    world provider { export back; }
    world user { import back; export front; }
    """
    provider = '(module (func (export "test:chain/back#twice") (param i32) (result i64) (i64.const 2)))'
    user = """
    (module (import "test:chain/back" "twice" (func $twice (param i32) (result i64)))
      (func (export "test:chain/front#run") (param i32) (result i64) (call $twice (local.get 0))))
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "provider.wasm").write_bytes(made(provider, wit, "provider"))
        (folder / "user.wasm").write_bytes(made(user, wit, "user"))
        words = (str(folder / "user.wasm"), "-d", str(folder / "provider.wasm"), "-o", str(folder / "out.wasm"))
        run_wasm_tools("compose", *words)
        return (folder / "out.wasm").read_bytes()


class Bucket:
    """Something that a mutant may hold."""

    def __init__(self, number: int) -> None:
        self.number = number

    def close(self) -> None:
        """Nothing to release."""


class _Services:
    """The host's side of `INTERFACE`."""

    def make(self, n: int) -> Bucket:
        """A bucket of this number."""
        return Bucket(n)

    def take(self, b: Bucket) -> int:
        """Takes a bucket away from the guest."""
        return b.number

    def look(self, a: Bucket) -> int:
        """Looks into a bucket."""
        return a.number

    def add(self, a: Bucket, b: Bucket) -> int:
        """Looks into two at once."""
        return (a.number + b.number) & 0xFFFFFFFF

    def say(self, level: Any, text: str) -> Any:
        """The text again."""
        return Ok(f"{level.value} {text[:1000]}")

    def draw(self, points: Any) -> list[Case]:
        """A shape for each point, at most a hundred."""
        shapes = (Case("none"), Case("circle", 2.5), Case("named", "dot"))
        return [shapes[number % 3] for number in range(min(len(points), 100))]

    def close(self) -> None:
        """Nothing to release."""


class MutantCapability:
    """Provides `INTERFACE`, to everybody when `default`, else to nobody: then its functions are linked and closed."""

    def __init__(self, wit: Path, *, default: bool) -> None:
        self._wit = wit
        self.schema = GrantSchema(
            id="test:mutants",
            version="1.0.0",
            summary="What mutants import",
            interfaces=(INTERFACE,),
            request=NoParams,
            allowance=NoParams,
            intersect=lambda request, allowance: Verdict(NoParams(), "for everybody"),
            default=default,
        )

    def wit(self) -> Path:
        """The directory of the WIT package."""
        return self._wit

    def open(self, grant: Params, session: Session) -> Mapping[str, _Services]:
        """One object for each instance."""
        return {INTERFACE: _Services()}
