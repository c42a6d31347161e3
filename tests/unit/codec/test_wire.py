"""Values as bytes between processes: the same values, errors and sizes as through the engine; hostile bytes refused."""

from __future__ import annotations

import random
import struct
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloche.engine.codec.function import FunctionPlan
from cloche.engine.codec.local import LocalPlan
from cloche.engine.codec.lowering import KINDS
from cloche.engine.codec.problem import ValueProblem
from cloche.engine.codec.wire import SEGMENT_BYTES, WireError, WirePlan, Writing, Written
from cloche.errors import CapabilityError, ClocheError, ContractError, GuestTrap, LimitError, UsageError
from cloche.model import Err, Ok
from cloche.values import class_for, dtype_for
from cloche.wit.types import (
    BorrowType,
    EnumType,
    Field,
    FlagsType,
    Function,
    FunctionKind,
    ListType,
    MapType,
    OptionType,
    OwnType,
    Param,
    Prim,
    RecordType,
    ResourceType,
    ResultType,
    StreamType,
    TupleType,
    Type,
    TypeName,
)
from support.conformance import ROWS, Row, agree
from support.typed_values import TYPED, TYPES

MUCH = 1 << 30
NO_BRIDGE: Any = None
QUIET = settings(deadline=None, derandomize=True, max_examples=100, suppress_health_check=list(HealthCheck))
PLAIN = [prim for prim in KINDS if prim is not Prim.CHAR]
PAIR = RecordType(TypeName(None, "pair"), (Field("on", Prim.BOOL), Field("n", Prim.U32)))
DENSE = RecordType(TypeName(None, "dense"), (Field("n", Prim.U8), Field("m", Prim.S8)))
NOTHING = TupleType(())


def function(*types: Type, result: Type | None = None, names: str = "xbcdefghijklm") -> Function:
    params = tuple(Param(name, type_) for name, type_ in zip(names, types, strict=False))
    return Function("work", FunctionKind.FREE, params, result)


def echo(type_: Type) -> WirePlan:
    return WirePlan(function(type_, result=type_))


def joined(written: Written) -> bytes:
    data = b"".join(written.segments)
    assert written.size == len(data)
    return data


def message(type_: Type, value: object) -> bytes:
    return joined(echo(type_).write_arguments((value,), None, MUCH))


def read(type_: Type, data: bytes, most: int = MUCH) -> Any:
    ((value,), _) = echo(type_).read_arguments(data, None, most)
    return value


def is_owned(value: Any) -> bool:
    """Whether all arrays in a value are its own and may be written."""
    if isinstance(value, np.ndarray):
        return value.base is None and value.flags.writeable and value.flags.owndata
    return all(map(is_owned, value)) if isinstance(value, list | tuple) else True


def check_both_ways(type_: Type, value: object) -> None:
    """What is read, and what it counts, is what the engine's way gives; in both directions, again and again."""
    plan, local = echo(type_), LocalPlan(function(type_, result=type_))
    (there,), size = local.arguments((value,), MUCH)
    written = plan.write_arguments((value,), None, MUCH)
    data = joined(written)
    for given_data in (data, memoryview(data), memoryview(bytearray(data))):
        (got,), counted = plan.read_arguments(given_data, None, MUCH)
        assert agree(there, got), (there, got)
        assert counted == written.canonical_bytes == size
        assert is_owned(got)
    for by_host in (False, True):
        back = plan.write_result(got, None, MUCH, by_host=by_host)
        assert joined(back) == data
        again, counted = plan.read_result(data, None, MUCH)
        assert agree(there, again)
        assert counted == back.canonical_bytes == local.result(got, MUCH)[1]
    exact = written.canonical_bytes
    assert agree(there, read(type_, data, exact))
    with pytest.raises(LimitError) as caught:
        plan.write_arguments((value,), None, exact - 1)
    assert caught.value.code == "limit.payload"
    for reading, code in ((plan.read_arguments, "limit.host-calls"), (plan.read_result, "limit.payload")):
        with pytest.raises(LimitError, match=f"larger than the {exact - 1} bytes allowed") as caught:
            reading(data, None, exact - 1)
        assert caught.value.code == code


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_type_of_the_table_passes_unchanged(row: Row) -> None:
    """Each good value arrives as through the engine and counts the same."""
    for good in row.good:
        check_both_ways(row.type, good.given)
        assert agree(good.expected, read(row.type, message(row.type, good.given)))


