"""Which types can be carried between Python and a guest at all."""

from __future__ import annotations

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
MAX_LABELS = 1024
"""Most fields of one record, and cases of one variant or enum: each becomes Python code or a class of its own."""


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


def ensure_carried(type_: Type) -> None:
    """Refuse a type whose values cannot be carried. Looks at each distinct node once.

    Raises: ContractError (`contract.unsupported`) for streams, futures, error contexts, fixed-length lists (the
        engine's C API has no switch for them), more than 32 flags, and types that are too deep, large or wide.
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
        case (
            RecordType(name=name, fields=labels)
            | VariantType(name=name, cases=labels)
            | EnumType(name=name, cases=labels)
        ) if len(labels) > MAX_LABELS:
            raise _unsupported(f"`{name}` has {len(labels)} fields or cases; at most {MAX_LABELS} are supported")
        case Prim() | ListType() | OptionType() | TupleType() | RecordType() | VariantType() | ResultType() | MapType():
            pass
        case EnumType() | FlagsType() | OwnType() | BorrowType():
            pass
        case _:
            raise _unsupported(f"{type(node).__name__} values are not supported; use lists and resources instead")


def _unsupported(text: str) -> ContractError:
    return ContractError(text, code="contract.unsupported")
