"""What a component cannot get by the way it spells its imports."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloche.errors import ContractError, GrantError
from support.wat_plugins import load, open_host

DENIED = """
    format-version = 1
    [plugins."*"]
    deny = ["wasi:clocks"]
"""
CLOCK = """(import "wasi:clocks/wall-clock@{version}" (instance ${name}
    (type $t (record (field "seconds" u64) (field "nanoseconds" u32)))
    (export "datetime" (type $d (eq $t)))
    (export "now" (func (result $d)))))
  (core func ${name}-now (canon lower (func ${name} "now") (memory $mem)))"""


def two_clocks(first: str, second: str) -> str:
    """A component that imports one interface at two versions, and a function that calls each."""
    imports = CLOCK.format(version=first, name="a") + CLOCK.format(version=second, name="b")
    return f"""(component
  (core module $mm (memory (export "m") 1))
  (core instance $mi (instantiate $mm))
  (alias core export $mi "m" (core memory $mem))
  {imports}
  (core module $m
    (import "h" "a" (func $a (param i32))) (import "h" "b" (func $b (param i32))) (import "h" "m" (memory 1))
    (func (export "first") (result i64) (call $a (i32.const 16)) (i64.load (i32.const 16)))
    (func (export "second") (result i64) (call $b (i32.const 16)) (i64.load (i32.const 16))))
  (core instance $i (instantiate $m (with "h" (instance
    (export "a" (func $a-now)) (export "b" (func $b-now)) (export "m" (memory $mem))))))
  (func (export "first") (result u64) (canon lift (core func $i "first")))
  (func (export "second") (result u64) (canon lift (core func $i "second"))))"""


@pytest.mark.parametrize("versions", [("0.2.0", "0.2.99"), ("0.2.12", "0.2.3"), ("0.2.0+x", "0.2.12+y")])
def test_a_denied_interface_is_closed_in_every_version(tmp_path: Path, versions: tuple[str, str]) -> None:
    """No version, and no second import beside another, reaches the engine's own clock."""
    with open_host() as host:
        plugin = load(host, tmp_path / "granted", two_clocks(*versions), plugin_id="acme/granted")
        assert plugin[""].first() > 0
    with open_host(DENIED) as host:
        plugin = load(host, tmp_path / "denied", two_clocks(*versions), plugin_id="acme/denied")
        for function in ("first", "second"):
            with pytest.raises(GrantError, match="no grant for wasi:clocks"):
                plugin[""][function]()


def test_a_draft_of_an_engine_interface_is_refused(tmp_path: Path) -> None:
    """A pre-release stands for nothing but itself."""
    with open_host() as host, pytest.raises(ContractError, match="the component needs version"):
        load(host, tmp_path, two_clocks("0.2.12-rc", "0.2.1"))
