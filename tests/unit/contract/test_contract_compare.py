"""Structural comparison of types, functions and interfaces, and the words it finds for each difference."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloche.contract.compare import Side, compare_functions, compare_interfaces, compare_types, is_same_resource
from cloche.contract.show import MAX_TYPE_CHARS, show
from cloche.wit.types import (
    BorrowType,
    EnumType,
    ErrorContextType,
    FlagsType,
    FutureType,
    ListType,
    MapType,
    OptionType,
    OwnType,
    Prim,
    RecordType,
    ResultType,
    StreamType,
    TupleType,
    Type,
    VariantType,
)
from support.wit_values import any_type, enum, flags, function, interface, record, resource, variant

STORE = "wasi:keyvalue/store@0.2.0"


@pytest.mark.parametrize(
    ("expected", "found", "message"),
    [
        (Prim.STRING, Prim.U32, "expected string, found u32"),
        (Prim.U8, ListType(Prim.U8), "expected u8, found list<u8>"),
        (None, Prim.U8, "expected nothing, found u8"),
        (Prim.U8, None, "expected u8, found nothing"),
        (ListType(Prim.U8), ListType(Prim.S8), "element: expected u8, found s8"),
        (ListType(Prim.U8), ListType(Prim.U8, 4), "expected list<u8>, found list<u8, 4>"),
        (OptionType(Prim.U8), OptionType(Prim.CHAR), "payload: expected u8, found char"),
        (ResultType(Prim.U8, None), ResultType(None, None), "ok: expected u8, found nothing"),
        (ResultType(None, Prim.STRING), ResultType(None, Prim.U8), "error: expected string, found u8"),
        (TupleType((Prim.U8,)), TupleType(()), "expected tuple<u8>, found tuple<>"),
        (TupleType((Prim.U8, Prim.U8)), TupleType((Prim.U8, Prim.BOOL)), "item 2: expected u8, found bool"),
        (MapType(Prim.STRING, Prim.U8), MapType(Prim.CHAR, Prim.U8), "key: expected string, found char"),
        (MapType(Prim.STRING, Prim.U8), MapType(Prim.STRING, Prim.F32), "value: expected u8, found f32"),
        (record(("a", Prim.U8)), record(("a", Prim.U16)), "field `a`: expected u8, found u16"),
        (record(("a", Prim.U8)), record(("b", Prim.U8)), "field 1: expected `a`, found `b`"),
        (record(("a", Prim.U8)), record(), "field 1: expected `a`, found none"),
        (record(), record(("a", Prim.U8)), "field 1: expected no field 1, found `a`"),
        (
            record(("a", Prim.U8), ("b", Prim.U8)),
            record(("b", Prim.U8), ("a", Prim.U8)),
            "field 1: expected `a`, found `b`",
        ),
        (variant(("a", None)), variant(("a", Prim.U8)), "case `a`: expected nothing, found u8"),
        (variant(("a", None)), variant(("a", None), ("b", None)), "case 2: expected no case 2, found `b`"),
        (enum("a", "b"), enum("a", "c"), "case 2: expected `b`, found `c`"),
        (flags("a", "b"), flags("a"), "flag 2: expected `b`, found none"),
        (enum("a"), flags("a"), "expected enum en, found flags fl"),
        (OwnType(resource()), BorrowType(resource()), "expected own<bucket>, found borrow<bucket>"),
        (
            OwnType(resource()),
            OwnType(resource("jar")),
            f"expected resource {STORE}.bucket, found resource {STORE}.jar",
        ),
        (StreamType(Prim.U8), StreamType(None), "element: expected u8, found nothing"),
        (FutureType(None), StreamType(None), "expected future, found stream"),
        (ErrorContextType(), Prim.U8, "expected error-context, found u8"),
    ],
)
def test_differences(expected: Type | None, found: Type | None, message: str) -> None:
    """Each difference is found once, at the path where it is."""
    assert [str(mismatch) for mismatch in compare_types(expected, found)] == [message]


def test_every_difference_is_listed() -> None:
    """Two wrong fields of one record are two findings, and a path leads through everything around them."""
    expected = OptionType(ListType(record(("a", Prim.U8), ("b", TupleType((Prim.STRING,))))))
    found = OptionType(ListType(record(("a", Prim.S8), ("b", TupleType((Prim.BOOL,))))))
    assert [str(mismatch) for mismatch in compare_types(expected, found)] == [
        "payload: element: field `a`: expected u8, found s8",
        "payload: element: field `b`: item 1: expected string, found bool",
    ]


def test_names_of_types_do_not_matter() -> None:
    """A record, variant, enum or set of flags under another name is the same type."""
    pairs: list[tuple[Type, Type]] = [
        (record(("a", Prim.U8), name="one"), record(("a", Prim.U8), name="two")),
        (variant(("a", None), name="one"), variant(("a", None), name="two")),
        (enum("a", name="one"), enum("a", name="two")),
        (flags("a", name="one"), flags("a", name="two")),
    ]
    assert [list(compare_types(*pair)) for pair in pairs] == [[], [], [], []]


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ("wasi:keyvalue/store@0.2.0", True),
        ("wasi:keyvalue/store@0.2.7", True),
        ("wasi:keyvalue/store@0.3.0", False),
        ("wasi:keyvalue/store", False),
        ("wasi:keyvalue/batch@0.2.0", False),
        ("acme:keyvalue/store@0.2.0", False),
        (None, False),
    ],
)
def test_identity_of_resources(other: str | None, expected: bool) -> None:
    """A resource is itself in another compatible version of its interface, and nowhere else."""
    assert is_same_resource(resource(), resource(interface=other)) is expected


def different(found: Type) -> Type:
    """`found` changed in one place that makes it another type."""
    match found:
        case Prim():
            return Prim.U8 if found is not Prim.U8 else Prim.STRING
        case ListType():
            return replace(found, element=different(found.element))
        case OptionType():
            return replace(found, payload=different(found.payload))
        case ResultType():
            return replace(found, err=Prim.U8 if found.err is None else different(found.err))
        case TupleType():
            return TupleType((*found.items, Prim.U8))
        case MapType():
            return replace(found, value=different(found.value))
        case RecordType():
            return replace(found, fields=found.fields[1:])
        case VariantType():
            return replace(found, cases=found.cases[1:])
        case EnumType():
            return replace(found, cases=(*found.cases, "extra"))
        case FlagsType():
            return replace(found, flags=("extra", *found.flags))
        case OwnType():
            return BorrowType(found.resource)
        case BorrowType():
            return BorrowType(resource("other", found.resource.name.interface))
        case StreamType() | FutureType() | ErrorContextType():
            return Prim.U8


@settings(deadline=None)
@given(any_type)
def test_a_type_is_itself_and_not_another(found: Type) -> None:
    """Any type equals itself, differs from a changed one both ways, and can be shown."""
    assert list(compare_types(found, found)) == []
    other = different(found)
    assert list(compare_types(found, other)) != []
    assert list(compare_types(other, found)) != []
    assert 0 < len(show(found)) <= MAX_TYPE_CHARS


@settings(deadline=None)
@given(any_type, any_type)
def test_comparison_has_no_direction(one: Type, other: Type) -> None:
    """Whether two types are the same does not depend on which one is the host's."""
    assert bool(list(compare_types(one, other))) == bool(list(compare_types(other, one)))


