"""The tool's JSON turned into types: every kind, and everything that a hostile document can do."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cloche.errors import ContractError
from cloche.wit.document import MAX_DOCS_CHARS, MAX_DOCUMENT_BYTES, MAX_NAME_CHARS
from cloche.wit.resolve import MAX_FUNCTIONS, MAX_INTERFACES, resolve_component, resolve_package
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
from cloche.wit.typetable import MAX_DOCUMENT_NODES, MAX_TYPE_DEPTH, MAX_TYPE_NODES


def function(
    name: str = "f", params: list[Any] | None = None, kind: Any = "freestanding", **more: Any
) -> dict[str, Any]:
    """One function as the tool writes it; `params` are types."""
    named = [{"name": f"p{number}", "type": ref} for number, ref in enumerate(params or [])]
    return {"name": name, "kind": kind, "params": named, **more}


def anonymous(kind: Any) -> dict[str, Any]:
    """A type without a name."""
    return {"name": None, "kind": kind, "owner": None}


def named(name: str, kind: Any, owner: int = 0) -> dict[str, Any]:
    """A type that interface `owner` declares."""
    return {"name": name, "kind": kind, "owner": {"interface": owner}}


def document(types: list[Any] | None = None, functions: list[Any] | None = None, **changes: Any) -> dict[str, Any]:
    """A component that imports `a:b/c@1.0.0` with these types and functions."""
    return {
        "worlds": [{"name": "root", "imports": {"interface-0": {"interface": {"id": 0}}}, "exports": {}, "package": 1}],
        "interfaces": [
            {
                "name": "c",
                "types": {entry["name"]: number for number, entry in enumerate(types or []) if entry["name"]},
                "functions": {entry["name"]: entry for entry in functions or []},
                "package": 0,
            }
        ],
        "types": types or [],
        "packages": [
            {"name": "a:b@1.0.0", "interfaces": {"c": 0}, "worlds": {}},
            {"name": "root:component", "interfaces": {}, "worlds": {"root": 0}},
        ],
        **changes,
    }


def resolve(value: dict[str, Any]) -> Any:
    """The world of a document given as values."""
    return resolve_component(json.dumps(value).encode())


C = "a:b/c@1.0.0"
RES = ResourceType(TypeName(C, "res"))
KINDS: list[tuple[str, list[Any], Any, Any]] = [
    *((prim.value, [], prim.value, prim) for prim in Prim),
    ("list", [anonymous({"list": "u8"})], 0, ListType(Prim.U8)),
    ("fixed list", [anonymous({"fixed-length-list": ["u8", 4]})], 0, ListType(Prim.U8, 4)),
    ("map", [anonymous({"map": ["string", "u32"]})], 0, MapType(Prim.STRING, Prim.U32)),
    ("option", [anonymous({"option": "s8"})], 0, OptionType(Prim.S8)),
    ("result", [anonymous({"result": {"ok": "u8", "err": "string"}})], 0, ResultType(Prim.U8, Prim.STRING)),
    ("bare result", [anonymous({"result": {"ok": None, "err": None}})], 0, ResultType(None, None)),
    ("tuple", [anonymous({"tuple": {"types": ["u8", "char"]}})], 0, TupleType((Prim.U8, Prim.CHAR))),
    ("empty tuple", [anonymous({"tuple": {"types": []}})], 0, TupleType(())),
    (
        "record",
        [named("r", {"record": {"fields": [{"name": "x-y", "type": "bool"}]}})],
        0,
        RecordType(TypeName(C, "r"), (Field("x-y", Prim.BOOL),)),
    ),
    (
        "variant",
        [named("v", {"variant": {"cases": [{"name": "a", "type": None}, {"name": "b", "type": "u8"}]}})],
        0,
        VariantType(TypeName(C, "v"), (Case("a", None), Case("b", Prim.U8))),
    ),
    ("enum", [named("e", {"enum": {"cases": [{"name": "a"}]}})], 0, EnumType(TypeName(C, "e"), ("a",))),
    ("flags", [named("g", {"flags": {"flags": [{"name": "x"}]}})], 0, FlagsType(TypeName(C, "g"), ("x",))),
    ("alias", [named("t", {"type": "u64"})], 0, Prim.U64),
    (
        "alias of alias",
        [named("t", {"type": 1}), named("u", {"type": 2}), named("w", {"list": "u8"})],
        0,
        ListType(Prim.U8),
    ),
    ("own", [named("res", "resource"), anonymous({"handle": {"own": 0}})], 1, OwnType(RES)),
    ("borrow", [named("res", "resource"), anonymous({"handle": {"borrow": 0}})], 1, BorrowType(RES)),
    ("stream", [anonymous({"stream": "u8"})], 0, StreamType(Prim.U8)),
    ("bare stream", [anonymous({"stream": None})], 0, StreamType(None)),
    ("future", [anonymous({"future": None})], 0, FutureType(None)),
    ("error-context", [], "error-context", ErrorContextType()),
    ("against the order", [anonymous({"list": 1}), anonymous({"option": "u8"})], 0, ListType(OptionType(Prim.U8))),
]


@pytest.mark.parametrize(("types", "ref", "expected"), [case[1:] for case in KINDS], ids=[case[0] for case in KINDS])
def test_every_kind_of_type(types: list[Any], ref: Any, expected: Any) -> None:
    """Each kind of type comes out as our value, as a parameter and as a result alike."""
    world = resolve(document(types, [function(params=[ref], result=ref)]))
    found = world.imports[0].by_name["f"]
    assert expected == found.params[0].type
    assert expected == found.result


def test_used_types_keep_their_owner() -> None:
    """A resource and a record brought in with `use` are named by the interface that declares them."""
    types = [
        named("res", "resource", 0),
        named("rec", {"record": {"fields": []}}, 0),
        named("other", {"type": 0}, 1),
        named("rec", {"type": 1}, 1),
        anonymous({"handle": {"own": 2}}),
    ]
    value = document(types)
    value["interfaces"].append(
        {"name": None, "types": {"rec": 3}, "functions": {"g": function("g", [4])}, "package": 1}
    )
    value["worlds"][0]["exports"] = {"inline": {"interface": {"id": 1}}}
    (inline,) = resolve(value).exports
    assert inline.id == "inline"
    assert OwnType(RES) == inline.functions[0].params[0].type
    assert dict(inline.types)["rec"].name == TypeName(C, "rec")


def test_methods_statics_constructors_and_async() -> None:
    """The kind of a function, its resource and its asynchrony are read from the tool's words."""
    types = [named("res", "resource"), anonymous({"handle": {"borrow": 0}}), anonymous({"handle": {"own": 0}})]
    functions = [
        function("[constructor]res", [], {"constructor": 0}, result=2),
        function("[method]res.get", [1], {"method": 0}),
        function("[static]res.find", [], {"static": 0}),
        function("[method]res.wait", [1], {"async-method": 0}),
        function("go", [], "async-freestanding"),
    ]
    found = resolve(document(types, functions)).imports[0].by_name
    kinds = {name: (entry.kind, entry.is_async, entry.resource) for name, entry in found.items()}
    assert kinds == {
        "[constructor]res": (FunctionKind.CONSTRUCTOR, False, RES),
        "[method]res.get": (FunctionKind.METHOD, False, RES),
        "[static]res.find": (FunctionKind.STATIC, False, RES),
        "[method]res.wait": (FunctionKind.METHOD, True, RES),
        "go": (FunctionKind.FREE, True, None),
    }


