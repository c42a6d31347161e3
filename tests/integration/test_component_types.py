"""Types of real components and WIT packages, read by wasm-tools in a confined child, up to the contract check."""

from __future__ import annotations

import hashlib
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from cloche.contract.check import check
from cloche.contract.providers import CapabilityGrant, Provider
from cloche.contract.report import Disposition
from cloche.errors import ContractError
from cloche.model import Digest
from cloche.wit import store as store_module
from cloche.wit.store import TypeStore
from cloche.wit.tools import (
    component_world,
    describe_component,
    read_package,
    wasm_tools,
    wasm_tools_version,
)
from cloche.wit.types import (
    BorrowType,
    Case,
    EnumType,
    ErrorContextType,
    Field,
    FlagsType,
    FunctionKind,
    FutureType,
    ListType,
    MapType,
    OptionType,
    OwnType,
    Prim,
    RecordType,
    ResourceType,
    ResultType,
    StreamType,
    TupleType,
    TypeName,
    VariantType,
)

DEPENDENCY = """
package acme:base@0.1.0;
interface things {
  record rec { a: u8, b: text }
  type text = list<string>;
  resource res { frob: func(); }
}
"""
PACKAGE = """
package acme:all@1.2.3;
/// Every type there is.
interface every {
  use acme:base/things@0.1.0.{res, rec, text};
  enum en { one, two }
  flags fl { x, y }
  variant va { nothing, some(en), more(rec) }
  resource own-res {
    constructor(a: u8);
    get: func() -> u8;
    find: static func(r: borrow<res>) -> own-res;
  }
  /// Takes numbers.
  numbers: func(
    a: bool, b: s8, c: u8, d: s16, e: u16, f: s32, g: u32, h: s64, i: u64, j: f32, k: f64, l: char, m: string
  );
  compound: func(a: list<u8>, b: option<rec>, c: result<_, string>, d: result, e: tuple<u8, text>) -> va;
  newer: func(a: list<u8, 4>, b: map<string, u32>);
  kinds: func(a: en, b: fl, c: own-res, d: borrow<own-res>) -> res;
}
interface later {
  streams: func(a: stream<u8>, b: stream, c: future<string>, d: future, e: error-context);
  waits: async func() -> result;
}
@unstable(feature = soon)
interface gated { f: func(); }
interface twin { f: func(a: u8); }
world full {
  use every.{va};
  import every;
  import inline: interface { use every.{own-res}; take: func(r: own-res); }
  import at-root: func(a: va) -> u8;
  record root-rec { a: u8 }
  import uses-rec: func(a: root-rec);
  export twin;
  export named: interface { g: func() -> char; }
  export go: func() -> list<va>;
}
world asynchronous { export later; }
"""
OWN_RES = ResourceType(TypeName("acme:all/every@1.2.3", "own-res"))
RES = ResourceType(TypeName("acme:base/things@0.1.0", "res"))
TEXT = ListType(Prim.STRING)
REC = RecordType(TypeName("acme:base/things@0.1.0", "rec"), (Field("a", Prim.U8), Field("b", TEXT)))
EN = EnumType(TypeName("acme:all/every@1.2.3", "en"), ("one", "two"))
VA = VariantType(TypeName("acme:all/every@1.2.3", "va"), (Case("nothing", None), Case("some", EN), Case("more", REC)))


def run_tool(*arguments: str | Path, text: str | None = None) -> None:
    """Run wasm-tools on files of our own making."""
    subprocess.run(
        [wasm_tools(), *arguments], input=None if text is None else text.encode(), check=True, capture_output=True
    )


@pytest.fixture(scope="session")
def wat(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], bytes]:
    """Turn WebAssembly text into bytes."""
    directory = tmp_path_factory.mktemp("wat")

    def parse(text: str) -> bytes:
        run_tool("parse", "-", "-o", directory / "out.wasm", text=text)
        return (directory / "out.wasm").read_bytes()

    return parse


