"""The canonical ABI's memory layout and flattening of each type, and which types the codec takes at all.

Source: component-model CanonicalABI.md, sections Alignment, Element Size and Flattening.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from cloche.errors import ContractError
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

MAX_TYPE_DEPTH = 64
"""Deepest nesting of one type, in levels: lowering and lifting recurse once for each."""
MAX_TYPE_NODES = 10_000
"""Most nodes of one type written out in full: 2^16 leaves cost seconds of Python (H7)."""
MAX_FLAGS = 32
"""Most flags of one type: the component model's own bound."""

_PRIMS: dict[Prim, tuple[int, str]] = {
    Prim.BOOL: (1, "i32"),
    Prim.S8: (1, "i32"),
    Prim.U8: (1, "i32"),
    Prim.S16: (2, "i32"),
    Prim.U16: (2, "i32"),
    Prim.S32: (4, "i32"),
    Prim.U32: (4, "i32"),
    Prim.S64: (8, "i64"),
    Prim.U64: (8, "i64"),
    Prim.F32: (4, "f32"),
    Prim.F64: (8, "f64"),
    Prim.CHAR: (4, "i32"),
}


@dataclass(frozen=True, slots=True)
class Layout:
    """Bytes of one element, its alignment, its flat core types, and whether it holds no further (dynamic) bytes."""

    size: int
    align: int
    flat: tuple[str, ...]
    fixed: bool


def children(type_: Type) -> tuple[Type, ...]:
    """The types directly inside `type_`, in order; a payload that is absent is left out."""
    match type_:
        case ListType(element=inner) | OptionType(payload=inner):
            return (inner,)
        case TupleType(items=items):
            return items
        case RecordType(fields=fields):
            return tuple(field.type for field in fields)
        case VariantType(cases=cases):
            return tuple(case.type for case in cases if case.type is not None)
        case ResultType(ok=ok, err=err):
            return tuple(item for item in (ok, err) if item is not None)
        case MapType(key=key, value=value):
            return (key, value)
        case _:
            return ()


def ensure_supported(type_: Type) -> None:
    """Refuse a type that the engine or the codec cannot carry. Looks at each distinct node once.

    Raises: ContractError (`contract.unsupported`) for streams, futures, error contexts, fixed-length lists (the
        engine's C API has no switch for them), more than 32 flags, and types that are too deep or too large.
    """
    seen: dict[int, tuple[int, int]] = {}

    def visit(node: Type, level: int) -> tuple[int, int]:
        if level > MAX_TYPE_DEPTH:
            raise _unsupported(f"a type is nested deeper than {MAX_TYPE_DEPTH} levels")
        known = seen.get(id(node))
        if known is None:
            _ensure_node(node)
            inner = [visit(child, level + 1) for child in children(node)]
            known = 1 + sum(count for count, _ in inner), 1 + max((depth for _, depth in inner), default=0)
            seen[id(node)] = known
        if known[0] > MAX_TYPE_NODES or level + known[1] > MAX_TYPE_DEPTH + 1:
            raise _unsupported(f"a type has more than {MAX_TYPE_NODES} parts or {MAX_TYPE_DEPTH} levels")
        return known

    visit(type_, 1)


def _ensure_node(node: Type) -> None:
    match node:
        case ListType(length=int()):
            raise _unsupported("fixed-length lists (`list<T, n>`) are not supported by the engine; use `list<T>`")
        case FlagsType(flags=flags, name=name) if len(flags) > MAX_FLAGS:
            raise _unsupported(f"flags `{name}` has {len(flags)} flags; the component model allows {MAX_FLAGS}")
        case Prim() | ListType() | OptionType() | TupleType() | RecordType() | VariantType() | ResultType() | MapType():
            pass
        case EnumType() | FlagsType() | OwnType() | BorrowType():
            pass
        case _:
            raise _unsupported(f"{type(node).__name__} values are not supported; use lists and resources instead")


def _unsupported(text: str) -> ContractError:
    return ContractError(text, code="contract.unsupported")


@lru_cache(maxsize=8192)
def layout_of(type_: Type) -> Layout:
    """The layout of a supported type."""
    match type_:
        case Prim.STRING | ListType() | MapType():
            return Layout(8, 4, ("i32", "i32"), fixed=False)
        case Prim():
            size, flat = _PRIMS[type_]
            return Layout(size, size, (flat,), fixed=True)
        case RecordType() | TupleType():
            return sequence_layout(children(type_))
        case VariantType(cases=cases):
            return _variant_layout([case.type for case in cases])
        case EnumType(cases=names):
            return _variant_layout([None] * len(names))
        case OptionType(payload=payload):
            return _variant_layout([None, payload])
        case ResultType(ok=ok, err=err):
            return _variant_layout([ok, err])
        case FlagsType(flags=flags):
            size = 1 if len(flags) <= 8 else 2 if len(flags) <= 16 else 4
            return Layout(size, size, ("i32",), fixed=True)
        case OwnType() | BorrowType():
            return Layout(4, 4, ("i32",), fixed=True)
        case _:
            raise _unsupported(f"{type(type_).__name__} values are not supported")


def sequence_layout(types: Iterable[Type]) -> Layout:
    """The layout of a tuple of `types`: also that of a function's parameters, which is what a call is charged for."""
    at, align, fixed = 0, 1, True
    flat: list[str] = []
    for inner in map(layout_of, types):
        at = aligned(at, inner.align) + inner.size
        align = max(align, inner.align)
        flat.extend(inner.flat)
        fixed = fixed and inner.fixed
    return Layout(aligned(at, align), align, tuple(flat), fixed)


def _variant_layout(payloads: list[Type | None]) -> Layout:
    tag = 1 if len(payloads) <= 0x100 else 2 if len(payloads) <= 0x10000 else 4
    layouts = [layout_of(payload) for payload in payloads if payload is not None]
    align = max([tag, *(inner.align for inner in layouts)])
    payload_at = aligned(tag, max((inner.align for inner in layouts), default=1))
    size = aligned(payload_at + max((inner.size for inner in layouts), default=0), align)
    flat: list[str] = []
    for inner in layouts:
        for index, core in enumerate(inner.flat):
            if index < len(flat):
                flat[index] = _join(flat[index], core)
            else:
                flat.append(core)
    return Layout(size, align, ("i32", *flat), all(inner.fixed for inner in layouts))


def _join(left: str, right: str) -> str:
    if left == right:
        return left
    return "i32" if {left, right} == {"i32", "f32"} else "i64"


def aligned(at: int, align: int) -> int:
    """`at` rounded up to a multiple of `align`."""
    return -(-at // align) * align
