"""Small plugins for tests of the command line, from WAT."""

from __future__ import annotations

from pathlib import Path

from support.binary_wat import parse

TOOLS = """
(component
  (core module $m
    (memory (export "memory") 1 4)
    (global $top (mut i32) (i32.const 1024))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (local $at i32)
      (local.set $at (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
      (global.set $top (i32.add (local.get $at) (local.get 3)))
      (local.get $at))
    (func (export "echo") (param i32 i32) (result i32)
      (i32.store (i32.const 16) (local.get 0))
      (i32.store (i32.const 20) (local.get 1))
      (i32.const 16))
    (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
    (func (export "spin") (loop (br 0)))
    (func (export "trap") unreachable)
    (func (export "refuse") (param i32 i32) (result i32)
      (i32.store8 (i32.const 32) (i32.const 1))
      (i32.store (i32.const 36) (local.get 0))
      (i32.store (i32.const 40) (local.get 1))
      (i32.const 32)))
  (core instance $i (instantiate $m))
  (alias core export $i "memory" (core memory $memory))
  (alias core export $i "realloc" (core func $realloc))
  (func $echo (param "text" string) (result string)
    (canon lift (core func $i "echo") (memory $memory) (realloc $realloc)))
  (func $bytes (param "data" (list u8)) (result (list u8))
    (canon lift (core func $i "echo") (memory $memory) (realloc $realloc)))
  (func $add (param "a" u32) (param "b" u32) (result u32) (canon lift (core func $i "add")))
  (func $spin (canon lift (core func $i "spin")))
  (func $trap (canon lift (core func $i "trap")))
  (func $refuse (param "why" string) (result (result u32 (error string)))
    (canon lift (core func $i "refuse") (memory $memory) (realloc $realloc)))
  (instance $tools
    (export "echo" (func $echo))
    (export "bytes" (func $bytes))
    (export "add" (func $add))
    (export "spin" (func $spin))
    (export "trap" (func $trap))
    (export "refuse" (func $refuse)))
  (export "test:cli/tools@1.2.0" (instance $tools)))
"""

SINGLE = """
(component
  (core module $m (func (export "answer") (result i32) (i32.const 42)))
  (core instance $i (instantiate $m))
  (func $answer (result u8) (canon lift (core func $i "answer")))
  (export "answer" (func $answer)))
"""

COMMAND = """
(component
  (core module $m (func (export "run") (result i32) (i32.const %d)))
  (core instance $i (instantiate $m))
  (func $run (result (result)) (canon lift (core func $i "run")))
  (instance $command (export "run" (func $run)))
  (export "wasi:cli/run@0.2.6" (instance $command)))
"""

STRANGER = """
(component
  (import "nobody:knows/this@1.0.0" (instance (export "ask" (func (result u32))))))
"""


def write_plugins(directory: Path) -> dict[str, Path]:
    """Every plugin, written below `directory`, by name."""
    sources = {
        "tools": TOOLS,
        "single": SINGLE,
        "good-command": COMMAND % 0,
        "bad-command": COMMAND % 1,
        "stranger": STRANGER,
        "core": "(module)",
    }
    files = {name: directory / f"{name}.wasm" for name in sources}
    for name, text in sources.items():
        files[name].write_bytes(parse(text))
    files["truncated"] = directory / "truncated.wasm"
    files["truncated"].write_bytes(files["tools"].read_bytes()[:-40])
    files["text"] = directory / "text.wasm"
    files["text"].write_text("I am a poem.\n")
    return files
