"""The canonical ABI's memory layout and flattening of each type.

Source: component-model CanonicalABI.md, sections Alignment, Element Size and Flattening.
"""

from __future__ import annotations

from collections.abc import Iterable

from cloche.frozen import dataclass
from cloche.wit.carried import children
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
            raise AssertionError(f"ensure_carried let {type_!r:.200} through")


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
