"""Values that change or lie while they are read, and values whose own code fails: only what was counted is written."""

from __future__ import annotations

import ctypes
from collections import UserList, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from cloche.engine.codec.function import FunctionPlan, HostPlan
from cloche.engine.codec.local import LocalPlan
from cloche.engine.ffi import VAL_BYTES, library
from cloche.errors import CapabilityError, ClocheError, GuestTrap, LimitError, UsageError
from cloche.model import Ok
from cloche.values import Case, class_for, dtype_for
from cloche.wit.types import Case as CaseType
from cloche.wit.types import (
    EnumType,
    Field,
    FlagsType,
    Function,
    FunctionKind,
    ListType,
    MapType,
    OptionType,
    Param,
    Prim,
    RecordType,
    ResultType,
    TupleType,
    Type,
    TypeName,
    VariantType,
)

MUCH = 1 << 30
NO_BRIDGE: Any = None


def _named(name: str) -> TypeName:
    return TypeName("test:changing/types", name)


TEXTS = RecordType(_named("texts"), (Field("text", Prim.STRING),))
PAIR = RecordType(_named("pair"), (Field("on", Prim.BOOL), Field("n", Prim.U8)))
SHAPE = VariantType(_named("shape"), (CaseType("some", TEXTS), CaseType("none", None)))
COLOR = EnumType(_named("color"), ("red", "blue"))
MODES = FlagsType(_named("modes"), ("read", "write"))


def function(type_: Type, result: Type | None = None) -> Function:
    return Function("work", FunctionKind.FREE, (Param("x", type_),), result)


def crossed(type_: Type, value: object) -> Any:
    """What a guest gets for an argument."""
    (got,), _ = LocalPlan(function(type_)).arguments((value,), MUCH)
    return got


def given_back(type_: Type, value: object) -> None:
    """Lower the value as a host function's result, in the engine's own memory, and free it."""
    memory = ctypes.create_string_buffer(VAL_BYTES)
    HostPlan(function(Prim.U8, type_)).lower(value, ctypes.addressof(memory), NO_BRIDGE, MUCH)
    library().wasmtime_component_val_delete(ctypes.addressof(memory))


class Acting(Mapping[str, Any]):
    """A record that runs code while it is read."""

    def __init__(self, act: Callable[[], object], **fields: Any) -> None:
        self.act, self.fields = act, fields

    def __getitem__(self, key: str) -> Any:
        return self.fields[key]

    def __iter__(self) -> Iterator[str]:
        self.act()
        return iter(self.fields)

    def __len__(self) -> int:
        return len(self.fields)


