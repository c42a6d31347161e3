"""Python types of WIT values: generated classes, numpy dtypes, and the general form `Case` of a variant's case.

The Python type is a function of the WIT type alone, never of a value's size, of the tier or of how bytes cross.
`Ok`, `Err` and `Some` stand in `cloche.model`. The full table is docs/values.md.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from enum import Enum, Flag, StrEnum
from itertools import islice
from numbers import Number
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakValueDictionary

from cloche.errors import UsageError
from cloche.frozen import dataclass
from cloche.lazy_numpy import numpy_type
from cloche.model import Err, Ok, Some, same
from cloche.wit.carried import children
from cloche.wit.names import pascal, snake
from cloche.wit.types import EnumType, FlagsType, ListType, Prim, RecordType, TupleType, Type, VariantType

if TYPE_CHECKING:
    import numpy as np
else:
    from cloche import lazy_numpy as np

MAX_SHOWN_CHARACTERS = 80
"""Longest string, in characters, that a repr shows."""
MAX_SHOWN_BITS = 256
"""Largest integer, in bits, that a repr shows: Python refuses to print really large ones."""
MAX_SHOWN_ITEMS = 8
"""Longest list, map or set, in items, that a repr shows."""
MAX_SHOWN_LEVELS = 3
"""Levels of nesting that a repr shows."""
MAX_SHOWN_TEXT = 4 * MAX_SHOWN_CHARACTERS
"""Longest form of one value, in characters."""

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


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One case of a variant by its WIT name, accepted wherever a variant is: `Case("circle", 1.0)`. Added in 0.1."""

    name: str
    payload: Any = None

    def __eq__(self, other: object) -> bool:
        return type(other) is Case and self.name == other.name and same(self.payload, other.payload)

    def __hash__(self) -> int:
        return hash((self.name, self.payload))

    def __repr__(self) -> str:
        return f"Case({self.name!r}, {brief(self.payload)})"


class Variant:
    """Base of all generated variant classes. `case` is the WIT name; `value` the payload, None without one."""

    __slots__ = ()
    case: ClassVar[str]
    value: Any


def brief(value: object, levels: int = MAX_SHOWN_LEVELS) -> str:
    """A repr of bounded work and length that shows lengths in place of long payloads and never the bytes of one.

    Objects of classes that are neither ours nor plain values of Python's or numpy's show the name of their class.
    """
    try:
        text = _shown(value, levels)
    except Exception:  # the caller's own code may fail in any way
        text = f"<{type(value).__name__}>"
    return text if len(text) <= MAX_SHOWN_TEXT else text[: MAX_SHOWN_TEXT - 1] + "…"


def _shown(value: object, levels: int) -> str:
    if isinstance(value, bytes | bytearray):
        return f"<{len(value)} bytes>"
    if isinstance(value, memoryview):
        return f"<{value.nbytes} bytes>"
    if isinstance(value, numpy_type("ndarray")):
        return f"<array of {' x '.join(map(str, value.shape))} {'records' if value.dtype.names else value.dtype}>"
    if isinstance(value, str) and not isinstance(value, Enum) and len(value) > MAX_SHOWN_CHARACTERS:
        return f"<{len(value)} characters>"
    if isinstance(value, int) and value.bit_length() > MAX_SHOWN_BITS:
        return f"<int of {value.bit_length()} bits>"
    if isinstance(value, list | tuple | dict | set | frozenset):
        return _shown_items(value, levels)
    if isinstance(value, (_Generated, Ok, Err, Some, Case, numpy_type("void"))):
        return _shown_parts(value, levels) if levels else f"<{type(value).__name__}>"
    if value is None or isinstance(value, (str, Number, Enum, numpy_type("generic"))):
        return repr(value)
    return f"<class {value.__qualname__}>" if isinstance(value, type) else f"<{type(value).__name__}>"


