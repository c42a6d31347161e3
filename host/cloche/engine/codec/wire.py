"""Values as a compact stream of bytes: the carrier between the host's process and a worker's.

`writer(plan)` and `reader(plan)` compile a plan once, as `lowerer` and `lifter` do for engine values: the same Python
values are accepted with the same errors, the same canonical bytes are charged, and what is read equals what is lifted.
A peer may be hostile: lengths, counts, discriminants and texts are checked, and a count is charged before anything is
allocated for it (H7).

The format is little-endian and has no padding outside rows. Scalars stand as `struct` packs them, a char as its code
point; strings and bytes are a u32 length and the bytes; numbers and rows a u32 count and the canonical array, a row's
padding zero; other lists and maps a u32 count and the items or pairs; records and tuples their parts. An option is a
byte (1: there is a value), a result one (0: ok, 1: err), a case of an enum or variant its index in one byte, or in two
where there are more than 256; flags are their bits in 1, 2 or 4 bytes; a handle is a u32 that `WireHandles` gave.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from struct import Struct
from struct import error as StructError  # noqa: N812
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

from cloche.engine.codec.budget import Budget, Passing
from cloche.engine.codec.compounds import ListPlan, MapPlan, OptionPlan, RecordPlan, ResultPlan, TuplePlan, VariantPlan
from cloche.engine.codec.finding import finder
from cloche.engine.codec.function import EXACT, Signature, ensure_types_carried
from cloche.engine.codec.layout import layout_of
from cloche.engine.codec.lifting import Lifting
from cloche.engine.codec.lowering import KINDS, Resources
from cloche.engine.codec.numbers import NumbersPlan, RowsPlan
from cloche.engine.codec.plan import Plan
from cloche.engine.codec.problem import TooLarge, ValueProblem, add_step, problem_in
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
from cloche.errors import ClocheError, GuestTrap
from cloche.model import Err, Ok, Some
from cloche.values import brief
from cloche.wit.types import Function, ResourceType, TupleType

if TYPE_CHECKING:
    import numpy as np

    from cloche.engine.codec.numbers import Array
else:
    from cloche import lazy_numpy as np

SEGMENT_BYTES = 4096
"""From here on a string, bytes or an array is a segment of its own, and not copied."""
MOST_BYTES = (1 << 32) - 1
"""Most canonical bytes of strings, lists and maps in one message, whatever its limit: every count fits a u32."""

_COUNT = Struct("<I")
_NO, _YES = b"\0", b"\1"


class WireError(Exception):
    """Bytes that are no value of their type: a peer that is broken or hostile. The text quotes none of them."""


class WireHandles(Protocol):
    """What stands behind the handles at one end."""

    def give(self, value: object, resource: ResourceType, is_own: bool, call: Writing, /) -> int:
        """A number (u32) for `value`; what must happen after the call is left in `call.undo`.

        What `call.note` got as `own` is closed here, or by its undo step, if the message of a result fails.
        Raises: ValueProblem; LimitError.
        """

    def take(self, number: int, resource: ResourceType, is_own: bool, /) -> Any:
        """What stands behind a number. Raises: WireError for one that is none of this resource; LimitError."""

    def dispose(self, item: Any, /) -> None:
        """Close what was handed over in vain."""


class Writing(Passing):
    """What one message's writing carries along: its budget, the bytes so far, and what stands behind its handles.

    `is_argument` tells what a caller passes, and keeps if the call fails, from what a function returned, which is
    closed then.
    """

    __slots__ = ("handles", "is_argument", "out", "segments")

    def __init__(self, handles: WireHandles | None, pause: Callable[[], None] | None, *, is_argument: bool) -> None:
        super().__init__(pause)
        self.handles = handles
        self.is_argument = is_argument
        self.out = bytearray()
        self.segments: list[bytes | memoryview] = []

    def put(self, data: bytes | memoryview) -> None:
        """Add bytes; many of them as they are."""
        if len(data) < SEGMENT_BYTES:
            self.out += data
        else:
            self.flush()
            self.segments.append(data)

    def flush(self) -> None:
        """End the segment of small things."""
        out = self.out
        if out:
            self.segments.append(bytes(out) if len(out) < SEGMENT_BYTES else memoryview(out))
            self.out = bytearray()


class Written:
    """A message: `segments`, to be sent one after the other, `size` bytes in all, worth `canonical_bytes`.

    A segment may be the caller's own memory: send it before the caller goes on.
    """

    __slots__ = ("_call", "canonical_bytes", "segments", "size")

    def __init__(
        self, segments: list[bytes | memoryview], size: int, canonical_bytes: int, call: Writing | None = None
    ) -> None:
        self.segments = segments
        self.size = size
        self.canonical_bytes = canonical_bytes
        self._call = call

    def settle(self, done: bool) -> None:
        """After the call, or with `done` False when it was not made: the handles' undo steps, once."""
        call, self._call = self._call, None
        if call is not None:
            call.settle(done)


