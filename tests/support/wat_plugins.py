"""Plugins from WAT for tests of the engine, the runtime and the host, and hosts to load them in.

All hosts of a process share one home, so that each component is read and compiled once.
"""

from __future__ import annotations

import atexit
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from cloche.app import Host
from cloche.config import Settings
from cloche.grants.policy import Policy
from cloche.grants.policy_file import parse_policy
from cloche.model import Trusted, Usage
from cloche.runtime.plugin import Plugin
from support.binary_wat import parse

TRUSTED = Trusted("a test")
TESTS = Path(__file__).parents[1]


@lru_cache(maxsize=1)
def shared_home() -> Path:
    """The home of this process's tests, removed at its end."""
    path = Path(tempfile.mkdtemp(prefix="cloche-tests-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


@contextmanager
def open_host(policy: str | Policy | None = None, **options: Any) -> Iterator[Host]:
    """A host that, once the test is over, must have no instance left."""
    word = parse_policy(textwrap.dedent(policy).encode()) if isinstance(policy, str) else policy or Policy.empty()
    home = options.pop("home", None) or shared_home()
    settings = Settings(home=home, background_compile=False, ready_workers=options.pop("ready_workers", 0))
    with Host(home=home, policy=word, settings=settings, **options) as host:
        engines = host._engines
        yield host
    left = [instance for engine in engines.values() for instance in engine.instances.values()]
    assert not left, left


def write_plugin(
    directory: Path, wat: str | bytes, *, plugin_id: str = "acme/test", instances: str = "", more: str = ""
) -> Path:
    """A plugin directory with a manifest. `more` is TOML that follows; `instances` the manifest's word."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "plugin.wasm").write_bytes(wat if isinstance(wat, bytes) else parse(wat))
    mode = f'instances = "{instances}"\n' if instances else ""
    (directory / "plugin.toml").write_text(
        f'format-version = 1\nid = "{plugin_id}"\nname = "Test"\nversion = "1.0.0"\n{mode}'
        f'[component]\npath = "plugin.wasm"\n{textwrap.dedent(more)}'
    )
    return directory


def load(host: Host, directory: Path, wat: str | bytes, **manifest: Any) -> Plugin:
    """Write a plugin and load it as trusted."""
    return host.load(write_plugin(directory, wat, **manifest), trust=TRUSTED)


def events(host: Host, kind: str) -> list[Mapping[str, Any]]:
    """The data of the host's events of one kind, oldest first."""
    return [event.data for event in host.events.recent() if event.kind == kind]


def fuel_of(usage: Usage | None) -> int:
    """Fuel of guest and host together, of a call whose fuel was counted."""
    assert usage is not None
    assert usage.fuel is not None
    return usage.fuel


def run_program(
    source: str, *arguments: object, timeout: float = 120, optimise: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run a Python program in a process of its own, with the tests' support, our home and stacks shown on a crash."""
    head = (
        # A shell that runs the tests in the background has SIGINT ignored, which children inherit.
        f"import faulthandler, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"faulthandler.enable(); sys.path.insert(0, {str(TESTS)!r})\n"
        f"import pathlib, support.wat_plugins as plugins\n"
        f"plugins.shared_home = lambda: pathlib.Path({str(shared_home())!r})\n"
    )
    flags = ["-O"] if optimise else []
    command = [sys.executable, *flags, "-c", head + textwrap.dedent(source), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


BASICS = """
(component
  (core module $m
    (memory (export "memory") 1)
    (table $table 4 funcref)
    (type $plain (func))
    (type $takes (func (param i32)))
    (func $noop)
    (elem (i32.const 0) $noop)
    (global $count (mut i32) (i32.const 0))
    (global $top (mut i32) (i32.const 1024))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (local $at i32)
      (local.set $at (i32.const 1024))
      (block $fits
        (br_if $fits (i32.le_u (i32.add (local.get $at) (local.get 3)) (i32.mul (memory.size) (i32.const 65536))))
        (br_if $fits (i32.ge_s (memory.grow (i32.add (i32.const 1) (i32.div_u (local.get 3) (i32.const 65536))))
          (i32.const 0)))
        unreachable)
      (local.get $at))
    (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
    (func (export "next") (result i32)
      (global.set $count (i32.add (global.get $count) (i32.const 1))) (global.get $count))
    (func (export "work") (param i32) (result i32)
      (loop $more (br_if $more (local.tee 0 (i32.sub (local.get 0) (i32.const 1))))) (local.get 0))
    (func (export "echo") (param i32 i32) (result i32)
      (i32.store (i32.const 16) (local.get 0)) (i32.store (i32.const 20) (local.get 1)) (i32.const 16))
    (func (export "give") (param i32) (result i32)
      (i32.store (i32.const 16) (i32.const 1024)) (i32.store (i32.const 20) (local.get 0)) (i32.const 16))
    (func (export "size") (param i32 i32) (result i32) (local.get 1))
    (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0)))
    (func (export "widen") (param i32) (result i32) (table.grow $table (ref.null func) (local.get 0)))
    (func (export "eat") (loop $more (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable)
    (func (export "unreachable") unreachable)
    (func (export "out-of-bounds") (drop (i32.load (i32.const 0x7ffffff0))))
    (func (export "table-out-of-bounds") (drop (table.get $table (i32.const 100))))
    (func (export "undefined-element") (call_indirect $table (type $plain) (i32.const 100)))
    (func (export "null-element") (call_indirect $table (type $plain) (i32.const 2)))
    (func (export "wrong-type") (call_indirect $table (type $takes) (i32.const 5) (i32.const 0)))
    (func (export "divide") (param i32 i32) (result i32) (i32.div_s (local.get 0) (local.get 1)))
    (func (export "convert") (param f32) (result i32) (i32.trunc_f32_s (local.get 0)))
    (func $recurse (export "recurse") (call $recurse))
    (func (export "spin") (loop (br 0)))
    (func (export "bad-text") (result i32)
      (i32.store8 (i32.const 64) (i32.const 0xff))
      (i32.store (i32.const 16) (i32.const 64)) (i32.store (i32.const 20) (i32.const 1)) (i32.const 16)))
  (core instance $i (instantiate $m))
  (alias core export $i "memory" (core memory $memory))
  (alias core export $i "realloc" (core func $realloc))
  (func (export "add") (param "a" u32) (param "b" u32) (result u32) (canon lift (core func $i "add")))
  (func (export "next") (result u32) (canon lift (core func $i "next")))
  (func (export "work") (param "turns" u32) (result u32) (canon lift (core func $i "work")))
  (func (export "echo") (param "data" (list u8)) (result (list u8))
    (canon lift (core func $i "echo") (memory $memory) (realloc $realloc)))
  (func (export "give") (param "size" u32) (result (list u8)) (canon lift (core func $i "give") (memory $memory)))
  (func (export "size") (param "data" (list u8)) (result u32)
    (canon lift (core func $i "size") (memory $memory) (realloc $realloc)))
  (func (export "grow") (param "pages" u32) (result s32) (canon lift (core func $i "grow")))
  (func (export "widen") (param "elements" u32) (result s32) (canon lift (core func $i "widen")))
  (func (export "eat") (canon lift (core func $i "eat")))
  (func (export "unreachable") (canon lift (core func $i "unreachable")))
  (func (export "out-of-bounds") (canon lift (core func $i "out-of-bounds")))
  (func (export "table-out-of-bounds") (canon lift (core func $i "table-out-of-bounds")))
  (func (export "undefined-element") (canon lift (core func $i "undefined-element")))
  (func (export "null-element") (canon lift (core func $i "null-element")))
  (func (export "wrong-type") (canon lift (core func $i "wrong-type")))
  (func (export "divide") (param "a" s32) (param "b" s32) (result s32) (canon lift (core func $i "divide")))
  (func (export "convert") (param "a" f32) (result s32) (canon lift (core func $i "convert")))
  (func (export "recurse") (canon lift (core func $i "recurse")))
  (func (export "spin") (canon lift (core func $i "spin")))
  (func (export "bad-text") (result string) (canon lift (core func $i "bad-text") (memory $memory))))
"""
"""Arithmetic, state (`next` counts its calls), bytes both ways, and one function for each way to trap."""

START = """
(component
  (core module $m (memory (export "memory") {pages}) (func $start {body}) (start $start)
    (func (export "answer") (result i32) (i32.const 42)))
  (core instance $i (instantiate $m))
  (func (export "answer") (result u32) (canon lift (core func $i "answer"))))
"""
"""A component whose start function runs `{body}` in a memory of `{pages}` pages."""