CHANGES: dict[str, Callable[[list[Any]], object]] = {
    "grow": lambda items: items.extend([None] * 100_000),
    "shrink": lambda items: items.__delitem__(slice(1, None)),
    "clear": lambda items: items.clear(),
    "reverse": lambda items: items.reverse(),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("count", [2, 100, 5000])
def test_a_list_that_changes_while_it_is_lowered(change: str, count: int) -> None:
    """The guest gets the items that the list had when the call began; nothing is written beyond or left out."""

    def changing() -> list[Any]:
        items: list[Any] = []
        items += [Acting(lambda: CHANGES[change](items), text="first"), *({"text": "x"} for _ in range(count))]
        return items

    assert [each.text for each in crossed(ListType(TEXTS), changing())] == ["first"] + ["x"] * count
    given_back(ListType(TEXTS), changing())


@pytest.mark.parametrize("change", CHANGES)
def test_rows_that_change_while_they_are_read(change: str) -> None:
    """The same for rows, which become an array."""
    items: list[Any] = []
    items += [Acting(lambda: CHANGES[change](items), on=True, n=7), *({"on": False, "n": 1} for _ in range(50))]
    assert crossed(ListType(PAIR), items)["n"].tolist() == [7] + [1] * 50


@pytest.mark.parametrize("change", CHANGES)
def test_a_tuple_given_as_a_list_that_changes(change: str) -> None:
    """The same for the parts of a tuple."""
    items: list[Any] = []
    items += [Acting(lambda: CHANGES[change](items), text="a"), {"text": "b"}]
    assert [each.text for each in crossed(TupleType((TEXTS, TEXTS)), items)] == ["a", "b"]


def test_a_mapping_that_changes_while_it_is_lowered() -> None:
    """The same for maps and for records from a mapping."""
    given: dict[str, Any] = {}
    given["a"] = Acting(lambda: given.update({str(n): None for n in range(1000)}), text="x")
    given["b"] = {"text": "y"}
    assert {key: each.text for key, each in crossed(MapType(Prim.STRING, TEXTS), given).items()} == {"a": "x", "b": "y"}
    nested = RecordType(_named("nested"), (Field("a", TEXTS), Field("b", TEXTS)))
    record: dict[str, Any] = {}
    record["a"] = Acting(record.clear, text="x")
    record["b"] = {"text": "y"}
    assert crossed(nested, record).b.text == "y"


class Short(list[Any]):
    def __len__(self) -> int:
        return 1


class Long(list[Any]):
    def __len__(self) -> int:
        return 1000


class Endless(list[Any]):
    def __iter__(self) -> Iterator[Any]:
        while True:
            yield from list.__iter__(self)


class LongTuple(tuple[Any, ...]):
    __slots__ = ()

    def __len__(self) -> int:
        return 2


@pytest.mark.parametrize("lying", [Short, Long])
@pytest.mark.parametrize(
    ("type_", "items"),
    [
        (ListType(Prim.STRING), ["a", "b", "c"]),
        (ListType(Prim.F64), [1.0, 2.0, 3.0]),
        (ListType(Prim.U8), [1, 2, 3]),
        (ListType(PAIR), [{"on": True, "n": 1}] * 3),
    ],
)
def test_a_length_that_lies(type_: Type, items: list[Any], lying: Any) -> None:
    """What iterating gives is what counts, whatever the length said."""
    assert len(crossed(type_, lying(items))) == 3


@pytest.mark.parametrize("type_", [ListType(Prim.STRING), ListType(TupleType((Prim.STRING, Prim.U8)))])
def test_an_endless_list_ends_at_the_limit(type_: Type) -> None:
    """Iterating stops when the limit is passed."""
    with pytest.raises(LimitError) as caught:
        FunctionPlan(function(type_)).buffer().lower((Endless(["a"]),), NO_BRIDGE, 1 << 20)
    assert caught.value.code == "limit.payload"


def test_a_tuple_whose_length_lies() -> None:
    """A tuple of another length is refused in the words of any other."""
    for items in ((1,), (1, "a", 3)):
        with pytest.raises(UsageError, match="expected a tuple of 2"):
            crossed(TupleType((Prim.U8, Prim.STRING)), LongTuple(items))
    with pytest.raises(UsageError, match="expected a tuple of 2"):
        crossed(TupleType((Prim.U8, Prim.U8)), Endless([1]))
    with pytest.raises(UsageError, match="expected flags"):
        crossed(MODES, Endless(["read"]))


class Lying(np.ndarray[Any, Any]):
    def __len__(self) -> int:
        return 1000

    def __getitem__(self, key: Any) -> Any:
        raise RuntimeError("no items")

    def view(self, *_: Any) -> Any:  # type: ignore[override]
        return np.zeros(5)


def test_an_array_of_a_class_that_lies() -> None:
    """Of an array its memory counts, not what its class says."""
    lying = np.ndarray.view(np.arange(3, dtype="<i2"), Lying)
    assert crossed(ListType(Prim.S16), lying).tolist() == [0, 1, 2]
    rows = np.ndarray.view(np.zeros(3, dtype_for(PAIR)), Lying)
    assert len(crossed(ListType(PAIR), rows)) == 3


class Word(str):
    """A string that gives other bytes than its own."""

    __slots__ = ()

    def encode(self, *_: Any) -> Any:
        return b"\xff\xfe"


class Octets(bytes):
    def __len__(self) -> int:
        return 100

    def __iter__(self) -> Iterator[int]:
        return iter([1] * 100)


def test_subclasses_of_text_and_bytes_give_their_own_contents() -> None:
    """The engine, which would end the process on bad UTF-8, gets the real contents (H43)."""
    assert crossed(Prim.STRING, Word("é")) == "é"
    assert crossed(ListType(Prim.STRING), [Word("a")]) == ["a"]
    assert crossed(MapType(Prim.STRING, Prim.U8), {Word("k"): 1}) == {"k": 1}
    assert crossed(ListType(Prim.U8), Octets(b"ab")) == b"ab"
    given_back(Prim.STRING, Word("é"))
    with pytest.raises(UsageError, match="lone surrogate"):
        crossed(Prim.STRING, Word("\ud800"))


# -- what the caller's own code raises ---------------------------------------------------------------------------------


class Broken:
    @property  # type: ignore[misc]
    def __class__(self) -> type:
        raise ZeroDivisionError("no class")


class NoItems(dict[Any, Any]):
    def items(self) -> Any:
        raise ZeroDivisionError("no items")


class Triples(dict[Any, Any]):
    def items(self) -> Any:
        return [(1, 2, 3)]


class NoHash(str):
    __slots__ = ()

    def __hash__(self) -> int:
        raise ZeroDivisionError("no hash")


class Wordless(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even a text")


def _raise(error: BaseException) -> None:
    raise error


RELEASED = memoryview(b"ab")
RELEASED.release()
STRUCTURED = memoryview(np.zeros(1, [("a", "u1"), ("b", "u2")]).data)
LOOP: list[Any] = []
LOOP.append(LOOP)
TREE: Any = "leaf"
for _ in range(12):
    TREE = [TREE] * 8

FAILING: list[tuple[Type, Any, str]] = [
    (Prim.STRING, Broken(), ""),
    (Prim.U8, Broken(), ""),
    (ListType(Prim.STRING), ["a", Broken()], "[1]"),
    (ListType(Prim.S32), [1, np.timedelta64(1, "s")], "[1]"),
    (Prim.S64, np.timedelta64("NaT"), ""),
    (Prim.F64, np.timedelta64(1), ""),
    (ListType(Prim.U8), RELEASED, ""),
    (ListType(Prim.S16), RELEASED, ""),
    (ListType(Prim.S16), STRUCTURED, ""),
    (ListType(PAIR), STRUCTURED, ""),
    (TEXTS, NoItems(text="a"), ""),
    (TEXTS, Triples(text="a"), ""),
    (COLOR, NoHash("red"), ""),
    (MapType(Prim.STRING, Prim.U8), NoItems(), ""),
    (MapType(Prim.STRING, Prim.U8), Triples(a=1), ".key"),
    (MODES, [NoHash("read")], ""),
    (SHAPE, {"some": Acting(lambda: _raise(ValueError("x")), text="a")}, ".value"),
    (ListType(TEXTS), [{"text": "a"}, Acting(lambda: _raise(KeyError("x")), text="a")], "[1]"),
    (ListType(PAIR), [Acting(lambda: _raise(KeyError("x")), on=True, n=1)], "[0]"),
    (TupleType((Prim.U8, TEXTS)), (1, Acting(lambda: _raise(Wordless()), text="a")), "[1]"),
    (ResultType(TEXTS, None), Ok(Acting(lambda: _raise(OSError("x")), text="a")), ".value"),
    (OptionType(OptionType(Prim.U8)), Broken(), ""),
    (TEXTS, object.__new__(class_for(TEXTS)), ""),
    (SHAPE, object.__new__(class_for(SHAPE).Some), ""),  # type: ignore[attr-defined]
    (Prim.STRING, LOOP, ""),
    (ListType(ListType(Prim.U8)), LOOP, "[0][0]"),
    (Prim.U8, TREE, ""),
]


@pytest.mark.parametrize(("type_", "value", "path"), FAILING, ids=[str(number) for number in range(len(FAILING))])
def test_whatever_a_value_does_is_a_usage_error(type_: Type, value: Any, path: str) -> None:
    """Every failure names the place, is short, and keeps its cause; as a host's result it is the capability's."""
    with pytest.raises(UsageError) as caught:
        crossed(type_, value)
    assert caught.value.code == "usage.value"
    assert f"work: argument 1 (x){path}: " in caught.value.message
    assert len(caught.value.message) < 1000
    with pytest.raises(CapabilityError) as blamed:
        given_back(type_, value)
    assert blamed.value.code == "capability.invalid"
    with pytest.raises(GuestTrap) as trapped:
        LocalPlan(function(Prim.U8, type_)).result(value, MUCH)
    assert trapped.value.code == "guest.invalid-value"


def test_the_cause_is_kept() -> None:
    """What the caller's code raised is the cause of the error."""
    cause = ZeroDivisionError("deep inside")
    with pytest.raises(UsageError, match="failed with ZeroDivisionError: deep inside") as caught:
        crossed(ListType(TEXTS), [Acting(lambda: _raise(cause), text="a")])
    assert caught.value.__cause__ is cause


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), ClocheError("mine"), MemoryError()])
def test_what_speaks_for_itself_passes(error: BaseException) -> None:
    """Errors of ours and what is no Exception come out as they are, and the buffer serves the next call."""
    buffer = FunctionPlan(function(ListType(TEXTS))).buffer()
    with pytest.raises(type(error)) as caught:
        buffer.lower(([Acting(lambda: _raise(error), text="a")],), NO_BRIDGE, MUCH)
    assert caught.value is error
    buffer.lower(([{"text": "a"}],), NO_BRIDGE, MUCH)


