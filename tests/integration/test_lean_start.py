"""What is imported where: a worker and a program that runs one script start without what they do not use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cloche.app import Host
from support.fresh import HOST_SIDE, WORKER_SIDE, fresh
from support.wat_plugins import TRUSTED, open_host, write_plugin

HEAVY = (
    "asyncio",
    "ast",
    "concurrent.futures",
    "dataclasses",
    "inspect",
    "logging",
    "numpy",
    "pydantic",
    "rich",
    "structlog",
    "tempfile",
    "typer",
    "typing_extensions",
    "wasmtime",
)
"""None of these is imported on the way to a first call."""

NUMBERS = """
(component
  (core module $m
    (memory (export "memory") 2)
    (global $next (mut i32) (i32.const 4096))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (local $at i32)
      (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
      (global.set $next (i32.add (local.get $at) (local.get 3)))
      (local.get $at))
    (func (export "same") (param i32 i32) (result i32)
      (i32.store (i32.const 0) (local.get 0)) (i32.store (i32.const 4) (local.get 1)) (i32.const 0)))
  (core instance $i (instantiate $m))
  (alias core export $i "memory" (core memory $memory))
  (type $list' (list ELEMENT))
  (func (export "same") (param "list" $list') (result $list')
    (canon lift (core func $i "same") (memory $memory) (realloc (core func $i "realloc")))))
"""


@pytest.mark.parametrize("modules", [WORKER_SIDE, HOST_SIDE], ids=["worker", "host"])
def test_a_start_imports_nothing_heavy(modules: str) -> None:
    """The rooms of each side, in an interpreter that imported nothing else."""
    found = fresh(modules, "print(*(name for name, module in sys.modules.items() if module))").split()
    assert not set(HEAVY) & set(found)
    assert "cloche.worker.messages" in found


def numpy_in_worker(host: Host) -> bool:
    """Whether the only worker of this host has numpy's code mapped."""
    (house,) = host._houses
    assert house._worker is not None
    return "_multiarray_umath" in Path(f"/proc/{house._worker.pid}/maps").read_text()


@pytest.mark.parametrize(
    ("element", "given", "expected", "has_numpy"),
    [
        ("u32", [1, 2, 3], np.array([1, 2, 3], "<u4"), True),
        ("(tuple u8 f64)", [(1, 0.5), (2, 1.5)], [(1, 0.5), (2, 1.5)], True),
        ("u8", b"bytes", b"bytes", False),
        ("u8", [1, 2], b"\1\2", False),
        ("u8", bytes(range(256)) * 100, bytes(range(256)) * 100, False),
        ("string", ["a", "b"], ["a", "b"], False),
        ("(tuple u8 string)", [(1, "b")], [(1, "b")], False),
    ],
    ids=["numbers", "rows", "bytes", "bytes from a list", "many bytes", "strings", "tuples"],
)
def test_a_worker_has_numpy_when_its_plugin_needs_it(
    tmp_path: Path, element: str, given: object, expected: object, has_numpy: bool
) -> None:
    """Numbers and rows are arrays, for which numpy is imported before the worker locks itself in; bytes are not."""
    with open_host() as host:
        plugin = host.load(write_plugin(tmp_path / "p", NUMBERS.replace("ELEMENT", element), plugin_id="acme/numbers"))
        value = plugin[""].same(given)
        assert (value.tolist() if isinstance(value, np.ndarray) else value) == (
            expected.tolist() if isinstance(expected, np.ndarray) else expected
        )
        assert isinstance(value, np.ndarray) == has_numpy
        assert numpy_in_worker(host) == has_numpy


def test_a_host_of_untrusted_plugins_has_no_engine(tmp_path: Path) -> None:
    """Their instances, and the engine with its clock, are in the worker."""
    directory = write_plugin(tmp_path / "p", NUMBERS.replace("ELEMENT", "u8"), plugin_id="acme/numbers")
    with open_host() as host:
        assert host.load(directory)[""].same(b"ab") == b"ab"
        assert not host._engines
        host.unload("acme/numbers")
        host.load(directory, trust=TRUSTED)
        assert len(host._engines) == 1
