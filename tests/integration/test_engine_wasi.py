"""The WIT of WASI that we ship is the engine's: it links all of it, and what differs is found before linking."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cloche.catalog import engine_interfaces
from cloche.contract.report import Disposition
from cloche.errors import ContractError, GuestTrap
from cloche.grants.wasi import WASI_SCHEMAS
from cloche.resources import wit_dir
from cloche.version import WASI_VERSION
from cloche.wit.store import TypeStore
from support.binary_wat import run_wasm_tools
from support.wat_plugins import TRUSTED, load, open_host, shared_home

PACKAGES = ("wasi-cli", "wasi-clocks", "wasi-filesystem", "wasi-io", "wasi-random", "wasi-sockets")
WORLD = f"package test:all;\nworld all {{ include wasi:cli/imports@{WASI_VERSION}; export go: func(); }}\n"


def test_the_engine_links_all_of_it(tmp_path: Path) -> None:
    """A component that imports each function and resource with our types is instantiated: the engine checks each."""
    for name in PACKAGES:
        (tmp_path / "wit" / "deps" / name).mkdir(parents=True)
        shutil.copy(wit_dir() / "deps" / name / "package.wit", tmp_path / "wit" / "deps" / name)
    (tmp_path / "wit" / "world.wit").write_text(WORLD)
    core, component = str(tmp_path / "core.wasm"), tmp_path / "all.wasm"
    run_wasm_tools("component", "embed", "--dummy", "-w", "all", str(tmp_path / "wit"), "-o", core)
    run_wasm_tools("component", "new", core, "-o", str(component))
    with open_host() as host:
        plugin = host.load(component, trust=TRUSTED)
        assert plugin.report is not None
        found = {binding.id: len(binding.interface.functions) for binding in plugin.report.imports}
        assert found == {known.id: len(known.functions) for known in engine_interfaces(TypeStore(shared_home()))}
        with pytest.raises(GuestTrap) as caught:
            plugin[""].go()
        assert caught.value.kind == "unreachable"


def test_each_of_its_interfaces_but_streams_belongs_to_a_grant() -> None:
    """The grants speak of the interfaces that the engine has, no more and no less, at the version that it has.

    Streams and errors open nothing by themselves; waiting blocks the host's thread, so that polling is a grant.
    """
    plumbing = {f"wasi:io/{name}@{WASI_VERSION}" for name in ("streams", "error")}
    ids = {known.id for known in engine_interfaces(TypeStore(shared_home()))}
    granted = {name for schema in WASI_SCHEMAS for name in schema.interfaces}
    assert ids - plumbing == granted
    assert {name.partition("@")[2] for name in ids} == {WASI_VERSION}


IMPORT = """(component
  (import "{interface}" (instance {types} (export "{name}" (func {signature}))))
  (core module $m (func (export "go")))
  (core instance $i (instantiate $m))
  (func (export "go") (canon lift (core func $i "go"))))"""
RANDOM = f"wasi:random/random@{WASI_VERSION}"
CASES = [
    (RANDOM, "", "get-random-u64", "(result u32)", "function `get-random-u64`: result: expected u64"),
    (RANDOM, "", "get-random-u64", '(param "a" u8) (result u64)', "function `get-random-u64`: expected no parameters"),
    (RANDOM, "", "get-random-u32", "(result u32)", "function `get-random-u32`: wasi:random/random@0.2.12 has no such"),
    ("wasi:random/random@0.2.99", "", "get-random-u32", "(result u32)", "(did you mean `get-random-u64`?)"),
    (
        "wasi:cli/stdout@0.2.0",
        '(export "output-stream" (type $s (sub resource)))',
        "get-stdout",
        "(result (own $s))",
        "expected resource wasi:io/streams@0.2.12.output-stream",
    ),
    (
        "wasi:io/poll@0.2.0",
        '(export "pollable" (type $p (sub resource)))',
        "[method]pollable.ready",
        '(param "self" (borrow $p)) (result u8)',
        "function `[method]pollable.ready`: result: expected bool",
    ),
]


@pytest.mark.parametrize(("interface", "types", "name", "signature", "said"), CASES)
def test_what_it_does_not_have_is_found_before_linking(
    tmp_path: Path, interface: str, types: str, name: str, signature: str, said: str
) -> None:
    """Another type, another number of parameters and an unknown function are named; the engine is never asked."""
    wat = IMPORT.format(interface=interface, types=types, name=name, signature=signature)
    with open_host() as host, pytest.raises(ContractError) as caught:
        load(host, tmp_path / "p", wat)
    assert caught.value.code == "contract.mismatch"
    assert interface in caught.value.findings[0]
    assert said in caught.value.findings[0]


@pytest.mark.parametrize("version", ["0.2.0", WASI_VERSION, "0.2.99"])
def test_any_release_of_it_is_linked(tmp_path: Path, version: str) -> None:
    """What a component built for another 0.2 uses is there, resources included."""
    wat = IMPORT.format(
        interface=f"wasi:io/poll@{version}",
        types='(export "pollable" (type $p (sub resource)))',
        name="[method]pollable.ready",
        signature='(param "self" (borrow $p)) (result bool)',
    )
    with open_host() as host:
        plugin = load(host, tmp_path / "p", wat)
        assert plugin.report is not None
        assert [binding.disposition for binding in plugin.report.imports] == [Disposition.ENGINE]
        assert plugin[""].go() is None