# -- numbers that would arrive as others -------------------------------------------------------------------------------


@pytest.mark.skipif(
    bool(np.finfo(np.longdouble).max <= np.finfo(np.float64).max), reason="no number here is wider than f64"
)
@pytest.mark.parametrize("prim", [Prim.F32, Prim.F64])
def test_a_number_wider_than_f64_never_becomes_infinite(prim: Prim) -> None:
    """Alone, in a list and in an array."""
    wide = np.longdouble("1e4000")
    for type_, value, path in (
        (prim, wide, ""),
        (ListType(prim), [1.0, wide], "[1]"),
        (ListType(prim), np.array([1.0, wide], np.longdouble), "[1]"),
    ):
        with pytest.raises(UsageError) as caught:
            crossed(type_, value)
        assert f"argument 1 (x){path}: expected" in caught.value.message
    assert crossed(prim, np.longdouble("inf")) == float("inf")
    assert crossed(ListType(prim), np.array(["inf", 0.5], np.longdouble)).tolist() == [float("inf"), 0.5]


@pytest.mark.parametrize(
    ("type_", "array"),
    [
        (ListType(Prim.S16), np.ma.array([1, 2, 3], mask=[False, True, False])),
        (ListType(Prim.BOOL), np.ma.array([True, False], mask=[False, True])),
        (ListType(PAIR), np.ma.zeros(2, dtype_for(PAIR))),
        (ListType(Prim.S16), np.ma.array([1, 2], dtype=object)),
    ],
)
def test_masked_arrays_are_refused(type_: Type, array: Any) -> None:
    """What is masked is not meant to be seen."""
    with pytest.raises(UsageError, match="expected an array without a mask"):
        crossed(type_, array)
    assert len(crossed(ListType(Prim.S16), np.ma.array([1, 2]).filled())) == 2


