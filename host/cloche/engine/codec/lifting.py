"""Engine values to Python values. What comes from a guest is hostile: kinds, counts and discriminants are checked.

`lifter(plan)` compiles a plan once to a closure `lift(at, call)` that reads one engine value at address `at`. Counts
are compared with the bytes still allowed before a Python object is made for them (H7).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from struct import Struct
from typing import TYPE_CHECKING, Any

from cloche.engine.codec.budget import Budget
from cloche.engine.codec.compounds import ListPlan, MapPlan, OptionPlan, RecordPlan, ResultPlan, TuplePlan, VariantPlan
from cloche.engine.codec.finding import finder
from cloche.engine.codec.layout import layout_of
from cloche.engine.codec.lowering import (
    ENUM,
    FLAGS,
    KINDS,
    LIST,
    MAP,
    OPTION,
    RECORD,
    RESOURCE,
    RESULT,
    STRING,
    TUPLE,
    VARIANT,
    Resources,
)
from cloche.engine.codec.memory import (
    ENTRY_BYTES,
    MEMORY,
    PAIR_BYTES,
    VECTOR,
    VECTOR_BYTES,
    gather,
    kinds_are,
    names_at,
    take_bytes,
    view,
)
from cloche.engine.codec.numbers import NumbersPlan, RowsPlan
from cloche.engine.codec.plan import Plan
from cloche.engine.codec.problem import InvalidValue, TooLarge
from cloche.engine.codec.scalars import (
    BoolPlan,
    CharPlan,
    EnumPlan,
    FlagsPlan,
    FloatPlan,
    HandlePlan,
    IntPlan,
    StringPlan,
)
from cloche.engine.ffi import VAL_BYTES
from cloche.model import Err, Ok, Some
from cloche.wit.types import TupleType

if TYPE_CHECKING:
    import numpy as np
else:
    from cloche import lazy_numpy as np


class Lifting(Budget):
    """What one call's lifting carries along: its budget, and the instance's resources.

    `taken` is what the call received as `own` so far.
    """

    __slots__ = ("bridge", "taken")

    def __init__(self, pause: Callable[[], None] | None = None) -> None:
        super().__init__(pause)
        self.bridge: Resources | None = None
        self.taken: list[Any] = []

    def forget(self) -> None:
        """After a failure: close the resources that this call had already taken over."""
        taken, self.taken = self.taken, []
        self._dispose(taken)

    def give_up(self, items: Iterable[Any]) -> None:
        """Close some of what this call had taken over."""
        lost = {id(item): item for item in items}
        self.taken = [item for item in self.taken if id(item) not in lost]
        self._dispose(lost.values())

    def _dispose(self, items: Iterable[Any]) -> None:
        for item in items:
            if self.bridge is not None:
                self.bridge.dispose(item)


Lift = Callable[[int, Lifting], Any]
_VECTOR_HEAD = Struct("<B7xQQ")
_POINTER_HEAD = Struct("<B7xQ")
_RESULT_HEAD = Struct("<B7xB7xQ")
_VARIANT_HEAD = Struct("<B7xQQQ")
MAX_NAME_BYTES = 4096
"""Longest case or flag name that is compared; names come from the component's types."""


def _wrong(what: str, kind: int) -> InvalidValue:
    return InvalidValue(f"expected {what}, got an engine value of kind {kind}")


def lifter(plan: Plan) -> Lift:
    """The closure that lifts values of `plan`."""
    match plan:
        case BoolPlan() | IntPlan() | FloatPlan():
            return _scalar(plan)
        case CharPlan():
            return _char()
        case StringPlan():
            return _string
        case EnumPlan():
            return _enum(plan)
        case FlagsPlan():
            return _flags(plan)
        case HandlePlan():
            return _handle(plan)
        case NumbersPlan():
            return _bytes(plan) if plan.is_bytes else _numbers(plan)
        case RowsPlan():
            return _rows(plan)
        case ListPlan():
            return _list(plan)
        case MapPlan():
            return _map(plan)
        case RecordPlan():
            return _sequence(plan, RECORD, ENTRY_BYTES, VECTOR.size)
        case TuplePlan():
            return _sequence(plan, TUPLE, VAL_BYTES, 0)
        case VariantPlan():
            return _variant(plan)
        case OptionPlan():
            return _option(plan)
        case ResultPlan():
            return _result(plan)


def _scalar(plan: BoolPlan | IntPlan | FloatPlan) -> Lift:
    kind, letter = KINDS[plan.type]
    unpack, name = Struct(f"<B7x{letter}").unpack_from, str(plan.type)

    def lift(at: int, _call: Lifting) -> Any:
        found, value = unpack(MEMORY, at)
        if found != kind:
            raise _wrong(name, found)
        return value

    return lift


def _char() -> Lift:
    unpack = Struct("<B7xI").unpack_from

    def lift(at: int, _call: Lifting) -> str:
        found, point = unpack(MEMORY, at)
        if found != 11:
            raise _wrong("char", found)
        if point > 0x10FFFF or 0xD800 <= point <= 0xDFFF:
            raise InvalidValue(f"{point:#x} is no Unicode scalar value")
        return chr(point)

    return lift


