"""Python values to engine values: the carrier that works in every engine.

`lowerer(plan)` compiles a plan once to a closure `lower(value, at, call)` that writes one engine value at address `at`.
Bytes are charged before anything is allocated for them, and a loop writes exactly the slots that were reserved: those
of a copy of the caller's items (`budget.py`). Source: wasmtime/component/val.h of wasmtime 49.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import TYPE_CHECKING, Any, Protocol

from cloche.engine.codec.budget import Passing
from cloche.engine.codec.compounds import ListPlan, MapPlan, OptionPlan, RecordPlan, ResultPlan, TuplePlan, VariantPlan
from cloche.engine.codec.layout import layout_of
from cloche.engine.codec.memory import (
    ADDRESS,
    ENTRY_BYTES,
    MEMORY,
    PAIR_BYTES,
    VECTOR,
    Arena,
    Names,
    Place,
    names_at,
    put_bytes,
    scatter,
    set_kinds,
    view,
)
from cloche.engine.codec.numbers import NumbersPlan, RowsPlan
from cloche.engine.codec.plan import Plan
from cloche.engine.codec.problem import TooLarge, ValueProblem, add_step
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
from cloche.values import brief
from cloche.wit.types import Prim, ResourceType, TupleType

if TYPE_CHECKING:
    import numpy as np
else:
    from cloche import lazy_numpy as np

KINDS: dict[Prim, tuple[int, str]] = {
    Prim.BOOL: (0, "?"),
    Prim.S8: (1, "b"),
    Prim.U8: (2, "B"),
    Prim.S16: (3, "h"),
    Prim.U16: (4, "H"),
    Prim.S32: (5, "i"),
    Prim.U32: (6, "I"),
    Prim.S64: (7, "q"),
    Prim.U64: (8, "Q"),
    Prim.F32: (9, "f"),
    Prim.F64: (10, "d"),
    Prim.CHAR: (11, "I"),
}
"""Engine kind and `struct` letter of each scalar."""
STRING, LIST, RECORD, TUPLE, VARIANT, ENUM, OPTION, RESULT, FLAGS, RESOURCE, MAP = range(12, 23)


class Resources(Protocol):
    """What stands behind the handles of one call: an instance's (`handles.py`), or plain objects (`local.py`)."""

    def lower(self, value: object, resource: ResourceType, is_own: bool, call: Lowering, /) -> int:
        """An address that stands for `value`. Raises: ValueProblem; LimitError."""

    def lift(self, address: int, resource: ResourceType, is_own: bool, /) -> Any:
        """What stands behind an address. Raises: InvalidValue; LimitError."""

    def dispose(self, item: Any, /) -> None:
        """Close what was handed over in vain."""


class Lowering(Passing):
    """What one call's lowering carries along: its budget, where parts go, and the instance's resources."""

    __slots__ = ("bridge", "place")

    def __init__(self, place: Place, pause: Callable[[], None] | None = None) -> None:
        super().__init__(pause)
        self.place = place
        self.bridge: Resources | None = None


Lower = Callable[[Any, int, Lowering], None]
_BOXED = Struct("<B7xQ")
_RESULT = Struct("<B7xB7xQ")


def slot_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """One engine value of a scalar as numpy sees it."""
    return np.dtype({"names": ["kind", "value"], "formats": ["u1", dtype], "offsets": [0, 8], "itemsize": VAL_BYTES})


def lowerer(plan: Plan) -> Lower:
    """The closure that lowers values of `plan`."""
    match plan:
        case BoolPlan() | IntPlan() | FloatPlan() | CharPlan():
            return _scalar(plan)
        case StringPlan():
            return _string(plan)
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
            return _record(plan)
        case TuplePlan():
            return _tuple(plan)
        case VariantPlan():
            return _variant(plan)
        case OptionPlan():
            return _option(plan)
        case ResultPlan():
            return _result(plan)