def failure(code: Callable[[], object]) -> tuple[type, str, str]:
    with pytest.raises(ClocheError) as caught:
        code()
    return type(caught.value), caught.value.code, str(caught.value)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_bad_values_fail_in_the_same_words(row: Row) -> None:
    """The error for an argument is the engine's way's to the letter; for results the one who gave it is blamed."""
    made = function(Prim.BOOL, row.type, result=row.type)
    plan, buffer, local = WirePlan(made), FunctionPlan(made).buffer(), LocalPlan(made)
    for bad in row.bad:
        there = failure(lambda: buffer.lower((True, bad.given), NO_BRIDGE, MUCH))  # noqa: B023
        assert failure(lambda: plan.write_arguments((True, bad.given), None, MUCH)) == there  # noqa: B023
        there = failure(lambda: local.result(bad.given, MUCH))  # noqa: B023
        assert failure(lambda: plan.write_result(bad.given, None, MUCH, by_host=False)) == there  # noqa: B023
        blamed = failure(lambda: plan.write_result(bad.given, None, MUCH, by_host=True))  # noqa: B023
        assert blamed[:2] == (CapabilityError, "capability.invalid")
        assert blamed[2].startswith(f"work: the host's result{bad.path}: ")


@given(TYPED)
@QUIET
def test_random_values_of_random_types(typed: tuple[Type, list[tuple[Any, Any]]]) -> None:
    """Any value of any type."""
    type_, cases = typed
    for value, back in cases:
        check_both_ways(type_, value)
        assert agree(back, read(type_, message(type_, value)))


# ------------------------------------------------------------------------------------------------------ whole messages


@pytest.mark.parametrize("types", [(), (Prim.U32, Prim.U32), (Prim.STRING,)])
@pytest.mark.parametrize("extra", [-1, 1, 5])
def test_the_number_of_arguments_is_checked(types: tuple[Type, ...], extra: int) -> None:
    """In the engine's way's words."""
    if (count := len(types) + extra) >= 0:
        made = function(*types)
        there = failure(lambda: FunctionPlan(made).buffer().lower([1] * count, NO_BRIDGE, MUCH))
        assert there[:2] == (UsageError, "usage.argument")
        assert failure(lambda: WirePlan(made).write_arguments([1] * count, None, MUCH)) == there


def test_scalars_are_packed_as_one_by_one() -> None:
    """The quick way of all-scalar messages gives the bytes and values of the long one."""
    values = [True, -1, 2, -3, 4, -5, 6, -7, 8, 1.5, 2.5]
    quick, slow = WirePlan(function(*PLAIN)), WirePlan(function(*PLAIN, Prim.STRING))
    data = joined(quick.write_arguments(values, None, MUCH))
    assert joined(slow.write_arguments([*values, ""], None, MUCH)) == data + bytes(4)
    mixed = [np.True_, *map(np.int64, values[1:9]), *values[9:]]
    assert joined(quick.write_arguments(mixed, None, MUCH)) == data
    got, size = quick.read_arguments(data, None, MUCH)
    assert agree(got, values)
    assert size == FunctionPlan(quick.function).signature.fixed_in
    with pytest.raises(WireError):
        quick.read_arguments(b"\2" + data[1:], None, MUCH)


@pytest.mark.parametrize("prim", [prim for prim in PLAIN if prim is not Prim.BOOL])
def test_bools_are_no_numbers_on_the_quick_way(prim: Prim) -> None:
    """Nor anything else that is none."""
    plan = WirePlan(function(prim, prim, result=prim))
    for bad in (True, "1", None, [1], 10**5000):
        with pytest.raises(UsageError, match=r"argument 2 \(b\): expected"):
            plan.write_arguments((1, bad), None, MUCH)
        with pytest.raises(CapabilityError, match="result: expected"):
            plan.write_result(bad, None, MUCH, by_host=True)


