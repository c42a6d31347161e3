"""The smallest host around a component, for tests of the codec: one engine, one store, host functions by plan."""

from __future__ import annotations

import ctypes
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from types import TracebackType
from typing import Any, Self

from cloche.engine.codec.function import CallBuffer, FunctionPlan, HostPlan
from cloche.engine.codec.handles import ResourceBridge
from cloche.engine.ffi import (
    ComponentFunc,
    ComponentInstance,
    Finalizer,
    HostFunction,
    Library,
    ResourceDestructor,
    library,
    ptr,
    take_error,
)
from cloche.engine.profile import Profile, new_engine
from cloche.wit.types import Function, ResourceType

MANY = 1 << 30
FUEL = 1 << 60


@lru_cache(maxsize=1)
def shared_engine() -> tuple[Library, int]:
    """The library and one engine for all tests of this process."""
    lib = library()
    return lib, new_engine(lib, Profile())


class Rig:
    """One instance of a component. `interfaces` maps an interface to its functions: WIT function and Python callable.

    `resources` maps a host resource to (interface, exported name, type id).
    """

    def __init__(
        self,
        wasm: bytes,
        interfaces: Mapping[str, Sequence[tuple[Function, Callable[..., Any]]]] | None = None,
        resources: Mapping[ResourceType, tuple[str, str, int]] | None = None,
        max_handles: int = 1000,
        max_bytes: int = MANY,
    ) -> None:
        self.lib, self.engine = lib, engine = shared_engine()
        self.max_bytes = max_bytes
        self.host_errors: list[BaseException] = []
        self._keep: list[Any] = []
        self._buffers: dict[tuple[str, ...], tuple[ComponentFunc, CallBuffer]] = {}
        component = ptr()
        self._check(lib.wasmtime_component_new(engine, wasm, len(wasm), ctypes.addressof(component)))
        self.component = component
        self.linker = lib.wasmtime_component_linker_new(engine)
        self.store = lib.wasmtime_store_new(engine, None, None)
        self.context = lib.wasmtime_store_context(self.store)
        lib.wasmtime_context_set_fuel(self.context, FUEL)
        lib.wasmtime_context_set_epoch_deadline(self.context, 1 << 40)
        self.bridge = ResourceBridge(
            self.context, {resource: spec[2] for resource, spec in (resources or {}).items()}, max_handles, lib=lib
        )
        root = lib.wasmtime_component_linker_root(self.linker)
        for name in {*(interfaces or {}), *(spec[0] for spec in (resources or {}).values())}:
            inner, text = ptr(), name.encode()
            self._check(
                lib.wasmtime_component_linker_instance_add_instance(root, text, len(text), ctypes.addressof(inner))
            )
            for interface, item, type_id in (resources or {}).values():
                if interface == name:
                    self._add_resource(inner, item, type_id)
            for function, call in (interfaces or {}).get(name, []):
                self._add_function(inner, function, call)
            lib.wasmtime_component_linker_instance_delete(inner)
        lib.wasmtime_component_linker_instance_delete(root)
        self.instance = ComponentInstance()
        self._check(
            lib.wasmtime_component_linker_instantiate(
                self.linker, self.context, self.component, ctypes.addressof(self.instance)
            )
        )

    def _check(self, error: int | None) -> None:
        if error:
            raise RuntimeError(take_error(self.lib, error))

    def _add_function(self, inner: Any, function: Function, call: Callable[..., Any]) -> None:
        plan = HostPlan(function, self.lib)

        def trampoline(_data: Any, _context: Any, _type: Any, arguments: int, count: int, results: int, _n: int) -> int:
            try:
                values, _ = plan.lift(arguments or 0, count, self.bridge, self.max_bytes)
                plan.lower(call(*values), results or 0, self.bridge, self.max_bytes)
            except BaseException as error:
                self.host_errors.append(error)
                return int(self.lib.wasmtime_error_new(b"host function failed"))
            return 0

        held = HostFunction(trampoline)
        self._keep.append(held)
        name = function.name.encode()
        self._check(
            self.lib.wasmtime_component_linker_instance_add_func(inner, name, len(name), held, None, Finalizer(0))
        )

    def _add_resource(self, inner: Any, item: str, type_id: int) -> None:
        def destructor(_data: Any, _context: Any, rep: int) -> int:
            try:
                self.bridge.host_dropped(type_id, rep)
            except BaseException:
                traceback.print_exc()
            return 0

        held = ResourceDestructor(destructor)
        self._keep.append(held)
        kind, name = self.lib.wasmtime_component_resource_type_new_host(type_id), item.encode()
        self._check(
            self.lib.wasmtime_component_linker_instance_add_resource(
                inner, name, len(name), kind, held, None, Finalizer(0)
            )
        )
        self.lib.wasmtime_component_resource_type_delete(kind)

    def export(self, function: Function, *path: str) -> tuple[ComponentFunc, CallBuffer]:
        """The function behind `path` (its own name at the root by default), and a buffer for it."""
        path = path or (function.name,)
        if path not in self._buffers:
            index = None
            for name in path:
                text = name.encode()
                index = self.lib.wasmtime_component_get_export_index(self.component, index, text, len(text))
                assert index, path
            found = ComponentFunc()
            assert self.lib.wasmtime_component_instance_get_func(
                ctypes.addressof(self.instance), self.context, index, ctypes.addressof(found)
            )
            self.lib.wasmtime_component_export_index_delete(index)
            self._buffers[path] = found, FunctionPlan(function, self.lib).buffer()
        return self._buffers[path]

    def call(self, function: Function, *args: Any, path: tuple[str, ...] = (), max_bytes: int = MANY) -> Any:
        """Call an export; errors of host functions are raised as they are."""
        found, buffer = self.export(function, *path)
        buffer.lower(args, self.bridge, max_bytes)
        error = self.lib.wasmtime_component_func_call(
            ctypes.addressof(found),
            self.context,
            buffer.arguments,
            buffer.argument_count,
            buffer.results,
            buffer.result_count,
        )
        if error:
            buffer.discard()
            text = take_error(self.lib, error)
            if self.host_errors:
                raise self.host_errors.pop()
            raise RuntimeError(text)
        return buffer.lift(self.bridge, max_bytes)

    def close(self) -> list[BaseException]:
        """Close the bridge, then the store; returns what failed to close."""
        failures = self.bridge.close()
        if not self.store:
            return failures
        self.lib.wasmtime_store_delete(self.store)
        self.lib.wasmtime_component_linker_delete(self.linker)
        self.lib.wasmtime_component_delete(self.component)
        self.store = 0
        return failures

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
