"""Random types and values through a WAT guest, and engine values of one type read as another."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloche.engine.codec.function import HostPlan
from cloche.engine.codec.lowering import KINDS, LIST, MAP, STRING, Lowering, lowerer
from cloche.engine.codec.memory import MEMORY, Arena
from cloche.engine.codec.plan import plan_for
from cloche.engine.ffi import VAL_BYTES
from cloche.errors import GuestTrap, LimitError
from cloche.wit.types import Case as CaseType
from cloche.wit.types import (
    EnumType,
    Field,
    FlagsType,
    ListType,
    MapType,
    Prim,
    RecordType,
    ResultType,
    TupleType,
    Type,
    TypeName,
    VariantType,
)
from support.conformance import agree
from support.echo_component import HOST_INTERFACE, assemble, echo_function, echo_wat
from support.engine_rig import Rig
from support.typed_values import TYPED, TYPES

QUIET = settings(deadline=None, derandomize=True, max_examples=40, suppress_health_check=list(HealthCheck))


@given(st.lists(TYPED, min_size=1, max_size=6))
@QUIET
def test_random_values_come_back_normalised(batch: list[tuple[Type, list[tuple[Any, Any]]]]) -> None:
    """Any value of any type passes Python → guest → host → guest → Python unchanged, once and once more."""
    functions = [echo_function(index, type_) for index, (type_, _) in enumerate(batch)]
    seen: list[Any] = []

    def host(value: Any) -> Any:
        seen.append(value)
        return value

    with Rig(assemble(echo_wat(functions)), {HOST_INTERFACE: [(function, host) for function in functions]}) as rig:
        for function, (_, cases) in zip(functions, batch, strict=True):
            for item, back in cases:
                seen.clear()
                once = rig.call(function, item)
                assert agree(back, once), (function, item, once)
                assert agree(back, seen[0])
                assert agree(back, rig.call(function, once))


@given(TYPED, TYPES)
@settings(QUIET, max_examples=400)
def test_values_of_another_type_are_refused_or_read(typed: tuple[Type, list[tuple[Any, Any]]], other: Type) -> None:
    """Reading an engine value of any type as any other either gives a value or a guest.invalid-value; never a crash."""
    type_, cases = typed
    arena = Arena(VAL_BYTES)
    call = Lowering(arena)
    call.left = 1 << 30
    lower = lowerer(plan_for(type_))  # names of cases live as long as this
    for item, _ in cases:
        lower(item, arena.first, call)
        try:
            HostPlan(echo_function(0, other)).lift(arena.first, 1, None, 1 << 30)  # type: ignore[arg-type]
        except GuestTrap:
            assert type_ != other
        arena.reset()


HUGE = struct.pack("<B7xQQ8x", LIST, 1 << 60, 4096)


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        (ListType(Prim.U8), HUGE),
        (ListType(Prim.F64), HUGE),
        (ListType(Prim.STRING), HUGE),
        (ListType(TupleType((Prim.U8, Prim.U8))), HUGE),
        (Prim.STRING, struct.pack("<B7xQQ8x", STRING, 1 << 60, 4096)),
        (MapType(Prim.U8, Prim.U8), struct.pack("<B7xQQ8x", 22, 1 << 60, 4096)),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else str(value),
)
def test_counts_are_bounded_before_anything_is_made(type_: Type, value: bytes) -> None:
    """A count that cannot fit the allowance is refused before its contents are looked at (H7)."""
    at = _place(value)
    with pytest.raises(LimitError, match="larger than the 1000 bytes allowed"):
        HostPlan(echo_function(0, type_)).lift(at.first, 1, None, 1000)  # type: ignore[arg-type]


TEXT_BYTES = np.frombuffer(b"\xff\xfegreen", np.uint8)
TEXT_AT = int(TEXT_BYTES.__array_interface__["data"][0])
PAIR_BYTES = np.frombuffer(struct.pack("<B7xQQ8x B7xB23x", LIST, 0, 0, KINDS[Prim.U8][0], 5), np.uint8)
PAIR_AT = int(PAIR_BYTES.__array_interface__["data"][0])
"""A pair of a map whose key is a list that is empty."""
THING = TypeName(None, "thing")


def _without_addresses(value: object) -> str:
    """Ids of cases must be the same in every process; the bytes of a case hold addresses."""
    return "" if isinstance(value, bytes) else str(value)


@pytest.mark.parametrize(
    ("type_", "value", "words"),
    [
        (Prim.STRING, struct.pack("<B7xQQ8x", STRING, 2, TEXT_AT), "not UTF-8 at byte 0"),
        (Prim.CHAR, struct.pack("<B7xI20x", 11, 0xD800), "0xd800 is no Unicode scalar value"),
        (Prim.CHAR, struct.pack("<B7xI20x", 11, 0x110000), "0x110000 is no Unicode scalar value"),
        (EnumType(THING, ("red",)), struct.pack("<B7xQQ8x", 17, 5, TEXT_AT + 2), "unknown case of enum thing"),
        (EnumType(THING, ("red",)), struct.pack("<B7xQQ8x", 17, 1 << 40, TEXT_AT), "name has 1099511627776 bytes"),
        (FlagsType(THING, ("a",)), struct.pack("<B7xQQ8x", 20, 2, TEXT_AT), "2 names in flags thing, which has 1"),
        (VariantType(THING, (CaseType("a", None),)), struct.pack("<B7xQQQ", 16, 5, TEXT_AT + 2, 0), "unknown case"),
        (VariantType(THING, (CaseType("green", Prim.U8),)), struct.pack("<B7xQQQ", 16, 5, TEXT_AT + 2, 0), "lacks one"),
        (VariantType(THING, (CaseType("green", None),)), struct.pack("<B7xQQQ", 16, 5, TEXT_AT + 2, 8), "too many"),
        (ResultType(None, None), struct.pack("<B7xB7xQ8x", 19, 1, TEXT_AT), "too many"),
        (ResultType(Prim.U8, None), struct.pack("<B7xB7xQ8x", 19, 1, 0), "lacks one"),
        (RecordType(THING, (Field("a", Prim.U8),)), struct.pack("<B7xQQ8x", 14, 2, TEXT_AT), "2 parts instead of 1"),
        (Prim.U32, struct.pack("<B7xQ16x", 99, 0), "kind 99"),
        (MapType(ListType(Prim.U16), Prim.U8), struct.pack("<B7xQQ8x", MAP, 1, PAIR_AT), "key of a map"),
    ],
    ids=_without_addresses,
)
def test_engine_values_that_break_their_type_trap(type_: Type, value: bytes, words: str) -> None:
    """Unknown cases, bad text, wrong counts and absent payloads are guest.invalid-value."""
    at = _place(value)
    with pytest.raises(GuestTrap, match=words) as caught:
        HostPlan(echo_function(0, type_)).lift(at.first, 1, None, 1 << 40)  # type: ignore[arg-type]
    assert caught.value.code == "guest.invalid-value"


def _place(value: bytes) -> Arena:
    arena = Arena(VAL_BYTES)
    MEMORY[arena.first : arena.first + VAL_BYTES] = value
    return arena