def _scalar(plan: BoolPlan | IntPlan | FloatPlan | CharPlan) -> Lower:
    kind, letter = KINDS[plan.type]
    check, pack, plain = plan.check, Struct(f"<B7x{letter}").pack_into, float if letter in "fd" else None

    def lower(value: Any, at: int, _call: Lowering) -> None:
        pack(MEMORY, at, kind, check(value))

    def lower_float(value: Any, at: int, _call: Lowering) -> None:
        if type(value) is not plain:
            value = check(value)
        try:
            pack(MEMORY, at, kind, value)
        except OverflowError:
            check(value)
            raise

    return lower if plain is None else lower_float


def _string(plan: StringPlan) -> Lower:
    check = plan.check

    def lower(value: Any, at: int, call: Lowering) -> None:
        try:
            data = str.encode(value) if type(value) is str else check(value)
        except UnicodeEncodeError:
            data = check(value)  # says where the lone surrogate is
        call.left -= len(data)
        if call.left < 0:
            raise TooLarge
        MEMORY[at] = STRING
        call.place.text(at + 8, data)

    return lower


def _enum(plan: EnumPlan) -> Lower:
    check, names = plan.check, names_at(plan.names)

    def lower(value: Any, at: int, call: Lowering) -> None:
        index = check(value)
        call.place.name(at + 8, names, index)
        MEMORY[at] = ENUM

    return lower


def _flags(plan: FlagsPlan) -> Lower:
    check, names = plan.check, names_at(plan.names)

    def lower(value: Any, at: int, call: Lowering) -> None:
        bits = check(value)
        call.place.set_of(at + 8, names, bits)
        MEMORY[at] = FLAGS

    return lower


def _handle(plan: HandlePlan) -> Lower:
    resource, is_own = plan.type.resource, plan.is_own

    def lower(value: Any, at: int, call: Lowering) -> None:
        if call.bridge is None:
            raise ValueProblem("resources need an instance")
        address = call.bridge.lower(value, resource, is_own, call)
        _BOXED.pack_into(MEMORY, at, RESOURCE, address)

    return lower


def _bytes(plan: NumbersPlan) -> Lower:
    kind, _ = KINDS[plan.element.type]

    def lower(value: Any, at: int, call: Lowering) -> None:
        data = value if type(value) is bytes else plan.array(value, call).tobytes()
        call.charge(len(data))
        to = call.place.values(at + 8, len(data), True)
        MEMORY[at] = LIST
        put_bytes(to, kind, data)

    return lower


def _numbers(plan: NumbersPlan) -> Lower:
    kind, _ = KINDS[plan.element.type]
    array, size, dtype = plan.array, plan.size, plan.dtype

    def lower(value: Any, at: int, call: Lowering) -> None:
        numbers = array(value, call)
        count = len(numbers)
        call.charge(count * size)
        to = call.place.values(at + 8, count, True)
        MEMORY[at] = LIST
        if count:
            set_kinds(to, count, kind)
            view(to + 8, count, VAL_BYTES, dtype)[:] = numbers

    return lower


def _rows(plan: RowsPlan) -> Lower:
    array, size, fill, fill_each = plan.array, plan.dtype.itemsize, _block_filler(plan.row), _each_filler(plan.row)

    def lower(value: Any, at: int, call: Lowering) -> None:
        rows = array(value, call)
        count = len(rows)
        call.charge(count * size)
        to = call.place.values(at + 8, count, True)
        MEMORY[at] = LIST
        if not count:
            return
        if isinstance(call.place, Arena):
            fill(rows, to, VAL_BYTES, call.place.reserve)
        else:
            fill_each(rows, np.arange(to, to + count * VAL_BYTES, VAL_BYTES, dtype=np.int64), call)

    return lower


def _row_form(plan: RecordPlan | TuplePlan) -> tuple[int, Names | None, int, int]:
    """Engine kind, field names, and width and offset of the values in a row's entries."""
    if isinstance(plan, RecordPlan):
        return RECORD, names_at(plan.wit_names), ENTRY_BYTES, VECTOR.size
    return TUPLE, None, VAL_BYTES, 0