@settings(deadline=None)
@given(st.lists(any_type, max_size=3), any_type)
def test_a_function_with_a_changed_parameter_differs(params: list[Type], last: Type) -> None:
    """A change in any one parameter is found, and the path names it."""
    before = tuple((f"p{number}", found) for number, found in enumerate(params))
    one = function("f", (*before, ("last", last)))
    other = function("f", (*before, ("last", different(last))))
    assert list(compare_functions(one, one, Side.IMPORT)) == []
    mismatches = list(compare_functions(one, other, Side.IMPORT))
    assert mismatches
    assert {mismatch.path[1] for mismatch in mismatches} == {f"parameter {len(params) + 1} `last`"}


def test_words_of_a_function() -> None:
    """The message names function, parameter number and name, and what the component does with it."""
    host = function("open", (("identifier", Prim.STRING),), Prim.U8)
    guest = function("open", (("identifier", Prim.U32),), Prim.BOOL)
    assert [str(mismatch) for mismatch in compare_functions(host, guest, Side.IMPORT)] == [
        "function `open`: parameter 1 `identifier`: expected string, the component passes u32",
        "function `open`: result: expected u8, the component expects bool",
    ]
    assert [str(mismatch) for mismatch in compare_functions(host, guest, Side.EXPORT)] == [
        "function `open`: parameter 1 `identifier`: expected string, the component takes u32",
        "function `open`: result: expected u8, the component returns bool",
    ]