class Reading(Lifting):
    """What one message's reading carries along: its budget, the bytes and the place in them, and the handles."""

    __slots__ = ("at", "data", "end", "handles")

    def __init__(self, data: memoryview, handles: WireHandles | None, pause: Callable[[], None] | None) -> None:
        super().__init__(pause)
        self.data = data
        self.at = 0
        self.end = len(data)
        self.handles = handles
        self.bridge = cast("Resources | None", handles)  # for what was taken in vain: only its `dispose` is called

    def take(self, size: int) -> memoryview:
        """The next `size` bytes. Raises: WireError."""
        at = self.at
        end = at + size
        if end > self.end:
            raise WireError("it ends too early")
        self.at = end
        return self.data[at:end]

    def count(self) -> int:
        """The next length or count. Raises: StructError."""
        at = self.at
        self.at = at + 4
        return cast("int", _COUNT.unpack_from(self.data, at)[0])


# ---------------------------------------------------------------------------------------------------- whole signatures


class WirePlan:
    """The signature of a function for both ends of a connection, compiled when it is first used. Shared by threads.

    What is read must not change meanwhile: it is no memory that the peer shares.
    Raises: ContractError (`contract.unsupported`) for a type that cannot be carried, when it is made.
    """

    __slots__ = (
        "_arguments",
        "_read",
        "_reads",
        "_result",
        "_signature",
        "_write",
        "_writes",
        "function",
        "parameter_count",
    )

    def __init__(self, function: Function) -> None:
        ensure_types_carried(function)
        self.function = function

    def __getattr__(self, name: str) -> Any:
        if name not in WirePlan.__slots__:
            raise AttributeError(name)
        self._compile()  # threads that meet here make the same
        return getattr(self, name)

    def _compile(self) -> None:
        signature = Signature(self.function)
        self.parameter_count = len(signature.parameters)
        self._writes = tuple(map(writer, signature.parameters))
        self._reads = tuple(map(reader, signature.parameters))
        result = signature.result
        self._write = None if result is None else writer(result)
        self._read = None if result is None else reader(result)
        # All-scalar messages are packed by one call; anything unusual goes the long way, which explains itself.
        self._arguments = _Scalars.of(signature.parameters, signature.fixed_in)
        self._result = None if result is None else _Scalars.of((result,), signature.fixed_out)
        self._signature = signature

    def plain(self) -> PlainForm | None:
        """The form of arguments and result where they are plain scalars, as many as there are, and nothing else."""
        signature = self._signature
        results = () if signature.result is None else (signature.result,)
        if not all(type(plan) in EXACT for plan in (*signature.parameters, *results)):
            return None
        exact = tuple(EXACT[type(plan)] for plan in signature.parameters)
        arguments, result = ("".join(map(_letter, plans)) for plans in (signature.parameters, results))
        return PlainForm(exact, arguments, result, signature.fixed_in, signature.fixed_out)

    def write_arguments(
        self,
        args: Sequence[object],
        handles: WireHandles | None,
        max_bytes: int,
        pause: Callable[[], None] | None = None,
    ) -> Written:
        """The arguments as bytes.

        `pause` is called now and then while much is converted; what it raises ends the conversion, here and below.
        Raises: UsageError (`usage.argument` for their number, `usage.value` with the path, `usage.closed` for a handle
            that is gone); LimitError (`limit.payload`, or the handles' own); what the code of an argument raises, if
            that is an error of ours or no Exception. Nothing has moved then.
        """
        scalars = self._arguments
        if scalars is not None and tuple(map(type, args)) == scalars.exact and scalars.fixed <= max_bytes:
            try:
                return Written([scalars.pack(*args)], scalars.size, scalars.fixed)
            except (StructError, OverflowError):
                pass  # out of range: the long way says which
        if len(args) != self.parameter_count:
            raise self._signature.miscounted(len(args))
        call = Writing(handles, pause, is_argument=True)
        index, fixed = 0, self._signature.fixed_in
        try:
            start = _allow(call, max_bytes - fixed)
            for write, value in zip(self._writes, args, strict=True):
                write(value, call)
                index += 1
        except BaseException as error:
            call.settle(False)
            if isinstance(error, TooLarge):
                raise self._signature.too_large(error, "the arguments are", max_bytes, by_host=False) from None
            problem = problem_in(error)
            if problem is None:
                raise
            raise self._signature.misfit(problem, index) from problem.__cause__
        return _written(call, fixed + start - call.left)

    def read_arguments(
        self,
        data: bytes | memoryview,
        handles: WireHandles | None,
        max_bytes: int,
        pause: Callable[[], None] | None = None,
    ) -> tuple[list[object], int]:
        """The arguments from the bytes of a peer, and their canonical bytes.

        Raises: WireError; LimitError (`limit.host-calls`, or the handles' own). What was taken as `own` is closed then.
        """
        scalars = self._arguments
        if scalars is not None and scalars.fixed <= max_bytes:
            values = scalars.read(data)
            if values is not None:
                return list(values), scalars.fixed
        return self._all(self._reads, data, handles, max_bytes, pause, is_result=False)

    def write_result(
        self,
        value: object,
        handles: WireHandles | None,
        max_bytes: int,
        pause: Callable[[], None] | None = None,
        *,
        by_host: bool,
    ) -> Written:
        """The function's result as bytes; a function without result takes None only.

        Raises: CapabilityError (`capability.invalid`) with the path when the value does not fit the WIT type, or
            GuestTrap (`guest.invalid-value`) when a guest's value is passed on (`by_host` False); LimitError
            (`limit.host-calls` or `limit.payload`, or the handles' own). Whatever the value hands over as `own` is
            closed then.
        """
        scalar = self._result
        if scalar is not None and type(value) is scalar.exact[0] and scalar.fixed <= max_bytes:
            try:
                return Written([scalar.pack(value)], scalar.size, scalar.fixed)
            except (StructError, OverflowError):
                pass  # out of range: the long way says so
        if self._write is None:
            if value is not None:
                if by_host:
                    raise self._signature.unwanted()
                raise self._unfit(ValueProblem("the function has none"), by_host)
            return Written([], 0, 0)
        call = Writing(handles, pause, is_argument=False)
        fixed = self._signature.fixed_out
        try:
            start = _allow(call, max_bytes - fixed)
            self._write(value, call)
        except BaseException as error:
            self._signature.close_refused(value, call, handles)
            if isinstance(error, TooLarge):
                raise self._signature.too_large(error, "the result is", max_bytes, by_host=by_host) from None
            problem = problem_in(error)
            if problem is None:
                raise
            raise self._unfit(problem, by_host) from problem.__cause__
        return _written(call, fixed + start - call.left)

    def _unfit(self, problem: ValueProblem, by_host: bool) -> ClocheError:
        if by_host:
            return self._signature.unfit(problem)
        text = f"{self.function.name}: the result{problem.path}: {problem.text}"
        return GuestTrap(text, code="guest.invalid-value", kind="invalid-value")

    def read_result(
        self,
        data: bytes | memoryview,
        handles: WireHandles | None,
        max_bytes: int,
        pause: Callable[[], None] | None = None,
    ) -> tuple[object, int]:
        """The result from the bytes of a peer (None without one), and its canonical bytes.

        Raises: WireError; LimitError (`limit.payload`, or the handles' own). What was taken as `own` is closed then.
        """
        scalar = self._result
        if scalar is not None and scalar.fixed <= max_bytes:
            values = scalar.read(data)
            if values is not None:
                return values[0], scalar.fixed
        reads = () if self._read is None else (self._read,)
        made, size = self._all(reads, data, handles, max_bytes, pause, is_result=True)
        return made[0] if made else None, size

    def _all(
        self,
        reads: tuple[Read, ...],
        data: bytes | memoryview,
        handles: WireHandles | None,
        max_bytes: int,
        pause: Callable[[], None] | None,
        *,
        is_result: bool,
    ) -> tuple[list[object], int]:
        call = Reading(memoryview(data), handles, pause)
        signature = self._signature
        fixed = signature.fixed_out if is_result else signature.fixed_in
        try:
            start = _allow(call, max_bytes - fixed)
            values = [read(call) for read in reads]
            if call.at != call.end:
                raise WireError("bytes are left over")
        except BaseException as error:
            call.forget()
            if isinstance(error, TooLarge):
                what = "the result is" if is_result else "the arguments are"
                raise signature.too_large(error, what, max_bytes, by_host=not is_result) from None
            if isinstance(error, WireError | StructError):
                why = "it ends too early" if isinstance(error, StructError) else error
                what = "result" if is_result else "arguments"
                raise WireError(f"{self.function.name}: the message with the {what} cannot be read: {why}") from None
            raise
        return values, fixed + start - call.left


