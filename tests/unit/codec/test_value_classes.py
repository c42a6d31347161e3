"""Generated classes, dtypes, representation and equality."""

from __future__ import annotations

import copy
import dataclasses
import gc
import pickle
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from enum import Flag, StrEnum
from itertools import repeat
from typing import Any

import numpy as np
import pytest

from cloche.engine.codec.function import FunctionPlan
from cloche.engine.codec.plan import plan_for
from cloche.errors import UsageError
from cloche.model import Err, Ok, Some
from cloche.values import MAX_SHOWN_TEXT, Case, Variant, brief, class_for, dtype_for, same
from cloche.wit.types import Case as CaseType
from cloche.wit.types import (
    EnumType,
    Field,
    FlagsType,
    Function,
    FunctionKind,
    ListType,
    Param,
    Prim,
    RecordType,
    TupleType,
    Type,
    TypeName,
    VariantType,
)

NAME = TypeName("test:classes/types@1.0.0", "my-thing")
RECORD = RecordType(NAME, (Field("max-bytes", Prim.U32), Field("class", ListType(Prim.U8))))
VARIANT = VariantType(NAME, (CaseType("circle", Prim.F64), CaseType("none", None)))
ENUM = EnumType(NAME, ("deep-blue", "none"))
FLAGS = FlagsType(NAME, ("read", "write-all"))


class Endless(list[int]):
    """A caller's list that never ends."""

    def __len__(self) -> int:
        return 3

    def __iter__(self) -> Iterator[int]:
        return repeat(1)


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
    with pytest.raises(AttributeError):
        value.other = 2
    assert not hasattr(value, "__dict__")
    assert value == made(1, b"x") != made(2, b"x")
    assert hash(value) == hash(made(1, b"x"))


def test_the_same_type_gives_the_same_class() -> None:
    """Structure and name decide, not identity."""
    again = RecordType(TypeName("test:classes/types@1.0.0", "my-thing"), RECORD.fields)
    assert class_for(again) is class_for(RECORD)
    assert class_for(RecordType(TypeName(None, "my-thing"), RECORD.fields)) is not class_for(RECORD)


def test_threads_that_ask_at_once_get_one_class() -> None:
    """Eight threads that need a class for the first time share it, and so do the plans that they compile."""
    for number in range(20):
        name = TypeName("test:classes/threads", f"shape-{number}")
        type_ = VariantType(name, tuple(CaseType(f"c{case}", Prim.U8) for case in range(100)))
        barrier = threading.Barrier(8)

        def ask(index: int, type_: Type = type_, barrier: threading.Barrier = barrier) -> Any:
            barrier.wait()
            return plan_for(type_).python if index % 2 else class_for(type_)  # type: ignore[union-attr]

        with ThreadPoolExecutor(8) as pool:
            classes = list(pool.map(ask, range(8)))
        assert len(set(map(id, classes))) == 1


def test_many_other_types_change_no_class() -> None:
    """However many types a process sees, a class that somebody uses stays the class of its type."""
    kinds = (RECORD, VARIANT, ENUM, FLAGS)
    kept = [class_for(type_) for type_ in kinds]
    others = [class_for(EnumType(TypeName(None, f"other-{number}"), ("a",))) for number in range(10_000)]
    assert [class_for(type_) for type_ in kinds] == kept
    assert len(set(others)) == 10_000


def test_classes_that_nobody_uses_go() -> None:
    """A host that loads and unloads plugins for ever does not collect their classes."""
    name = TypeName("test:classes/gone", "thing")
    types: list[Type] = [
        RecordType(name, RECORD.fields),
        VariantType(name, VARIANT.cases),
        EnumType(name, ENUM.cases),
        FlagsType(name, FLAGS.flags),
    ]
    function = Function("f", FunctionKind.FREE, tuple(Param("x", type_) for type_ in types), TupleType(tuple(types)))
    plan = FunctionPlan(function)
    classes = [weakref.ref(class_for(type_)) for type_ in types]
    gc.collect()
    assert [reference() for reference in classes] == [class_for(type_) for type_ in types]
    del plan
    gc.collect()
    assert [reference() for reference in classes] == [None] * 4


def test_a_value_keeps_its_class() -> None:
    """A value that somebody holds is of the class of its type, whatever became of the plugin."""
    type_ = VariantType(TypeName("test:classes/kept", "thing"), VARIANT.cases)
    value = class_for(type_).Circle(1.0)  # type: ignore[attr-defined]
    gc.collect()
    assert isinstance(value, class_for(type_))


