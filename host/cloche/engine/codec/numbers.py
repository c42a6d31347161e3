"""Plans of lists that are numpy's (or bytes): numbers, and rows of numbers and bools. No carrier is known here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from struct import error as StructError  # noqa: N812
from struct import pack
from typing import Any

import numpy as np

from cloche.engine.codec.problem import ValueProblem, expected
from cloche.engine.codec.scalars import F32_LARGEST, FloatPlan, IntPlan
from cloche.wit.types import ListType, Prim

Array = np.ndarray[Any, np.dtype[Any]]


def items_of(value: object, what: str) -> Sequence[Any]:
    """`value` as a list or tuple, if it is a sized collection in an order; strings, bytes, maps and sets are refused.

    Raises: ValueProblem otherwise. Generators are refused because they have no bound.
    """
    if isinstance(value, list | tuple):
        return value
    if isinstance(value, str | bytes | bytearray | Mapping | Set) or not isinstance(
        value, Sequence | np.ndarray | memoryview
    ):
        raise expected(f"{what} (a sequence)", value)
    return list(value)


def as_dtype(array: Array, dtype: np.dtype[Any], what: str) -> Array:
    """A one-dimensional array of numbers as `dtype`, every element checked for range.

    Raises: ValueProblem, its path led to the first element that does not fit.
    """
    if array.ndim != 1:
        raise expected(f"{what} (one dimension)", array)
    if array.dtype == dtype:
        return array
    kind, into = array.dtype.kind, dtype.kind
    if into == "f" and kind in "fiu":
        if dtype.itemsize == 4 and kind == "f" and array.dtype.itemsize > 4:
            with np.errstate(over="ignore"):
                made = array.astype(dtype)
            bad = np.isinf(made) & ~np.isinf(array)
            _refuse_first(bad, array, f"f32 (a number up to {F32_LARGEST!r}, or an infinity)")
            return made
        return array.astype(dtype)
    if into == kind == "b":
        return array.astype(dtype)
    if into in "iu" and kind in "iu":
        bounds = np.iinfo(dtype)
        if array.size:
            least, most = int(array.min()), int(array.max())
            if least < bounds.min or most > bounds.max:
                _refuse_first((array < bounds.min) | (array > bounds.max), array, f"{bounds.min} to {bounds.max}")
        return array.astype(dtype)
    raise expected(f"{what}", array)


def _refuse_first(bad: Array, array: Array, what: str) -> None:
    if bad.any():
        index = int(bad.argmax())
        problem = expected(what, array[index].item())
        problem.steps.append(f"[{index}]")
        raise problem


class NumbersPlan:
    """`list<number>`: numpy arrays, buffers and sequences in; an array of `dtype` out, or bytes for `list<u8>`."""

    __slots__ = ("_letter", "_plain", "dtype", "element", "is_bytes", "type", "what")

    def __init__(self, type_: ListType, element: IntPlan | FloatPlan, dtype: np.dtype[Any]) -> None:
        self.type = type_
        self.element = element
        self.dtype = dtype
        self.is_bytes = element.type is Prim.U8
        self.what = f"list<{element.type}>"
        self._letter = dtype.char if dtype.kind == "f" else "bhiq"[dtype.itemsize.bit_length() - 1]
        self._letter = self._letter.upper() if dtype.kind == "u" else self._letter
        self._plain = {int, float} if dtype.kind == "f" else {int}

    def array(self, value: object) -> Array:
        """The numbers as a one-dimensional array, possibly a view of the caller's memory.

        A buffer of one-byte items is taken as it stands; the items of any other buffer are numbers like those of a
        list. To hand over the memory of an array as bytes, cast it: `memoryview(a).cast("B")`.
        """
        if isinstance(value, bytes | bytearray):
            return self._bytes(value)
        if isinstance(value, np.ndarray):
            if value.dtype == object:
                return self._sequence(value.tolist()) if value.ndim == 1 else as_dtype(value, self.dtype, self.what)
            return as_dtype(value, self.dtype, self.what)
        if isinstance(value, list | tuple | range):
            return self._sequence(value)
        try:
            view = memoryview(value)  # type: ignore[arg-type]
        except TypeError:
            return self._sequence(items_of(value, self.what))
        except BufferError:
            raise expected(f"{self.what} (a readable buffer)", value) from None
        if view.itemsize == 1 and self.is_bytes and view.c_contiguous:
            return np.frombuffer(view.cast("B"), np.uint8)
        try:
            return as_dtype(np.asarray(view), self.dtype, self.what)
        except (ValueError, TypeError):
            raise expected(self.what, value) from None

    def _bytes(self, value: bytes | bytearray) -> Array:
        return as_dtype(np.frombuffer(value, np.uint8), self.dtype, self.what)

    def _sequence(self, value: Sequence[Any]) -> Array:
        if set(map(type, value)) <= self._plain:
            try:  # `pack` checks every range, and is quicker than numpy on Python's numbers
                packed = bytes(value) if self.is_bytes else pack(f"<{len(value)}{self._letter}", *value)
            except (ValueError, OverflowError, StructError):
                pass  # some element is out of range: find it below
            else:
                return np.frombuffer(packed, self.dtype)
        return np.array(checked_items(value, self.element.check), self.dtype)


class RowsPlan:
    """`list` of records or tuples that hold only numbers, bools and such rows: a structured array.

    `row` is the plan of one row; its `plain` checks a row and gives the nested tuples that numpy takes.
    """

    __slots__ = ("dtype", "row", "type", "what")

    def __init__(self, type_: ListType, row: Any, dtype: np.dtype[Any]) -> None:
        self.type = type_
        self.row = row
        self.dtype = dtype
        self.what = f"list<{row.label}>"

    def array(self, value: object) -> Array:
        """The rows as a one-dimensional structured array, possibly the caller's own."""
        if isinstance(value, np.ndarray) and value.dtype.names is not None:
            if value.ndim != 1:
                raise expected(f"{self.what} (one dimension)", value)
            return value if value.dtype == self.dtype else self._convert(value, self.dtype)
        items = checked_items(items_of(value, self.what), self.row.plain)
        return np.array(items, self.dtype)

    def _convert(self, value: Array, dtype: np.dtype[Any]) -> Array:
        """Field by field by name, so that other offsets, orders and number types are accepted."""
        names = dtype.names or ()
        if set(value.dtype.names or ()) != set(names):
            raise expected(f"{self.what} with the fields {', '.join(names)}", value)
        made = np.zeros(value.shape, dtype)
        for name in names:
            inner = dtype[name]
            try:
                column = value[name]
                made[name] = (
                    self._convert(column, inner)
                    if inner.names is not None and column.dtype.names is not None
                    else as_dtype(column, inner, f"{self.what} field {name}")
                )
            except ValueProblem as problem:
                problem.steps.append(f".{name}")
                raise
        return made


def checked_items(items: Iterable[Any], check: Any) -> list[Any]:
    """`check(item)` of each item; a problem's path gets the item's index."""
    made: list[Any] = []
    try:
        for item in items:
            made.append(check(item))  # noqa: PERF401 - the length so far is the index of the item that failed
    except ValueProblem as problem:
        problem.steps.append(f"[{len(made)}]")
        raise
    return made