class PlainForm(NamedTuple):
    """How `struct` packs arguments and result of a function, the exact types of its arguments, and canonical bytes."""

    exact: tuple[type, ...]
    arguments: str
    result: str
    bytes_in: int
    bytes_out: int


def _letter(plan: Any) -> str:
    return KINDS[plan.type][1]


class _Scalars:
    """A message of plain scalars only, packed and unpacked at one stroke."""

    __slots__ = ("bools", "exact", "fixed", "pack", "size", "unpack")

    def __init__(self, plans: Sequence[Any], fixed: int) -> None:
        letters = list(map(_letter, plans))
        form = Struct("<" + "".join(letters))
        self.exact = tuple(EXACT[type(plan)] for plan in plans)
        self.fixed = fixed
        self.size = form.size
        self.pack, self.unpack = form.pack, form.unpack
        starts = (Struct("<" + "".join(letters[:index])).size for index in range(len(letters)))
        self.bools = tuple(at for at, letter in zip(starts, letters, strict=True) if letter == "?")

    @classmethod
    def of(cls, plans: Sequence[Plan], fixed: int) -> _Scalars | None:
        """The form of such a message; None if it holds nothing, or anything else."""
        return cls(plans, fixed) if plans and all(type(plan) in EXACT for plan in plans) else None

    def read(self, data: bytes | memoryview) -> tuple[Any, ...] | None:
        """The values; None if the bytes are none: the long way says why."""
        try:
            values = self.unpack(data)
        except StructError:
            return None
        for at in self.bools:
            if data[at] > 1:
                return None
        return values


