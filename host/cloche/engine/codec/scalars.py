"""Plans of types without parts: what Python values they accept and what they become. No carrier is known here.

Each `check` returns the plain value or raises ValueProblem. Decided here: bools are no numbers; ints are accepted for
floats and rounded to the nearest one; a finite number that would become infinite as `f32` or `f64` is refused.
"""

from __future__ import annotations

import functools
import math
import operator
from enum import Flag
from typing import TYPE_CHECKING, Any, SupportsIndex, TypeGuard, cast

from cloche.engine.codec.budget import few
from cloche.engine.codec.problem import expected, listed
from cloche.frozen import dataclass
from cloche.lazy_numpy import numpy_type
from cloche.values import class_for, member_name
from cloche.wit.carried import MAX_FLAGS
from cloche.wit.types import BorrowType, EnumType, FlagsType, OwnType, Prim

if TYPE_CHECKING:
    import numpy as np
else:
    from cloche import lazy_numpy as np

F32_LARGEST = math.ldexp(2.0 - math.ldexp(1.0, -23), 127)
_F32_LIMIT = F32_LARGEST + math.ldexp(1.0, 103)  # half a step above: from here on rounding gives infinity

INT_RANGES: dict[Prim, tuple[int, int]] = {
    Prim.S8: (-(1 << 7), (1 << 7) - 1),
    Prim.U8: (0, (1 << 8) - 1),
    Prim.S16: (-(1 << 15), (1 << 15) - 1),
    Prim.U16: (0, (1 << 16) - 1),
    Prim.S32: (-(1 << 31), (1 << 31) - 1),
    Prim.U32: (0, (1 << 32) - 1),
    Prim.S64: (-(1 << 63), (1 << 63) - 1),
    Prim.U64: (0, (1 << 64) - 1),
}


@dataclass(frozen=True, slots=True)
class BoolPlan:
    """`bool`: `True` and `False` only."""

    type: Prim

    def check(self, value: object) -> bool:
        """The plain bool."""
        if isinstance(value, (bool, numpy_type("bool_"))):
            return bool(value)
        raise expected("bool", value)


def _is_integer(value: object) -> TypeGuard[SupportsIndex]:
    """One of Python's or numpy's; no bool and no duration, which are integers to both."""
    if isinstance(value, int):
        return not isinstance(value, bool)
    return isinstance(value, numpy_type("integer")) and not isinstance(value, numpy_type("timedelta64"))


@dataclass(frozen=True, slots=True)
class IntPlan:
    """An integer type with its range: ints and numpy integers, no bools and no floats."""

    type: Prim
    least: int
    most: int

    def check(self, value: object) -> int:
        """The plain int, in range."""
        if type(value) is int or _is_integer(value):
            plain = operator.index(value)
            if self.least <= plain <= self.most:
                return plain
        raise expected(f"{self.type} ({self.least} to {self.most})", value)


@dataclass(frozen=True, slots=True)
class FloatPlan:
    """`f32` or `f64`: floats, ints and numpy numbers; NaN and infinities pass."""

    type: Prim

    def check(self, value: object) -> float:
        """The plain float; for `f32` not yet rounded."""
        if not (isinstance(value, float) or _is_integer(value) or isinstance(value, numpy_type("floating"))):
            raise expected(f"{self.type} (a number)", value)
        try:
            plain = float(value)
        except OverflowError:
            raise expected(f"{self.type} (a number in its range)", value) from None
        if math.isinf(plain) and isinstance(value, numpy_type("floating")) and not np.isinf(value):  # wider than f64
            raise expected(f"{self.type} (a number in its range)", value)
        if self.type is Prim.F32 and math.isfinite(plain) and abs(plain) >= _F32_LIMIT:
            raise expected(f"f32 (a number up to {F32_LARGEST!r}, or an infinity)", value)
        return plain


@dataclass(frozen=True, slots=True)
class CharPlan:
    """`char`: a string of exactly one Unicode scalar value. A lone surrogate would abort the process (H43)."""

    type: Prim

    def check(self, value: object) -> int:
        """The code point."""
        if isinstance(value, str) and len(value) == 1:
            point = ord(value)
            if not 0xD800 <= point <= 0xDFFF:
                return point
        raise expected("char (one character, no surrogate)", value)


@dataclass(frozen=True, slots=True)
class StringPlan:
    """`string`: any Python string without lone surrogates."""

    type: Prim

    def check(self, value: object) -> bytes:
        """The UTF-8 bytes."""
        if not isinstance(value, str):
            raise expected("string", value)
        try:
            return str.encode(value)  # a subclass may give anything
        except UnicodeEncodeError as error:
            raise expected(f"string (character {error.start} is a lone surrogate)", value) from None


class EnumPlan:
    """An enum: a member of its class, or the WIT spelling of a case."""

    __slots__ = ("_index", "members", "names", "type")

    def __init__(self, type_: EnumType) -> None:
        self.type = type_
        self.names = type_.cases
        self.members: tuple[Any, ...] = tuple(cast("Any", class_for(type_)))
        self._index = {name: index for index, name in enumerate(type_.cases)}

    def check(self, value: object) -> int:
        """The index of the case. A member of the class is a string with its WIT spelling."""
        index = self._index.get(value) if isinstance(value, str) else None
        if index is None:
            raise expected(f"a case of enum {self.type.name.name} ({listed(self.names)})", value)
        return index


class FlagsPlan:
    """Flags: a value of its class, or a set (or sequence) of WIT names or single members."""

    __slots__ = ("_bits", "names", "python", "type")

    def __init__(self, type_: FlagsType) -> None:
        self.type = type_
        self.names = type_.flags
        self.python: Any = class_for(type_)
        self._bits = {name: 1 << bit for bit, name in enumerate(type_.flags)}
        for name in type_.flags:
            self._bits.setdefault(member_name(name), self._bits[name])

    def check(self, value: object) -> int:
        """The bits."""
        if isinstance(value, self.python):
            return int(value.value)
        if isinstance(value, set | frozenset | list | tuple):
            given = few(value, MAX_FLAGS)
            if len(given) <= MAX_FLAGS:
                return functools.reduce(operator.or_, map(self._bit, given), 0)
        raise expected(f"flags {self.type.name.name}, or a set of {listed(self.names)}", value)

    def _bit(self, item: object) -> int:
        if isinstance(item, self.python):
            return int(item.value)
        bit = self._bits.get(item) if isinstance(item, str) and not isinstance(item, Flag) else None
        if bit is None:
            raise expected(f"a name of flags {self.type.name.name} ({listed(self.names)})", item)
        return bit


@dataclass(frozen=True, slots=True)
class HandlePlan:
    """`own` or `borrow` of a resource; the bridge of the instance knows what stands behind it."""

    type: OwnType | BorrowType

    @property
    def is_own(self) -> bool:
        """Whether the handle moves."""
        return isinstance(self.type, OwnType)
