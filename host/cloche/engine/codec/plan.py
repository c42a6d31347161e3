"""One plan per WIT type, compiled once and shared by every carrier.

A plan knows which Python values its type accepts, how they come apart and go together, and the type's canonical
layout. How bytes cross is the carrier's: `lowering.py` and `lifting.py` carry plans over engine values.
"""

from __future__ import annotations

from typing import Any

from cloche.engine.codec.compounds import ListPlan, MapPlan, OptionPlan, RecordPlan, ResultPlan, TuplePlan, VariantPlan
from cloche.engine.codec.numbers import NumbersPlan, RowsPlan
from cloche.engine.codec.scalars import (
    INT_RANGES,
    BoolPlan,
    CharPlan,
    EnumPlan,
    FlagsPlan,
    FloatPlan,
    HandlePlan,
    IntPlan,
    StringPlan,
)
from cloche.values import dtype_for
from cloche.wit.carried import ensure_carried
from cloche.wit.types import (
    BorrowType,
    EnumType,
    FlagsType,
    ListType,
    MapType,
    OptionType,
    OwnType,
    Prim,
    RecordType,
    ResultType,
    TupleType,
    Type,
    VariantType,
)

Plan = (
    BoolPlan
    | IntPlan
    | FloatPlan
    | CharPlan
    | StringPlan
    | EnumPlan
    | FlagsPlan
    | HandlePlan
    | NumbersPlan
    | RowsPlan
    | ListPlan
    | MapPlan
    | RecordPlan
    | TuplePlan
    | VariantPlan
    | OptionPlan
    | ResultPlan
)
"""A compiled type."""


def plan_for(type_: Type) -> Plan:
    """A plan of `type_`, which goes with whoever asked for it; only the classes of values are shared (`class_for`).

    Raises: ContractError (`contract.unsupported`) for a type that cannot be carried (`ensure_carried`).
    """
    ensure_carried(type_)  # first: hashing or walking a hostile type could take for ever
    return _plan(type_)


def _plan(type_: Type) -> Plan:
    match type_:
        case Prim():
            return _prim(type_)
        case ListType(element=element):
            inner = _plan(element)
            if isinstance(inner, IntPlan | FloatPlan):
                return NumbersPlan(type_, inner)
            dtype = dtype_for(element)
            return ListPlan(type_, inner) if dtype is None else RowsPlan(type_, inner, dtype)
        case RecordType(fields=fields):
            return RecordPlan(type_, tuple(_plan(field.type) for field in fields))
        case TupleType(items=items):
            return TuplePlan(type_, tuple(map(_plan, items)))
        case VariantType(cases=cases):
            return VariantPlan(type_, tuple(_optional(case.type) for case in cases))
        case EnumType():
            return EnumPlan(type_)
        case FlagsType():
            return FlagsPlan(type_)
        case OptionType(payload=payload):
            return OptionPlan(type_, _plan(payload))
        case ResultType(ok=ok, err=err):
            return ResultPlan(type_, _optional(ok), _optional(err))
        case MapType(key=key, value=value):
            return MapPlan(type_, _plan(key), _plan(value))
        case OwnType() | BorrowType():
            return HandlePlan(type_)
        case _:
            raise AssertionError(f"ensure_carried let {type_!r:.200} through")


def _optional(type_: Type | None) -> Any:
    return None if type_ is None else _plan(type_)


def _prim(type_: Prim) -> Plan:
    if type_ in INT_RANGES:
        return IntPlan(type_, *INT_RANGES[type_])
    if type_ in (Prim.F32, Prim.F64):
        return FloatPlan(type_)
    if type_ is Prim.BOOL:
        return BoolPlan(type_)
    return CharPlan(type_) if type_ is Prim.CHAR else StringPlan(type_)