@pytest.fixture(scope="session")
def wit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A WIT package with a dependency."""
    directory = tmp_path_factory.mktemp("package") / "wit"
    (directory / "deps" / "base").mkdir(parents=True)
    (directory / "all.wit").write_text(PACKAGE)
    (directory / "deps" / "base" / "base.wit").write_text(DEPENDENCY)
    return directory


@pytest.fixture(scope="session")
def component(wit: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], bytes]:
    """A component of one of the package's worlds, whose functions only trap."""
    directory = tmp_path_factory.mktemp("component")

    def build(world: str) -> bytes:
        module, result = directory / f"{world}.module.wasm", directory / f"{world}.wasm"
        if not result.exists():
            run_tool("component", "embed", wit, "--world", world, "--dummy", "--all-features", "-o", module)
            run_tool("component", "new", module, "-o", result)
        return result.read_bytes()

    return build


def test_a_package_gives_every_type(wit: Path) -> None:
    """Aliases are resolved, used types keep their owner, gates are open, and documentation is there."""
    every, later, gated, _ = read_package(wit).interfaces
    functions = every.by_name
    assert [param.type for param in functions["numbers"].params] == list(Prim)
    assert [param.type for param in functions["compound"].params] == [
        ListType(Prim.U8),
        OptionType(REC),
        ResultType(None, Prim.STRING),
        ResultType(None, None),
        TupleType((Prim.U8, TEXT)),
    ]
    assert functions["compound"].result == VA
    assert [param.type for param in functions["newer"].params] == [ListType(Prim.U8, 4), MapType(Prim.STRING, Prim.U32)]
    assert [param.type for param in functions["kinds"].params] == [
        EN,
        FlagsType(TypeName("acme:all/every@1.2.3", "fl"), ("x", "y")),
        OwnType(OWN_RES),
        BorrowType(OWN_RES),
    ]
    assert functions["kinds"].result == OwnType(RES)
    assert functions["[constructor]own-res"].kind is FunctionKind.CONSTRUCTOR
    assert functions["[static]own-res.find"].params[0].type == BorrowType(RES)
    assert functions["[method]own-res.get"].resource == OWN_RES
    assert [param.type for param in later.by_name["streams"].params] == [
        StreamType(Prim.U8),
        StreamType(None),
        FutureType(Prim.STRING),
        FutureType(None),
        ErrorContextType(),
    ]
    assert later.by_name["waits"].is_async
    assert (every.docs, functions["numbers"].docs) == ("Every type there is.", "Takes numbers.")
    assert gated.id == "acme:all/gated@1.2.3"
    package = read_package(wit)
    assert package.name == "acme:all@1.2.3"
    assert [interface.id for interface in package.dependencies] == ["acme:base/things@0.1.0"]
    assert [world.name for world in read_package(wit).worlds] == ["full", "asynchronous"]


def test_a_component_gives_the_same_types(wit: Path, component: Callable[[str], bytes]) -> None:
    """What a component says about itself equals the WIT that it was built from."""
    world = component_world(component("full"))
    every, _, _, twin = read_package(wit).interfaces
    found = {interface.id: interface for interface in world.imports}
    assert set(found) == {"acme:base/things@0.1.0", every.id, "inline"}
    assert set(every.functions) == set(found[every.id].functions)
    assert found["inline"].by_name["take"].params[0].type == OwnType(OWN_RES)
    assert {function.name for function in world.import_functions} == {"at-root", "uses-rec"}
    assert dict(world.import_types)["root-rec"] == RecordType(TypeName(None, "root-rec"), (Field("a", Prim.U8),))
    assert [interface.id for interface in world.exports] == [twin.id, "named"]
    assert world.export_functions[0].result == ListType(VA)


def test_from_bytes_to_a_binding(wit: Path, component: Callable[[str], bytes]) -> None:
    """Component, WIT and decision fit together: one import provided, the rest refused at once."""
    package = read_package(wit)
    report = check(
        component_world(component("full")),
        providers=[Provider("acme", interface) for interface in (*package.interfaces, *package.dependencies)],
        grants=[CapabilityGrant("acme", granted=True)],
        extension_points=package.interfaces,
    )
    assert {binding.id: binding.disposition for binding in report.imports} == {
        "acme:base/things@0.1.0": Disposition.PROVIDED,
        "acme:all/every@1.2.3": Disposition.REFUSED,
        "inline": Disposition.REFUSED,
    }
    assert {imported.name for imported in report.import_functions} == {"at-root", "uses-rec"}
    assert [binding.extension_point for binding in report.exports] == ["acme:all/twin@1.2.3", None]
    assert sorted({finding.code for finding in report.errors}) == ["contract.unsupported", "grant.refused"]
    with pytest.raises(ContractError, match="4 problems"):
        report.ensure_ok("acme/full")


