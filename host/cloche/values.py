"""Python types of WIT values: generated classes, numpy dtypes, and the general form `Case` of a variant's case.

The Python type is a function of the WIT type alone, never of a value's size, of the tier or of how bytes cross.
`Ok`, `Err` and `Some` stand in `cloche.model`. The full table is docs/values.md.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Flag, StrEnum
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from cloche.errors import UsageError
from cloche.wit.names import pascal, snake
from cloche.wit.types import EnumType, FlagsType, Prim, RecordType, TupleType, Type, VariantType

MAX_SHOWN_CHARACTERS = 80
"""Longest string, in characters, that a repr shows."""
MAX_SHOWN_BITS = 256
"""Largest integer, in bits, that a repr shows: Python refuses to print really large ones."""
MAX_SHOWN_ITEMS = 8
"""Longest list, map or set, in items, that a repr shows."""

_NUMBERS: dict[Prim, str] = {
    Prim.S8: "i1",
    Prim.U8: "u1",
    Prim.S16: "<i2",
    Prim.U16: "<u2",
    Prim.S32: "<i4",
    Prim.U32: "<u4",
    Prim.S64: "<i8",
    Prim.U64: "<u8",
    Prim.F32: "<f4",
    Prim.F64: "<f8",
}


@dataclass(frozen=True, slots=True)
class Case:
    """One case of a variant by its WIT name, accepted wherever a variant is: `Case("circle", 1.0)`. Added in 0.1."""

    name: str
    payload: Any = None

    def __repr__(self) -> str:
        return f"Case({self.name!r}, {brief(self.payload)})"


class Variant:
    """Base of all generated variant classes. `case` is the WIT name; `value` the payload, None without one."""

    __slots__ = ()
    case: ClassVar[str]
    value: Any


def brief(value: object) -> str:
    """A repr that shows lengths in place of long payloads and never the bytes of one."""
    if isinstance(value, bytes | bytearray):
        return f"<{len(value)} bytes>"
    if isinstance(value, memoryview):
        return f"<{value.nbytes} bytes>"
    if isinstance(value, np.ndarray):
        return f"<array of {' x '.join(map(str, value.shape))} {'records' if value.dtype.names else value.dtype}>"
    if isinstance(value, str) and not isinstance(value, StrEnum) and len(value) > MAX_SHOWN_CHARACTERS:
        return f"<{len(value)} characters>"
    if isinstance(value, list | tuple | dict | set | frozenset):
        if len(value) > MAX_SHOWN_ITEMS:
            return f"<{type(value).__name__} of {len(value)} items>"
        if isinstance(value, dict):
            return "{" + ", ".join(f"{brief(key)}: {brief(item)}" for key, item in value.items()) + "}"
        shown = [brief(item) for item in value]
        inner = ", ".join(sorted(shown) if isinstance(value, set | frozenset) else shown)
        return f"[{inner}]" if isinstance(value, list) else f"({inner})" if isinstance(value, tuple) else f"{{{inner}}}"
    if isinstance(value, int) and value.bit_length() > MAX_SHOWN_BITS:
        return f"<int of {value.bit_length()} bits>"
    try:
        text = repr(value)
    except Exception:
        return f"<{type(value).__name__}>"
    return text if len(text) <= 4 * MAX_SHOWN_CHARACTERS else f"<{type(value).__name__}>"


def same(left: object, right: object) -> bool:
    """Whether two values are equal, arrays inside them compared as a whole (NaN differs from itself)."""
    if isinstance(left, np.ndarray) or isinstance(right, np.ndarray):
        return (
            isinstance(left, np.ndarray)
            and isinstance(right, np.ndarray)
            and left.dtype == right.dtype
            and np.array_equal(left, right)
        )
    if isinstance(left, list | tuple):
        return type(left) is type(right) and len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return (
            isinstance(right, dict)
            and left.keys() == right.keys()
            and all(same(item, right[key]) for key, item in left.items())
        )
    return bool(left == right)


def _show_record(self: Any) -> str:
    inner = ", ".join(f"{field.name}={brief(getattr(self, field.name))}" for field in dataclasses.fields(self))
    return f"{type(self).__qualname__}({inner})"


def _equal_record(self: Any, other: Any) -> bool:
    if type(other) is not type(self):
        return False
    return all(same(getattr(self, field.name), getattr(other, field.name)) for field in dataclasses.fields(self))


def _show_case(self: Any) -> str:
    return f"{type(self).__qualname__}({brief(self.value) if dataclasses.fields(self) else ''})"


_METHODS: dict[str, Any] = {"__eq__": _equal_record, "__module__": __name__}


def _record_class(type_: RecordType) -> type:
    return dataclasses.make_dataclass(
        pascal(type_.name.name),
        [(snake(field.name), Any) for field in type_.fields],
        frozen=True,
        slots=True,
        namespace={**_METHODS, "__repr__": _show_record, "__doc__": f"Record `{type_.name}`."},
    )


def _variant_class(type_: VariantType) -> type:
    name = pascal(type_.name.name)
    base = type(name, (Variant,), {"__slots__": (), "__module__": __name__, "__doc__": f"Variant `{type_.name}`."})
    for case in type_.cases:
        word = pascal(case.name)
        namespace: dict[str, Any] = {
            **_METHODS,
            "__repr__": _show_case,
            "__qualname__": f"{name}.{word}",
            "__doc__": f"Case `{case.name}` of variant `{type_.name}`.",
            "case": case.name,
        }
        if case.type is None:
            namespace["value"] = None
        fields = [] if case.type is None else [("value", Any)]
        made = dataclasses.make_dataclass(word, fields, bases=(base,), frozen=True, slots=True, namespace=namespace)
        setattr(base, word, made)
    return base


def member_name(name: str) -> str:
    """The Python member of an enum case or flag: `read-only` → `READ_ONLY`."""
    return name.replace("-", "_").upper()


@lru_cache(maxsize=4096)
def class_for(type_: Type) -> type:
    """The class of a record, enum, flags or variant type; the same structure and name give the same class.

    A record is a frozen dataclass with snake_case fields; an enum a `StrEnum` with WIT spelling as value; flags an
    `enum.Flag` in bit order; a variant a base class with one frozen dataclass for each case (`Shape.Circle(1.0)`).
    Raises: UsageError (`usage.argument`) for any other type. Added in 0.1.
    """
    if isinstance(type_, RecordType):
        return _record_class(type_)
    if isinstance(type_, VariantType):
        return _variant_class(type_)
    if isinstance(type_, EnumType):
        members = [(member_name(case), case) for case in type_.cases]
        return StrEnum(pascal(type_.name.name), members, module=__name__)  # type: ignore[return-value]
    if isinstance(type_, FlagsType):
        bits = [(member_name(flag), 1 << bit) for bit, flag in enumerate(type_.flags)]
        return Flag(pascal(type_.name.name), bits, module=__name__)  # type: ignore[return-value]
    raise UsageError(f"only records, variants, enums and flags have a class of their own, not {type_!r:.200}")


@lru_cache(maxsize=4096)
def dtype_for(type_: Type) -> np.dtype[Any] | None:
    """The numpy dtype of one element of `list<type_>`, or None when such lists are plain lists (or bytes, for u8).

    Numbers give their own little-endian dtype. Records and tuples that hold only numbers, bools and further such
    records and tuples give a structured dtype with the canonical ABI's offsets and padding; a tuple's fields are named
    `f0`, `f1`, …. Bool alone has none: `list<bool>` is a list. Added in 0.1.
    """
    if isinstance(type_, Prim):
        return np.dtype(_NUMBERS[type_]) if type_ in _NUMBERS else None
    if isinstance(type_, RecordType):
        named: list[tuple[str, Type]] = [(snake(field.name), field.type) for field in type_.fields]
    elif isinstance(type_, TupleType):
        named = [(f"f{index}", item) for index, item in enumerate(type_.items)]
    else:
        return None
    names, formats, offsets, at, widest = [], [], [], 0, 1
    for name, item in named:
        inner = np.dtype("?") if item is Prim.BOOL else dtype_for(item)
        if inner is None:
            return None
        align = _alignment(inner)
        at = -(-at // align) * align
        names.append(name)
        formats.append(inner)
        offsets.append(at)
        at += inner.itemsize
        widest = max(widest, align)
    if not names:
        return None
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": -(-at // widest) * widest})


def _alignment(dtype: np.dtype[Any]) -> int:
    """The canonical ABI's alignment of a dtype: of a structured one the largest of its fields'."""
    if dtype.fields is None:
        return dtype.itemsize
    fields: Mapping[str, Any] = dtype.fields
    return max(_alignment(field[0]) for field in fields.values())


__all__ = ["Case", "Variant", "brief", "class_for", "dtype_for", "member_name", "same"]
