"""Handles of a guest's own resources with the resource's methods on them: `counter.increment()`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from cloche.engine.codec.handles import GuestResource
from cloche.engine.codec.layout import children
from cloche.model import Limits
from cloche.runtime.functions import Backend, BoundFunction
from cloche.wit.names import snake
from cloche.wit.types import BorrowType, Export, FunctionKind, Interface, OwnType, ResourceType, Type

_RESERVED = frozenset({"close", "context", "is_open", "resource"})


def handle_classes(
    backend: Backend, limits: Limits, exports: Sequence[tuple[str | None, Interface]]
) -> dict[ResourceType, Any]:
    """A class of handles for each resource that the plugin exports. A method named like a handle's own gets a `_`."""
    classes: dict[ResourceType, Any] = {}
    for export, interface in exports:
        for name, kind in interface.types:
            if isinstance(kind, ResourceType) and kind.name.interface == (interface.id or None):
                functions = {
                    _method_name(function.item_name): BoundFunction(backend, Export(export, function), limits)
                    for function in interface.functions
                    if function.kind is FunctionKind.METHOD and function.resource == kind
                }
                classes[kind] = type(name, (_Handle,), {"__slots__": (), "_functions": functions})
    return classes


def carries_handle(type_: Type) -> bool:
    """Whether a value of this type can contain handles."""
    return isinstance(type_, OwnType | BorrowType) or any(map(carries_handle, children(type_)))


def find_handle(value: object) -> GuestResource | None:
    """The first handle of a guest's resource inside a value, or None."""
    if isinstance(value, GuestResource):
        return value
    if isinstance(value, Mapping):
        inner: Iterable[object] = (*value.keys(), *value.values())
    elif isinstance(value, list | tuple):
        inner = value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        inner = (getattr(value, field.name) for field in dataclasses.fields(value))
    else:
        return None
    return next((found for item in inner if (found := find_handle(item)) is not None), None)


class _Handle(GuestResource):
    __slots__ = ()
    _functions: dict[str, BoundFunction] = {}

    def __getattr__(self, name: str) -> Any:
        function = self._functions.get(name)
        if function is None:
            raise AttributeError(f"resource {self.resource.name} has no method {name}")
        return partial(function, self)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._functions]


def _method_name(name: str) -> str:
    python = snake(name)
    return python + "_" if python in _RESERVED else python