def _string(at: int, call: Lifting) -> str:
    kind, size, data = _VECTOR_HEAD.unpack_from(MEMORY, at)
    if kind != STRING:
        raise _wrong("string", kind)
    call.left -= size
    if call.left < 0:
        raise TooLarge
    if not size:
        return ""
    try:
        return str(MEMORY[data : data + size], "utf-8")
    except UnicodeDecodeError as error:
        raise InvalidValue(f"a string is not UTF-8 at byte {error.start}") from None


def _name(size: int, data: int) -> bytes:
    if size > MAX_NAME_BYTES:
        raise InvalidValue(f"a case or flag name has {size} bytes")
    return MEMORY[data : data + size].tobytes()


def _enum(plan: EnumPlan) -> Lift:
    members = dict(zip(names_at(plan.names).texts, plan.members, strict=True))
    label = plan.type.name.name

    def lift(at: int, _call: Lifting) -> Any:
        kind, size, data = _VECTOR_HEAD.unpack_from(MEMORY, at)
        if kind != ENUM:
            raise _wrong(f"enum {label}", kind)
        member = members.get(_name(size, data))
        if member is None:
            raise InvalidValue(f"unknown case of enum {label}")
        return member

    return lift


def _flags(plan: FlagsPlan) -> Lift:
    bits, python, label = names_at(plan.names).index, plan.python, plan.type.name.name

    def lift(at: int, _call: Lifting) -> Any:
        kind, count, data = _VECTOR_HEAD.unpack_from(MEMORY, at)
        if kind != FLAGS:
            raise _wrong(f"flags {label}", kind)
        if count > len(bits):
            raise InvalidValue(f"{count} names in flags {label}, which has {len(bits)}")
        total = 0
        for index in range(count):
            bit = bits.get(_name(*VECTOR.unpack_from(MEMORY, data + index * VECTOR_BYTES)))
            if bit is None:
                raise InvalidValue(f"unknown name in flags {label}")
            total |= 1 << bit
        return python(total)

    return lift


def _handle(plan: HandlePlan) -> Lift:
    resource, is_own = plan.type.resource, plan.is_own

    def lift(at: int, call: Lifting) -> Any:
        kind, address = _POINTER_HEAD.unpack_from(MEMORY, at)
        if kind != RESOURCE or not address:
            raise _wrong(f"resource {resource.name.name}", kind)
        if call.bridge is None:
            raise InvalidValue("resources need an instance")
        item = call.bridge.lift(address, resource, is_own)
        if is_own:
            call.taken.append(item)
        return item

    return lift


def _bytes(plan: NumbersPlan) -> Lift:
    code, _ = KINDS[plan.element.type]
    what = plan.what

    def lift(at: int, call: Lifting) -> bytes:
        kind, count, data = _VECTOR_HEAD.unpack_from(MEMORY, at)
        if kind != LIST:
            raise _wrong(what, kind)
        call.charge(count)
        found = take_bytes(data, code, count)
        if found is None:
            raise InvalidValue(f"{what} with elements of another kind")
        return found

    return lift


def _numbers(plan: NumbersPlan) -> Lift:
    code, _ = KINDS[plan.element.type]
    dtype, size, what = plan.dtype, plan.size, plan.what

    def lift(at: int, call: Lifting) -> Any:
        kind, count, data = _VECTOR_HEAD.unpack_from(MEMORY, at)
        if kind != LIST:
            raise _wrong(what, kind)
        call.charge(count * size)
        if not count:
            return np.empty(0, dtype)
        if not kinds_are(data, count, code):
            raise InvalidValue(f"{what} with elements of another kind")
        return view(data + 8, count, VAL_BYTES, dtype).copy()

    return lift


def _rows(plan: RowsPlan) -> Lift:
    read, dtype, size, what = _row_reader(plan.row), plan.dtype, plan.dtype.itemsize, plan.what

    def lift(at: int, call: Lifting) -> Any:
        kind, count, data = _VECTOR_HEAD.unpack_from(MEMORY, at)
        if kind != LIST:
            raise _wrong(what, kind)
        call.charge(count * size)
        rows = np.zeros(count, dtype)
        if count:
            read(rows, np.arange(data, data + count * VAL_BYTES, VAL_BYTES, dtype=np.int64))
        return rows

    return lift