def _row_parts(plan: RecordPlan | TuplePlan, nested: Callable[[Any], Any]) -> list[tuple[int, np.dtype[Any], Any]]:
    """Engine kind and dtype of each field, or what `nested` makes of a field that is itself a row."""
    parts: list[tuple[int, np.dtype[Any], Any]] = []
    for part in plan.parts:
        if isinstance(part, RecordPlan | TuplePlan):
            parts.append((0, np.dtype("u1"), nested(part)))
        else:
            code, letter = KINDS[part.type]
            parts.append((code, np.dtype("<" + letter if letter != "?" else "?"), None))
    return parts


def _clean(column: Any) -> Any:
    """A column as the engine may see it: numpy takes any byte for a bool, the engine 0 and 1 only."""
    return column.view(np.uint8) != 0 if column.dtype.kind == "b" else column


def _each_filler(plan: RecordPlan | TuplePlan) -> Callable[[Any, Any, Lowering], None]:
    """Fills many rows that the engine will free one by one: each is allocated alone, then columns are scattered."""
    kind, names, width, value_at = _row_form(plan)
    parts = _row_parts(plan, _each_filler)
    size, byte = layout_of(plan.type).size, np.dtype("u1")

    def fill(rows: Any, slots: Any, call: Lowering) -> None:
        place = call.place
        scatter(slots, byte, kind)  # first, so that a row which is made is freed whatever happens to the next one
        made = (
            place.values(at, len(parts), False) if names is None else place.entries(at, names)
            for at in call.paced((slots + 8).tolist(), size)
        )
        entries = np.fromiter(made, np.int64, len(rows)) + value_at
        for index, (name, (code, dtype, nested)) in enumerate(zip(rows.dtype.names, parts, strict=True)):
            column = entries + index * width
            if nested is None:
                scatter(column, byte, code)
                scatter(column + 8, dtype, _clean(rows[name]))
            else:
                nested(rows[name], column, call)

    return fill


def _block_filler(plan: RecordPlan | TuplePlan) -> Callable[[Any, int, int, Callable[[int], int]], None]:
    """Fills the columns of many rows at once: all their entries stand in one block."""
    kind, names, width, value_at = _row_form(plan)
    words = np.dtype("<u8")
    head = np.dtype(
        {"names": ["kind", "size", "data"], "formats": ["u1", "<u8", "<u8"], "offsets": [0, 8, 16], "itemsize": 32}
    )
    parts = [(code, slot_dtype(dtype), nested) for code, dtype, nested in _row_parts(plan, _block_filler)]
    count = len(parts)

    def fill(rows: Any, to: int, stride: int, reserve: Callable[[int], int]) -> None:
        total = len(rows)
        block = reserve(total * count * width)
        slots = view(to, total, stride, head)
        slots["kind"] = kind
        slots["size"] = count
        slots["data"] = np.arange(block, block + total * count * width, count * width, dtype=np.uint64)
        for index, (name, (code, slot, nested)) in enumerate(zip(rows.dtype.names, parts, strict=True)):
            entry = block + index * width
            if names is not None:
                size, address = names.vectors[index]
                view(entry, total, count * width, words)[:] = size
                view(entry + 8, total, count * width, words)[:] = address
            if nested is None:
                column = view(entry + value_at, total, count * width, slot)
                column["kind"] = code
                column["value"] = _clean(rows[name])
            else:
                nested(rows[name], entry + value_at, count * width, reserve)

    return fill


def _list(plan: ListPlan) -> Lower:
    items, element, size = plan.items, lowerer(plan.element), max(1, layout_of(plan.type.element).size)

    def lower(value: Any, at: int, call: Lowering) -> None:
        given = items(value, call, size)
        count = len(given)
        call.charge(count * size)
        slot = start = call.place.values(at + 8, count, True)
        MEMORY[at] = LIST
        slots = range(start, start + count * VAL_BYTES, VAL_BYTES)
        try:
            for slot, item in zip(slots, call.paced(given, size), strict=True):
                element(item, slot, call)
        except Exception as error:
            add_step(error, f"[{(slot - start) // VAL_BYTES}]")
            raise

    return lower