@pytest.mark.parametrize(
    ("host", "guest", "message"),
    [
        (function("f", (("a", Prim.U8),)), function("f"), "expected 1 parameter (a), the component passes 0"),
        (function("f"), function("f", (("a", Prim.U8),)), "expected no parameters, the component passes 1"),
        (
            function("f", (("a", Prim.U8),)),
            function("f", (("b", Prim.U8),)),
            "parameter 1 `a`: the component calls it `b`",
        ),
        (
            function("f"),
            function("f", is_async=True),
            "expected a synchronous function, the component has an async one",
        ),
        (function("f"), function("f", result=Prim.U8), "result: expected nothing, the component expects u8"),
    ],
)
def test_signatures(host: object, guest: object, message: str) -> None:
    """Number, names and asynchrony of parameters count as well as their types."""
    assert [str(mismatch) for mismatch in compare_functions(host, guest, Side.IMPORT)] == [f"function `f`: {message}"]  # type: ignore[arg-type]


def test_an_import_may_use_less_and_never_more() -> None:
    """A component may import fewer functions than the host has; another one is named."""
    host = interface(STORE, function("open"), function("close"))
    assert list(compare_interfaces(host, interface(STORE, function("open")), Side.IMPORT)) == []
    assert list(compare_interfaces(host, interface(STORE), Side.IMPORT)) == []
    (mismatch,) = compare_interfaces(host, interface(STORE, function("opens")), Side.IMPORT)
    assert mismatch.unknown == "opens"
    assert str(mismatch) == f"function `opens`: {STORE} has no such function"


def test_resources_and_types_of_an_interface() -> None:
    """A resource that the host lacks or that is something else is found; a plain type of one side only is not."""
    host = interface(STORE, types=(("bucket", resource()), ("size", Prim.U64)))
    cases = {
        (("bucket", resource()),): [],
        (("jar", resource("jar")),): ["type `jar`: expected nothing, the component has resource jar"],
        (("bucket", Prim.U8),): ["type `bucket`: expected resource bucket, the component has u8"],
        (("size", resource("size")),): ["type `size`: expected u64, the component has resource size"],
        (("size", Prim.U32),): ["type `size`: expected u64, the component has u32"],
        (("bucket", resource("jar")),): [
            f"type `bucket`: expected resource {STORE}.bucket, the component has resource {STORE}.jar"
        ],
        (("more", Prim.U8),): [],
    }
    for types, expected in cases.items():
        found = compare_interfaces(host, interface(STORE, types=types), Side.IMPORT)  # type: ignore[arg-type]
        assert [str(mismatch) for mismatch in found] == expected


def test_long_types_are_cut() -> None:
    """A type that fills pages is shown in one line."""
    assert show(TupleType((Prim.STRING,) * 100)).endswith("…")
