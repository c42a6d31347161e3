"""What an instance may import: one linker per plugin, built from its grants, and the instances made from it.

Host functions are registered once per plugin and number their place in the instance's own table of targets, so that an
instance costs a list of callables and no registration.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Literal

from cloche.engine import sealed
from cloche.engine.codec.function import FunctionPlan, HostPlan
from cloche.engine.engine import Engine
from cloche.engine.ffi import ComponentFunc, ComponentInstance, take_error
from cloche.engine.pollable import POLLABLE_OWNER
from cloche.engine.slots import HostSlot, Import, host_slots, label
from cloche.errors import EngineError, UsageError
from cloche.frozen import dataclass
from cloche.wit.types import Export, ResourceType


@dataclass(frozen=True, slots=True)
class CodeFiles:
    """Descriptors of authenticated native code: the component, and the core modules that it imports by name."""

    component: int
    modules: tuple[tuple[str, int], ...] = ()


class Linker:
    """Linked native code of one plugin. Thread-safe; `close()` once no instance is alive.

    Raises: UsageError (`usage.closed`) when the host is closed; EngineError (`engine.cache` when the native code does
        not load, `engine.instantiate` when linking fails).
    """

    def __init__(self, engine: Engine, code: CodeFiles, imports: Sequence[Import], *, wasi: bool) -> None:
        self.engine = engine
        self.slots: list[HostSlot] = []
        self.type_ids: dict[ResourceType, int] = {}
        self._numbers: list[int] = []
        self._modules: list[int] = []
        self._exports: dict[tuple[str | None, str], int] = {}
        self._plans: dict[Export, FunctionPlan] = {}
        lib = engine.lib
        self.component = self.pointer = 0
        engine.adopt(self)
        try:
            self.pointer = lib.wasmtime_component_linker_new(engine.pointer)
            self.component = self._load("component", code.component)
            lib.wasmtime_component_linker_allow_shadowing(self.pointer, True)
            if wasi:
                self._check(lib.wasmtime_component_linker_add_wasip2(self.pointer))
            root = lib.wasmtime_component_linker_root(self.pointer)
            try:
                for name, descriptor in code.modules:
                    module = self._load("module", descriptor)
                    self._modules.append(module)
                    text = name.encode()
                    self._check(lib.wasmtime_component_linker_instance_add_module(root, text, len(text), module))
                for item in imports:
                    first = len(self.slots)
                    self.slots += host_slots([item], first, HostPlan)
                    self._define(root, item, self.slots[first:])
            finally:
                lib.wasmtime_component_linker_instance_delete(root)
        except BaseException:
            self.close()
            raise

    def export(self, interface: str | None, name: str) -> int:
        """Address of the export index of a function, looked up once per linker.

        Raises: UsageError (`usage.not-found`).
        """
        key = (interface, name)
        found = self._exports.get(key)
        if found is None:
            found = self._exports[key] = self._find_export(interface, name)
        return found

    def plan(self, export: Export) -> FunctionPlan:
        """The call plan of an exported function, compiled once per linker."""
        found = self._plans.get(export)
        if found is None:
            found = self._plans[export] = FunctionPlan(export.function, self.engine.lib)
        return found

    def instantiate(self, context: int) -> ComponentInstance:
        """Make the component's instance in the store of `context`. Runs guest code (start functions).

        The error, when there is one, is returned to the instance, which alone knows what it means.
        """
        instance = ComponentInstance()
        error = self.engine.lib.wasmtime_component_linker_instantiate(
            self.pointer, context, self.component, ctypes.addressof(instance)
        )
        if error:
            raise RejectedError(error)
        return instance

    def function(self, instance: ComponentInstance, context: int, interface: str | None, name: str) -> ComponentFunc:
        """The exported function of an instance. Raises: UsageError (`usage.not-found`)."""
        found = ComponentFunc()
        export = self.export(interface, name)
        if not self.engine.lib.wasmtime_component_instance_get_func(
            ctypes.addressof(instance), context, export, ctypes.addressof(found)
        ):
            raise UsageError(f"the component exports no function {label(interface, name)}", code="usage.not-found")
        return found

    def close(self) -> None:
        """Delete the linker, its code and its callbacks. Idempotent."""
        lib = self.engine.lib
        for export in self._exports.values():
            lib.wasmtime_component_export_index_delete(export)
        self._exports.clear()
        if self.pointer:
            lib.wasmtime_component_linker_delete(self.pointer)
            self.pointer = 0
        if self.component:
            lib.wasmtime_component_delete(self.component)
            self.component = 0
        for module in self._modules:
            lib.wasmtime_module_delete(module)
        self._modules.clear()
        self.engine.unregister(self._numbers)
        self._numbers = []
        self.engine.release(self)

    def _load(self, kind: Literal["component", "module"], descriptor: int) -> int:
        """Map native code that is sealed, or copy it. The cache authenticated the descriptor's content (H24, H25)."""
        lib, pointer = self.engine.lib, ctypes.c_void_p()
        path = sealed.loading_path(descriptor)
        if path is not None:
            deserialize_file = getattr(lib, f"wasmtime_{kind}_deserialize_file")
            error = deserialize_file(self.engine.pointer, path, ctypes.addressof(pointer))
        else:
            deserialize = getattr(lib, f"wasmtime_{kind}_deserialize")
            with sealed.contents(descriptor) as code:
                error = deserialize(self.engine.pointer, code, len(code), ctypes.addressof(pointer))
        if error:
            text = take_error(lib, error)
            raise EngineError(f"native code does not load: {text}; run `cloche cache clear`", code="engine.cache")
        return int(pointer.value or 0)

    def _define(self, root: int, item: Import, slots: Sequence[HostSlot]) -> None:
        lib = self.engine.lib
        text = item.name.encode()
        made = ctypes.c_void_p()
        self._check(lib.wasmtime_component_linker_instance_add_instance(root, text, len(text), ctypes.addressof(made)))
        target = int(made.value or 0)
        try:
            for name, resource in item.resources:
                self._define_resource(target, name, resource)
            for slot in slots:
                self._define_function(target, slot)
        finally:
            lib.wasmtime_component_linker_instance_delete(target)

    def _define_resource(self, target: int, name: str, resource: ResourceType) -> None:
        lib = self.engine.lib
        owner = (resource.name.interface or "").partition("@")[0]
        if owner == POLLABLE_OWNER:  # only a closed interface of WASI uses the engine's own type
            type_id, handle, is_ours = 0, self.engine.pollable_type(), False
        else:
            type_id = self.type_ids.setdefault(resource, len(self.type_ids) + 1)
            handle, is_ours = lib.wasmtime_component_resource_type_new_host(type_id), True
        text = name.encode()
        try:
            self._check(
                lib.wasmtime_component_linker_instance_add_resource(
                    target, text, len(text), handle, self.engine.resource_dropped, type_id, None
                )
            )
        finally:
            if is_ours:
                lib.wasmtime_component_resource_type_delete(handle)

    def _define_function(self, target: int, slot: HostSlot) -> None:
        number = self.engine.register(slot)
        self._numbers.append(number)
        text = slot.function.name.encode()
        self._check(
            self.engine.lib.wasmtime_component_linker_instance_add_func(
                target, text, len(text), self.engine.host_function, number, None
            )
        )

    def _find_export(self, interface: str | None, name: str) -> int:
        lib = self.engine.lib
        outer = None
        if interface is not None:
            text = interface.encode()
            outer = lib.wasmtime_component_get_export_index(self.component, None, text, len(text))
            if not outer:
                raise UsageError(f"the component does not export {interface}", code="usage.not-found")
        text = name.encode()
        found = lib.wasmtime_component_get_export_index(self.component, outer, text, len(text))
        if outer:
            lib.wasmtime_component_export_index_delete(outer)
        if not found:
            raise UsageError(f"the component exports no function {label(interface, name)}", code="usage.not-found")
        return int(found)

    def _check(self, error: int | None) -> None:
        if error:
            text = take_error(self.engine.lib, error)
            raise EngineError(f"the component cannot be linked: {text}", code="engine.instantiate")


class RejectedError(Exception):
    """The engine refused or trapped; `error` is its error, still to be taken. Never leaves the engine room."""

    def __init__(self, error: int) -> None:
        super().__init__("engine error")
        self.error = error
