"""A guest with lifecycle hooks, built from a core module and WIT: each hook tells the gate that it was called.

`twice(n)` on the gate: 0 or more below 100 is `initialize` with n configuration pairs, 100 `start`, 200 `stop`, 300
`health`. The hook refuses when the answer is 1000 or more.
"""

from __future__ import annotations

import tempfile
from functools import lru_cache
from pathlib import Path

from support.binary_wat import run_wasm_tools
from support.gate_capability import WIT

LIFECYCLE_WIT = Path(__file__).parents[2] / "wit" / "plugin" / "lifecycle.wit"

WORLD = """package test:life;
world life {
  import test:gate/gate@1.0.0;
  export cloche:plugin/lifecycle@1.0.0;
  export next: func() -> u32;
  export crash: func();
  export act: func();
}
"""

CORE = """(module
  (import "test:gate/gate@1.0.0" "act" (func $act))
  (import "test:gate/gate@1.0.0" "twice" (func $twice (param i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
  (func $say (param i32) (result i32)
    (i32.store8 (i32.const 16) (i32.ge_u (call $twice (local.get 0)) (i32.const 1000)))
    (i32.store8 (i32.const 20) (i32.const 2))
    (i32.store (i32.const 24) (i32.const 64))
    (i32.store (i32.const 28) (i32.const 0))
    (i32.const 16))
  (func (export "cloche:plugin/lifecycle@1.0.0#initialize") (param i32 i32) (result i32) (call $say (local.get 1)))
  (func (export "cloche:plugin/lifecycle@1.0.0#start") (result i32) (call $say (i32.const 100)))
  (func (export "cloche:plugin/lifecycle@1.0.0#stop") (result i32) (call $say (i32.const 200)))
  (func (export "cloche:plugin/lifecycle@1.0.0#health") (result i32)
    (drop (call $say (i32.const 300)))
    (i32.store (i32.const 16) (i32.const 0))
    (i32.store (i32.const 20) (i32.const 0))
    (i32.const 16))
  (global $count (mut i32) (i32.const 0))
  (func (export "next") (result i32)
    (global.set $count (i32.add (global.get $count) (i32.const 1))) (global.get $count))
  (func (export "crash") unreachable)
  (func (export "act") (call $act)))
"""


def component_of(core: str, world: str, deps: dict[str, str]) -> bytes:
    """A component of a core module in WAT and a world in WIT, with the packages that it names."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "wit").mkdir()
        for package, text in deps.items():
            (folder / "wit" / "deps" / package).mkdir(parents=True)
            (folder / "wit" / "deps" / package / "package.wit").write_text(text)
        (folder / "wit" / "world.wit").write_text(world)
        (folder / "core.wat").write_text(core)
        wit, wat, made, out = (str(folder / part) for part in ("wit", "core.wat", "core.wasm", "out.wasm"))
        run_wasm_tools("component", "embed", wit, wat, "-o", made)
        run_wasm_tools("component", "new", made, "-o", out)
        return Path(out).read_bytes()


@lru_cache(maxsize=1)
def life_component() -> bytes:
    """The guest."""
    lifecycle = "package cloche:plugin@1.0.0;\n" + LIFECYCLE_WIT.read_text()
    return component_of(CORE, WORLD, {"gate": WIT, "plugin": lifecycle})
