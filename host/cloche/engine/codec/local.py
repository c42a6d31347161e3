"""Functions that a Python object serves in place of a component: values are checked, and become what a guest's are.

They are lowered into memory of our own and lifted again, by the very code that carries them to and from a guest. So the
object gets and gives the same values with the same errors, and shares no list or array with its caller.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cloche.engine.codec.function import FunctionPlan
from cloche.engine.codec.handles import ensure_object
from cloche.engine.codec.lifting import Lifting, lifter
from cloche.engine.codec.lowering import Lowering, lowerer
from cloche.engine.codec.memory import Arena
from cloche.engine.codec.problem import TooLarge, ValueProblem, problem_in
from cloche.engine.ffi import VAL_BYTES
from cloche.errors import GuestTrap
from cloche.wit.types import Function, ResourceType


class _Objects:
    """The handles of one call: they stand for the Python objects themselves, and nothing is ever moved or closed."""

    def __init__(self) -> None:
        self._items: list[object] = []

    def lower(self, value: object, resource: ResourceType, _is_own: bool, _call: Lowering) -> int:
        """See `Resources`."""
        ensure_object(value, resource)
        self._items.append(value)
        return len(self._items)

    def lift(self, address: int, _resource: ResourceType, _is_own: bool) -> Any:
        """See `Resources`."""
        return self._items[address - 1]

    def dispose(self, item: object) -> None:
        """See `Resources`."""


class LocalPlan:
    """The compiled signature of such a function. Immutable; shared by threads.

    Raises: ContractError (`contract.unsupported`) for a type that cannot be carried.
    """

    __slots__ = ("_lifts", "_lower", "_plan")

    def __init__(self, function: Function) -> None:
        self._plan = plan = FunctionPlan(function)
        self._lifts = tuple(map(lifter, plan.signature.parameters))
        self._lower = None if plan.signature.result is None else lowerer(plan.signature.result)

    def arguments(self, args: Sequence[object], max_bytes: int) -> tuple[list[Any], int]:
        """The values that the function gets for `args`, and their canonical bytes. Raises: as `CallBuffer.lower`."""
        buffer, call = self._plan.buffer(), Lifting()
        call.bridge = objects = _Objects()
        call.left = max_bytes
        buffer.lower(args, objects, max_bytes)
        values = [lift(buffer.arguments + index * VAL_BYTES, call) for index, lift in enumerate(self._lifts)]
        return values, buffer.bytes_in

    def result(self, value: object, max_bytes: int) -> tuple[object, int]:
        """What the caller gets for the function's `value`, and its canonical bytes.

        Raises: GuestTrap (`guest.invalid-value`) with the path when it does not fit the WIT type; LimitError
            (`limit.payload`).
        """
        signature, lift = self._plan.signature, self._plan.lift_result
        if self._lower is None or lift is None:
            if value is not None:
                raise _invalid(signature.function, ValueProblem("the function has none"))
            return None, 0
        arena = Arena(VAL_BYTES)
        lowering, lifting = Lowering(arena), Lifting()
        lowering.bridge = lifting.bridge = _Objects()
        lowering.left = lifting.left = max_bytes - signature.fixed_out
        try:
            if lowering.left < 0:
                raise TooLarge
            self._lower(value, arena.first, lowering)
        except TooLarge as error:
            raise signature.too_large(error, "the result is", max_bytes, by_host=False) from None
        except Exception as error:
            problem = problem_in(error)
            if problem is None:
                raise
            raise _invalid(signature.function, problem) from problem.__cause__
        return lift(arena.first, lifting), max_bytes - lowering.left


def _invalid(function: Function, problem: ValueProblem) -> GuestTrap:
    return GuestTrap(
        f"{function.name}: the result{problem.path}: {problem.text}", code="guest.invalid-value", kind="invalid-value"
    )