def _shown_items(value: Any, levels: int) -> str:
    count = len(value)
    if count > MAX_SHOWN_ITEMS or (count and not levels):
        return f"<{type(value).__name__} of {count} items>"
    if isinstance(value, dict):
        pairs = islice(value.items(), MAX_SHOWN_ITEMS)
        return "{" + ", ".join(f"{brief(key, levels - 1)}: {brief(item, levels - 1)}" for key, item in pairs) + "}"
    shown = [brief(item, levels - 1) for item in islice(value, MAX_SHOWN_ITEMS)]
    inner = ", ".join(sorted(shown) if isinstance(value, set | frozenset) else shown)
    return f"[{inner}]" if isinstance(value, list) else f"({inner})" if isinstance(value, tuple) else f"{{{inner}}}"


def _shown_parts(value: Any, levels: int) -> str:
    if isinstance(value, numpy_type("void")):
        return brief(value.item(), levels - 1)
    if isinstance(value, Case):
        return f"Case({value.name!r}, {brief(value.payload, levels - 1)})"
    name = type(value).__qualname__
    if isinstance(value, Variant):
        return f"{name}({brief(value.value, levels - 1) if isinstance(value, _Full) else ''})"
    parts = (f"{field}={brief(getattr(value, field), levels - 1)}" for field in type(value).__match_args__)
    return f"{name}({', '.join(parts)})"


class _Generated:
    """What the generated classes of records and cases have in common; `_type` is the WIT type that they stand for."""

    __slots__ = ()
    _type: ClassVar[Type]

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and all(map(same, _parts(self), _parts(other)))

    def __hash__(self) -> int:
        return hash((type(self), _parts(self)))

    def __repr__(self) -> str:
        return _shown_parts(self, MAX_SHOWN_LEVELS)

    def __reduce__(self) -> Any:
        return _remake, (self._type, getattr(self, "case", None), _parts(self))


@dataclass(frozen=True, eq=False, repr=False)
class _Bare(_Generated, Variant):
    """A case without payload. The classes of cases only add their names to this: a type may have a thousand (H7)."""

    __slots__ = ()
    value = None


@dataclass(frozen=True, eq=False, repr=False)
class _Full(_Generated, Variant):
    """A case with a payload."""

    __slots__ = ("value",)
    value: Any


class _Enum(StrEnum):
    """Base of the generated enums, which pickle finds again by their WIT type."""

    def __reduce_ex__(self, _protocol: Any) -> Any:
        return _remake, (type(self)._type, None, (self.value,))  # type: ignore[attr-defined]


class _Flags(Flag):
    """Base of the generated flags."""

    def __reduce_ex__(self, _protocol: Any) -> Any:
        return _remake, (type(self)._type, None, (self.value,))  # type: ignore[attr-defined]


def _parts(value: Any) -> tuple[Any, ...]:
    return tuple(getattr(value, field) for field in type(value).__match_args__)


def _remake(type_: Type, case: str | None, parts: tuple[Any, ...]) -> Any:
    """A value from its pickle."""
    made = class_for(type_)
    return (made if case is None else getattr(made, pascal(case)))(*parts)


def _record_class(type_: RecordType) -> type:
    names = tuple(snake(field.name) for field in type_.fields)
    doc = f"Record `{type_.name}`."
    namespace = {
        "__slots__": names,
        "__module__": __name__,
        "__doc__": doc,
        "__annotations__": dict.fromkeys(names, Any),
        "_type": type_,
    }
    return dataclass(frozen=True, eq=False, repr=False)(type(pascal(type_.name.name), (_Generated,), namespace))


def _variant_class(type_: VariantType) -> type:
    name = pascal(type_.name.name)
    base = type(name, (Variant,), {"__slots__": (), "__module__": __name__, "__doc__": f"Variant `{type_.name}`."})
    for case in type_.cases:
        word = pascal(case.name)
        namespace: dict[str, Any] = {
            "__slots__": (),
            "__module__": __name__,
            "__qualname__": f"{name}.{word}",
            "__doc__": f"Case `{case.name}` of variant `{type_.name}`.",
            "_type": type_,
            "case": case.name,
        }
        setattr(base, word, type(word, (_Bare if case.type is None else _Full, base), namespace))
    return base


def member_name(name: str) -> str:
    """The Python member of an enum case or flag: `read-only` → `READ_ONLY`."""
    return name.replace("-", "_").upper()