def test_nothing_is_written_for_nothing() -> None:
    """A function without parameters or result has empty messages, and any byte is too many."""
    plan = WirePlan(function())
    assert (plan.parameter_count, plan.function) == (0, function())
    for written in (plan.write_arguments((), None, 0), plan.write_result(None, None, 0, by_host=True)):
        assert (written.segments, written.size, written.canonical_bytes) == ([], 0, 0)
        written.settle(True)
    assert plan.read_arguments(b"", None, 0) == ([], 0)
    assert plan.read_result(b"", None, 0) == (None, 0)
    for reading in (plan.read_arguments, plan.read_result):
        with pytest.raises(WireError, match=r"^work: .* cannot be read: bytes are left over$"):
            reading(b"\0", None, MUCH)
    with pytest.raises(CapabilityError, match="has no result") as caught:
        plan.write_result(5, None, MUCH, by_host=True)
    assert caught.value.code == "capability.invalid"
    with pytest.raises(GuestTrap, match="has none"):
        plan.write_result(5, None, MUCH, by_host=False)


def test_unsupported_signatures_are_refused_at_once() -> None:
    """Compiling the plan says so."""
    with pytest.raises(ContractError) as caught:
        WirePlan(function(StreamType(Prim.U8)))
    assert caught.value.code == "contract.unsupported"


def test_large_payloads_are_not_copied() -> None:
    """Bytes and arrays from 4 KiB on are segments of their own: the caller's memory."""
    array, data, text = np.arange(SEGMENT_BYTES, dtype="<f8"), bytes(SEGMENT_BYTES), "x" * SEGMENT_BYTES
    plan = WirePlan(function(ListType(Prim.F64), ListType(Prim.U8), Prim.STRING, ListType(Prim.U8), ListType(DENSE)))
    rows = np.zeros(SEGMENT_BYTES, dtype_for(DENSE))
    written = plan.write_arguments((array, data, text, b"small", rows), None, MUCH)
    lengths = [len(segment) for segment in written.segments]
    assert lengths == [4, 8 * SEGMENT_BYTES, 4, SEGMENT_BYTES, 4, SEGMENT_BYTES, 4 + 5 + 4, 2 * SEGMENT_BYTES]
    assert np.shares_memory(np.frombuffer(written.segments[1], "<f8"), array)
    assert written.segments[3] is data
    assert np.shares_memory(np.frombuffer(written.segments[7], np.uint8), rows)
    got, _ = plan.read_arguments(joined(written), None, MUCH)
    assert agree(got, [array, data, text, b"small", rows])
    many = message(ListType(Prim.STRING), ["ab"] * 10_000)
    assert read(ListType(Prim.STRING), many) == ["ab"] * 10_000


def test_padding_of_rows_says_nothing() -> None:
    """What a caller's array has between its fields does not cross; what a peer writes there does not arrive."""
    rows = np.frombuffer(b"\xff" * 16, dtype_for(PAIR)).copy()
    data = message(ListType(PAIR), rows)
    assert data == struct.pack("<I", 2) + (b"\1\0\0\0" + b"\xff" * 4) * 2
    got = read(ListType(PAIR), data.replace(b"\1\0\0\0", b"\1\xee\xee\xee"))
    assert got.tobytes() == data[4:]
    with pytest.raises(WireError, match="bool"):
        read(ListType(PAIR), data.replace(b"\1\0\0\0", b"\2\0\0\0"))


def test_a_long_conversion_can_be_stopped() -> None:
    """`pause` is called while much is written or read, and what it raises ends it."""

    def pause() -> None:
        raise ClocheError("late")

    plan, value = echo(ListType(Prim.STRING)), ["abc"] * 20_000
    data = message(ListType(Prim.STRING), value)
    for convert in (
        lambda: plan.write_arguments((value,), None, MUCH, pause),
        lambda: plan.read_result(data, None, MUCH, pause),
    ):
        with pytest.raises(ClocheError, match=r"^late$"):
            convert()


