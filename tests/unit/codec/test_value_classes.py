"""Generated classes, dtypes, representation and equality."""

from __future__ import annotations

import dataclasses
from enum import Flag, StrEnum
from typing import Any

import numpy as np
import pytest

from cloche.errors import UsageError
from cloche.values import Case, Variant, brief, class_for, dtype_for, same
from cloche.wit.types import Case as CaseType
from cloche.wit.types import EnumType, Field, FlagsType, ListType, Prim, RecordType, TupleType, TypeName, VariantType

NAME = TypeName("test:classes/types@1.0.0", "my-thing")
RECORD = RecordType(NAME, (Field("max-bytes", Prim.U32), Field("class", ListType(Prim.U8))))
VARIANT = VariantType(NAME, (CaseType("circle", Prim.F64), CaseType("none", None)))
ENUM = EnumType(NAME, ("deep-blue", "none"))
FLAGS = FlagsType(NAME, ("read", "write-all"))


class Unprintable:
    """A caller's object whose repr fails."""

    def __repr__(self) -> str:
        raise RuntimeError("no")


def test_a_record_is_a_frozen_slotted_dataclass() -> None:
    """Fields are snake_case, keywords get an underscore, and nothing can be set."""
    made: Any = class_for(RECORD)
    value = made(max_bytes=1, class_=b"x")
    assert made.__name__ == "MyThing"
    assert [field.name for field in dataclasses.fields(made)] == ["max_bytes", "class_"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        value.max_bytes = 2
    assert not hasattr(value, "__dict__")
    assert value == made(1, b"x") != made(2, b"x")
    assert hash(value) == hash(made(1, b"x"))


def test_the_same_type_gives_the_same_class() -> None:
    """Structure and name decide, not identity."""
    again = RecordType(TypeName("test:classes/types@1.0.0", "my-thing"), RECORD.fields)
    assert class_for(again) is class_for(RECORD)
    assert class_for(RecordType(TypeName(None, "my-thing"), RECORD.fields)) is not class_for(RECORD)


def test_a_variant_matches() -> None:
    """Cases are tagged dataclasses with `value`, usable in match; the base covers all."""
    made: Any = class_for(VARIANT)
    match made.Circle(1.5):
        case made.Circle(radius):
            assert radius == 1.5
        case _:
            pytest.fail("no match")
    assert isinstance(made.None_(), made)
    assert issubclass(made, Variant)
    assert (made.None_().case, made.None_().value, made.Circle(1).case) == ("none", None, "circle")
    assert made.Circle(1) != made.None_() == made.None_()
    assert repr(made.Circle(1)) == "MyThing.Circle(1)"
    assert repr(made.None_()) == "MyThing.None_()"


def test_enums_and_flags() -> None:
    """An enum's value is the WIT spelling; flags stand in bit order."""
    color: Any = class_for(ENUM)
    access: Any = class_for(FLAGS)
    assert issubclass(color, StrEnum)
    assert color.DEEP_BLUE == "deep-blue"
    assert issubclass(access, Flag)
    assert (access.READ.value, access.WRITE_ALL.value) == (1, 2)


def test_other_types_have_no_class() -> None:
    """A list has none."""
    with pytest.raises(UsageError):
        class_for(ListType(Prim.U8))


@pytest.mark.parametrize(
    ("type_", "dtype"),
    [
        (Prim.U8, "u1"),
        (Prim.F32, "<f4"),
        (Prim.S64, "<i8"),
        (Prim.BOOL, None),
        (Prim.CHAR, None),
        (Prim.STRING, None),
        (RECORD, None),
        (TupleType((Prim.U8, Prim.CHAR)), None),
        (TupleType(()), None),
        (
            TupleType((Prim.BOOL, Prim.U16)),
            {"names": ["f0", "f1"], "formats": ["?", "<u2"], "offsets": [0, 2], "itemsize": 4},
        ),
        (
            RecordType(NAME, (Field("a-b", Prim.U8), Field("c", TupleType((Prim.F64,))))),
            {"names": ["a_b", "c"], "formats": ["u1", [("f0", "<f8")]], "offsets": [0, 8], "itemsize": 16},
        ),
    ],
)
def test_dtypes(type_: Any, dtype: Any) -> None:
    """Numbers and rows of numbers and bools are numpy's; everything else is not."""
    found = dtype_for(type_)
    assert (found is None) if dtype is None else found == np.dtype(dtype)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"secret" * 100, "<600 bytes>"),
        (10**500, "<int of 1661 bits>"),
        (-(1 << 255), str(-(1 << 255))),
        (Unprintable(), "<Unprintable>"),
        (bytearray(3), "<3 bytes>"),
        (memoryview(b"ab"), "<2 bytes>"),
        ("x" * 81, "<81 characters>"),
        ("short", "'short'"),
        (np.zeros((2, 3)), "<array of 2 x 3 float64>"),
        (np.zeros(2, [("a", "u1")]), "<array of 2 records>"),
        ([1] * 9, "<list of 9 items>"),
        ([b"ab", ("x" * 100,)], "[<2 bytes>, (<100 characters>)]"),
        ({"b", "a"}, "{'a', 'b'}"),
        ({"k": b"v"}, "{'k': <1 bytes>}"),
        (Case("circle", b"abc"), "Case('circle', <3 bytes>)"),
    ],
)
def test_payloads_are_shown_by_length(value: object, text: str) -> None:
    """No repr shows the bytes of a payload."""
    assert brief(value) == text


def test_records_show_lengths() -> None:
    """Also inside records."""
    assert repr(class_for(RECORD)(1, b"abc")) == "MyThing(max_bytes=1, class_=<3 bytes>)"


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [
        (np.array([1, 2]), np.array([1, 2]), True),
        (np.array([1, 2]), np.array([1, 3]), False),
        (np.array([1, 2]), [1, 2], False),
        (np.array([1], "u1"), np.array([1], "u2"), False),
        ([np.array([1])], [np.array([1])], True),
        ((1, 2), [1, 2], False),
        ({"a": np.array([1])}, {"a": np.array([1])}, True),
        ({"a": 1}, {"b": 1}, False),
        ("a", "a", True),
    ],
)
def test_equality_takes_arrays_whole(left: object, right: object, equal: bool) -> None:
    """`same` never asks an array for its truth."""
    assert same(left, right) is equal


def test_records_with_arrays_compare() -> None:
    """Two records that hold equal arrays are equal."""
    made: Any = class_for(RECORD)
    assert made(1, np.array([1, 2])) == made(1, np.array([1, 2]))
    assert made(1, np.array([1, 2])) != made(1, np.array([1, 3]))
