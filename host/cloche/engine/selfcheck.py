"""May a function of the host take two borrows in this engine?

In version 50.0.1 it may only because our profiles switch `concurrency_support` off; with that feature on, a host import
with two or more `borrow` parameters traps there ("deferred host scope has no call context"), so that `tensor.add(a, b)`
could not work (H44, docs/decisions/0010-two-borrows.md). For versions that nobody has looked at, a tiny component of
ours tries.
"""

from __future__ import annotations

import ctypes
from types import MappingProxyType
from typing import Any

from cloche.engine import ffi
from cloche.engine.codec.lowering import RESOURCE

KNOWN = MappingProxyType({"49.0.0": True, "50.0.1": True})
"""Engine versions that the test-suite runs on, with the answer for our profiles."""

# Text, which the engine reads for components of our own; a plugin's bytes never come this way (H21).
_COMPONENT = b"""(component
  (import "host" (instance $host
    (export "thing" (type $thing (sub resource)))
    (export "make" (func (result (own $thing))))
    (export "both" (func (param "a" (borrow $thing)) (param "b" (borrow $thing))))))
  (alias export $host "thing" (type $thing))
  (core func $make (canon lower (func $host "make")))
  (core func $both (canon lower (func $host "both")))
  (core func $drop (canon resource.drop $thing))
  (core module $module
    (import "h" "make" (func $make (result i32)))
    (import "h" "both" (func $both (param i32 i32)))
    (import "h" "drop" (func $drop (param i32)))
    (func (export "run") (local $a i32) (local $b i32)
      (local.set $a (call $make)) (local.set $b (call $make))
      (call $both (local.get $a) (local.get $b))
      (call $drop (local.get $a)) (call $drop (local.get $b))))
  (core instance $instance (instantiate $module (with "h" (instance
    (export "make" (func $make)) (export "both" (func $both)) (export "drop" (func $drop))))))
  (func (export "run") (canon lift (core func $instance "run"))))"""

_TYPE_ID, _FUEL, _TICKS = 1, 1_000_000, 1_000_000


def two_borrows_work(lib: ffi.Library, engine: int) -> bool:
    """Whether host functions of this engine may take two borrows. Known versions are answered from the table.

    Blocks for a few milliseconds on other versions; never raises: an engine that cannot even try has the fault.
    """
    known = KNOWN.get(lib.version)
    return try_two_borrows(lib, engine) if known is None else known


def try_two_borrows(lib: ffi.Library, engine: int) -> bool:
    """Run a component that hands two borrows to a host function; True when that works."""
    received: list[int] = []

    def make(_data: int, context: int, _type: int, _arguments: int, _count: int, results: int, _results: int) -> int:
        host, made = lib.wasmtime_component_resource_host_new(True, 7, _TYPE_ID), ctypes.c_void_p()
        error = lib.wasmtime_component_resource_host_to_any(context, host, ctypes.addressof(made))
        lib.wasmtime_component_resource_host_delete(host)
        ctypes.c_uint8.from_address(results).value = RESOURCE
        ctypes.c_void_p.from_address(results + 8).value = made.value
        return int(error or 0)

    def both(_data: int, context: int, _type: int, arguments: int, count: int, *_: int) -> int:
        for index in range(count):  # each received borrow is released exactly once: by asking for it
            found, lent = ctypes.c_void_p(), ctypes.c_void_p.from_address(arguments + index * ffi.VAL_BYTES + 8).value
            error = lib.wasmtime_component_resource_any_to_host(context, lent, ctypes.addressof(found))
            if error:
                return int(error)
            received.append(lib.wasmtime_component_resource_host_rep(found.value))
            lib.wasmtime_component_resource_host_delete(found.value)
        return 0

    functions = {b"make": ffi.HostFunction(make), b"both": ffi.HostFunction(both)}
    destructor = ffi.ResourceDestructor(lambda *_: 0)
    component, instance, function = ctypes.c_void_p(), ffi.ComponentInstance(), ffi.ComponentFunc()
    linker, store = lib.wasmtime_component_linker_new(engine), lib.wasmtime_store_new(engine, None, None)
    kind = lib.wasmtime_component_resource_type_new_host(_TYPE_ID)
    try:
        if _failed(lib, lib.wasmtime_component_new(engine, _COMPONENT, len(_COMPONENT), ctypes.addressof(component))):
            return False
        root, inner = lib.wasmtime_component_linker_root(linker), ctypes.c_void_p()
        error = lib.wasmtime_component_linker_instance_add_instance(root, b"host", 4, ctypes.addressof(inner))
        if not _failed(lib, error):
            add = lib.wasmtime_component_linker_instance_add_resource
            _failed(lib, add(inner, b"thing", 5, kind, destructor, None, None))
            for name, callback in functions.items():
                add_function = lib.wasmtime_component_linker_instance_add_func
                _failed(lib, add_function(inner, name, len(name), callback, None, None))
            lib.wasmtime_component_linker_instance_delete(inner)
        lib.wasmtime_component_linker_instance_delete(root)
        context = lib.wasmtime_store_context(store)
        _failed(lib, lib.wasmtime_context_set_wasi(context, lib.wasi_config_new()))
        # Either fails where the profile does not meter that way; both are only there to let the component run.
        _failed(lib, lib.wasmtime_context_set_fuel(context, _FUEL))
        lib.wasmtime_context_set_epoch_deadline(context, _TICKS)
        made = lib.wasmtime_component_linker_instantiate(linker, context, component, ctypes.addressof(instance))
        if _failed(lib, made):
            return False
        export = lib.wasmtime_component_get_export_index(component, None, b"run", 3)
        lib.wasmtime_component_instance_get_func(
            ctypes.addressof(instance), context, export, ctypes.addressof(function)
        )
        lib.wasmtime_component_export_index_delete(export)
        called = lib.wasmtime_component_func_call(ctypes.addressof(function), context, None, 0, None, 0)
        return not _failed(lib, called) and received == [7, 7]
    finally:
        lib.wasmtime_store_delete(store)
        lib.wasmtime_component_linker_delete(linker)
        lib.wasmtime_component_resource_type_delete(kind)
        if component:
            lib.wasmtime_component_delete(component)


def _failed(lib: ffi.Library, error: Any) -> bool:
    if error:
        lib.wasmtime_error_delete(error)
    return bool(error)