def _map(plan: MapPlan) -> Lower:
    items, key, item = plan.items, lowerer(plan.key), lowerer(plan.value)
    size = layout_of(TupleType((plan.type.key, plan.type.value))).size

    def lower(value: Any, at: int, call: Lowering) -> None:
        pairs = items(value, call, size)
        count = len(pairs)
        call.charge(count * size)
        start = call.place.pairs(at + 8, count)
        MEMORY[at] = MAP
        slots = range(start, start + count * PAIR_BYTES, PAIR_BYTES)
        given_key, key_done = None, False
        try:
            for slot, pair in zip(slots, call.paced(pairs, size), strict=True):
                key_done = False
                given_key, given = pair
                key(given_key, slot, call)
                key_done = True
                item(given, slot + VAL_BYTES, call)
        except Exception as error:
            add_step(error, f"[{brief(given_key)}]" if key_done else ".key")
            raise

    return lower


def _parts(plan: RecordPlan | TuplePlan, width: int) -> tuple[tuple[int, Lower], ...]:
    """Where each part goes, from the first one, and how it is lowered."""
    return tuple((index * width, lowerer(part)) for index, part in enumerate(plan.parts))


def _record(plan: RecordPlan) -> Lower:
    split, names, step, parts = plan.split, names_at(plan.wit_names), plan.step, _parts(plan, ENTRY_BYTES)

    def lower(value: Any, at: int, call: Lowering) -> None:
        given = split(value)
        to = call.place.entries(at + 8, names) + VECTOR.size
        MEMORY[at] = RECORD
        offset = 0
        try:
            for (offset, part), item in zip(parts, given, strict=True):
                part(item, to + offset, call)
        except Exception as error:
            add_step(error, step(offset // ENTRY_BYTES))
            raise

    return lower


def _tuple(plan: TuplePlan) -> Lower:
    split, step, parts = plan.split, plan.step, _parts(plan, VAL_BYTES)

    def lower(value: Any, at: int, call: Lowering) -> None:
        given = split(value)
        to = call.place.values(at + 8, len(parts), False)
        MEMORY[at] = TUPLE
        offset = 0
        try:
            for (offset, part), item in zip(parts, given, strict=True):
                part(item, to + offset, call)
        except Exception as error:
            add_step(error, step(offset // VAL_BYTES))
            raise

    return lower


def _payload(lower: Lower, value: Any, at: int, call: Lowering) -> None:
    try:
        lower(value, call.place.box(at), call)
    except Exception as error:
        add_step(error, ".value")
        raise


def _variant(plan: VariantPlan) -> Lower:
    split, names = plan.split, names_at(plan.names)
    parts = tuple(None if part is None else lowerer(part) for part in plan.parts)

    def lower(value: Any, at: int, call: Lowering) -> None:
        index, payload = split(value)
        call.place.name(at + 8, names, index)
        ADDRESS.pack_into(MEMORY, at + 24, 0)
        MEMORY[at] = VARIANT
        part = parts[index]
        if part is not None:
            _payload(part, payload, at + 24, call)

    return lower


def _option(plan: OptionPlan) -> Lower:
    payload, some, nested = lowerer(plan.payload), plan.some, plan.nested

    def lower(value: Any, at: int, call: Lowering) -> None:
        _BOXED.pack_into(MEMORY, at, OPTION, 0)
        if value is not None:
            value = some(value)
            if nested:
                _payload(payload, value, at + 8, call)
            else:
                payload(value, call.place.box(at + 8), call)

    return lower


def _result(plan: ResultPlan) -> Lower:
    split = plan.split
    ok, err = (None if part is None else lowerer(part) for part in (plan.ok, plan.err))

    def lower(value: Any, at: int, call: Lowering) -> None:
        is_ok, payload = split(value)
        _RESULT.pack_into(MEMORY, at, RESULT, is_ok, 0)
        part = ok if is_ok else err
        if part is not None:
            _payload(part, payload, at + 16, call)

    return lower
