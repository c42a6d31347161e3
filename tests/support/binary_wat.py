"""Small components for tests: from WAT text, and as toolchains make them (shims, fix-ups, composition)."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from functools import lru_cache
from pathlib import Path

WASM_TOOLS = Path(sys.executable).with_name("wasm-tools")


def run_wasm_tools(*arguments: str, data: bytes = b"") -> bytes:
    """Standard output of `wasm-tools`; fails the test with its error text."""
    done = subprocess.run([WASM_TOOLS, *arguments], input=data, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@lru_cache(maxsize=64)
def parse(text: str) -> bytes:
    """WAT as binary, not validated."""
    return run_wasm_tools("parse", "-", data=text.encode())


def validate(data: bytes) -> None:
    """Fail when the component is not valid."""
    run_wasm_tools("validate", "-", data=data)


@lru_cache(maxsize=8)
def wit_component(wit: str, world: str) -> bytes:
    """A component as wit-component makes it (shim and fix-up modules), around an empty guest of `world`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "world.wit").write_text(wit)
        wit_file, core, out = str(folder / "world.wit"), str(folder / "core.wasm"), str(folder / "out.wasm")
        run_wasm_tools("component", "embed", "--dummy", "-w", world, wit_file, "-o", core)
        run_wasm_tools("component", "new", core, "-o", out)
        return Path(out).read_bytes()


STRINGS_WIT = """
package test:strings;
interface sink { put: func(text: string) -> string; }
interface source { get: func(name: string) -> list<string>; }
world both { import sink; export source; export plain: func(a: u32) -> string; }
"""
"""A world whose imports need memory before the guest exists, so that wit-component adds shim and fix-up modules."""

ONE_MEMORY = """
(component
  (core module $m
    (memory (export "memory") 3)
    (func (export "grow") (param i32) (result i32) local.get 0 memory.grow))
  (core instance $i (instantiate $m))
  (alias core export $i "memory" (core memory $mem))
  (func (export "grow") (param "by" u32) (result s32) (canon lift (core func $i "grow"))))
"""
"""Three pages; `grow(by)` adds some."""

TWO_MEMORIES = """
(component
  (core module $m
    (memory (export "memory") 2)
    (func (export "grow") (param i32) (result i32) local.get 0 memory.grow))
  (core module $user (import "env" "memory" (memory 0)) (export "again" (memory 0)))
  (core instance $a (instantiate $m))
  (core instance $b (instantiate $m))
  (core instance $bag (export "memory" (memory $a "memory")))
  (core instance $u (instantiate $user (with "env" (instance $bag))))
  (alias core export $a "memory" (core memory $first))
  (alias core export $b "memory" (core memory $second))
  (alias core export $bag "memory" (core memory $first-again))
  (alias core export $u "again" (core memory $first-once-more))
  (func (export "grow") (param "by" u32) (result s32) (canon lift (core func $b "grow"))))
"""
"""Two memories of two pages under five core memory indices (one is the bag's); `grow(by)` grows the second."""

NESTED = """
(component
  (component $inner
    (core module $m (memory (export "memory") 4) (table 7 9 funcref))
    (core instance $i (instantiate $m)))
  (component $twice
    (alias outer 1 $inner (component $again))
    (instance $x (instantiate $again))
    (instance $y (instantiate $again)))
  (instance $p (instantiate $twice))
  (instance $q (instantiate $inner)))
"""
"""Three memories of four pages and three tables, all inside nested components."""


@lru_cache(maxsize=1)
def composed() -> bytes:
    """Two components of wit-component in one: calls between them carry strings both ways."""
    wit = """
    package test:chain;
    interface back { greet: func(name: string) -> string; names: func() -> list<string>; }
    interface front { run: func(text: string) -> string; }
    world provider { export back; }
    world user { import back; export front; }
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for world in ("provider", "user"):
            (folder / f"{world}.wasm").write_bytes(wit_component(wit, world))
        user, provider, out = (str(folder / f"{part}.wasm") for part in ("user", "provider", "out"))
        run_wasm_tools("compose", user, "-d", provider, "-o", out)
        return Path(out).read_bytes()
