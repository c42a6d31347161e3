"""Resources of one instance in both directions: what stands behind each handle, and who releases it when.

*Host resources* (a capability provides them) are Python objects in a bounded table; the guest holds their handles. An
`own` that comes back leaves the table and belongs to whoever receives it; a `borrow` is looked up. *Guest resources*
(the guest exports them) reach Python as `GuestResource` handles. The engine runs no destructor when a store is closed
or after a trap (H9), so the bridge closes everything itself. Each received borrow is released exactly once (H44): here,
by `to_host`.
"""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Callable, Mapping
from itertools import count
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from cloche.engine.codec.memory import Arena
from cloche.engine.codec.problem import InvalidValue, ValueProblem, expected
from cloche.engine.ffi import Library, library, ptr, take_error
from cloche.errors import EngineError, GuestTrap
from cloche.frozen import dataclass
from cloche.handles import Handles, too_many
from cloche.wit.types import ResourceType

if TYPE_CHECKING:
    from cloche.engine.codec.budget import Passing
    from cloche.engine.codec.lowering import Lowering


@dataclass(frozen=True, slots=True)
class _Held:
    """A host object in the table. `is_own` is False while it is only lent to the guest for one call."""

    item: Any
    type_id: int
    is_own: bool


def ensure_object(value: object, resource: ResourceType) -> None:
    """Refuse what can be no object of a host resource. Raises: ValueProblem."""
    if value is None or isinstance(value, GuestResource | bool | int | float | str | bytes):
        raise expected(f"a host object for resource {resource.name}", value)


def _close_held(held: _Held) -> None:
    if held.is_own:
        close_item(held.item)


def close_item(item: Any) -> None:
    """Close an object behind a handle, if it can be closed."""
    close = getattr(item, "close", None)
    if callable(close):
        close()


class GuestResource:
    """A handle to a resource that lives in the guest; a context manager.

    Passing it as `own` moves it: later use raises UsageError (`usage.closed`). `close` (or losing the last reference,
    on any thread) only queues the drop; the guest's destructor runs when the instance is next entered by its owner.
    Added in 0.1.
    """

    __slots__ = ("__weakref__", "_bridge", "_number", "resource")

    def __init__(self, bridge: ResourceBridge, resource: ResourceType, number: int) -> None:
        self._bridge = bridge
        self._number = number
        self.resource = resource

    @property
    def context(self) -> int:
        """Address of the store's context that the resource lives in."""
        return self._bridge.context

    @property
    def is_open(self) -> bool:
        """Whether the handle can still be used."""
        return bool(self._number) and not self._bridge.is_closed

    def close(self) -> None:
        """Give the handle up; calling it again does nothing. Never blocks and never runs guest code."""
        number, self._number = self._number, 0
        if number:
            self._bridge.drops.append(number)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def __reduce_ex__(self, protocol: object) -> Any:
        raise TypeError("a handle cannot be copied or pickled: it stands for one thing inside one instance")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.resource.name} {'open' if self.is_open else 'closed'}>"


class _Keeper(Protocol):
    """Who gave handles out."""

    is_closed: bool

    @property
    def guests(self) -> Mapping[int, Any]:
        """What stands behind those that were not given up, by their numbers."""


def opened(value: object, resource: ResourceType, keeper: _Keeper, is_own: bool, call: Passing) -> tuple[int, Any]:
    """The number of an open handle that `keeper` gave out, and what stands behind it; `call` notes that it goes along.

    Raises: ValueProblem for what is no such handle, or cannot move.
    """
    if not isinstance(value, GuestResource) or value.resource != resource:
        raise expected(f"a handle of resource {resource.name}", value)
    bridge: object = value._bridge
    if bridge is not keeper:
        raise ValueProblem(f"the handle of resource {resource.name} belongs to another instance")
    number = value._number
    found = keeper.guests.get(number)
    if found is None or keeper.is_closed:
        raise ValueProblem(f"the handle of resource {resource.name} is closed or was moved", "usage.closed")
    if not call.note(value, is_own):
        raise ValueProblem(f"the handle of resource {resource.name} is lent in the same call, so it cannot move")
    return number, found