# ------------------------------------------------------------------------------------------------------- hostile bytes

HOSTILE: list[tuple[Type, bytes]] = [
    (Prim.BOOL, b"\2"),
    (Prim.S32, b"\1\2\3"),
    (Prim.S32, b"\1\2\3\4\5"),
    (Prim.CHAR, struct.pack("<I", 0xD800)),
    (Prim.CHAR, struct.pack("<I", 0xDFFF)),
    (Prim.CHAR, struct.pack("<I", 0x110000)),
    (Prim.CHAR, b"\xff" * 4),
    (Prim.STRING, b"\1\0\0"),
    (Prim.STRING, b"\1\0\0\0\xff"),
    (Prim.STRING, b"\3\0\0\0\xed\xa0\x80"),
    (Prim.STRING, b"\2\0\0\0a"),
    (EnumType(TypeName(None, "e"), ("a", "b")), b"\2"),
    (EnumType(TypeName(None, "big"), tuple(f"c{n}" for n in range(257))), struct.pack("<H", 257)),
    (FlagsType(TypeName(None, "f"), ("a", "b")), b"\4"),
    (FlagsType(TypeName(None, "nine"), tuple(f"f{n}" for n in range(9))), struct.pack("<H", 512)),
    (OptionType(Prim.U8), b"\2\0"),
    (OptionType(Prim.U8), b"\0\0"),
    (OptionType(Prim.U8), b""),
    (ResultType(Prim.U8, None), b"\2\0"),
    (ResultType(Prim.U8, None), b"\0"),
    (ListType(Prim.U8), b"\2\0\0\0\0"),
    (ListType(Prim.F64), b"\1\0\0\0" + bytes(7)),
    (ListType(PAIR), b"\1\0\0\0" + bytes(7)),
    (ListType(Prim.BOOL), b"\2\0\0\0\1\2"),
    (MapType(ListType(Prim.U16), Prim.U8), bytes.fromhex("01000000 00000000 05")),
    (OwnType(ResourceType(TypeName(None, "r"))), bytes(4)),
]


@pytest.mark.parametrize(("type_", "data"), HOSTILE)
def test_bytes_that_are_no_value(type_: Type, data: bytes) -> None:
    """Each is refused, in both directions, alone and among others."""
    with pytest.raises(WireError, match=r"^work: the message with the arguments cannot be read: "):
        read(type_, data)
    with pytest.raises(WireError, match=r"^work: the message with the result cannot be read: "):
        echo(type_).read_result(data, None, MUCH)
    with pytest.raises(WireError):
        WirePlan(function(Prim.STRING, type_)).read_arguments(bytes(4) + data, None, MUCH)


def test_of_a_repeated_key_the_last_counts() -> None:
    """As when a guest repeats one."""
    pairs = b"".join(struct.pack("<I1sB", 1, key, value) for key, value in ((b"a", 1), (b"b", 2), (b"a", 3)))
    assert read(MapType(Prim.STRING, Prim.U8), b"\3\0\0\0" + pairs) == {"a": 3, "b": 2}


@pytest.mark.parametrize("most", [1 << 20, 1 << 62])
@pytest.mark.parametrize("count", [1 << 16, 1 << 24, (1 << 32) - 1])
@pytest.mark.parametrize(
    "type_",
    [
        Prim.STRING,
        ListType(Prim.U8),
        ListType(Prim.F64),
        ListType(PAIR),
        ListType(Prim.STRING),
        ListType(Prim.BOOL),
        ListType(OptionType(ListType(Prim.U8))),
        MapType(Prim.STRING, Prim.U8),
        ListType(NOTHING),
    ],
)
def test_a_count_alone_costs_nothing(type_: Type, count: int, most: int) -> None:
    """A few bytes that promise billions of items take no memory, however large the limit."""
    if type_ == ListType(NOTHING) and count < most:
        return  # its items have no bytes: only the limit bounds them
    data = struct.pack("<I", count) + bytes(8)
    plan = echo(type_)
    tracemalloc.start()
    try:
        with pytest.raises((WireError, LimitError)):
            plan.read_arguments(data, None, most)
        with pytest.raises((WireError, LimitError)):
            plan.read_result(data, None, most)
        assert tracemalloc.get_traced_memory()[1] < 1 << 18
    finally:
        tracemalloc.stop()


