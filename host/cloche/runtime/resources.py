"""Handles of a guest's own resources with the resource's methods on them: `counter.increment()`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from cloche.engine.codec.finding import Finder, finder
from cloche.engine.codec.handles import GuestResource
from cloche.engine.codec.plan import plan_for
from cloche.model import Limits
from cloche.runtime.functions import Backend, BoundFunction
from cloche.wit.names import snake, unique_names
from cloche.wit.types import Export, FunctionKind, Interface, ResourceType, Type

_RESERVED = frozenset(name for name in dir(GuestResource) if not name.startswith("_"))


def handle_classes(
    backend: Backend, limits: Limits, exports: Sequence[tuple[str | None, Interface]]
) -> dict[ResourceType, Any]:
    """A class of handles for each resource that the plugin exports. A method named like a handle's own gets a `_`."""
    classes: dict[ResourceType, Any] = {}
    for export, interface in exports:
        for name, kind in interface.types:
            if isinstance(kind, ResourceType) and kind.name.interface == (interface.id or None):
                methods = {
                    function.name: function
                    for function in interface.functions
                    if function.kind is FunctionKind.METHOD and function.resource == kind
                }
                names = unique_names(((word, snake(each.item_name)) for word, each in methods.items()), _RESERVED)
                functions = {
                    names[word]: BoundFunction(backend, Export(export, function), limits)
                    for word, function in methods.items()
                }
                classes[kind] = type(name, (_Handle,), {"__slots__": (), "_functions": functions})
    return classes


def handle_finder(type_: Type, limits: Limits) -> Finder | None:
    """What finds the handles inside values of this type that a call may take; None when there are none."""
    return finder(plan_for(type_), limits.payload_bytes)


def find_handle(value: object, find: Finder) -> GuestResource | None:
    """The first handle of a guest's resource inside a value, or None."""
    return next((item for item, _ in find(value) if isinstance(item, GuestResource)), None)


class _Handle(GuestResource):
    __slots__ = ()
    _functions: dict[str, BoundFunction] = {}

    def __getattr__(self, name: str) -> Any:
        function = None if name.startswith("_") else self._functions.get(name)
        if function is None:
            raise AttributeError(f"resource {type(self).__name__} has no method {name}")
        return partial(function, self)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._functions]
