"""The engine's own type behind `wasi:io/poll.pollable`, so that an interface which uses it can be closed.

A closed `wasi:clocks/monotonic-clock` still has to export the very resource type that `wasi:io/poll` provides, and the
C API names no such type. A tiny component of ours makes one pollable and hands it to a host function, where the engine
tells its type. Learned once per engine, only when a policy removes the clocks.
"""

from __future__ import annotations

import ctypes
from typing import Any

from cloche.engine import ffi
from cloche.errors import EngineError

POLLABLE_OWNER = "wasi:io/poll"

# Text, which the engine reads for components of our own; a plugin's bytes never come this way (H21).
_COMPONENT = b"""(component
  (import "wasi:io/poll@0.2.0" (instance $poll (export "pollable" (type (sub resource)))))
  (alias export $poll "pollable" (type $pollable))
  (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock
    (alias outer 1 $pollable (type $outer))
    (export "pollable" (type (eq $outer)))
    (export "subscribe-duration" (func (param "when" u64) (result (own $outer))))))
  (import "learn" (func $learn (param "pollable" (own $pollable))))
  (core func $subscribe (canon lower (func $clock "subscribe-duration")))
  (core func $hand-over (canon lower (func $learn)))
  (core module $module
    (import "host" "subscribe" (func $subscribe (param i64) (result i32)))
    (import "host" "learn" (func $learn (param i32)))
    (func (export "run") (call $learn (call $subscribe (i64.const 0)))))
  (core instance $instance (instantiate $module (with "host" (instance
    (export "subscribe" (func $subscribe)) (export "learn" (func $hand-over))))))
  (func (export "run") (canon lift (core func $instance "run"))))"""

_FUEL, _TICKS = 1_000_000, 1_000_000


def learn_pollable(lib: ffi.Library, engine: int) -> int:
    """Address of the `wasmtime_component_resource_type_t`; the caller deletes it. Blocks for a few milliseconds.

    Raises: EngineError (`engine.unsupported`) when this engine does not tell.
    """
    learned: list[int] = []

    def learn(_data: int, _context: int, _type: int, arguments: int, *_: int) -> int:
        resource = ctypes.c_void_p.from_address(arguments + 8).value
        learned.append(int(lib.wasmtime_component_resource_any_type(resource)))
        return 0

    callback = ffi.HostFunction(learn)
    component, linker, store = ctypes.c_void_p(), lib.wasmtime_component_linker_new(engine), 0
    try:
        _check(lib, lib.wasmtime_component_new(engine, _COMPONENT, len(_COMPONENT), ctypes.addressof(component)))
        _check(lib, lib.wasmtime_component_linker_add_wasip2(linker))
        root = lib.wasmtime_component_linker_root(linker)
        _check(lib, lib.wasmtime_component_linker_instance_add_func(root, b"learn", 5, callback, None, None))
        lib.wasmtime_component_linker_instance_delete(root)
        store = lib.wasmtime_store_new(engine, None, None)
        context = lib.wasmtime_store_context(store)
        _check(lib, lib.wasmtime_context_set_wasi(context, lib.wasi_config_new()))
        # Either fails where the profile does not meter that way; both are only there to let the component run.
        refused = lib.wasmtime_context_set_fuel(context, _FUEL)
        if refused:
            lib.wasmtime_error_delete(refused)
        lib.wasmtime_context_set_epoch_deadline(context, _TICKS)
        instance, function = ffi.ComponentInstance(), ffi.ComponentFunc()
        _check(lib, lib.wasmtime_component_linker_instantiate(linker, context, component, ctypes.addressof(instance)))
        export = lib.wasmtime_component_get_export_index(component, None, b"run", 3)
        lib.wasmtime_component_instance_get_func(
            ctypes.addressof(instance), context, export, ctypes.addressof(function)
        )
        lib.wasmtime_component_export_index_delete(export)
        _check(lib, lib.wasmtime_component_func_call(ctypes.addressof(function), context, None, 0, None, 0))
    finally:
        if store:
            lib.wasmtime_store_delete(store)
        lib.wasmtime_component_linker_delete(linker)
        if component:
            lib.wasmtime_component_delete(component)
    if not learned:
        raise EngineError("the engine does not tell the type of pollable", code="engine.unsupported")
    return learned[0]


def _check(lib: ffi.Library, error: Any) -> None:
    if error:
        raise EngineError(f"the clocks cannot be closed: {ffi.take_error(lib, error)}", code="engine.unsupported")
