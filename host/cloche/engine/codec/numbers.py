"""Plans of lists that are numpy's (or bytes): numbers, and rows of numbers and bools. No carrier is known here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from struct import calcsize, pack
from struct import error as StructError  # noqa: N812
from typing import TYPE_CHECKING, Any

from cloche.engine.codec.budget import Budget
from cloche.engine.codec.problem import TooLarge, ValueProblem, add_step, expected
from cloche.engine.codec.scalars import FloatPlan, IntPlan
from cloche.lazy_numpy import numpy_type
from cloche.values import dtype_for
from cloche.wit.types import ListType, Prim

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]
else:
    from cloche import lazy_numpy as np

PIECE_ITEMS = 8192
"""How many of Python's numbers are converted at a time: some take half a microsecond each."""


def items_of(value: object, what: str, budget: Budget, size: int) -> tuple[Any, ...]:
    """A copy of `value` as a tuple, if it is a collection in an order; strings, bytes, maps and sets are refused.

    Raises: ValueProblem otherwise; TooLarge for more items of `size` bytes than the budget has left. Generators are
        refused because they have no bound.
    """
    if not isinstance(value, list | tuple):
        if isinstance(value, numpy_type("ndarray")):
            value = plain_array(value)
            if not value.ndim:
                raise expected(f"{what} (a sequence)", value)
        elif isinstance(value, str | bytes | bytearray | Mapping | Set) or not isinstance(value, Sequence | memoryview):
            raise expected(f"{what} (a sequence)", value)
    return budget.copy(value, size)


def plain_array(value: Array) -> Array:
    """The caller's array as a view that nobody else can give another shape.

    Raises: ValueProblem for a masked array, whose masked items are not meant to be seen.
    """
    if type(value) is not np.ndarray and isinstance(value, np.ma.MaskedArray):
        raise expected("an array without a mask (`.filled(…)` makes one)", value)
    return np.ndarray.view(value, np.ndarray)


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
        with np.errstate(over="ignore"):
            made = array.astype(dtype)
        if kind == "f" and array.dtype.itemsize > dtype.itemsize:
            bad = np.isinf(made) & ~np.isinf(array)
            _refuse_first(bad, array, f"{what} with numbers up to {np.finfo(dtype).max}, or infinities")
        return made
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


_LETTERS: dict[Prim, str] = {
    Prim.S8: "b",
    Prim.U8: "B",
    Prim.S16: "h",
    Prim.U16: "H",
    Prim.S32: "i",
    Prim.U32: "I",
    Prim.S64: "q",
    Prim.U64: "Q",
    Prim.F32: "f",
    Prim.F64: "d",
}