def test_root_functions_types_and_docs() -> None:
    """Items at the root of the world are kept apart, and documentation is kept but cut."""
    value = document([{"name": "t", "kind": "resource", "owner": {"world": 0}}])
    value["interfaces"][0]["types"] = {}
    value["interfaces"][0]["docs"] = {"contents": "x" * (MAX_DOCS_CHARS + 1)}
    value["worlds"][0]["imports"] |= {"t": {"type": 0}, "f": {"function": function("f")}}
    value["worlds"][0]["exports"] = {"g": {"function": function("g", docs={"contents": "says g"})}}
    world = resolve(value)
    assert (("t", ResourceType(TypeName(None, "t"))),) == world.import_types
    assert [entry.name for entry in world.import_functions] == ["f"]
    assert [entry.docs for entry in world.export_functions] == ["says g"]
    assert len(world.imports[0].docs) == MAX_DOCS_CHARS


def test_a_package_is_its_last_one() -> None:
    """A WIT package gives its own interfaces apart from those that it depends on."""
    value = document([named("res", "resource", 0), named("res", {"type": 0}, 1)])
    value["interfaces"][0]["types"] = {"res": 0}
    value["interfaces"].append({"name": "mine", "types": {"res": 1}, "functions": {}, "package": 1})
    value["packages"] = [
        {"name": "a:b@1.0.0", "interfaces": {"c": 0}, "worlds": {}},
        {"name": "m:n", "interfaces": {"mine": 1}, "worlds": {"root": 0}},
    ]
    package = resolve_package(json.dumps(value).encode())
    assert package.name == "m:n"
    assert [interface.id for interface in package.interfaces] == ["m:n/mine"]
    assert [interface.id for interface in package.dependencies] == [C]
    assert [world.name for world in package.worlds] == ["root"]


