"""Strategies: any type that can be carried, with values as a caller may write them and as they come back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from cloche.engine.codec.scalars import INT_RANGES
from cloche.model import Err, Ok, Some
from cloche.values import Case, class_for, dtype_for
from cloche.wit.names import pascal
from cloche.wit.types import Case as CaseType
from cloche.wit.types import (
    EnumType,
    Field,
    FlagsType,
    ListType,
    MapType,
    OptionType,
    Prim,
    RecordType,
    ResultType,
    TupleType,
    Type,
    TypeName,
    VariantType,
)

KEYS = [Prim.STRING, Prim.CHAR, Prim.BOOL, Prim.U32, Prim.S64]
NAME = st.sampled_from([TypeName("test:fuzz/types", name) for name in ("thing", "other-thing", "class")])


def _labels(draw: Callable[..., Any], most: int) -> tuple[str, ...]:
    pool = ["a", "b-c", "class", "none", "self", "value", "x1-y2", *(f"n{index}" for index in range(30))]
    return tuple(pool[: draw(st.integers(1, most))])


@st.composite
def _compound(draw: Any, inner: st.SearchStrategy[Type]) -> Type:
    optional = st.none() | inner
    kind = draw(st.integers(0, 8))
    if kind == 0:
        return ListType(draw(inner))
    if kind == 1:
        return OptionType(draw(inner))
    if kind == 2:
        return ResultType(draw(optional), draw(optional))
    if kind == 3:
        return TupleType(tuple(draw(st.lists(inner, min_size=1, max_size=5))))
    if kind == 4:
        return RecordType(draw(NAME), tuple(Field(label, draw(inner)) for label in _labels(draw, 6)))
    if kind == 5:
        return VariantType(draw(NAME), tuple(CaseType(label, draw(optional)) for label in _labels(draw, 5)))
    if kind == 6:
        return MapType(draw(st.sampled_from(KEYS)), draw(inner))
    if kind == 7:
        return EnumType(draw(NAME), _labels(draw, 20))
    return FlagsType(draw(NAME), _labels(draw, 32))


TYPES: st.SearchStrategy[Type] = st.recursive(st.sampled_from(list(Prim)), _compound, max_leaves=12)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@st.composite
def values(draw: Any, type_: Type) -> tuple[Any, Any]:
    """A value as a caller may write it, and as it comes back."""
    match type_:
        case Prim.BOOL:
            return (draw(st.booleans()),) * 2
        case Prim.F32:
            return (draw(st.floats(width=32)),) * 2
        case Prim.F64:
            return (draw(st.floats()),) * 2
        case Prim.CHAR:
            return (draw(st.characters(exclude_categories=["Cs"])),) * 2
        case Prim.STRING:
            return (draw(TEXT),) * 2
        case Prim():
            return (draw(st.integers(*INT_RANGES[type_])),) * 2
        case ListType(element=element):
            items = draw(st.lists(values(element), max_size=4))
            return [item[0] for item in items], _list_of(element, [item[1] for item in items])
        case OptionType(payload=payload):
            if draw(st.booleans()):
                return None, None
            item, back = draw(values(payload))
            return (Some(item), Some(back)) if isinstance(payload, OptionType) else (item, back)
        case ResultType(ok=ok, err=err):
            is_ok = draw(st.booleans())
            inner = ok if is_ok else err
            item, back = (None, None) if inner is None else draw(values(inner))
            return (Ok(item), Ok(back)) if is_ok else (Err(item), Err(back))
        case TupleType(items=parts):
            made = [draw(values(part)) for part in parts]
            return [item for item, _ in made], tuple(back for _, back in made)
        case RecordType(fields=fields):
            given_fields = {item.name: draw(values(item.type)) for item in fields}
            backs = [back for _, back in given_fields.values()]
            return {name: item for name, (item, _) in given_fields.items()}, class_for(type_)(*backs)
        case VariantType(cases=cases):
            case = draw(st.sampled_from(cases))
            made_case: Any = getattr(class_for(type_), pascal(case.name))
            if case.type is None:
                return Case(case.name), made_case()
            item, back = draw(values(case.type))
            if item is None and not isinstance(case.type, OptionType):
                return made_case(item), made_case(back)
            return Case(case.name, item), made_case(back)
        case EnumType(cases=names):
            name = draw(st.sampled_from(names))
            return name, class_for(type_)(name)
        case FlagsType(flags=names):
            chosen = draw(st.sets(st.sampled_from(names)))
            return chosen, class_for(type_)(sum(1 << bit for bit, name in enumerate(names) if name in chosen))
        case MapType(key=key, value=value):
            pairs = draw(st.dictionaries(values(key).map(lambda pair: pair[0]), values(value), max_size=4))
            return {k: item for k, (item, _) in pairs.items()}, {k: back for k, (_, back) in pairs.items()}
    raise AssertionError(type_)


def _list_of(element: Type, backs: list[Any]) -> Any:
    dtype = dtype_for(element)
    if element is Prim.U8:
        return bytes(backs)
    return backs if dtype is None else np.array([_row(back) for back in backs], dtype)


def _row(back: Any) -> Any:
    if isinstance(back, tuple):
        return tuple(map(_row, back))
    return (
        tuple(_row(getattr(back, name)) for name in back.__slots__) if hasattr(back, "__dataclass_fields__") else back
    )


TYPED = TYPES.flatmap(lambda type_: st.tuples(st.just(type_), st.lists(values(type_), min_size=1, max_size=3)))
