"""Whole signatures without a guest: arity, paths in messages, charged bytes, memory that is given back."""

from __future__ import annotations

from typing import Any

import pytest

from cloche.engine.codec.function import CallBuffer, FunctionPlan, HostPlan
from cloche.engine.codec.lowering import KINDS
from cloche.engine.codec.memory import FIRST_CHUNK_BYTES, MEMORY, Arena
from cloche.errors import CapabilityError, ContractError, LimitError, UsageError
from cloche.values import class_for
from cloche.wit.types import (
    Field,
    Function,
    FunctionKind,
    ListType,
    OptionType,
    Param,
    Prim,
    RecordType,
    StreamType,
    Type,
    TypeName,
)

ITEM = RecordType(TypeName(None, "item"), (Field("size", Prim.U32),))
ITEMS = RecordType(TypeName(None, "options"), (Field("items", ListType(OptionType(ITEM))),))
NO_BRIDGE: Any = None
MUCH = 1 << 30


def function(*types: Type, result: Type | None = None, names: str = "abcdefgh") -> Function:
    params = tuple(Param(name, type_) for name, type_ in zip(names, types, strict=False))
    return Function("work", FunctionKind.FREE, params, result)


def buffer(*types: Type) -> CallBuffer:
    return FunctionPlan(function(*types)).buffer()


@pytest.mark.parametrize("types", [(), (Prim.U32, Prim.U32), (Prim.STRING,), (Prim.U8, Prim.STRING)])
@pytest.mark.parametrize("extra", [-1, 1, 5])
def test_the_number_of_arguments_is_checked(types: tuple[Type, ...], extra: int) -> None:
    """Too few and too many are usage.argument, for scalars and for anything else, and name the parameters."""
    count = len(types) + extra
    if count < 0:
        return
    args = [1 if index >= len(types) or types[index] is not Prim.STRING else "x" for index in range(count)]
    with pytest.raises(UsageError, match=rf"work takes {len(types)} arguments? \(.*\), got {count}") as caught:
        buffer(*types).lower(args, NO_BRIDGE, MUCH)
    assert caught.value.code == "usage.argument"


def test_the_path_leads_to_the_value() -> None:
    """The message names the argument, the way into it, what is expected and what was found."""
    plan = FunctionPlan(Function("run", FunctionKind.FREE, (Param("n", Prim.U8), Param("options", ITEMS)), None))
    good = class_for(ITEM)(1)
    bad = class_for(ITEMS)([good, None, good, class_for(ITEM)(-1)])
    with pytest.raises(UsageError) as caught:
        plan.buffer().lower((1, bad), NO_BRIDGE, MUCH)
    assert str(caught.value) == "run: argument 2 (options).items[3].size: expected u32 (0 to 4294967295), got -1"
    assert caught.value.code == "usage.value"


def test_a_key_that_cannot_be_printed_is_refused_like_any_other() -> None:
    """The refusal itself never fails."""
    with pytest.raises(UsageError, match="record item has no field <int of 16610 bits>"):
        buffer(ITEM).lower(({10**5000: 1},), NO_BRIDGE, MUCH)


@pytest.mark.parametrize("prim", [prim for prim in KINDS if prim not in (Prim.BOOL, Prim.CHAR)])
def test_bools_are_no_numbers_on_the_fast_path(prim: Prim) -> None:
    """The packed path of all-scalar signatures is as strict as the long one."""
    for bad in (True, "1", None, [1], 10**5000):
        with pytest.raises(UsageError, match=r"argument 2 \(b\): expected"):
            buffer(prim, prim).lower((1, bad), NO_BRIDGE, MUCH)


def test_scalars_are_packed_like_values() -> None:
    """The packed path writes the same engine values as the long one."""
    types = list(KINDS)
    types.remove(Prim.CHAR)
    plain = [True, -1, 2, -3, 4, -5, 6, -7, 8, 1.5, 2.5]
    packed = FunctionPlan(function(*types, names="abcdefghijk")).buffer()
    packed.lower(plain, NO_BRIDGE, MUCH)
    mixed = FunctionPlan(function(*types, Prim.STRING, names="abcdefghijkl")).buffer()
    mixed.lower([*plain, ""], NO_BRIDGE, MUCH)
    for index, type_ in enumerate(types):
        kind, letter = KINDS[type_]
        width = {"?": 1, "b": 1, "B": 1, "h": 2, "H": 2, "i": 4, "I": 4, "q": 8, "Q": 8, "f": 4, "d": 8}[letter]
        left, right = (MEMORY[made.arguments + 32 * index :][:32].tobytes() for made in (packed, mixed))
        assert left[0] == right[0] == kind
        assert left[8 : 8 + width] == right[8 : 8 + width]


@pytest.mark.parametrize(
    ("types", "args", "size"),
    [
        ((), (), 0),
        ((Prim.U8, Prim.U64), (1, 2), 16),
        ((Prim.STRING,), ("abc",), 8 + 3),
        ((Prim.STRING,), ("é",), 8 + 2),
        ((ListType(Prim.U8),), (b"abcd",), 8 + 4),
        ((ListType(Prim.F64),), ([1, 2, 3],), 8 + 24),
        ((ListType(Prim.STRING),), (["a", "bcd"],), 8 + 2 * 8 + 4),
        ((ListType(ITEM),), ([{"size": 1}] * 5,), 8 + 20),
        ((OptionType(Prim.STRING), Prim.U8), (None, 1), 16),
    ],
)
def test_bytes_are_canonical(types: tuple[Type, ...], args: tuple[Any, ...], size: int) -> None:
    """A call is charged the parameters' layout and what strings and lists contain."""
    made = buffer(*types)
    made.lower(args, NO_BRIDGE, size)
    assert made.bytes_in == size
    if size:
        with pytest.raises(LimitError, match=f"larger than the {size - 1} bytes allowed") as caught:
            made.lower(args, NO_BRIDGE, size - 1)
        assert caught.value.code == "limit.payload"


def test_large_arguments_do_not_stay() -> None:
    """The memory of a large argument is given back at the end of the call, and a refused one leaves none."""
    arena = Arena(64)
    first = arena.reserve(100)
    far = arena.reserve(10 * FIRST_CHUNK_BYTES)
    MEMORY[far + 10 * FIRST_CHUNK_BYTES - 1] = 7
    arena.reset()
    assert arena.reserve(100) == first
    assert arena.reserve(8) == first + 104


def test_a_function_without_result_returns_none() -> None:
    """There is nothing to lift, and nothing to free twice."""
    made = buffer(Prim.U8)
    made.lower((1,), NO_BRIDGE, MUCH)
    assert made.lift(NO_BRIDGE, MUCH) is None
    made.discard()
    made.discard()
    assert made.result_count == 0


def test_a_host_function_without_result_must_return_none() -> None:
    """Any other value is the capability's mistake."""
    plan = HostPlan(function(Prim.U8))
    assert plan.lower(None, 0, NO_BRIDGE, MUCH) == 0
    with pytest.raises(CapabilityError, match="has no result"):
        plan.lower(5, 0, NO_BRIDGE, MUCH)


@pytest.mark.parametrize("plan", [FunctionPlan, HostPlan])
def test_unsupported_signatures_are_refused_at_once(plan: Any) -> None:
    """Compiling the plan says so, before any call."""
    for made in (function(StreamType(Prim.U8)), function(result=ListType(Prim.U8, 3))):
        with pytest.raises(ContractError) as caught:
            plan(made)
        assert caught.value.code == "contract.unsupported"