def try_to_read(plan: WirePlan, data: bytes) -> None:
    """Whatever the bytes are, they are a value, or refused; what is read can be written again."""
    for reading in (plan.read_arguments, plan.read_result):
        try:
            made, size = reading(data, None, 1 << 16)
        except (WireError, LimitError):
            continue
        value = made[0] if reading == plan.read_arguments else made  # type: ignore[index]
        assert plan.write_arguments((value,), None, MUCH).canonical_bytes <= size


@given(TYPED, st.randoms(use_true_random=False))
@QUIET
def test_mutated_bytes(typed: tuple[Type, list[tuple[Any, Any]]], chance: random.Random) -> None:
    """Bytes changed, cut off, added and left out anywhere."""
    type_, cases = typed
    plan = echo(type_)
    for value, _ in cases:
        data = joined(plan.write_arguments((value,), None, MUCH))
        for cut in range(min(len(data), 40)):
            with pytest.raises((WireError, LimitError)):
                plan.read_arguments(data[:cut], None, MUCH)
        with pytest.raises(WireError):
            plan.read_arguments(data + b"\0", None, MUCH)
        for _ in range(20):
            mutant = bytearray(data)
            for _ in range(chance.randint(1, 4)):
                at = chance.randint(0, len(mutant))
                piece = chance.choice([b"", b"\xff", b"\xff" * 4, b"\1", bytes((chance.randrange(256),))])
                mutant[at : at + chance.randint(0, 4)] = piece
            try_to_read(plan, bytes(mutant))


@given(TYPES, st.lists(st.binary(max_size=60), min_size=1, max_size=10))
@QUIET
def test_random_bytes(type_: Type, messages: list[bytes]) -> None:
    """Bytes that were never a value."""
    plan = echo(type_)
    for data in messages:
        try_to_read(plan, data)
        try_to_read(plan, bytes(4) + data)
        try_to_read(plan, b"\1\0\0\0" + data)


# ------------------------------------------------------------------------------------------------------------- handles

FILE = ResourceType(TypeName("a:b/c", "file"))
OWN, LENT = OwnType(FILE), BorrowType(FILE)


class File:
    """A resource."""

    def __init__(self) -> None:
        self.closed = 0


class Table:
    """The handles of one end: numbers for files, at most three."""

    def __init__(self, *files: File) -> None:
        self.files: dict[int, File] = dict(enumerate(files))
        self.settled: list[tuple[int, bool]] = []

    def give(self, value: object, resource: ResourceType, is_own: bool, call: Writing) -> int:
        """See `WireHandles`."""
        if not isinstance(value, File):
            raise ValueProblem(f"expected a {resource.name.name}")
        if not call.note(value, is_own):
            raise ValueProblem("handed over twice")
        number = len(self.files)
        if number >= 3:
            if not call.is_argument:
                self.dispose(value)
            raise LimitError("more than 3 files", code="limit.handles")
        self.files[number] = value

        def settle(done: bool) -> None:
            self.settled.append((number, done))
            if not (done and is_own):
                del self.files[number]
                if not call.is_argument:
                    self.dispose(value)

        call.undo.append(settle)
        return number

    def take(self, number: int, resource: ResourceType, is_own: bool) -> File:
        """See `WireHandles`."""
        if number not in self.files:
            raise WireError(f"no {resource.name.name} has this number")
        return self.files.pop(number) if is_own else self.files[number]

    def dispose(self, item: File) -> None:
        """See `WireHandles`."""
        item.closed += 1


def test_handles_cross_as_numbers() -> None:
    """What is given is what is taken; the steps after the call run once."""
    plan, table, files = WirePlan(function(OWN, ListType(LENT))), Table(), [File(), File()]
    written = plan.write_arguments((files[0], [files[1]]), table, MUCH)
    assert written.canonical_bytes == 12 + 4
    (own, lent), size = plan.read_arguments(joined(written), table, MUCH)
    assert size == written.canonical_bytes
    assert own is files[0]
    assert lent == [files[1]]
    assert list(table.files.values()) == [files[1]]
    written.settle(True)
    written.settle(True)
    assert table.settled == [(0, True), (1, True)]
    assert not table.files