def _allow(call: Budget, left: int) -> int:
    """Set what may be converted, and return it. Raises: TooLarge when that is nothing at all."""
    if left < 0:
        raise TooLarge
    call.left = left if left <= MOST_BYTES else MOST_BYTES
    return call.left


def _written(call: Writing, canonical_bytes: int) -> Written:
    call.flush()
    segments = call.segments
    return Written(segments, sum(map(len, segments)), canonical_bytes, call if call.given or call.undo else None)


# ------------------------------------------------------------------------------------------------------------- writing

Write = Callable[[Any, Writing], None]


def writer(plan: Plan) -> Write:
    """The closure that writes values of `plan`."""
    match plan:
        case BoolPlan() | IntPlan() | FloatPlan() | CharPlan():
            return _write_scalar(plan)
        case StringPlan():
            return _write_string(plan)
        case EnumPlan():
            return _write_index(plan.check, _index_form(len(plan.names)))
        case FlagsPlan():
            return _write_index(plan.check, _flags_form(plan))
        case HandlePlan():
            return _write_handle(plan)
        case NumbersPlan():
            return _write_numbers(plan)
        case RowsPlan():
            return _write_rows(plan)
        case ListPlan():
            return _write_list(plan)
        case MapPlan():
            return _write_map(plan)
        case RecordPlan() | TuplePlan():
            return _write_parts(plan)
        case VariantPlan():
            return _write_variant(plan)
        case OptionPlan():
            return _write_option(plan)
        case ResultPlan():
            return _write_result(plan)


