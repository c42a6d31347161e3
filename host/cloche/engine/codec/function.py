"""Whole signatures: the arguments and results of calls into a guest, and those of host functions.

Plans are compiled once per function and shared by all threads; a `CallBuffer` belongs to one instance and is reused by
each of its calls. Arguments lie in our own memory, which the engine only reads; results are the engine's and are freed
as soon as they are lifted. `bytes_in` and `bytes_out` are canonical-ABI bytes: the layout of all parameters (or of the
result) as one tuple, plus the contents of strings, lists and maps. They are the same for every carrier.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from struct import Struct
from struct import error as StructError  # noqa: N812
from typing import Any, Protocol, cast

from cloche.engine.codec.budget import Passing
from cloche.engine.codec.finding import finder
from cloche.engine.codec.layout import layout_of, sequence_layout
from cloche.engine.codec.lifting import Lifting, lifter
from cloche.engine.codec.lowering import KINDS, Lowering, Resources, lowerer
from cloche.engine.codec.memory import MEMORY, Arena, EngineMemory
from cloche.engine.codec.plan import plan_for
from cloche.engine.codec.problem import InvalidValue, TooLarge, ValueProblem, problem_in
from cloche.engine.codec.scalars import BoolPlan, FloatPlan, IntPlan
from cloche.engine.ffi import VAL_BYTES, Library, library
from cloche.errors import CapabilityError, GuestTrap, LimitError, UsageError
from cloche.wit.carried import ensure_carried
from cloche.wit.types import Function, Prim

_INVALID = "capability.invalid"
_NO_VALUE = bytes(VAL_BYTES)
EXACT: dict[type, type] = {BoolPlan: bool, IntPlan: int, FloatPlan: float}
"""The Python type of the values that a plain scalar's plan takes as they are."""


def ensure_types_carried(function: Function) -> None:
    """Raises: as `ensure_carried`, for any of the function's types."""
    for used in function.types:
        ensure_carried(used)


class Disposer(Protocol):
    """Whoever stands behind the handles of a call, as far as it closes things."""

    def dispose(self, item: Any, /) -> None:
        """Close what was handed over in vain."""


class Signature:
    """A function's compiled parameters and result."""

    __slots__ = ("fixed_in", "fixed_out", "function", "parameters", "result")

    def __init__(self, function: Function) -> None:
        self.function = function
        self.parameters = tuple(plan_for(param.type) for param in function.params)
        self.result = None if function.result is None else plan_for(function.result)
        self.fixed_in = sequence_layout(param.type for param in function.params).size
        self.fixed_out = 0 if function.result is None else layout_of(function.result).size

    def too_large(self, problem: TooLarge, what: str, most: int, *, by_host: bool) -> LimitError:
        """The error for more bytes than the bound that the call was given, or more values than fit the host."""
        if problem.text:
            return LimitError(f"{self.function.name}: {problem.text}", code=problem.code)
        limit, code = ("host-bytes", "limit.host-calls") if by_host else ("payload", "limit.payload")
        text = f"{what} larger than the {most} bytes allowed; hand over less or raise `{limit}`"
        return LimitError(f"{self.function.name}: {text}", code=code)

    def invalid(self, what: str, error: InvalidValue) -> GuestTrap:
        """The error for an engine value that breaks its type."""
        return GuestTrap(
            f"{self.function.name}: the guest's {what} cannot be read: {error}",
            code="guest.invalid-value",
            kind="invalid-value",
        )

    def argument(self, index: int) -> str:
        """How messages name a parameter."""
        return f"argument {index + 1} ({self.function.params[index].name})"

    def miscounted(self, count: int) -> UsageError:
        """The error for another number of arguments than the function takes."""
        params = self.function.params
        names, wanted = ", ".join(param.name for param in params), len(params)
        counted = "1 argument" if wanted == 1 else f"{wanted} arguments"
        return UsageError(f"{self.function.name} takes {counted} ({names}), got {count}", code="usage.argument")

    def misfit(self, problem: ValueProblem, index: int) -> UsageError:
        """The error for an argument that does not fit its type."""
        text = f"{self.function.name}: {self.argument(index)}{problem.path}: {problem.text}"
        return UsageError(text, code=problem.code)

    def unwanted(self) -> CapabilityError:
        """The error for a value that a host function returns although it has no result."""
        return CapabilityError(f"{self.function.name} has no result, but its host returned a value", code=_INVALID)

    def unfit(self, problem: ValueProblem) -> CapabilityError:
        """The error for a host function's result that does not fit its type."""
        text = f"{self.function.name}: the host's result{problem.path}: {problem.text}"
        return CapabilityError(text, code=_INVALID)

    def close_refused(self, value: object, call: Passing, keeper: Disposer | None) -> None:
        """Close what a refused result hands over: what was passed on already, and by `keeper` what was not reached."""
        closed = dict(call.given)  # kept until the end, so that no identity is used again
        call.settle(False)
        assert self.result is not None
        find = finder(self.result)
        if find is None or keeper is None:
            return
        for item, is_own in find(value):
            if is_own and id(item) not in closed:
                closed[id(item)] = item, True
                keeper.dispose(item)