def test_an_encoded_wit_package_is_no_component() -> None:
    """A WIT package in binary form, which the tool reads just as well, is refused as a component."""
    value = document()
    value["packages"][1]["name"] = "my:package"
    with pytest.raises(ContractError, match="WIT package") as caught:
        resolve(value)
    assert caught.value.code == "component.malformed"


def test_two_imports_under_one_key_are_refused() -> None:
    """A plain import named like the tool's own key would hide the import that really has it (H26)."""
    text = json.dumps(document()).replace('"interface-0"', '"interface-0": {"interface": {"id": 0}}, "interface-0"')
    with pytest.raises(ContractError, match="two items have the name `interface-0`") as caught:
        resolve_component(text.encode())
    assert caught.value.code == "contract.inspect"


def shared(levels: int) -> list[Any]:
    """A type that unfolds to 2^levels parts out of `levels` entries."""
    pairs = [anonymous({"tuple": {"types": [number, number]}}) for number in range(levels)]
    return [anonymous({"list": "u8"}), *pairs]


def chain(length: int, *, upwards: bool) -> list[Any]:
    """A list of a list of …, each entry referring to the one before or to the one after."""
    step = -1 if upwards else 1
    entries = [anonymous({"list": number + step}) for number in range(length)]
    entries[0 if upwards else -1] = anonymous({"list": "u8"})
    return entries


def with_world(**changes: Any) -> dict[str, Any]:
    """A document whose world is changed."""
    value = document()
    value["worlds"][0].update(changes)
    return value


def taking(types: list[Any] | None, ref: Any) -> dict[str, Any]:
    """A component whose one function takes type `ref`."""
    return document(types, [function(params=[ref])])