def _index_form(count: int) -> Struct:
    """How the index of one of `count` cases stands in the bytes."""
    return Struct("<B" if count <= 0x100 else "<H")


def _flags_form(plan: FlagsPlan) -> Struct:
    return Struct({1: "<B", 2: "<H", 4: "<I"}[layout_of(plan.type).size])


def _write_scalar(plan: BoolPlan | IntPlan | FloatPlan | CharPlan) -> Write:
    letter = KINDS[plan.type][1]
    check, pack, plain = plan.check, Struct(f"<{letter}").pack, float if letter in "fd" else None

    def write(value: Any, call: Writing) -> None:
        call.out += pack(check(value))

    def write_float(value: Any, call: Writing) -> None:
        if type(value) is not plain:
            value = check(value)
        try:
            call.out += pack(value)
        except OverflowError:
            check(value)
            raise

    return write if plain is None else write_float


def _write_string(plan: StringPlan) -> Write:
    check = plan.check

    def write(value: Any, call: Writing) -> None:
        try:
            data = str.encode(value) if type(value) is str else check(value)
        except UnicodeEncodeError:
            data = check(value)  # says where the lone surrogate is
        size = len(data)
        call.left -= size
        if call.left < 0:
            raise TooLarge
        call.out += _COUNT.pack(size)
        if size < SEGMENT_BYTES:
            call.out += data
        else:
            call.put(data)

    return write


def _write_index(check: Callable[[object], int], form: Struct) -> Write:
    pack = form.pack

    def write(value: Any, call: Writing) -> None:
        call.out += pack(check(value))

    return write


def _write_handle(plan: HandlePlan) -> Write:
    resource, is_own = plan.type.resource, plan.is_own

    def write(value: Any, call: Writing) -> None:
        if call.handles is None:
            raise ValueProblem("resources need an instance")
        call.out += _COUNT.pack(call.handles.give(value, resource, is_own, call))

    return write


def _bytes_of(array: Array) -> memoryview:
    """The bytes of a one-dimensional array that is not empty, in place if they stand together."""
    return np.ascontiguousarray(array).view(np.uint8).data


def _write_numbers(plan: NumbersPlan) -> Write:
    array, size, plain = plan.array, plan.size, bytes if plan.is_bytes else None

    def write(value: Any, call: Writing) -> None:
        if type(value) is plain:
            call.charge(len(value))
            call.out += _COUNT.pack(len(value))
            call.put(value)
            return
        numbers = array(value, call)
        count = len(numbers)
        call.charge(count * size)
        call.out += _COUNT.pack(count)
        if count:
            call.put(_bytes_of(numbers))

    return write