class NumbersPlan:
    """`list<number>`: numpy arrays, buffers and sequences in; an array of `dtype` out, or bytes for `list<u8>`."""

    __slots__ = ("_dtype", "_letter", "_plain", "element", "is_bytes", "size", "type", "what")

    def __init__(self, type_: ListType, element: IntPlan | FloatPlan) -> None:
        self.type = type_
        self.element = element
        self.is_bytes = element.type is Prim.U8
        self.what = f"list<{element.type}>"
        self._letter = _LETTERS[element.type]
        self._plain = {int, float} if isinstance(element, FloatPlan) else {int}
        self.size = calcsize(f"<{self._letter}")
        self._dtype: np.dtype[Any] | None = None

    @property
    def dtype(self) -> np.dtype[Any]:
        """That of an array of the numbers."""
        if self._dtype is None:
            self._dtype = dtype_for(self.element.type)
            assert self._dtype is not None
        return self._dtype

    def array(self, value: object, budget: Budget) -> Array:
        """The numbers as a one-dimensional array, possibly a view of the caller's memory.

        A buffer of one-byte items is taken as it stands; the items of any other buffer are numbers like those of a
        list. To hand over the memory of an array as bytes, cast it: `memoryview(a).cast("B")`.
        Raises: ValueProblem; TooLarge, before anything is converted, for more than the budget has left.
        """
        if isinstance(value, bytes | bytearray):
            return self._converted(np.frombuffer(value, np.uint8), budget)
        if type(value) is list or type(value) is tuple or type(value) is range:
            return self._sequence(value, budget)
        if isinstance(value, np.ndarray):
            array = plain_array(value)
            if array.dtype != object or array.ndim != 1:
                return self._converted(array, budget)
            return self._sequence(items_of(array, self.what, budget, self.size), budget)
        try:
            view = memoryview(value)  # type: ignore[arg-type]
        except TypeError:
            return self._sequence(items_of(value, self.what, budget, self.size), budget)
        except (BufferError, ValueError):
            raise expected(f"{self.what} (a readable buffer)", value) from None
        try:
            if view.itemsize == 1 and self.is_bytes and view.c_contiguous:
                array = np.frombuffer(view.cast("B"), np.uint8)
            else:
                array = np.asarray(view)
        except (ValueError, TypeError, NotImplementedError):
            raise expected(self.what, value) from None
        return self._converted(array, budget)

    def _most(self, budget: Budget) -> int:
        return budget.left // self.size

    def _converted(self, array: Array, budget: Budget) -> Array:
        if array.ndim == 1 and len(array) > self._most(budget):
            raise TooLarge
        return as_dtype(array, self.dtype, self.what)

    def _sequence(self, value: Sequence[Any], budget: Budget) -> Array:
        """The numbers of a list, tuple or range, some thousand at a time."""
        count = len(value)
        if count > self._most(budget):
            raise TooLarge
        if count <= PIECE_ITEMS:
            return self._piece(value[:count], 0, budget)
        made = np.empty(count, self.dtype)
        for start in range(0, count, PIECE_ITEMS):
            into, piece = made[start : start + PIECE_ITEMS], value[start : start + PIECE_ITEMS]
            if len(piece) != len(into):
                raise ValueProblem("the list changed its length while it was read")
            into[:] = self._piece(piece, start, budget)
        return made

    def _piece(self, piece: Sequence[Any], start: int, budget: Budget) -> Array:
        budget.work(len(piece) * self.size)
        if set(map(type, piece)) <= self._plain:
            try:  # `pack` checks every range, and is quicker than numpy on Python's numbers
                packed = bytes(piece) if self.is_bytes else pack(f"<{len(piece)}{self._letter}", *piece)
            except (ValueError, OverflowError, StructError):
                pass  # some element is out of range: find it below
            else:
                return np.frombuffer(packed, self.dtype)
        return np.array(checked_items(piece, self.element.check, start), self.dtype)


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

    def array(self, value: object, budget: Budget) -> Array:
        """The rows as a one-dimensional structured array, possibly a view of the caller's.

        Raises: ValueProblem; TooLarge, before anything is converted, for more than the budget has left.
        """
        size = self.dtype.itemsize
        if isinstance(value, np.ndarray) and value.dtype.names is not None:
            rows = plain_array(value)
            if rows.ndim != 1:
                raise expected(f"{self.what} (one dimension)", value)
            if len(rows) > budget.left // size:
                raise TooLarge
            return rows if rows.dtype == self.dtype else self._convert(rows, self.dtype)
        items = items_of(value, self.what, budget, size)
        return np.array(checked_items(budget.paced(items, size), self.row.plain), self.dtype)

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
                # Columns are looked at one by one, but the path leads through the row to its field.
                is_row = bool(problem.steps) and problem.steps[-1].startswith("[")
                problem.steps.insert(len(problem.steps) - is_row, f".{name}")
                raise
        return made


def checked_items(items: Iterable[Any], check: Any, start: int = 0) -> list[Any]:
    """`check(item)` of each item; a problem's path gets the item's index, the first one's being `start`."""
    made: list[Any] = []
    try:
        for item in items:
            made.append(check(item))  # noqa: PERF401 - the length so far is the index of the item that failed
    except Exception as error:
        add_step(error, f"[{start + len(made)}]")
        raise
    return made