LIST = anonymous({"list": "u8"})
HOSTILE: list[tuple[str, Any, str]] = [
    ("not an object", [], "the document should be an object"),
    ("no packages", {}, "packages should be a list"),
    ("packages of the wrong kind", document(packages=[1]), "a package should be an object"),
    ("types of the wrong kind", document(types=None, functions=[function(params=[0])]), "index 0, of 0"),
    ("index too large", taking([anonymous({"list": 7})], 0), "index 7, of 1"),
    ("negative index", taking([anonymous({"list": -1})], 0), "index -1"),
    ("bool as index", taking([anonymous({"list": True})], 0), "index True"),
    ("float as index", taking([anonymous({"list": 0.0})], 0), "index 0.0"),
    ("unknown primitive", document([], [function(params=["u128"])]), "`u128` is not a primitive"),
    ("unknown kind", taking([anonymous({"gizmo": 0})], 0), "kind `gizmo`"),
    ("unknown word", taking([anonymous("gizmo")], 0), "kind `gizmo`"),
    ("no kind", taking([anonymous(None)], 0), "the kind of a type should be an object"),
    ("two kinds", taking([anonymous({"list": "u8", "option": "u8"})], 0), "one key"),
    ("contains itself", taking([anonymous({"option": 0})], 0), "contains itself"),
    ("alias circle", taking([anonymous({"type": 1}), anonymous({"type": 0})], 0), "itself"),
    ("deep, seen from above", taking(chain(500, upwards=False), 0), f"{MAX_TYPE_DEPTH} deep"),
    ("deep, seen from below", taking(chain(5000, upwards=True), 4999), f"{MAX_TYPE_DEPTH} deep"),
    (
        "deep, step by step",
        document(chain(500, upwards=True), [function(params=list(range(0, 500, 50)))]),
        f"{MAX_TYPE_DEPTH} deep",
    ),
    ("unfolds to 2^40", taking(shared(40), 40), f"more than {MAX_TYPE_NODES} parts"),
    ("unfolds often", document(shared(11), [function(params=[11] * 100)]), f"more than {MAX_DOCUMENT_NODES} parts"),
    ("list without end", taking([anonymous({"fixed-length-list": ["u8", 2**32]})], 0), "4294967296"),
    ("list of nothing", taking([anonymous({"fixed-length-list": ["u8", 0]})], 0), "0 elements"),
    ("half a map", taking([anonymous({"map": ["u8"]})], 0), "two entries"),
    ("handle to no resource", taking([anonymous({"handle": {"own": 1}}), LIST], 0), "no resource"),
    ("strange handle", taking([named("r", "resource"), anonymous({"handle": {"lend": 0}})], 1), "`lend`"),
    ("resource as value", taking([named("r", "resource")], 0), "where a value is needed"),
    ("method of no resource", document([anonymous({"list": "u8"})], [function(kind={"method": 0})]), "no resource"),
    ("strange function", document([], [function(kind="coroutine")]), "unknown kind `coroutine`"),
    ("double field", document([named("r", {"record": {"fields": [{"name": "a", "type": "u8"}] * 2}})]), "same name"),
    ("record without a name", taking([anonymous({"record": {"fields": []}})], 0), "no name"),
    ("owner of the wrong kind", document([{**named("r", "resource"), "owner": {"planet": 0}}]), "neither a world"),
    ("name with an escape", document([], [function("f\x1b[31m")]), "not one of WIT"),
    ("name of line breaks", document([], [function("f\n")]), "not one of WIT"),
    ("name too long", document([], [function("f" * (MAX_NAME_CHARS + 1))]), f"at most {MAX_NAME_CHARS}"),
    ("number as a name", document([named("r", {"enum": {"cases": [{"name": 5}]}})]), "no name"),
    ("parameters of the wrong kind", document([], [{**function(), "params": {}}]), "should be a list"),
    ("too many interfaces", document(interfaces=[{}] * (MAX_INTERFACES + 1)), f"at most {MAX_INTERFACES}"),
    (
        "too many functions",
        document([], [function(f"f{number}") for number in range(MAX_FUNCTIONS + 1)]),
        f"more than {MAX_FUNCTIONS}",
    ),
    ("item of no kind", with_world(imports={"x": {"gadget": 1}}), "neither an interface, a function nor a type"),
    ("imports of the wrong kind", with_world(imports=[]), "should be an object"),
    ("interface of no package", with_world(imports={"x": {"interface": {"id": 9}}}), "index 9, of 1"),
]


@pytest.mark.parametrize(("value", "message"), [case[1:] for case in HOSTILE], ids=[case[0] for case in HOSTILE])
def test_hostile_documents(value: Any, message: str) -> None:
    """Whatever is wrong with a document, the answer is one ContractError that says what."""
    with pytest.raises(ContractError) as caught:
        resolve_component(json.dumps(value).encode())
    assert caught.value.code == "contract.inspect"
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 50_000, b"9" * 10_000, b" " * (MAX_DOCUMENT_BYTES + 1)],
    ids=["empty", "cut off", "not UTF-8", "deep list", "deep object", "long number", "too large"],
)
def test_texts_that_are_no_documents(text: bytes) -> None:
    """Text that is no JSON, too deep or too long for it, is refused without harm, for WIT under its own code."""
    with pytest.raises(ContractError) as caught:
        resolve_package(text)
    assert caught.value.code == "contract.wit"


def test_largest_depth_is_usable() -> None:
    """A type at the bound can still be hashed, compared and printed."""
    value = document(chain(MAX_TYPE_DEPTH - 1, upwards=True), [function(params=[MAX_TYPE_DEPTH - 2])])
    first, second = resolve(value), resolve(value)
    assert hash(first) == hash(second)
    assert first == second
    assert repr(first).count("ListType") == MAX_TYPE_DEPTH - 1