class _Rows:
    """Where the fields of a row stand, however deep: `bools` and the others, each by the names that lead to it."""

    __slots__ = ("bools", "dtype", "is_dense", "others")

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype
        leaves = _leaves(dtype)
        self.bools = [path for path, leaf in leaves if leaf.kind == "b"]
        self.others = [path for path, leaf in leaves if leaf.kind != "b"]
        self.is_dense = sum(leaf.itemsize for _, leaf in leaves) == dtype.itemsize

    def cleaned(self, rows: Array) -> Array:
        """A copy with zeros as padding: a caller's array has there what lay in memory. Bools become 0 or 1."""
        made = np.zeros(len(rows), self.dtype)
        for path in self.others:
            _column(made, path)[:] = _column(rows, path)
        for path in self.bools:
            _column(made, path).view(np.uint8)[:] = _column(rows, path).view(np.uint8) != 0
        return made


def _leaves(dtype: np.dtype[Any]) -> list[tuple[tuple[str, ...], np.dtype[Any]]]:
    if dtype.names is None:
        return [((), dtype)]
    return [((name, *path), leaf) for name in dtype.names for path, leaf in _leaves(dtype[name])]


def _column(rows: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        rows = rows[name]
    return rows


def _write_rows(plan: RowsPlan) -> Write:
    array, size, form = plan.array, plan.dtype.itemsize, _Rows(plan.dtype)
    as_it_is = form.is_dense and not form.bools

    def write(value: Any, call: Writing) -> None:
        rows = array(value, call)
        count = len(rows)
        call.charge(count * size)
        call.out += _COUNT.pack(count)
        if count:
            call.put(_bytes_of(rows if as_it_is else form.cleaned(rows)))

    return write


def _write_list(plan: ListPlan) -> Write:
    items, element, size = plan.items, writer(plan.element), max(1, layout_of(plan.type.element).size)

    def write(value: Any, call: Writing) -> None:
        given = items(value, call, size)
        count = len(given)
        call.charge(count * size)
        call.out += _COUNT.pack(count)
        index = 0
        try:
            for index, item in enumerate(call.paced(given, size)):  # noqa: B007 - the index of the item that failed
                element(item, call)
        except Exception as error:
            add_step(error, f"[{index}]")
            raise

    return write


def _write_map(plan: MapPlan) -> Write:
    items, key, item = plan.items, writer(plan.key), writer(plan.value)
    size = layout_of(TupleType((plan.type.key, plan.type.value))).size

    def write(value: Any, call: Writing) -> None:
        pairs = items(value, call, size)
        count = len(pairs)
        call.charge(count * size)
        call.out += _COUNT.pack(count)
        given_key, key_done = None, False
        try:
            for pair in call.paced(pairs, size):
                key_done = False
                given_key, given = pair
                key(given_key, call)
                key_done = True
                item(given, call)
        except Exception as error:
            add_step(error, f"[{brief(given_key)}]" if key_done else ".key")
            raise

    return write


def _write_parts(plan: RecordPlan | TuplePlan) -> Write:
    split, step, parts = plan.split, plan.step, tuple(map(writer, plan.parts))

    def write(value: Any, call: Writing) -> None:
        given = split(value)
        index = 0
        try:
            for part, item in zip(parts, given, strict=True):
                part(item, call)
                index += 1
        except Exception as error:
            add_step(error, step(index))
            raise

    return write


def _payload(write: Write, value: Any, call: Writing) -> None:
    try:
        write(value, call)
    except Exception as error:
        add_step(error, ".value")
        raise


def _write_variant(plan: VariantPlan) -> Write:
    split, pack = plan.split, _index_form(len(plan.names)).pack
    parts = tuple(None if part is None else writer(part) for part in plan.parts)

    def write(value: Any, call: Writing) -> None:
        index, payload = split(value)
        call.out += pack(index)
        part = parts[index]
        if part is not None:
            _payload(part, payload, call)

    return write


def _write_option(plan: OptionPlan) -> Write:
    payload, some, nested = writer(plan.payload), plan.some, plan.nested

    def write(value: Any, call: Writing) -> None:
        if value is None:
            call.out += _NO
            return
        value = some(value)
        call.out += _YES
        if nested:
            _payload(payload, value, call)
        else:
            payload(value, call)

    return write


def _write_result(plan: ResultPlan) -> Write:
    split = plan.split
    ok, err = (None if part is None else writer(part) for part in (plan.ok, plan.err))

    def write(value: Any, call: Writing) -> None:
        is_ok, payload = split(value)
        call.out += _NO if is_ok else _YES
        part = ok if is_ok else err
        if part is not None:
            _payload(part, payload, call)

    return write


# ------------------------------------------------------------------------------------------------------------- reading

Read = Callable[[Reading], Any]
"""Raises: WireError, or StructError where the bytes end too early."""


def reader(plan: Plan) -> Read:
    """The closure that reads values of `plan`."""
    match plan:
        case BoolPlan():
            return _read_bool
        case IntPlan() | FloatPlan():
            return _read_number(Struct("<" + KINDS[plan.type][1]))
        case CharPlan():
            return _read_char
        case StringPlan():
            return _read_string
        case EnumPlan():
            return _read_enum(plan)
        case FlagsPlan():
            return _read_flags(plan)
        case HandlePlan():
            return _read_handle(plan)
        case NumbersPlan():
            return _read_bytes if plan.is_bytes else _read_numbers(plan)
        case RowsPlan():
            return _read_rows(plan)
        case ListPlan():
            return _read_list(plan)
        case MapPlan():
            return _read_map(plan)
        case RecordPlan() | TuplePlan():
            return _read_parts(plan)
        case VariantPlan():
            return _read_variant(plan)
        case OptionPlan():
            return _read_option(plan)
        case ResultPlan():
            return _read_result(plan)


def _read_switch(call: Reading, what: str) -> bool:
    """A byte that is 0 or 1."""
    at = call.at
    if at >= call.end:
        raise WireError("it ends too early")
    call.at = at + 1
    value = call.data[at]
    if value > 1:
        raise WireError(f"a byte that begins {what} is neither 0 nor 1")
    return value == 1


def _read_bool(call: Reading) -> bool:
    return _read_switch(call, "a bool")


def _read_number(form: Struct) -> Read:
    unpack, size = form.unpack_from, form.size

    def read(call: Reading) -> Any:
        at = call.at
        call.at = at + size
        return unpack(call.data, at)[0]

    return read


def _read_char(call: Reading) -> str:
    point = call.count()
    if point > 0x10FFFF or 0xD800 <= point <= 0xDFFF:
        raise WireError("a char is no Unicode scalar value")
    return chr(point)


def _read_string(call: Reading) -> str:
    start = call.at + 4
    size = _COUNT.unpack_from(call.data, call.at)[0]
    call.left -= size
    if call.left < 0:
        raise TooLarge
    call.at = end = start + size  # `count` and `take`, spelled out: most messages carry strings
    if end > call.end:
        raise WireError("it ends too early")
    try:
        return str(call.data[start:end], "utf-8")
    except UnicodeDecodeError:
        raise WireError("a string is not UTF-8") from None


def _read_enum(plan: EnumPlan) -> Read:
    members, number = plan.members, _read_number(_index_form(len(plan.names)))
    count, label = len(members), plan.type.name.name

    def read(call: Reading) -> Any:
        index = number(call)
        if index >= count:
            raise WireError(f"unknown case of enum {label}")
        return members[index]

    return read


def _read_flags(plan: FlagsPlan) -> Read:
    python, number, label, count = plan.python, _read_number(_flags_form(plan)), plan.type.name.name, len(plan.names)

    def read(call: Reading) -> Any:
        bits = number(call)
        if bits >> count:
            raise WireError(f"unknown bits in flags {label}")
        return python(bits)

    return read


def _read_handle(plan: HandlePlan) -> Read:
    resource, is_own = plan.type.resource, plan.is_own

    def read(call: Reading) -> Any:
        number = call.count()
        if call.handles is None:
            raise WireError("resources need an instance")
        item = call.handles.take(number, resource, is_own)
        if is_own:
            call.taken.append(item)
        return item

    return read


def _read_bytes(call: Reading) -> bytes:
    count = call.count()
    call.charge(count)
    return bytes(call.take(count))


def _read_numbers(plan: NumbersPlan) -> Read:
    dtype, size = plan.dtype, plan.size

    def read(call: Reading) -> Any:
        count = call.count()
        call.charge(count * size)
        data = call.take(count * size)
        return np.frombuffer(data, dtype).copy() if count else np.empty(0, dtype)

    return read


def _read_rows(plan: RowsPlan) -> Read:
    dtype, size, what, form = plan.dtype, plan.dtype.itemsize, plan.what, _Rows(plan.dtype)

    def read(call: Reading) -> Any:
        count = call.count()
        call.charge(count * size)
        data = call.take(count * size)
        if not count:
            return np.zeros(0, dtype)
        rows = np.frombuffer(data, dtype)
        for path in form.bools:
            if (_column(rows, path).view(np.uint8) > 1).any():
                raise WireError(f"a bool of a {what} is neither 0 nor 1")
        return rows.copy() if form.is_dense else form.cleaned(rows)

    return read


def _read_list(plan: ListPlan) -> Read:
    element, size = reader(plan.element), max(1, layout_of(plan.type.element).size)

    def read(call: Reading) -> Any:
        count = call.count()
        call.charge(count * size)
        return [element(call) for _ in call.paced(range(count), size)]

    return read


def _read_map(plan: MapPlan) -> Read:
    key, value, owned = reader(plan.key), reader(plan.value), finder(plan.value)
    size = layout_of(TupleType((plan.type.key, plan.type.value))).size

    def read(call: Reading) -> Any:
        count = call.count()
        call.charge(count * size)
        pairs = [(key(call), value(call)) for _ in call.paced(range(count), size)]
        try:
            made = dict(pairs)
        except TypeError:  # a numpy array, or what holds one, has no hash
            raise WireError("a key of a map is none in Python") from None
        if owned is not None and len(made) < count:  # of a repeated key the last one counts: the others are nobody's
            lost = [item for name, item in pairs if made[name] is not item]
            call.give_up(found for item in lost for found, is_own in owned(item) if is_own)
        return made

    return read


def _read_parts(plan: RecordPlan | TuplePlan) -> Read:
    parts = tuple(map(reader, plan.parts))
    python = plan.python if isinstance(plan, RecordPlan) else None

    def read(call: Reading) -> Any:
        values = [part(call) for part in parts]
        return tuple(values) if python is None else python(*values)

    return read


def _read_variant(plan: VariantPlan) -> Read:
    parts = tuple(None if part is None else reader(part) for part in plan.parts)
    make, number, label, count = plan.make, _read_number(_index_form(len(parts))), plan.label, len(parts)

    def read(call: Reading) -> Any:
        index = number(call)
        if index >= count:
            raise WireError(f"unknown case of variant {label}")
        part = parts[index]
        return make(index, None if part is None else part(call))

    return read


def _read_option(plan: OptionPlan) -> Read:
    payload, nested = reader(plan.payload), plan.nested

    def read(call: Reading) -> Any:
        if not _read_switch(call, "an option"):
            return None
        value = payload(call)
        return Some(value) if nested else value

    return read


def _read_result(plan: ResultPlan) -> Read:
    ok, err = (None if part is None else reader(part) for part in (plan.ok, plan.err))

    def read(call: Reading) -> Any:
        is_err = _read_switch(call, "a result")
        part = err if is_err else ok
        value = None if part is None else part(call)
        return Err(value) if is_err else Ok(value)

    return read


__all__ = ["PlainForm", "Reading", "WireError", "WireHandles", "WirePlan", "Writing", "Written", "reader", "writer"]