class FunctionPlan:
    """The compiled signature of a function that the guest exports. Immutable; shared by threads.

    Raises: ContractError (`contract.unsupported`) for a type that cannot be carried.
    """

    __slots__ = (
        "_lib",
        "exact",
        "function",
        "has_result",
        "lift_result",
        "lowers",
        "pack",
        "parameter_count",
        "scalar",
        "signature",
    )

    def __init__(self, function: Function, lib: Library | None = None) -> None:
        self.signature = signature = Signature(function)
        self.function = function
        self.parameter_count = len(function.params)
        self.has_result = function.result is not None
        self._lib = lib or library()
        self.lowers = tuple(map(lowerer, signature.parameters))
        self.lift_result = None if signature.result is None else lifter(signature.result)
        # All-scalar parameters are packed by one call; anything unusual goes the long way, which explains itself.
        self.exact: tuple[type, ...] | None = None
        self.pack: Struct | None = None
        if signature.parameters and all(type(plan) in EXACT for plan in signature.parameters):
            self.exact = tuple(EXACT[type(plan)] for plan in signature.parameters)
            letters = [KINDS[cast("Prim", plan.type)][1] for plan in signature.parameters]
            self.pack = Struct("<" + "".join(_padded(letter) for letter in letters))
        self.scalar: tuple[int, Struct] | None = None
        if type(signature.result) in EXACT:
            kind, letter = KINDS[signature.result.type]  # type: ignore[union-attr,index]
            self.scalar = kind, Struct(f"<B7x{letter}")

    def buffer(self, pause: Callable[[], None] | None = None) -> CallBuffer:
        """Memory for the arguments and result of one instance's calls of this function.

        `pause` is called now and then while much is converted; what it raises ends the conversion.
        """
        return CallBuffer(self, self._lib, pause)


def _padded(letter: str) -> str:
    return f"B7x{letter}{24 - Struct('<' + letter).size}x"