_CLASSES: WeakValueDictionary[Type, type] = WeakValueDictionary()
_LOCK = threading.Lock()


def class_for(type_: Type) -> type:
    """The class of a record, enum, flags or variant type; the same structure and name give the same class.

    They do so on every thread, for as long as anybody uses the class, a value of it, or a plugin that has the type.
    A record is a frozen dataclass with snake_case fields; an enum a `StrEnum` with WIT spelling as value; flags an
    `enum.Flag` in bit order; a variant a base class with one frozen dataclass for each case (`Shape.Circle(1.0)`).
    Raises: UsageError (`usage.argument`) for any other type. Added in 0.1.
    """
    found = _CLASSES.get(type_)
    if found is None:
        with _LOCK:
            found = _CLASSES.get(type_)
            if found is None:
                found = _CLASSES[type_] = _new_class(type_)
    return found


def _new_class(type_: Type) -> type:
    if isinstance(type_, RecordType):
        return _record_class(type_)
    if isinstance(type_, VariantType):
        return _variant_class(type_)
    base: Any
    members: list[Any]
    if isinstance(type_, EnumType):
        base, members = _Enum, [(member_name(case), case) for case in type_.cases]
    elif isinstance(type_, FlagsType):
        base, members = _Flags, [(member_name(flag), 1 << bit) for bit, flag in enumerate(type_.flags)]
    else:
        raise UsageError(f"only records, variants, enums and flags have a class of their own, not {type_!r:.200}")
    made: Any = base(pascal(type_.name.name), members, module=__name__)
    made._type = type_
    return made  # type: ignore[no-any-return]


def dtype_for(type_: Type) -> np.dtype[Any] | None:
    """The numpy dtype of one element of `list<type_>`, or None when such lists are plain lists (or bytes, for u8).

    Numbers give their own little-endian dtype. Records and tuples that hold only numbers, bools and further such
    records and tuples give a structured dtype with the canonical ABI's offsets and padding; a tuple's fields are named
    `f0`, `f1`, …. Bool alone has none: `list<bool>` is a list. Added in 0.1.
    """
    return _dtype(type_) if is_numeric(type_) else None


def is_numeric(type_: Type) -> bool:
    """Whether lists of `type_` are numpy arrays (or bytes, for u8): see `dtype_for`. Imports nothing."""
    if isinstance(type_, RecordType):
        parts = tuple(field.type for field in type_.fields)
    elif isinstance(type_, TupleType):
        parts = type_.items
    else:
        return isinstance(type_, Prim) and type_ in _NUMBERS
    return bool(parts) and all(part is Prim.BOOL or is_numeric(part) for part in parts)


def has_arrays(type_: Type) -> bool:
    """Whether numpy's arrays stand in values of a type that can be carried. Imports nothing."""
    if isinstance(type_, ListType) and is_numeric(type_.element):
        return type_.element is not Prim.U8
    return any(map(has_arrays, children(type_)))


def _dtype(type_: Type) -> np.dtype[Any]:
    if isinstance(type_, Prim):
        return np.dtype("?" if type_ is Prim.BOOL else _NUMBERS[type_])
    if isinstance(type_, RecordType):
        named: list[tuple[str, Type]] = [(snake(field.name), field.type) for field in type_.fields]
    else:
        assert isinstance(type_, TupleType)
        named = [(f"f{index}", item) for index, item in enumerate(type_.items)]
    names, formats, offsets, at, widest = [], [], [], 0, 1
    for name, item in named:
        inner = _dtype(item)
        align = _alignment(inner)
        at = -(-at // align) * align
        names.append(name)
        formats.append(inner)
        offsets.append(at)
        at += inner.itemsize
        widest = max(widest, align)
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": -(-at // widest) * widest})


def _alignment(dtype: np.dtype[Any]) -> int:
    """The canonical ABI's alignment of a dtype: of a structured one the largest of its fields'."""
    if dtype.fields is None:
        return dtype.itemsize
    fields: Mapping[str, Any] = dtype.fields
    return max(_alignment(field[0]) for field in fields.values())


__all__ = ["Case", "Variant", "brief", "class_for", "dtype_for", "has_arrays", "is_numeric", "member_name", "same"]
