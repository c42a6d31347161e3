"""The short frames of calls of scalars: what they hold, and that anything else is none."""

from __future__ import annotations

import math
import random
import struct

import pytest

from cloche.engine.codec.wire import WirePlan
from cloche.model import Usage
from cloche.wit.types import Function, FunctionKind, ListType, Param, Prim
from cloche.worker.plain import ARGUMENTS_AT, MARK, MARK_AT, TARGET_AT, PlainExport

KINDS = [
    (Prim.BOOL, True), (Prim.S8, -7), (Prim.U8, 255), (Prim.S32, -5), (Prim.U64, 2**64 - 1), (Prim.F32, 0.5),
    (Prim.F64, -1e300), (None, None),
]  # fmt: skip
GOOD = Usage(5, 0, 0.25, 0.25, 65_536, 0, 0, 0, 0, 0, 3)
FUEL_AT, MEMORY_AT, WALL_AT, VALUE_AT = 9, 17, 25, 33


def exported(result: Prim | None, *params: Prim) -> PlainExport:
    """The short frames of a function of these types."""
    made = PlainExport.of(WirePlan(function(result, *params)), 4)
    assert made is not None
    return made


def function(result: object, *params: object) -> Function:
    named = tuple(Param(f"p{index}", kind) for index, kind in enumerate(params))  # type: ignore[arg-type]
    return Function("f", FunctionKind.FREE, named, result)  # type: ignore[arg-type]


def usage_of(plain: PlainExport, **changes: object) -> Usage:
    """What a call of it may have cost."""
    return GOOD._replace(**{"host_fuel": plain.bytes_out, "bytes_out": plain.bytes_out, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(("kind", "value"), KINDS)
def test_an_answer_is_read_as_it_was_written(kind: Prim | None, value: object) -> None:
    """Value and usage, for each kind of scalar and for none."""
    plain = exported(kind)
    for memory in (None, 0, 65_536):
        usage = usage_of(plain, peak_memory=memory)
        frame = plain.done(usage, value)
        assert frame is not None
        assert plain.read_done(frame, 3) == (value, usage)


def test_a_call_names_its_instance_and_export() -> None:
    """The mark, both numbers and the arguments stand where the worker looks for them."""
    plain = exported(None, Prim.S32, Prim.BOOL)
    frame = plain.call_head(7) + plain.pack(-2, True)
    assert frame[MARK_AT] == MARK
    assert struct.unpack_from("<II", frame, TARGET_AT) == (7, 4)
    assert plain.arguments.unpack_from(frame, ARGUMENTS_AT) == (-2, True)
    assert struct.unpack_from("<II", frame) == (ARGUMENTS_AT - MARK_AT, 5)


def test_only_functions_of_scalars_have_short_frames() -> None:
    """A text or a list anywhere, or a char, whose code points are checked, makes it one of the others."""
    for one in (function(Prim.STRING), function(None, Prim.U8, ListType(Prim.U8)), function(Prim.CHAR)):
        assert PlainExport.of(WirePlan(one), 0) is None


@pytest.mark.parametrize(
    "changes", [{"guest_fuel": None}, {"host_fuel": 1000}, {"cpu_ms": 0.5}, {"host_calls": 1}], ids=str
)
def test_an_answer_with_more_to_say_has_no_short_form(changes: dict[str, object]) -> None:
    """Fuel that was not counted, host calls, and processor time that is not the wall time."""
    plain = exported(Prim.S32)
    assert plain.done(usage_of(plain, **changes), 1) is None


def test_an_answer_that_is_wrong_anywhere_is_none() -> None:
    """Every length but one, every other beginning, figures that cannot be, and a bool that is none."""
    plain = exported(Prim.BOOL)
    frame = plain.done(usage_of(plain), True)
    assert frame is not None
    assert len(frame) == VALUE_AT + 1
    for size in range(len(frame)):
        assert plain.read_done(frame[:size], 3) is None
    assert plain.read_done(frame + b"\0", 3) is None
    for at in range(FUEL_AT):
        for bit in range(8):
            other = bytearray(frame)
            other[at] ^= 1 << bit
            assert plain.read_done(bytes(other), 3) is None, (at, bit)
    wrong = [(FUEL_AT, "<q", -1), (FUEL_AT, "<Q", 1 << 63), (MEMORY_AT, "<q", -2), (MEMORY_AT, "<Q", 1 << 63)]
    wrong += [(VALUE_AT, "<B", value) for value in range(2, 256)]
    for at, form, figure in wrong:
        other = bytearray(frame)
        struct.pack_into(form, other, at, figure)
        assert plain.read_done(bytes(other), 3) is None, (at, figure)
    for wall_ms in (math.nan, -0.001, -math.inf):
        other = bytearray(frame)
        struct.pack_into("<d", other, WALL_AT, wall_ms)
        assert plain.read_done(bytes(other), 3) is None, wall_ms


@pytest.mark.adversarial
@pytest.mark.parametrize(("kind", "value"), KINDS)
def test_noise_is_no_answer_or_one_within_bounds(kind: Prim | None, value: object) -> None:
    """Whatever stands in the frame, what is read has the types and bounds of an answer."""
    rng = random.Random(str(kind))
    plain = exported(kind)
    frame = plain.done(usage_of(plain), value)
    assert frame is not None
    for _ in range(2000):
        other = bytearray(frame)
        for _ in range(rng.randrange(1, 6)):
            other[rng.randrange(len(other))] = rng.randrange(256)
        found = plain.read_done(bytes(other), 3)
        if found is not None:
            got, usage = found
            assert type(got) is type(value)
            assert usage.guest_fuel is not None
            assert 0 <= usage.guest_fuel < 1 << 63
            assert usage.peak_memory is None or 0 <= usage.peak_memory < 1 << 63
            assert usage.wall_ms >= 0
            assert usage[5:] == usage_of(plain)[5:]