class CallBuffer:
    """Arguments and result of one call at a time: `lower`, then the engine's call, then `lift` or `discard`.

    `arguments`, `argument_count`, `results` and `result_count` are what `wasmtime_component_func_call` takes.
    """

    __slots__ = (
        "_arena",
        "_delete",
        "_exact",
        "_fixed_in",
        "_fixed_out",
        "_kind",
        "_lift",
        "_lifting",
        "_lowering",
        "_lowers",
        "_pack",
        "_plan",
        "_template",
        "_unpack",
        "argument_count",
        "arguments",
        "bytes_in",
        "bytes_out",
        "result_count",
        "results",
    )

    def __init__(self, plan: FunctionPlan, lib: Library, pause: Callable[[], None] | None) -> None:
        count = plan.parameter_count
        self._plan = plan
        self._arena = Arena((count + 1) * VAL_BYTES)
        self._lowering = Lowering(self._arena, pause)
        self._lifting = Lifting(pause)
        self._delete = lib.wasmtime_component_val_delete
        # What each call needs is kept here: a second look-up through the plan costs as much as the work itself.
        self._lowers = plan.lowers
        self._exact, self._pack = plan.exact, plan.pack
        self._template: list[Any] = []
        for parameter in plan.signature.parameters if plan.pack is not None else ():
            self._template += [KINDS[cast("Prim", parameter.type)][0], 0]
        self._lift = plan.lift_result
        self._kind = -1 if plan.scalar is None else plan.scalar[0]
        self._unpack: Any = None if plan.scalar is None else plan.scalar[1].unpack_from
        self._fixed_in, self._fixed_out = plan.signature.fixed_in, plan.signature.fixed_out
        self.results = self._arena.first
        self.arguments = self.results + VAL_BYTES
        self.argument_count = count
        self.result_count = 1 if plan.has_result else 0
        self.bytes_in = self._fixed_in
        self.bytes_out = self._fixed_out

    def lower(self, args: Sequence[object], bridge: Resources, max_bytes: int) -> None:
        """Write the arguments.

        Raises: UsageError (`usage.argument` for their number, `usage.value` with the path, `usage.closed` for a handle
            that is gone); LimitError (`limit.payload`, `limit.handles`); what the code of an argument raises, if that
            is an error of ours or no Exception. Nothing has moved then.
        """
        if not self.lower_scalars(args, max_bytes):
            self.lower_each(args, bridge, max_bytes)

    def lower_scalars(self, args: Sequence[object], max_bytes: int) -> bool:
        """As `lower` if all parameters and arguments are plain scalars; else False. Runs no code of the caller's."""
        pack = self._pack
        if pack is not None and tuple(map(type, args)) == self._exact and self._fixed_in <= max_bytes:
            template = self._template
            template[1::2] = args
            try:
                pack.pack_into(MEMORY, self.arguments, *template)
            except (StructError, OverflowError):
                pass  # out of range: the long way says which
            else:
                return True
        return False

    def lower_each(self, args: Sequence[object], bridge: Resources, max_bytes: int) -> None:
        """As `lower`, each argument by its plan."""
        if len(args) != self.argument_count:
            raise self._plan.signature.miscounted(len(args))
        call, at = self._lowering, self.arguments
        call.bridge = bridge
        call.left = max_bytes - self._fixed_in
        try:
            if call.left < 0:
                raise TooLarge
            for lower, value in zip(self._lowers, args, strict=True):
                lower(value, at, call)
                at += VAL_BYTES
        except BaseException as error:
            self._reset(done=False)
            if isinstance(error, TooLarge):
                raise self._plan.signature.too_large(error, "the arguments are", max_bytes, by_host=False) from None
            problem = problem_in(error)
            if problem is None:
                raise
            index = (at - self.arguments) // VAL_BYTES
            raise self._plan.signature.misfit(problem, index) from problem.__cause__
        self.bytes_in = max_bytes - call.left

    def lift(self, bridge: Resources, max_bytes: int) -> object:
        """The value of the WIT result (None without one; `Ok` or `Err` for a result type), and an end to the call.

        Raises: GuestTrap (`guest.invalid-value`); LimitError (`limit.payload`, `limit.handles`). The engine's memory is
            freed in any case.
        """
        if self._unpack is not None and self._fixed_out <= max_bytes:
            kind, value = self._unpack(MEMORY, self.results)
            if kind == self._kind:
                if self._exact is None:
                    self._reset(done=True)
                return value
        if self._lift is None:
            self._reset(done=True)
            return None
        call = self._lifting
        call.bridge = bridge
        call.left = max_bytes - self._fixed_out
        try:
            if call.left < 0:
                raise TooLarge
            value = self._lift(self.results, call)
        except BaseException as error:
            call.forget()
            if isinstance(error, TooLarge):
                raise self._plan.signature.too_large(error, "the result is", max_bytes, by_host=False) from None
            if isinstance(error, InvalidValue):
                raise self._plan.signature.invalid("result", error) from None
            raise
        finally:
            self._reset(done=True)
        if call.taken:
            call.taken.clear()
        self.bytes_out = max_bytes - call.left
        return value

    def withdraw(self) -> None:
        """After `lower`, when the call is not made at all: the arguments stay the caller's."""
        self._reset(done=False)

    def discard(self) -> None:
        """After a failed call: forget the arguments (what was moved is gone) and free what the engine left."""
        self._reset(done=True)

    def _reset(self, done: bool) -> None:
        if self._lowering.given:
            self._lowering.settle(done)
        if self._lift is not None and self._unpack is None:
            self._delete(self.results)
            MEMORY[self.results] = 0  # a bool owns nothing: deleting it again is harmless
        self._arena.reset()