def test_values_are_pickled_and_copied() -> None:
    """Values of generated classes pass through pickle and copy like any other."""
    record: Any = class_for(RECORD)
    variant: Any = class_for(VARIANT)
    values = [
        record(1, b"x"),
        variant.Circle(1.5),
        variant.None_(),
        class_for(ENUM)("none"),
        class_for(FLAGS)(3),
        Ok(record(1, b"")),
    ]
    for value in values:
        for again in (pickle.loads(pickle.dumps(value)), copy.copy(value), copy.deepcopy(value)):
            assert again == value
            assert type(again) is type(value)
    assert dataclasses.replace(values[0], max_bytes=2) == record(2, b"x")


@pytest.mark.parametrize("name", ["value", "other", "case"])
def test_cases_are_frozen(name: str) -> None:
    """Nothing of a case can be set, and it has no dictionary."""
    variant: Any = class_for(VARIANT)
    for value in (variant.Circle(1.0), variant.None_()):
        with pytest.raises(AttributeError):
            setattr(value, name, 5)
        assert not hasattr(value, "__dict__")


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
        (Ok(b"secret"), "Ok(value=<6 bytes>)"),
        (Some([b"secret"]), "Some(value=[<6 bytes>])"),
        ([[[[1, 2]]]], "[[[<list of 2 items>]]]"),
        ([[[[]]]], "[[[[]]]]"),
        ({"a": {"b": {"c": {"d": 1}}}}, "{'a': {'b': {'c': <dict of 1 items>}}}"),
        (range(3), "<range>"),
        (int, "<class int>"),
        (np.array([(1, b"secret")], [("a", "u1"), ("b", "S6")])[0], "(1, <6 bytes>)"),
        (["é" * 80] * 8, ("[" + ", ".join(["'" + "é" * 80 + "'"] * 8))[:319] + "…"),
        (Endless(), "[1, 1, 1, 1, 1, 1, 1, 1]"),
    ],
)
def test_payloads_are_shown_by_length(value: object, text: str) -> None:
    """No repr shows the bytes of a payload."""
    assert brief(value) == text


def test_showing_a_value_takes_bounded_work() -> None:
    """A list that holds itself, or the same list over and over, is shown in no time and few words."""
    loop: list[Any] = []
    loop.append(loop)
    tree: Any = "leaf"
    wide: Any = class_for(RECORD)(1, b"x")
    for _ in range(30):
        tree = [tree] * 8
        wide = class_for(RECORD)(wide, [wide] * 8)
    assert brief(loop) == "[[[<list of 1 items>]]]"
    for value in (tree, wide, [wide] * 8, Ok(wide), Case("a", tree)):
        assert len(brief(value)) <= MAX_SHOWN_TEXT
    assert len(repr(wide)) < 10 * MAX_SHOWN_TEXT


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


@pytest.mark.parametrize(
    "wrap",
    [
        Ok,
        Err,
        Some,
        lambda value: Case("a", value),
        lambda value: Ok(Some([value])),
        lambda value: class_for(RECORD)(1, Ok(value)),
        lambda value: class_for(VARIANT).Circle((value,)),  # type: ignore[attr-defined]
        lambda value: Ok({"k": value}),
    ],
)
def test_everything_that_holds_arrays_compares(wrap: Any) -> None:
    """`==` takes arrays whole wherever they stand, and NaN differs from itself."""
    assert wrap(np.array([1, 2])) == wrap(np.array([1, 2]))
    assert wrap(np.array([1, 2])) != wrap(np.array([1, 3]))
    assert wrap(np.array([1, 2], "u1")) != wrap(np.array([1, 2], "u2"))
    assert wrap(np.array([1, 2])) != wrap([1, 2])
    assert wrap(np.array([np.nan])) != wrap(np.array([np.nan]))
    nan = float("nan")
    assert wrap(nan) != wrap(nan)
    assert wrap(1) == wrap(1)


def test_wrappers_differ_from_each_other() -> None:
    """Ok is not Err, and nothing equals its bare value."""
    assert Ok(1) != Err(1)
    assert Ok(1) != 1
    assert Some(1) != Ok(1)
    assert {Ok(1), Ok(1), Err(1)} == {Ok(1), Err(1)}
    assert class_for(VARIANT).Circle(1) != Case("circle", 1)  # type: ignore[attr-defined]


def test_records_with_arrays_compare() -> None:
    """Two records that hold equal arrays are equal."""
    made: Any = class_for(RECORD)
    assert made(1, np.array([1, 2])) == made(1, np.array([1, 2]))
    assert made(1, np.array([1, 2])) != made(1, np.array([1, 3]))
