"""Threat: a component that is none, is built to wear out who reads it, or asks for what nobody granted (H6, H21–H23,
H26). In both tiers it is refused before any of its code runs, and nothing is left of the attempt."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cloche.app import Host
from cloche.errors import ClocheError
from cloche.model import MIB, Tier
from cloche.runtime.plugin import Plugin
from support.compile_wat import binary, many_functions
from support.hazard_cases import TIERS
from support.ledger import Ledger
from support.wat_plugins import BASICS, START, TRUSTED, load, open_host, shared_home, write_plugin

pytestmark = pytest.mark.adversarial


@dataclass(frozen=True)
class Input:
    """One component: the hazard, a name, the threat in words, its bytes, and the code expected."""

    hazard: str
    name: str
    threat: str
    data: Callable[[], bytes]
    code: str


def wat(text: str) -> Callable[[], bytes]:
    """A component from text."""
    return lambda: binary(text)


def inside(text: str, times: int = 1) -> Callable[[], bytes]:
    """A component of one core module that holds `text` that often."""
    return wat(f"(component (core module {text * times}))")


def nested(levels: int) -> str:
    """A type within a type within a type."""
    return "".join(f"(type $t{n + 1} (option {'u8' if n == 0 else f'$t{n}'}))" for n in range(levels))


INPUTS = [
    Input("H21", "text", "text where a component should be", lambda: b"(component)", "component.not-wasm"),
    Input("H24", "native", "native code", lambda: b"\x7fELF\x02\x01\x01" + bytes(200), "component.not-wasm"),
    Input("H23", "nothing", "a file without a byte", lambda: b"", "component.malformed"),
    Input("H21", "module", "a core module", lambda: b"\0asm\x01\0\0\0", "component.core-module"),
    Input("H23", "half", "half a component", lambda: binary(BASICS)[:700], "component.malformed"),
    Input("H23", "twice", "two components in one file", lambda: binary(BASICS) * 2, "component.malformed"),
    Input("H23", "noise", "noise behind a good beginning", lambda: binary(BASICS)[:8] + bytes(range(1, 200)),
          "component.malformed"),
    Input("H23", "sizes", "a section of four gigabytes", lambda: binary(BASICS)[:8] + b"\x01\xff\xff\xff\xff\x0f",
          "component.malformed"),
    Input("H22", "functions", "more functions than anybody writes",
          lambda: binary(many_functions(1).replace("(func (result i32) i32.const 7 i32.const 8 i32.mul)",
                                                   "(func)" * 250_001)), "component.too-large"),
    Input("H22", "body", "one function of two megabytes", inside(f"(func {'nop ' * 2_100_000})"),
          "component.too-large"),
    Input("H22", "locals", "a function with very many locals", inside(f"(func (local {'i32 ' * 20_001}))"),
          "component.too-large"),
    Input("H22", "depth", "components inside components", wat("(component " * 34 + ")" * 34), "component.too-large"),
    Input("H22", "modules", "very many core modules", wat(f"(component {'(core module) ' * 1_001})"),
          "component.too-large"),
    Input("H6", "memories", "very many memories",
          wat("(component (core module $m (memory 1))" + "(core instance (instantiate $m))" * 101 + ")"),
          "component.too-large"),
    Input("H6", "tables", "very many tables",
          wat("(component (core module $m (table 1 funcref))" + "(core instance (instantiate $m))" * 1_001 + ")"),
          "component.too-large"),
    Input("H6", "instances", "very many instances",
          wat("(component (core module $m)" + "(core instance (instantiate $m))" * 10_001 + ")"),
          "component.too-large"),
    Input("H6", "memory", "a memory that begins larger than the limit",
          lambda: binary(START.format(body="", pages=8_192)), "limit.memory"),
    Input("H6", "memory-sum", "memories that are too large together",
          wat("(component (core module $m (memory 512))" + "(core instance (instantiate $m))" * 20 + ")"),
          "limit.memory"),
    Input("H6", "table", "a table that begins with a hundred million elements",
          wat("(component (core module $m (table 100000000 funcref)) (core instance (instantiate $m)))"),
          "limit.memory"),
    Input("H23", "types", "a type nested a hundred deep",
          wat(f'(component {nested(100)} (import "f" (func (param "x" $t100))))'), "component.malformed"),
    Input("H26", "unknown", "an interface that nobody provides",
          wat('(component (import "acme:secret/door@1.0.0" (instance (export "open" (func)))))'), "grant.refused"),
    Input("H26", "unknown-empty", "an interface that nobody provides and that asks for nothing",
          wat('(component (import "acme:secret/door@1.0.0" (instance)))'), "grant.refused"),
    Input("H26", "function", "a function of the host outside of any interface",
          wat('(component (import "open" (func)))'), "grant.refused"),
    Input("H26", "other-type", "a known function with another type",
          wat('(component (import "wasi:logging/logging@0.1.0-draft"'
              ' (instance (export "log" (func (param "x" u64))))))'),
          "contract.mismatch"),
    Input("H8", "threads", "memory that is shared", inside("(memory 1 1 shared)"), "component.malformed"),
    Input("H8", "wide-memory", "a memory of 64 bits", inside("(memory i64 1)"), "component.malformed"),
    Input("H8", "garbage", "structures of the collector", inside("(type (struct (field i32)))"),
          "component.malformed"),
]  # fmt: skip


@dataclass(frozen=True)
class Stage:
    """A host with a plugin that keeps count, and where files may lie."""

    host: Host
    witness: Plugin
    places: tuple[Path, ...]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    temporary = tmp_path_factory.mktemp("temporary")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(temporary))
        with open_host() as host:
            witness = load(
                host, tmp_path_factory.mktemp("witness"), BASICS, plugin_id="acme/witness", instances="single"
            )
            witness[""].next()
            yield Stage(host, witness, (temporary, shared_home()))


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("given", INPUTS, ids=lambda given: given.name)
def test_a_hostile_component_is_refused(stage: Stage, tmp_path: Path, given: Input, tier: Tier) -> None:
    """With its code, as often as it comes; the host goes on and holds what it held."""
    folder = write_plugin(tmp_path, given.data(), plugin_id="acme/hostile")
    trust = TRUSTED if tier is Tier.TRUSTED else None

    def refused() -> str:
        with pytest.raises(ClocheError) as caught:
            stage.host.load(folder, trust=trust)
        return caught.value.code

    assert refused() == given.code
    seen, before = stage.witness[""].next(), Ledger.take(*stage.places)
    assert [refused() for _ in range(2)] == [given.code] * 2
    before.ensure_kept(24 * MIB)
    assert stage.witness[""].next() == seen + 1
