"""Small components for the compiler and its store, written as text and made binary once per process."""

from __future__ import annotations

import hashlib
import subprocess
from functools import lru_cache

from cloche.model import Digest
from cloche.wit.tools import wasm_tools


@lru_cache(maxsize=32)
def binary(text: str) -> bytes:
    """`text` (WAT) as wasm."""
    done = subprocess.run([str(wasm_tools()), "parse", "-"], input=text.encode(), capture_output=True, check=True)
    return done.stdout


def digest_of(data: bytes) -> Digest:
    """The sha256 of `data`."""
    return Digest(hashlib.sha256(data).hexdigest())


def component(answer: int = 42) -> bytes:
    """A component of a few hundred bytes whose code differs with `answer`."""
    return binary(f'(component (core module (func (export "f") (result i32) i32.const {answer})))')


def large_component(own: str, shared: str = "shared") -> bytes:
    """A component of 2.6 MB with two large core modules: `own` makes the first one different, `shared` the second."""
    modules = "".join(
        f'(core module $m{number} (memory (export "m") 40) (data (i32.const 0) "{(text + ".") * 200_000:.1300000}"))'
        f"(core instance $i{number} (instantiate $m{number}))"
        for number, text in enumerate((own, shared))
    )
    return binary(f"(component {modules})")


def nested_loops(loops: int, locals_: int) -> str:
    """One function of nested loops over many locals: the register allocator's worst case."""
    body = "".join("loop " for _ in range(loops))
    used = "".join(
        f"local.get {number % locals_} i32.const 1 i32.add local.set {number % locals_} " for number in range(locals_)
    )
    return f"(component (core module (func (local {'i32 ' * locals_}) {body} {used} {'end ' * loops})))"


def many_functions(count: int) -> str:
    """Very many tiny functions."""
    return f"(component (core module {'(func (result i32) i32.const 7 i32.const 8 i32.mul)' * count}))"


def long_function(operations: int) -> str:
    """One function with a very long body that keeps everything alive."""
    body = "local.get 0 i32.load local.get 0 i32.add local.set 0 " * operations
    return f"(component (core module (memory 1) (func (param i32) (result i32) {body} local.get 0)))"