def test_handles_that_are_refused_stay_the_callers() -> None:
    """An argument that fails takes nothing along; so does a call that is not made."""
    plan, files = WirePlan(function(OWN, OWN, Prim.U8)), [File() for _ in range(5)]
    for third, code in ((256, "usage.value"), (None, "usage.value")):
        table = Table()
        with pytest.raises(UsageError, match=r"argument 3 \(c\)") as caught:
            plan.write_arguments((files[0], files[1], third), table, MUCH)
        assert caught.value.code == code
        assert table.settled == [(0, False), (1, False)]
        assert not table.files
    table = Table()
    with pytest.raises(UsageError, match=r"argument 2 \(b\): handed over twice"):
        plan.write_arguments((files[0], files[0], 1), table, MUCH)
    with pytest.raises(LimitError, match="more than 3"):
        plan.write_arguments((files[0], files[1], 1), Table(*files[2:4]), MUCH)
    plan.write_arguments((files[0], files[1], 1), table, MUCH).settle(False)
    assert not table.files
    assert not any(file.closed for file in files)
    with pytest.raises(UsageError, match="resources need an instance"):
        plan.write_arguments((files[0], files[1], 1), None, MUCH)


@pytest.mark.parametrize("by_host", [False, True])
def test_a_result_that_fails_closes_what_it_hands_over(by_host: bool) -> None:
    """What was written, what could not be and what was not reached: each once."""
    type_ = TupleType((ListType(OWN), Prim.U8, OptionType(OWN), LENT))
    plan = WirePlan(function(result=type_))
    files = [File() for _ in range(6)]
    with pytest.raises(CapabilityError if by_host else GuestTrap, match=r"\[1\]: expected u8"):
        plan.write_result((files[:2], 256, files[2], files[3]), Table(), MUCH, by_host=by_host)
    assert [file.closed for file in files] == [1, 1, 1, 0, 0, 0]
    with pytest.raises(LimitError, match="more than 3"):
        plan.write_result((files[2:], 1, None, files[2]), Table(File(), File()), MUCH, by_host=by_host)
    assert [file.closed for file in files] == [1, 1, 2, 1, 1, 1]


def test_a_message_that_fails_closes_what_was_taken() -> None:
    """Owns that were read before the bytes turned out bad, also those after which only a byte is left over."""
    plan = WirePlan(function(ListType(OWN), LENT, Prim.BOOL))
    for tail in (b"\2", b"", b"\0\0"):
        files = [File(), File(), File()]
        with pytest.raises(WireError):
            plan.read_arguments(struct.pack("<4I", 2, 0, 1, 2) + tail, Table(*files), MUCH)
        assert [file.closed for file in files] == [1, 1, 0]
    file = File()
    with pytest.raises(WireError, match="no file has this number"):
        plan.read_arguments(struct.pack("<4IB", 2, 0, 0, 0, 0), Table(file), MUCH)
    assert file.closed == 1


def test_handles_of_repeated_keys_are_closed() -> None:
    """Of a repeated key the last one counts; what stood behind the others is nobody's."""
    files = [File(), File()]
    data = struct.pack("<IBIBI", 2, 7, 0, 7, 1)
    value, _ = WirePlan(function(result=MapType(Prim.U8, OWN))).read_result(data, Table(*files), MUCH)
    assert value == {7: files[1]}
    assert [file.closed for file in files] == [1, 0]


def test_the_makers_of_values_are_the_plans_own() -> None:
    """Generated classes are those that everybody has for the type."""
    type_ = ResultType(PAIR, OptionType(OptionType(Prim.U8)))
    assert type(read(type_, message(type_, Ok({"on": True, "n": 1}))).value) is class_for(PAIR)
    assert read(type_, message(type_, Err(None))) == Err(None)