def test_bools_of_an_array_are_zero_or_one() -> None:
    """numpy takes any byte for a bool; the engine must never see another than 0 and 1."""
    rows = np.zeros(3, dtype_for(PAIR))
    rows.view(np.uint8)[::2] = (2, 255, 0)
    got = crossed(ListType(PAIR), rows)
    assert got["on"].view(np.uint8).tolist() == [1, 1, 0]
    assert crossed(ListType(Prim.BOOL), np.array([2, 0], np.uint8).view(np.bool_)) == [True, False]


def test_paths_into_structured_arrays_lead_through_the_row() -> None:
    """A value that does not fit is named like one in a list of records: the row, then its field."""
    outer = RecordType(_named("outer"), (Field("deep", PAIR), Field("size", Prim.F32)))
    wide = np.zeros(3, [("deep", [("on", "?"), ("n", "i8")]), ("size", "f8")])
    wide["deep"]["n"][2] = 300
    for rows, type_, path in (
        (wide, outer, "[2].deep.n"),
        (wide["deep"], PAIR, "[2].n"),
        ([(0, True)], PAIR, "[0]"),
        (np.zeros(1, [("on", "u1"), ("n", "u1")]), PAIR, ".on"),
        (np.zeros(1, [("deep", [("on", "u1"), ("n", "u1")]), ("size", "f4")]), outer, ".deep.on"),
    ):
        with pytest.raises(UsageError) as caught:
            crossed(ListType(type_), rows)
        assert f"argument 1 (x){path}: expected" in caught.value.message


# -- limits before work ------------------------------------------------------------------------------------------------


class Counting(Sequence[Any]):
    """A sequence that counts what is read of it."""

    def __init__(self, item: Any, count: int) -> None:
        self.item, self.size, self.read = item, count, 0

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: Any) -> Any:
        if index >= self.size:
            raise IndexError(index)
        self.read += 1
        return self.item


class CountingMap(Mapping[Any, Any]):
    def __init__(self, count: int) -> None:
        self.size, self.read = count, 0

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[Any]:
        for number in range(self.size):
            self.read += 1
            yield number

    def __getitem__(self, key: Any) -> Any:
        return key


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        (ListType(Prim.STRING), Counting("a", 10**12)),
        (ListType(Prim.S32), Counting(1, 10**12)),
        (ListType(PAIR), Counting({"on": True, "n": 1}, 10**12)),
        (ListType(OptionType(Prim.U8)), Counting(None, 10**12)),
        (MapType(Prim.U64, Prim.U64), CountingMap(10**12)),
    ],
)
def test_what_is_too_long_is_refused_before_it_is_read(type_: Type, value: Any) -> None:
    """Where a value knows its length, the limit applies to that first (H7)."""
    with pytest.raises(LimitError, match="larger than the 1000 bytes allowed") as caught:
        FunctionPlan(function(type_)).buffer().lower((value,), NO_BRIDGE, 1000)
    assert caught.value.code == "limit.payload"
    assert value.read == 0


