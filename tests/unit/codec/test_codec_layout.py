"""Layout by the canonical ABI, and which types are refused."""

from __future__ import annotations

import pytest

from cloche.engine.codec.layout import layout_of, sequence_layout
from cloche.errors import ContractError
from cloche.values import dtype_for
from cloche.wit.carried import MAX_LABELS, MAX_TYPE_DEPTH, ensure_carried
from cloche.wit.types import (
    BorrowType,
    Case,
    EnumType,
    ErrorContextType,
    Field,
    FlagsType,
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
    Type,
    TypeName,
    VariantType,
)

NAME = TypeName("test:layout/types", "thing")
RESOURCE = ResourceType(NAME)


def _enum(count: int) -> EnumType:
    return EnumType(NAME, tuple(f"c{index}" for index in range(count)))


def _flags(count: int) -> FlagsType:
    return FlagsType(NAME, tuple(f"f{index}" for index in range(count)))


def _record(*types: Type) -> RecordType:
    return RecordType(NAME, tuple(Field(f"f{index}", type_) for index, type_ in enumerate(types)))


def _variant(*types: Type | None) -> VariantType:
    return VariantType(NAME, tuple(Case(f"c{index}", type_) for index, type_ in enumerate(types)))


@pytest.mark.parametrize(
    ("type_", "size", "align", "flat", "fixed"),
    [
        (Prim.BOOL, 1, 1, "i32", True),
        (Prim.S16, 2, 2, "i32", True),
        (Prim.CHAR, 4, 4, "i32", True),
        (Prim.U64, 8, 8, "i64", True),
        (Prim.F32, 4, 4, "f32", True),
        (Prim.STRING, 8, 4, "i32 i32", False),
        (ListType(Prim.U64), 8, 4, "i32 i32", False),
        (MapType(Prim.U8, Prim.U64), 8, 4, "i32 i32", False),
        (_record(Prim.U8, Prim.U32, Prim.U8), 12, 4, "i32 i32 i32", True),
        (TupleType((Prim.U8, Prim.F64)), 16, 8, "i32 f64", True),
        (_enum(256), 1, 1, "i32", True),
        (_enum(257), 2, 2, "i32", True),
        (_flags(8), 1, 1, "i32", True),
        (_flags(9), 2, 2, "i32", True),
        (_flags(32), 4, 4, "i32", True),
        (OptionType(Prim.U8), 2, 1, "i32 i32", True),
        (OptionType(Prim.U64), 16, 8, "i32 i64", True),
        (ResultType(None, None), 1, 1, "i32", True),
        (ResultType(Prim.U8, Prim.STRING), 12, 4, "i32 i32 i32", False),
        (_variant(None, Prim.F32, Prim.U32), 8, 4, "i32 i32", True),
        (_variant(Prim.F32, Prim.U64), 16, 8, "i32 i64", True),
        (_variant(Prim.F32, Prim.F64, None), 16, 8, "i32 i64", True),
        (_variant(TupleType((Prim.U8, Prim.U64)), Prim.F32), 24, 8, "i32 i32 i64", True),
        (OwnType(RESOURCE), 4, 4, "i32", True),
        (BorrowType(RESOURCE), 4, 4, "i32", True),
    ],
)
def test_layout(type_: Type, size: int, align: int, flat: str, fixed: bool) -> None:
    """Size, alignment and flattening are the specification's."""
    layout = layout_of(type_)
    assert (layout.size, layout.align, " ".join(layout.flat), layout.fixed) == (size, align, flat, fixed)


@pytest.mark.parametrize(
    "type_",
    [_record(Prim.U8, Prim.F64, Prim.BOOL), TupleType((Prim.U8, _record(Prim.U16, Prim.U64), Prim.U8)), Prim.U16],
)
def test_numpy_rows_have_the_canonical_layout(type_: Type) -> None:
    """A structured dtype is byte for byte the canonical layout, so that a carrier can copy rows."""
    dtype = dtype_for(type_)
    assert dtype is not None
    assert dtype.itemsize == layout_of(type_).size


def test_a_calls_parameters_are_laid_out_like_a_tuple() -> None:
    """What a call is charged for its arguments is the size of their tuple."""
    assert sequence_layout([Prim.U8, Prim.U64, Prim.U8]).size == 24
    assert sequence_layout([]).size == 0


def _nested(levels: int) -> Type:
    type_: Type = Prim.U8
    for _ in range(levels - 1):
        type_ = OptionType(type_)
    return type_


def _doubling(levels: int) -> Type:
    type_: Type = Prim.U8
    for _ in range(levels):
        type_ = TupleType((type_, type_))
    return type_


@pytest.mark.parametrize(
    ("type_", "words"),
    [
        (StreamType(Prim.U8), "StreamType values are not supported"),
        (FutureType(None), "FutureType values are not supported"),
        (ListType(ErrorContextType()), "ErrorContextType values are not supported"),
        (ListType(Prim.U8, 4), "fixed-length lists"),
        (_record(_flags(33)), "has 33 flags; the component model allows 32"),
        (_nested(MAX_TYPE_DEPTH + 1), "levels"),
        (_nested(5000), "levels"),
        (_doubling(40), "parts"),
        (_enum(MAX_LABELS + 1), "has 1025 fields or cases; at most 1024"),
        (_record(*[Prim.U8] * (MAX_LABELS + 1)), "has 1025 fields or cases"),
        (ListType(_variant(*[None] * 9000)), "has 9000 fields or cases"),
    ],
)
def test_types_that_cannot_be_carried_are_refused(type_: Type, words: str) -> None:
    """Unsupported, endless and exploding types are contract.unsupported, in no time."""
    with pytest.raises(ContractError, match=words) as caught:
        ensure_carried(type_)
    assert caught.value.code == "contract.unsupported"


def test_types_at_the_bounds_pass() -> None:
    """The bounds themselves are allowed."""
    ensure_carried(_nested(MAX_TYPE_DEPTH))
    ensure_carried(_doubling(12))
    ensure_carried(_flags(32))
    ensure_carried(_enum(MAX_LABELS))
    ensure_carried(_variant(*[Prim.U8] * MAX_LABELS))
