"""Functions that a Python object serves in place of a component: values are checked, and become what a guest's are.

They are lowered into memory of our own and lifted again, by the very code that carries them to and from a guest. So the
object gets and gives the same values with the same errors, and shares no list or array with its caller. Of a resource
that the object serves it gives and gets its own Python objects, and its caller holds handles, as of a guest's.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

from cloche.engine.codec.function import FunctionPlan
from cloche.engine.codec.handles import GuestResource, close_item, ensure_object, opened
from cloche.engine.codec.lifting import Lifting, lifter
from cloche.engine.codec.lowering import Lowering, lowerer
from cloche.engine.codec.memory import Arena
from cloche.engine.codec.problem import TooLarge, ValueProblem, problem_in
from cloche.engine.ffi import VAL_BYTES
from cloche.errors import GuestTrap
from cloche.wit.types import Function, ResourceType


class LocalResources:
    """What stands behind the handles that one Python object gave out. Thread-safe; as `ResourceBridge` for a guest.

    `classes` has a class of handles for each resource that the object serves. Of any other resource, which an interface
    takes over from elsewhere, the objects themselves go in and out. Whoever takes an object out of `guests` closes it.
    """

    context = 0

    def __init__(self, classes: Mapping[ResourceType, Any] | None = None) -> None:
        self.classes = classes or {}
        self.guests: dict[int, Any] = {}
        """The objects that were handed out and not given up, by their handles' numbers, which are never used twice."""
        self.drops: deque[int] = deque()
        """Handles that were given up, waiting for `drop_pending`."""
        self.is_closed = False
        self._numbers = count(1)

    def handle(self, item: Any, resource: ResourceType) -> Any:
        """A new handle of an object that its maker hands out for good. Once this is closed, the object is, too."""
        number = next(self._numbers)
        self.guests[number] = item
        if self.is_closed:  # a call that was not waited for
            close_item(self.guests.pop(number, None))
        return self.classes[resource](self, resource, number)

    def drop_pending(self) -> None:
        """Close the objects whose handles were given up, on this thread. Raises: what the first of them raises."""
        while self.drops:
            try:
                number = self.drops.popleft()
            except IndexError:  # another thread was faster
                return
            close_item(self.guests.pop(number, None))

    def close(self) -> list[Any]:
        """Refuse every handle from now on; the objects that are left, which the caller closes."""
        self.is_closed = True
        left = []
        with contextlib.suppress(KeyError):
            while True:
                left.append(self.guests.popitem()[1])
        return left


class _Objects:
    """The handles of one call. An address is a place in a list: nothing of them lies in the engine."""

    def __init__(self, resources: LocalResources) -> None:
        self._resources = resources
        self._items: list[Any] = []

    def dispose(self, item: object) -> None:
        """See `Resources`."""

    def _keep(self, item: object) -> int:
        self._items.append(item)
        return len(self._items)


class _Arguments(_Objects):
    """From the caller, who has handles, to the object."""

    def lower(self, value: Any, resource: ResourceType, is_own: bool, call: Lowering) -> int:
        """See `Resources`."""
        resources = self._resources
        if resource not in resources.classes:
            # Another interface of the same plugin may have handed it out; else it is nobody's handle but the object.
            bridge: object = value._bridge if isinstance(value, GuestResource) else None
            if not isinstance(bridge, LocalResources):
                ensure_object(value, resource)
                return self._keep(value)
            resources = bridge
        number, item = opened(value, resource, resources, is_own, call)
        if is_own:
            value._number = 0

            def settle(done: bool) -> None:
                if done:
                    resources.guests.pop(number, None)
                else:
                    value._number = number

            call.undo.append(settle)
        return self._keep(item)

    def lift(self, address: int, _resource: ResourceType, _is_own: bool) -> Any:
        """See `Resources`."""
        return self._items[address - 1]


class _Result(_Objects):
    """From the object to the caller."""

    def lower(self, value: Any, resource: ResourceType, _is_own: bool, _call: Lowering) -> int:
        """See `Resources`."""
        ensure_object(value, resource)
        return self._keep(value)

    def lift(self, address: int, resource: ResourceType, _is_own: bool) -> Any:
        """See `Resources`."""
        item = self._items[address - 1]
        return self._resources.handle(item, resource) if resource in self._resources.classes else item


class LocalPlan:
    """The compiled signature of such a function. Immutable; shared by threads.

    Raises: ContractError (`contract.unsupported`) for a type that cannot be carried.
    """

    __slots__ = ("_lifts", "_lower", "_plan", "_resources")

    def __init__(self, function: Function, resources: LocalResources | None = None) -> None:
        self._plan = plan = FunctionPlan(function)
        self._lifts = tuple(map(lifter, plan.signature.parameters))
        self._lower = None if plan.signature.result is None else lowerer(plan.signature.result)
        self._resources = resources or LocalResources()

    def arguments(self, args: Sequence[object], max_bytes: int) -> tuple[list[Any], int]:
        """The values that the function gets for `args`, and their canonical bytes. Raises: as `CallBuffer.lower`.

        What is handed over as `own` is the object's from then on.
        """
        buffer, call = self._plan.buffer(), Lifting()
        call.bridge = objects = _Arguments(self._resources)
        call.left = max_bytes
        buffer.lower(args, objects, max_bytes)
        try:
            values = [lift(buffer.arguments + index * VAL_BYTES, call) for index, lift in enumerate(self._lifts)]
        except BaseException:
            buffer.withdraw()
            raise
        buffer.discard()
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
        lowering.bridge = lifting.bridge = _Result(self._resources)
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