class ResourceBridge:
    """Everything that one instance's handles stand for. Used by the thread that owns the instance; `drops` by any.

    `context` is the store's context address; `host_types` gives the engine's type id of each host resource, the same
    that the linker was given with `wasmtime_component_resource_type_new_host(id)`; resources that are not in it are the
    guest's own. `max_handles` bounds host objects and guest handles together. `guest_classes` gives the class of the
    handles of a guest resource (default `GuestResource`).
    """

    __slots__ = (
        "_classes",
        "_context",
        "_host_types",
        "_lib",
        "_most",
        "_numbers",
        "_table",
        "drops",
        "failures",
        "guests",
        "is_closed",
    )

    def __init__(
        self,
        context: int,
        host_types: Mapping[ResourceType, int],
        max_handles: int,
        *,
        guest_classes: Mapping[ResourceType, Callable[[ResourceBridge, ResourceType, int], Any]] | None = None,
        lib: Library | None = None,
    ) -> None:
        self._context = context
        self._host_types = dict(host_types)
        self._most = max_handles
        self._table: Handles[_Held] = Handles(max_handles, _close_held)
        self._classes = dict(guest_classes or {})
        # Numbers are never used twice: a second thread that closes a handle too late can drop no other one.
        self.guests: dict[int, int] = {}
        """Addresses of the guest's own resources that were handed out and not given up, by their handles' numbers."""
        self._numbers = count(1)
        self._lib = lib or library()
        self.drops: deque[int] = deque()
        """Guest handles that were given up, waiting for `drop_pending`."""
        self.failures: list[BaseException] = []
        """What failed while host objects were closed."""
        self.is_closed = False

    @property
    def live(self) -> int:
        """Host objects and guest handles that are alive now."""
        return len(self._table) + len(self.guests)

    @property
    def held(self) -> int:
        """Guest handles that somebody outside still holds open: the instance must live on for them."""
        return len(self.guests) - len(self.drops)

    @property
    def context(self) -> int:
        """Address of the store's context: which instance the handles belong to."""
        return self._context

    # ------------------------------------------------------------------------------------------ Python to engine

    def lower(self, value: object, resource: ResourceType, is_own: bool, call: Lowering) -> int:
        """The address of a `resource_any` for `value`; what must happen after the call is left in `call.undo`.

        Raises: ValueProblem for a wrong, foreign or closed handle; LimitError (`limit.handles`).
        """
        type_id = self._host_types.get(resource)
        if type_id is None:
            return self._lower_guest(value, resource, is_own, call)
        ensure_object(value, resource)
        if not call.note(value, is_own):
            raise ValueProblem(f"the object for resource {resource.name} is handed over twice in one call")
        return self._lower_host(value, type_id, is_own, call)

    def _lower_host(self, item: Any, type_id: int, is_own: bool, call: Lowering) -> int:
        is_argument = isinstance(call.place, Arena)
        if self.live >= self._most:
            if not is_argument:  # what a host function returns is ours to close; what a caller passes stays his
                self.dispose(item)
            raise too_many(self._most)
        rep = self._table.push(_Held(item, type_id, is_own))
        # A borrow is lent from an `own` that stays ours: version 49 makes host borrows inside a call only.
        host = self._lib.wasmtime_component_resource_host_new(True, rep, type_id)
        made = ptr()
        error = self._lib.wasmtime_component_resource_host_to_any(self._context, host, ctypes.addressof(made))
        self._lib.wasmtime_component_resource_host_delete(host)
        if error or not made.value:
            self._table.take(rep)
            raise EngineError(f"the engine refused a host resource: {take_error(self._lib, error) if error else ''}")
        address = made.value

        def settle(done: bool) -> None:
            if not (done and is_own):
                if self._holds(rep, item):
                    self._table.take(rep)
                if is_argument:
                    self._take_back(address)
                else:
                    self.dispose(item)
            if is_argument:
                self._lib.wasmtime_component_resource_any_delete(address)

        call.undo.append(settle)
        return address

    def _take_back(self, address: int) -> None:
        """Remove an `own` of the host from the engine's table without running its destructor."""
        host = ptr()
        error = self._lib.wasmtime_component_resource_any_to_host(self._context, address, ctypes.addressof(host))
        if error:  # after a trap: the store is finished and nothing is left to take back
            self._lib.wasmtime_error_delete(error)
        else:
            self._lib.wasmtime_component_resource_host_delete(host.value)

    def _holds(self, rep: int, item: Any) -> bool:
        try:
            return self._table.get(rep).item is item
        except KeyError:
            return False

    def _lower_guest(self, value: Any, resource: ResourceType, is_own: bool, call: Lowering) -> int:
        number, address = opened(value, resource, self, is_own, call)
        is_argument = isinstance(call.place, Arena)
        if is_own:
            value._number = 0

            def settle(done: bool) -> None:
                if not done:
                    value._number = number
                elif self.guests.pop(number, None) is not None:
                    self._lib.wasmtime_component_resource_any_delete(address)

            call.undo.append(settle)
        return address if is_argument else int(self._lib.wasmtime_component_resource_any_clone(address))

    # ------------------------------------------------------------------------------------------ engine to Python

    def lift(self, address: int, resource: ResourceType, is_own: bool) -> Any:
        """What stands behind the `resource_any` at `address`, which stays the engine value's.

        Raises: InvalidValue for a handle of another type; LimitError (`limit.handles`).
        """
        type_id = self._host_types.get(resource)
        if type_id is None:
            if not is_own:
                raise InvalidValue(f"a borrow of the guest's own resource {resource.name} cannot leave the guest")
            if self.live >= self._most:
                raise too_many(self._most)
            clone = int(self._lib.wasmtime_component_resource_any_clone(address))
            number = next(self._numbers)
            self.guests[number] = clone
            return self._classes.get(resource, GuestResource)(self, resource, number)
        found = ptr()
        error = self._lib.wasmtime_component_resource_any_to_host(self._context, address, ctypes.addressof(found))
        if error:
            raise InvalidValue(f"resource {resource.name}: {take_error(self._lib, error)}")
        lib, host = self._lib, found.value
        rep, owned = lib.wasmtime_component_resource_host_rep(host), lib.wasmtime_component_resource_host_owned(host)
        actual = lib.wasmtime_component_resource_host_type(host)
        lib.wasmtime_component_resource_host_delete(host)
        try:
            held = self._table.get(rep)
            if actual != type_id or held.type_id != type_id or owned != is_own:
                raise InvalidValue(f"a handle is no {'own' if is_own else 'borrow'} of resource {resource.name}")
            return self._table.take(rep).item if is_own else held.item
        except KeyError:
            raise InvalidValue(f"a handle of resource {resource.name} is not alive") from None

    def dispose(self, item: Any) -> None:
        """Close what was handed over as `own` by a call whose other values turned out invalid."""
        self._guarded(lambda: close_item(item))

    # ------------------------------------------------------------------------------------------ ends

    def host_dropped(self, type_id: int, rep: int) -> None:
        """The guest dropped an `own` of a host resource: close its object. For the engine's destructor callback."""
        try:
            held = self._table.get(rep)
        except KeyError:
            return
        if held.type_id == type_id:
            self._guarded(lambda: self._table.release(rep))

    def drop_pending(self, explain: Callable[[int], BaseException] | None = None) -> list[BaseException]:
        """Run the guest's destructors for handles that were given up; by the owner, with fuel and deadline set.

        Returns: an error for each destructor that trapped (the instance is then finished): what `explain` makes of the
        engine's error, which it takes over, or a GuestTrap.
        """
        failures: list[BaseException] = []
        while self.drops:
            address = self.guests.pop(self.drops.popleft(), None)
            if address is not None:
                error = self._lib.wasmtime_component_resource_any_drop(self._context, address)
                if error:
                    failures.append(explain(error) if explain else self._destructor_trap(error))
                self._lib.wasmtime_component_resource_any_delete(address)
        return failures

    def close(self) -> list[BaseException]:
        """Close every host object and forget every guest handle, without running guest code; returns what failed.

        Call it while the store still exists or after; calling it again does nothing.
        """
        self.is_closed = True
        self.drops.clear()
        guests, self.guests = self.guests, {}
        for address in guests.values():
            self._lib.wasmtime_component_resource_any_delete(address)
        failures, self.failures = [*self.failures, *self._table.close()], []
        return failures

    def _guarded(self, close: Callable[[], None]) -> None:
        try:
            close()
        except Exception as error:
            self.failures.append(error)

    def _destructor_trap(self, error: int) -> GuestTrap:
        return GuestTrap(f"a resource's destructor trapped: {take_error(self._lib, error)}")
