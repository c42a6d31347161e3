"""Where a host's capabilities come from: installed packages, objects in code, and which of them wins."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cloche.capabilities.api import Session
from cloche.catalog import build_catalog, installed_capabilities
from cloche.errors import CapabilityError
from cloche.grants.schema import GrantSchema, NoParams, Params, Verdict
from cloche.wit.store import TypeStore
from support.wat_plugins import load, open_host, shared_home

MODULE = """
from pathlib import Path
from cloche import GrantSchema, NoParams, Verdict

SCHEMA = GrantSchema(
    id={id!r}, version="1.0.0", summary="Roll dice", interfaces=("acme:dice/dice@1.0.0",), request=NoParams,
    allowance=NoParams, intersect=lambda request, allowance: Verdict(NoParams(), ""),
)

class Dice:
    schema = SCHEMA

    def wit(self):
        return Path(__file__).parent / "dice-wit"

    def open(self, grant, session):
        return {{}}

def make():
    return Dice()

DICE = Dice()
NOTHING = 42
"""


INTERRUPTED = """
from pydantic_core import SchemaValidator, core_schema
class Late:
    def __call__(self, value):
        return value
    def __repr__(self):
        raise KeyboardInterrupt
SchemaValidator(core_schema.no_info_after_validator_function(Late(), core_schema.str_schema()))
"""


def install(site: Path, name: str, entry: str, capability: str = "acme:dice") -> None:
    """A package with one entry point, as an installer leaves it."""
    (site / "dice-wit").mkdir(parents=True, exist_ok=True)
    (site / "dice-wit" / "dice.wit").write_text("package acme:dice@1.0.0;\ninterface dice { roll: func() -> u32; }\n")
    (site / f"{name}.py").write_text(MODULE.format(id=capability))
    info = site / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[cloche.capabilities]\n{name} = {name}:{entry}\n")


class Broken:
    """A capability whose WIT cannot be found."""

    schema = GrantSchema(
        id="acme:broken",
        version="1.0.0",
        summary="Nothing",
        interfaces=(),
        request=NoParams,
        allowance=NoParams,
        intersect=lambda request, allowance: Verdict(NoParams(), ""),
    )

    def wit(self) -> Path:
        raise FileNotFoundError("no such directory")

    def open(self, grant: Params, session: Session) -> Mapping[str, Any]:
        return {}


@pytest.mark.parametrize("entry", ["Dice", "make", "DICE"])
def test_an_entry_point_names_a_class_a_maker_or_an_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: str
) -> None:
    """Each form that the documentation shows gives a capability that hosts know."""
    install(tmp_path, f"acme_dice_{entry.lower()}", entry)
    monkeypatch.syspath_prepend(tmp_path)
    with open_host() as host:
        assert "acme:dice" in host.catalog.capabilities
        assert ("acme:dice", "acme:dice/dice@1.0.0") in [(name, item.id) for name, item in host.catalog.provided]


def test_an_installed_package_replaces_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that offers a capability under the id of another one, ours for instance, is refused by name."""
    install(tmp_path, "zzz_config", "Dice", "wasi:config")
    monkeypatch.syspath_prepend(tmp_path)
    with open_host() as host, pytest.raises(CapabilityError, match=r"two .* wasi:config .*zzz_config") as caught:
        assert host.catalog
    assert caught.value.code == "capability.invalid"


def test_the_embedders_own_capability_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is handed over in code takes the place of an installed capability of its id."""
    install(tmp_path, "acme_dice", "Dice")
    monkeypatch.syspath_prepend(tmp_path)
    (installed,) = [item for item in installed_capabilities() if item.schema.id == "acme:dice"]
    mine = type(installed)()
    with open_host(capabilities=[mine]) as host:
        assert host.catalog.capabilities["acme:dice"] is mine


@pytest.mark.parametrize("given", [Broken, 42, "acme:dice", None], ids=repr)
def test_what_is_no_capability_is_named(given: Any) -> None:
    """A class, or anything else without schema, wit and open, is refused with what a capability needs."""
    with open_host(capabilities=[given]) as host, pytest.raises(CapabilityError, match="is no capability") as caught:
        assert host.catalog
    assert caught.value.code == "capability.invalid"


def test_an_entry_point_that_is_no_capability_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So is one of a package."""
    install(tmp_path, "acme_nothing", "NOTHING")
    monkeypatch.syspath_prepend(tmp_path)
    with open_host() as host, pytest.raises(CapabilityError, match="acme_nothing") as caught:
        assert host.catalog
    assert caught.value.code == "capability.invalid"