class HostPlan:
    """The signature of a function that the host provides; shared by threads.

    It is compiled when it is first used, because most functions that a component imports are never called.
    Raises: ContractError (`contract.unsupported`) for a type that cannot be carried, when it is made.
    """

    __slots__ = ("_compiled", "_lib", "_lifts", "_lower", "_scalar", "_signature", "function")

    def __init__(self, function: Function, lib: Library | None = None) -> None:
        ensure_types_carried(function)
        self.function = function
        self._lib = lib or library()
        self._compiled = False

    def _compile(self) -> None:
        self._signature = signature = Signature(self.function)
        self._lifts = tuple(map(lifter, signature.parameters))
        self._lower = None if signature.result is None else lowerer(signature.result)
        self._scalar = Lowering(EngineMemory(self._lib)) if type(signature.result) in EXACT else None
        self._compiled = True  # last: two threads may both do this, and neither uses half of it

    def lift(
        self,
        arguments: int,
        count: int,
        bridge: Resources,
        max_bytes: int,
        pause: Callable[[], None] | None = None,
    ) -> tuple[list[object], int]:
        """The `count` argument values at address `arguments`, which stay the engine's, and their canonical bytes.

        `pause` is as for `FunctionPlan.buffer`.
        Raises: GuestTrap (`guest.invalid-value`); LimitError (`limit.host-calls`, `limit.handles`).
        """
        if not self._compiled:
            self._compile()
        call = Lifting(pause)
        call.bridge = bridge
        call.left = max_bytes - self._signature.fixed_in
        try:
            if call.left < 0:
                raise TooLarge
            if count != len(self._lifts):
                raise InvalidValue(f"{count} arguments instead of {len(self._lifts)}")
            values = [lift(arguments + index * VAL_BYTES, call) for index, lift in enumerate(self._lifts)]
        except TooLarge as error:
            call.forget()
            raise self._signature.too_large(error, "the arguments are", max_bytes, by_host=True) from None
        except InvalidValue as error:
            call.forget()
            raise self._signature.invalid("arguments", error) from None
        except BaseException:
            call.forget()
            raise
        return values, max_bytes - call.left

    def lower(
        self, value: object, results: int, bridge: Resources, max_bytes: int, pause: Callable[[], None] | None = None
    ) -> int:
        """Write `value` as the function's result at address `results`, in memory that the engine takes over.

        `pause` is as for `FunctionPlan.buffer`. A function without result takes None only.
        Returns: the value's canonical bytes.
        Raises: CapabilityError (`capability.invalid`) with the path when the value does not fit the WIT type;
            LimitError (`limit.host-calls`, `limit.payload`, `limit.handles`). Nothing is left at `results` then, and
            whatever the value hands over as `own` is closed.
        """
        if not self._compiled:
            self._compile()
        if self._lower is None:
            if value is not None:
                raise self._signature.unwanted()
            return 0
        fixed = self._signature.fixed_out
        if self._scalar is not None and fixed <= max_bytes:
            try:
                self._lower(value, results, self._scalar)  # scalars leave it as it is
            except Exception:  # noqa: S110 - the long way explains
                pass
            else:
                return fixed
        call = Lowering(EngineMemory(self._lib), pause)
        call.bridge = bridge
        call.left = max_bytes - fixed
        MEMORY[results] = 0  # a bool owns nothing: whatever is half built below can be deleted
        try:
            if call.left < 0:
                raise TooLarge
            self._lower(value, results, call)
        except BaseException as error:
            self._lib.wasmtime_component_val_delete(results)
            MEMORY[results : results + VAL_BYTES] = _NO_VALUE
            self._signature.close_refused(value, call, bridge)
            if isinstance(error, TooLarge):
                raise self._signature.too_large(error, "the result is", max_bytes, by_host=True) from None
            problem = problem_in(error)
            if problem is None:
                raise
            raise self._signature.unfit(problem) from problem.__cause__
        if call.given:
            call.settle(True)
        return max_bytes - call.left


__all__ = ["EXACT", "CallBuffer", "FunctionPlan", "HostPlan", "Signature"]