def test_asynchronous_components_are_refused(component: Callable[[str], bytes]) -> None:
    """A real component with streams, futures and async functions is refused by name."""
    report = check(component_world(component("asynchronous")))
    with pytest.raises(ContractError) as caught:
        report.ensure_ok("acme/later")
    assert caught.value.code == "contract.unsupported"
    assert len(report.errors) == 6


PLAIN = '(component (import "a:b/c@1.0.0" (instance (export "f" (func (param "x" u8))))))'


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ('(component (import "m" (core module)))', "contract.inspect", "imports the core module `m`"),
        ('(component (import "c" (component)))', "contract.inspect", "imports the component `c`"),
        (
            '(component (import "a:b/c" (instance (export "n" (instance)))))',
            "contract.inspect",
            "beyond what WIT can say",
        ),
        ('(component (import "a:b:c/d/e" (instance)))', "contract.inspect", "names that WIT does not know"),
        (
            '(component (import "interface-1" (instance)) (import "a:b/c@0.2.0" (instance (export "f" (func)))))',
            "contract.inspect",
            "two items have the name `interface-1`",
        ),
        (
            '(component (import "x" (implements "a:b/c@1.0.0") (instance)))',
            "component.malformed",
            "import or export name",
        ),
        ('(component (component $c) (export "c" (component $c)))', "contract.inspect", "beyond what WIT can say"),
        ('(component (core module $m) (export "m" (core module $m)))', "contract.inspect", "beyond what WIT can say"),
        ("(module)", "component.core-module", "core WebAssembly module"),
    ],
)
def test_components_that_hide_something(wat: Callable[[str], bytes], text: str, code: str, message: str) -> None:
    """What the tool leaves out of its answer, or writes twice under one name, never passes unseen."""
    with pytest.raises(ContractError, match=message) as caught:
        component_world(wat(text))
    assert caught.value.code == code


@pytest.mark.parametrize(
    "text",
    [
        '(component (import "a:b/c@1.0.0" (func)))',
        '(component (import "a:b/c" (func (result u64))) (import "x" (func)))',
        """(component (core module $m (func (export "f"))) (core instance $i (instantiate $m))
          (func $f (canon lift (core func $i "f"))) (export "a:b/c" (func $f)))""",
    ],
    ids=["an import", "one of two", "an export"],
)
def test_a_function_under_the_name_of_an_interface(wat: Callable[[str], bytes], text: str) -> None:
    """The tool breaks down on such names; its author gets plain words, and nothing of how it broke."""
    with pytest.raises(ContractError, match="a function under the name of an interface") as caught:
        component_world(wat(text))
    assert caught.value.code == "contract.inspect"
    assert [word for word in ("panicked", "thread", ".rs", "BACKTRACE") if word in str(caught.value)] == []


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "component.malformed"),
        (b"package a:b; interface c {}", "component.not-wasm"),
        (b"(component)", "component.not-wasm"),
        (b"\x7fELF" + b"\0" * 60, "component.not-wasm"),
        (b"\0asm\x0d\0", "component.malformed"),
        (b"\0asm\x0d\0\x01\0\xff\xff", "component.malformed"),
    ],
)
def test_files_that_are_no_components(data: bytes, code: str) -> None:
    """Text that the tool itself would take, native code and cut-off headers get codes of their own."""
    with pytest.raises(ContractError) as caught:
        component_world(data)
    assert caught.value.code == code


def test_a_module_with_a_wit_section_is_no_component(wit: Path, tmp_path: Path) -> None:
    """A core module that carries its WIT would be described by the tool; it is refused before."""
    run_tool("component", "embed", wit, "--world", "full", "--dummy", "-o", tmp_path / "m.wasm")
    with pytest.raises(ContractError) as caught:
        component_world((tmp_path / "m.wasm").read_bytes())
    assert caught.value.code == "component.core-module"


def test_an_encoded_wit_package_is_no_component(wit: Path, tmp_path: Path) -> None:
    """A WIT package in binary form is a component to every validator, but not to us."""
    run_tool("component", "wit", wit, "--wasm", "--all-features", "-o", tmp_path / "p.wasm")
    with pytest.raises(ContractError, match="WIT package") as caught:
        component_world((tmp_path / "p.wasm").read_bytes())
    assert caught.value.code == "component.malformed"