@pytest.mark.parametrize(
    "value", [range(10**12), np.broadcast_to(np.int64(1), (10**12,)), np.broadcast_to(np.uint8(1), (10**12,))]
)
def test_ranges_and_arrays_are_not_made_first(value: Any) -> None:
    """A range or a repeating array of a million million items is refused without a copy of it."""
    with pytest.raises(LimitError, match="larger than the 1000 bytes allowed"):
        FunctionPlan(function(ListType(Prim.S32))).buffer().lower((value,), NO_BRIDGE, 1000)


def test_many_numbers_are_converted_in_pieces() -> None:
    """Every item of a long list arrives, and a bad one is found wherever it stands."""
    count = 50_000
    for items in (range(count), list(range(count)), tuple(range(count)), deque(range(count)), UserList(range(count))):
        assert crossed(ListType(Prim.S32), items).tolist() == list(range(count))
    assert crossed(ListType(Prim.U8), [7] * count) == b"\7" * count
    assert crossed(ListType(Prim.F32), [*range(count - 1), np.float32(0.5)])[-1] == 0.5
    for place in (0, 8191, 8192, count - 1):
        items = [1] * count
        items[place] = 1 << 40
        with pytest.raises(UsageError, match=rf"argument 1 \(x\)\[{place}\]: expected s32"):
            crossed(ListType(Prim.S32), items)


# -- time --------------------------------------------------------------------------------------------------------------


class Stop(ClocheError):
    """What a pause raises to end the conversion."""


LOOPS: list[tuple[Type, Any]] = [
    (ListType(Prim.STRING), ["x"] * 100_000),
    (ListType(ListType(Prim.STRING)), [["x"] * 10] * 10_000),
    (ListType(OptionType(Prim.U8)), [None] * 100_000),
    (MapType(Prim.U32, Prim.U32), {n: n for n in range(50_000)}),
    (ListType(PAIR), [{"on": True, "n": 1}] * 50_000),
    (ListType(Prim.F32), [np.float32(1)] * 50_000),
    (ListType(Prim.U16), range(50_000)),
    (ListType(Prim.STRING), Counting("x", 50_000)),
    (ListType(TupleType((Prim.STRING, SHAPE))), [("a", Case("none"))] * 20_000),
]


@pytest.mark.parametrize(("type_", "value"), LOOPS, ids=[str(number) for number in range(len(LOOPS))])
def test_a_long_conversion_looks_at_the_time(type_: Type, value: Any) -> None:
    """Every 32 KiB of items there is a look, which may end the conversion; as an argument, as a result, and lifted."""
    looks = [0]

    def count() -> None:
        looks[0] += 1

    plan = FunctionPlan(function(type_))
    buffer = plan.buffer(count)
    buffer.lower((value,), NO_BRIDGE, MUCH)
    assert looks[0] >= buffer.bytes_in // 2 // (1 << 15)
    host = HostPlan(function(type_, type_))
    if not hasattr(dtype_for(getattr(type_, "element", Prim.CHAR)), "names"):  # arrays are lifted in one go
        looks[0] = 0
        host.lift(buffer.arguments, 1, NO_BRIDGE, MUCH, count)
        assert looks[0] >= 3
    looks[0] = 0
    memory = ctypes.create_string_buffer(VAL_BYTES)
    host.lower(value, ctypes.addressof(memory), NO_BRIDGE, MUCH, count)
    library().wasmtime_component_val_delete(ctypes.addressof(memory))
    assert looks[0] >= 3

    def stop() -> None:
        raise Stop("enough")

    with pytest.raises(Stop):
        plan.buffer(stop).lower((value,), NO_BRIDGE, MUCH)
    with pytest.raises(Stop):
        host.lower(value, ctypes.addressof(memory), NO_BRIDGE, MUCH, stop)


def test_small_values_never_look() -> None:
    """Calls with small values pay for no look."""

    def never() -> None:
        pytest.fail("looked")

    buffer = FunctionPlan(function(TupleType((Prim.STRING, ListType(PAIR), ListType(Prim.STRING))))).buffer(never)
    buffer.lower((("a", [{"on": True, "n": 1}] * 100, ["x"] * 100),), NO_BRIDGE, MUCH)