def test_ctrl_c_while_a_package_is_imported_is_no_fault_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where pydantic, which is building a class just then, makes an error of it."""
    install(tmp_path, "acme_slow", "Dice")
    with (tmp_path / "acme_slow.py").open("a") as module:
        module.write(INTERRUPTED)
    monkeypatch.syspath_prepend(tmp_path)
    with open_host() as host, pytest.raises(KeyboardInterrupt):
        assert host.catalog


def test_a_capability_whose_wit_fails_is_named() -> None:
    """The package's own exception does not get out."""
    with pytest.raises(CapabilityError, match=r"acme:broken: .*Broken\.wit\(\) failed with FileNotFoundError"):
        build_catalog((), [Broken()], (), TypeStore(shared_home()))


DENIED_WIT = """package test:denied@1.0.0;
interface door {
  variant error { busy, denied(string) }
  enum no { busy, not-permitted }
  open: func() -> result<u32, error>;
  knock: func() -> result<u32, no>;
}
"""
DENIED_WAT = """
(component
  (import "test:denied/door@1.0.0" (instance $door
    (type $e (variant (case "busy") (case "denied" string)))
    (export "error" (type $error (eq $e)))
    (export "open" (func (result (result u32 (error $error)))))
    (type $n (enum "busy" "not-permitted"))
    (export "no" (type $no (eq $n)))
    (export "knock" (func (result (result u32 (error $no)))))))
  (core module $memory (memory (export "memory") 1)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 512)))
  (core instance $mem (instantiate $memory))
  (alias core export $mem "memory" (core memory $m))
  (alias core export $mem "realloc" (core func $r))
  (core func $open (canon lower (func $door "open") (memory $m) (realloc $r)))
  (core func $knock (canon lower (func $door "knock") (memory $m) (realloc $r)))
  (core module $module
    (import "m" "memory" (memory 1))
    (import "h" "open" (func $open (param i32)))
    (import "h" "knock" (func $knock (param i32)))
    (func (export "beat") (result i32)
      (call $knock (i32.const 16))
      (i32.add (i32.mul (i32.load8_u (i32.const 16)) (i32.const 1000)) (i32.load8_u (i32.const 20))))
    (func (export "ask") (result i32)
      (call $open (i32.const 16))
      (i32.add (i32.mul (i32.load8_u (i32.const 16)) (i32.const 1000))
        (i32.add (i32.mul (i32.load8_u (i32.const 20)) (i32.const 100)) (i32.load (i32.const 28))))))
  (core instance $i (instantiate $module
    (with "m" (instance (export "memory" (memory $m)))) (with "h" (instance
    (export "open" (func $open)) (export "knock" (func $knock))))))
  (func (export "beat") (result u32) (canon lift (core func $i "beat")))
  (func (export "ask") (result u32) (canon lift (core func $i "ask"))))
"""


def test_a_denial_is_an_enum_case_or_carries_text(tmp_path: Path) -> None:
    """A closed function answers with its own «denied», be it an enum's or one that takes a text; the plugin goes on."""
    (tmp_path / "wit").mkdir()
    (tmp_path / "wit" / "door.wit").write_text(DENIED_WIT)

    class Door(Broken):
        schema = GrantSchema(
            id="test:denied",
            version="1.0.0",
            summary="A door",
            interfaces=("test:denied/door@1.0.0",),
            request=NoParams,
            allowance=NoParams,
            intersect=lambda request, allowance: Verdict(NoParams(), ""),
        )

        def wit(self) -> Path:
            return tmp_path / "wit"

    with open_host(capabilities=[Door()]) as host:
        point = load(host, tmp_path / "p", DENIED_WAT)[""]
        assert point.ask() == 1000 + 100 + len("not granted")
        assert point.beat() == 1000 + 1