def test_empty_and_resource_imports_are_seen(wat: Callable[[str], bytes]) -> None:
    """An empty instance and a resource without functions stand in the world and are refused (H26)."""
    world = component_world(
        wat(
            '(component (import "a:b/empty" (instance))'
            ' (import "a:b/res" (instance (export "r" (type (sub resource)))))'
            ' (import "own" (type (sub resource))))'
        )
    )
    report = check(world)
    assert [binding.disposition for binding in report.imports] == [Disposition.REFUSED] * 2
    assert {finding.subject for finding in report.errors} == {"a:b/empty", "a:b/res", "resource `own`"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("package a:b; interface c { f: func(x: missing); }", "missing"),
        ("package a:b; interface c { f: func(x: \x1b[31m); }", "cannot be read"),
        ("no wit at all", "cannot be read"),
        (None, "cannot be read"),
    ],
)
def test_bad_packages(tmp_path: Path, text: str | None, message: str) -> None:
    """A WIT package that cannot be read gives the parser's words, without control characters."""
    if text is not None:
        (tmp_path / "a.wit").write_text(text)
    with pytest.raises(ContractError, match=message) as caught:
        read_package(tmp_path)
    assert caught.value.code == "contract.wit"
    assert "\x1b" not in str(caught.value)


def test_a_missing_package(tmp_path: Path) -> None:
    """A directory that is not there is named."""
    with pytest.raises(ContractError, match="There is no WIT package") as caught:
        read_package(tmp_path / "nowhere")
    assert caught.value.code == "contract.wit"


def test_dependencies_may_be_links(tmp_path: Path) -> None:
    """A dependency that is a link to a package elsewhere is read, although the child sees few files."""
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "base.wit").write_text(DEPENDENCY)
    (tmp_path / "wit" / "deps").mkdir(parents=True)
    (tmp_path / "wit" / "all.wit").write_text(PACKAGE)
    (tmp_path / "wit" / "deps" / "base").symlink_to(tmp_path / "base")
    assert [interface.id for interface in read_package(tmp_path / "wit").dependencies] == ["acme:base/things@0.1.0"]


def test_the_store_over_the_real_tool(
    tmp_path: Path, component: Callable[[str], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second reading gives an equal world without starting the tool."""
    data = component("full")
    digest = Digest(hashlib.sha256(data).hexdigest())
    first = TypeStore(tmp_path).component_world(data, digest)
    monkeypatch.setattr(store_module, "describe_component", None)
    assert first == TypeStore(tmp_path).component_world(data, digest)
    assert wasm_tools_version()[0].isdigit()


def test_a_package_is_read_again_when_it_changes(tmp_path: Path) -> None:
    """A package in the store is as fresh as its files."""
    wit = tmp_path / "wit"
    wit.mkdir()
    (wit / "a.wit").write_text("package a:b; interface one {}")
    store = TypeStore(tmp_path / "home")
    assert store.package(wit) == store.package(wit)
    (wit / "a.wit").write_text("package a:b; interface two {}")
    assert [interface.id for interface in store.package(wit).interfaces] == ["a:b/two"]


def test_mutated_components_do_no_harm(wat: Callable[[str], bytes], component: Callable[[str], bytes]) -> None:
    """200 seeded mutants of small components are read or refused with a ContractError, and the next one still works."""
    chance = random.Random(20_26)
    originals = [wat(PLAIN), component("full"), component("asynchronous")]
    codes: set[str] = set()
    accepted = 0
    for number in range(200):
        data = bytearray(originals[number % len(originals)])
        for _ in range(chance.randint(1, 4)):
            place = chance.randrange(8, len(data))
            match chance.randrange(4):
                case 0:
                    data[place] ^= 1 << chance.randrange(8)
                case 1:
                    data[place] = chance.choice((0, 1, 0x7F, 0x80, 0xFF))
                case 2:
                    del data[place:]
                    data += b"\0" * (9 - len(data))
                case _:
                    data[place:place] = chance.randbytes(chance.randint(1, 8))
        try:
            check(component_world(bytes(data)))
            accepted += 1
        except ContractError as error:
            codes.add(error.code)
    assert 0 < accepted < 200
    assert codes <= {"component.malformed", "component.too-large", "contract.inspect"}
    assert describe_component(originals[0])