def _row_reader(plan: Any) -> Callable[[Any, Any], None]:
    """Reads many rows at once: their entries lie anywhere, so columns are gathered by address."""
    kind, width, value_at = (
        (RECORD, ENTRY_BYTES, VECTOR.size) if isinstance(plan, RecordPlan) else (TUPLE, VAL_BYTES, 0)
    )
    label, count = plan.label, len(plan.parts)
    word, byte = np.dtype("<u8"), np.dtype("u1")
    parts: list[tuple[int, Any, Any]] = []
    for part in plan.parts:
        if isinstance(part, RecordPlan | TuplePlan):
            parts.append((0, None, _row_reader(part)))
        else:
            code, letter = KINDS[part.type]
            parts.append((code, np.dtype("<" + letter if letter != "?" else "u1"), None))

    def read(rows: Any, slots: Any) -> None:
        if (gather(slots, byte) != kind).any() or (gather(slots + 8, word) != count).any():
            raise InvalidValue(f"a row is no {label} with {count} fields")
        entries = gather(slots + 16, word).astype(np.int64) + value_at
        for index, (name, (code, dtype, nested)) in enumerate(zip(rows.dtype.names, parts, strict=True)):
            column = entries + index * width
            if nested is not None:
                nested(rows[name], column)
                continue
            if (gather(column, byte) != code).any():
                raise InvalidValue(f"field {name} of a {label} has another kind")
            rows[name] = gather(column + 8, dtype)

    return read


def _list(plan: ListPlan) -> Lift:
    element, size = lifter(plan.element), max(1, layout_of(plan.type.element).size)

    def lift(at: int, call: Lifting) -> Any:
        kind, count, data = _VECTOR_HEAD.unpack_from(MEMORY, at)
        if kind != LIST:
            raise _wrong("list", kind)
        call.charge(count * size)
        slots = range(data, data + count * VAL_BYTES, VAL_BYTES)
        return [element(slot, call) for slot in call.paced(slots, size)]

    return lift


def _map(plan: MapPlan) -> Lift:
    key, value, owned = lifter(plan.key), lifter(plan.value), finder(plan.value)
    size = layout_of(TupleType((plan.type.key, plan.type.value))).size

    def lift(at: int, call: Lifting) -> Any:
        kind, count, data = _VECTOR_HEAD.unpack_from(MEMORY, at)
        if kind != MAP:
            raise _wrong("map", kind)
        call.charge(count * size)
        slots = range(data, data + count * PAIR_BYTES, PAIR_BYTES)
        pairs = [(key(slot, call), value(slot + VAL_BYTES, call)) for slot in call.paced(slots, size)]
        try:
            made = dict(pairs)
        except TypeError:  # a numpy array, or what holds one, has no hash
            raise InvalidValue("a key of a map is none in Python") from None
        if owned is not None and len(made) < count:  # of a repeated key the last one counts: the others are nobody's
            lost = [item for name, item in pairs if made[name] is not item]
            call.give_up(found for item in lost for found, is_own in owned(item) if is_own)
        return made

    return lift


def _sequence(plan: RecordPlan | TuplePlan, kind: int, width: int, value_at: int) -> Lift:
    parts = tuple((value_at + index * width, lifter(part)) for index, part in enumerate(plan.parts))
    label, count = plan.label, len(plan.parts)
    python = plan.python if isinstance(plan, RecordPlan) else None

    def lift(at: int, call: Lifting) -> Any:
        found, size, data = _VECTOR_HEAD.unpack_from(MEMORY, at)
        if found != kind:
            raise _wrong(label, found)
        if size != count:
            raise InvalidValue(f"{label} with {size} parts instead of {count}")
        values = [part(data + offset, call) for offset, part in parts]
        return tuple(values) if python is None else python(*values)

    return lift


def _variant(plan: VariantPlan) -> Lift:
    cases = {
        text: (index, None if part is None else lifter(part))
        for index, (text, part) in enumerate(zip(names_at(plan.names).texts, plan.parts, strict=True))
    }
    make, label = plan.make, plan.label

    def lift(at: int, call: Lifting) -> Any:
        kind, size, data, payload = _VARIANT_HEAD.unpack_from(MEMORY, at)
        if kind != VARIANT:
            raise _wrong(f"variant {label}", kind)
        case = cases.get(_name(size, data))
        if case is None:
            raise InvalidValue(f"unknown case of variant {label}")
        index, part = case
        if (part is None) != (not payload):
            raise InvalidValue(f"a case of variant {label} has a payload too many or lacks one")
        return make(index, None if part is None else part(payload, call))

    return lift


def _option(plan: OptionPlan) -> Lift:
    payload, nested = lifter(plan.payload), plan.nested

    def lift(at: int, call: Lifting) -> Any:
        kind, address = _POINTER_HEAD.unpack_from(MEMORY, at)
        if kind != OPTION:
            raise _wrong("option", kind)
        if not address:
            return None
        value = payload(address, call)
        return Some(value) if nested else value

    return lift


def _result(plan: ResultPlan) -> Lift:
    ok, err = (None if part is None else lifter(part) for part in (plan.ok, plan.err))

    def lift(at: int, call: Lifting) -> Any:
        kind, is_ok, address = _RESULT_HEAD.unpack_from(MEMORY, at)
        if kind != RESULT:
            raise _wrong("result", kind)
        part = ok if is_ok else err
        if (part is None) != (not address):
            raise InvalidValue("a result has a payload too many or lacks one")
        value = None if part is None else part(address, call)
        return Ok(value) if is_ok else Err(value)

    return lift
