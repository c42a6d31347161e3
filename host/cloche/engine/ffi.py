"""The engine's C API, loaded straight from the shared library of the `wasmtime` package.

Every handle is a plain integer address and every prototype is declared here once; nothing else in the project names a
C function that is not in `PROTOTYPES`. Loading the library alone takes about 1 ms where importing the package's Python
binding takes 65 to 160 ms, and the binding's value conversion, callback table and exception slot must not be used
anyway (H15, H16, H43, H45).
"""

from __future__ import annotations

import ctypes
from ctypes import (
    CFUNCTYPE,
    POINTER,
    Structure,
    c_bool,
    c_char_p,
    c_int,
    c_size_t,
    c_ssize_t,
    c_uint8,
    c_uint32,
    c_uint64,
    c_void_p,
)
from functools import lru_cache
from pathlib import Path
from typing import Any

from cloche.engine.installed import engine_library
from cloche.errors import EngineError
from cloche.text import clean

ptr = c_void_p
"""An address, as an int; None stands for NULL."""

VAL_BYTES = 32
"""Size of `wasmtime_component_val_t`: kind (u8) at offset 0, union (24 bytes) at offset 8."""

TESTED_VERSIONS = ("49.0.0", "50.0.1")
"""Engine versions that the test-suite runs on."""


class ByteVec(Structure):
    """`wasm_byte_vec_t`."""

    _fields_ = [("size", c_size_t), ("data", ptr)]
    size: int
    data: int | None


class ComponentInstance(Structure):
    """`wasmtime_component_instance_t`, opaque, by value."""

    _fields_ = [("store_id", c_uint64), ("private", c_uint32)]


class ComponentFunc(Structure):
    """`wasmtime_component_func_t`, opaque, by value."""

    _fields_ = [
        ("store_id", c_uint64),
        ("private1", c_uint32),
        ("pad", c_uint32),
        ("private2", c_uint32),
        ("private3", ptr),
    ]


# Callbacks return the address of an error that the engine takes over, or 0.
HostFunction = CFUNCTYPE(c_size_t, ptr, ptr, ptr, ptr, c_size_t, ptr, c_size_t)
"""(data, context, function type, arguments, argument count, results, result count)"""
ResourceDestructor = CFUNCTYPE(c_size_t, ptr, ptr, c_uint32)
"""(data, context, rep)"""
Finalizer = CFUNCTYPE(None, ptr)
EpochCallback = CFUNCTYPE(c_size_t, ptr, ptr, POINTER(c_uint64), POINTER(c_uint8))
"""(context, data, ticks to add, what to do: 0 continue)"""
OutputCallback = CFUNCTYPE(c_ssize_t, ptr, ptr, c_size_t)
"""(data, bytes, length) → bytes taken, or a negative errno"""

# name: (result, arguments). `ptr` is an address; results declared ptr come back as int or None.
PROTOTYPES: dict[str, tuple[Any, list[Any]]] = {
    "wasm_config_new": (ptr, []),
    "wasm_config_delete": (None, [ptr]),
    "wasm_engine_new_with_config": (ptr, [ptr]),
    "wasm_engine_delete": (None, [ptr]),
    "wasmtime_engine_increment_epoch": (None, [ptr]),
    "wasm_byte_vec_new": (None, [ptr, c_size_t, ptr]),
    "wasm_byte_vec_new_uninitialized": (None, [ptr, c_size_t]),
    "wasm_byte_vec_delete": (None, [ptr]),
    "wasmtime_error_new": (ptr, [c_char_p]),
    "wasmtime_error_delete": (None, [ptr]),
    "wasmtime_error_message": (None, [ptr, ptr]),
    "wasmtime_error_exit_status": (c_bool, [ptr, POINTER(c_int)]),
    "wasmtime_store_new": (ptr, [ptr, ptr, ptr]),
    "wasmtime_store_context": (ptr, [ptr]),
    "wasmtime_store_limiter": (
        None,
        [ptr, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64],
    ),
    "wasmtime_store_delete": (None, [ptr]),
    "wasmtime_store_epoch_deadline_callback": (None, [ptr, EpochCallback, ptr, ptr]),
    "wasmtime_context_set_fuel": (ptr, [ptr, c_uint64]),
    "wasmtime_context_get_fuel": (ptr, [ptr, ptr]),
    "wasmtime_context_set_epoch_deadline": (None, [ptr, c_uint64]),
    "wasmtime_context_set_wasi": (ptr, [ptr, ptr]),
    "wasi_config_new": (ptr, []),
    "wasi_config_delete": (None, [ptr]),
    "wasi_config_set_argv": (c_bool, [ptr, c_size_t, ptr]),
    "wasi_config_set_env": (c_bool, [ptr, c_size_t, ptr, ptr]),
    "wasi_config_set_stdin_bytes": (None, [ptr, ptr]),
    "wasi_config_set_stdout_custom": (None, [ptr, OutputCallback, ptr, ptr]),
    "wasi_config_set_stderr_custom": (None, [ptr, OutputCallback, ptr, ptr]),
    "wasi_config_preopen_dir": (c_bool, [ptr, c_char_p, c_char_p, c_bool]),
    "wasmtime_module_new": (ptr, [ptr, ptr, c_size_t, ptr]),
    "wasmtime_module_validate": (ptr, [ptr, ptr, c_size_t]),
    "wasmtime_module_delete": (None, [ptr]),
    "wasmtime_module_serialize": (ptr, [ptr, ptr]),
    "wasmtime_module_deserialize": (ptr, [ptr, ptr, c_size_t, ptr]),
    "wasmtime_module_deserialize_file": (ptr, [ptr, c_char_p, ptr]),
    "wasmtime_component_new": (ptr, [ptr, ptr, c_size_t, ptr]),
    "wasmtime_component_delete": (None, [ptr]),
    "wasmtime_component_serialize": (ptr, [ptr, ptr]),
    "wasmtime_component_deserialize": (ptr, [ptr, ptr, c_size_t, ptr]),
    "wasmtime_component_deserialize_file": (ptr, [ptr, c_char_p, ptr]),
    "wasmtime_component_get_export_index": (ptr, [ptr, ptr, c_char_p, c_size_t]),
    "wasmtime_component_export_index_delete": (None, [ptr]),
    "wasmtime_component_linker_new": (ptr, [ptr]),
    "wasmtime_component_linker_delete": (None, [ptr]),
    "wasmtime_component_linker_allow_shadowing": (None, [ptr, c_bool]),
    "wasmtime_component_linker_root": (ptr, [ptr]),
    "wasmtime_component_linker_add_wasip2": (ptr, [ptr]),
    "wasmtime_component_linker_instantiate": (ptr, [ptr, ptr, ptr, ptr]),
    "wasmtime_component_linker_instance_add_instance": (ptr, [ptr, c_char_p, c_size_t, ptr]),
    "wasmtime_component_linker_instance_add_module": (ptr, [ptr, c_char_p, c_size_t, ptr]),
    "wasmtime_component_linker_instance_add_resource": (
        ptr,
        [ptr, c_char_p, c_size_t, ptr, ResourceDestructor, ptr, ptr],
    ),
    "wasmtime_component_linker_instance_add_func": (ptr, [ptr, c_char_p, c_size_t, HostFunction, ptr, ptr]),
    "wasmtime_component_linker_instance_delete": (None, [ptr]),
    "wasmtime_component_instance_get_func": (c_bool, [ptr, ptr, ptr, ptr]),
    "wasmtime_component_func_call": (ptr, [ptr, ptr, ptr, c_size_t, ptr, c_size_t]),
    "wasmtime_component_func_post_return": (ptr, [ptr, ptr]),
    "wasmtime_component_resource_type_new_host": (ptr, [c_uint32]),
    "wasmtime_component_resource_type_delete": (None, [ptr]),
    "wasmtime_component_resource_any_type": (ptr, [ptr]),
    "wasmtime_component_resource_any_owned": (c_bool, [ptr]),
    "wasmtime_component_resource_any_drop": (ptr, [ptr, ptr]),
    "wasmtime_component_resource_any_clone": (ptr, [ptr]),
    "wasmtime_component_resource_any_delete": (None, [ptr]),
    "wasmtime_component_resource_any_to_host": (ptr, [ptr, ptr, ptr]),
    "wasmtime_component_resource_host_new": (ptr, [c_bool, c_uint32, c_uint32]),
    "wasmtime_component_resource_host_rep": (c_uint32, [ptr]),
    "wasmtime_component_resource_host_type": (c_uint32, [ptr]),
    "wasmtime_component_resource_host_owned": (c_bool, [ptr]),
    "wasmtime_component_resource_host_delete": (None, [ptr]),
    "wasmtime_component_resource_host_to_any": (ptr, [ptr, ptr, ptr]),
    "wasmtime_component_vallist_new_uninit": (None, [ptr, c_size_t]),
    "wasmtime_component_valrecord_new_uninit": (None, [ptr, c_size_t]),
    "wasmtime_component_valtuple_new_uninit": (None, [ptr, c_size_t]),
    "wasmtime_component_valflags_new_uninit": (None, [ptr, c_size_t]),
    "wasmtime_component_valmap_new_uninit": (None, [ptr, c_size_t]),
    "wasmtime_component_val_new": (ptr, [ptr]),
    "wasmtime_component_val_delete": (None, [ptr]),
    "wasmtime_config_consume_fuel_set": (None, [ptr, c_bool]),
    "wasmtime_config_epoch_interruption_set": (None, [ptr, c_bool]),
    "wasmtime_config_max_wasm_stack_set": (None, [ptr, c_size_t]),
    "wasmtime_config_wasm_threads_set": (None, [ptr, c_bool]),
    "wasmtime_config_shared_memory_set": (None, [ptr, c_bool]),
    "wasmtime_config_wasm_tail_call_set": (None, [ptr, c_bool]),
    "wasmtime_config_wasm_function_references_set": (None, [ptr, c_bool]),
    "wasmtime_config_wasm_gc_set": (None, [ptr, c_bool]),
    "wasmtime_config_gc_support_set": (None, [ptr, c_bool]),
    "wasmtime_config_wasm_relaxed_simd_set": (None, [ptr, c_bool]),
    "wasmtime_config_wasm_multi_memory_set": (None, [ptr, c_bool]),
    "wasmtime_config_wasm_memory64_set": (None, [ptr, c_bool]),
    "wasmtime_config_wasm_wide_arithmetic_set": (None, [ptr, c_bool]),
    "wasmtime_config_wasm_exceptions_set": (None, [ptr, c_bool]),
    "wasmtime_config_wasm_custom_page_sizes_set": (None, [ptr, c_bool]),
    "wasmtime_config_wasm_stack_switching_set": (None, [ptr, c_bool]),
    "wasmtime_config_wasm_component_model_set": (None, [ptr, c_bool]),
    "wasmtime_config_wasm_component_model_map_set": (None, [ptr, c_bool]),
    "wasmtime_config_wasm_component_model_async_set": (None, [ptr, c_bool]),
    "wasmtime_config_concurrency_support_set": (None, [ptr, c_bool]),
    "wasmtime_config_parallel_compilation_set": (None, [ptr, c_bool]),
    "wasmtime_config_memory_reservation_set": (None, [ptr, c_uint64]),
    "wasmtime_config_memory_guard_size_set": (None, [ptr, c_uint64]),
    "wasmtime_config_native_unwind_info_set": (None, [ptr, c_bool]),
}


class Library:
    """The loaded library: one attribute for each name in `PROTOTYPES`, and the engine's version.

    Raises: EngineError (`engine.unsupported`) when the package or a function is missing.
    """

    __slots__ = ("func_call", "get_fuel", "handle", "increment_epoch", "path", "set_fuel", "version", *PROTOTYPES)

    def __init__(self, path: Path, version: str) -> None:
        self.path, self.version = path, version
        try:
            self.handle = ctypes.CDLL(str(path))
            for name, (result, arguments) in PROTOTYPES.items():
                function = getattr(self.handle, name)
                function.restype, function.argtypes = result, arguments
                object.__setattr__(self, name, function)
            # Too short to give the interpreter's lock away for, and to convert arguments each time: these take ctypes
            # values that their callers keep.
            quick = ctypes.PyDLL(str(path), handle=self.handle._handle)
            self.increment_epoch = quick.wasmtime_engine_increment_epoch
            self.get_fuel, self.set_fuel = quick.wasmtime_context_get_fuel, quick.wasmtime_context_set_fuel
            for function in (self.increment_epoch, self.get_fuel, self.set_fuel):
                function.restype = None
            # The call of a guest gives the lock away, and takes ctypes values, too.
            self.func_call = ctypes.CDLL(str(path), handle=self.handle._handle).wasmtime_component_func_call
            self.func_call.restype = ptr
        except (OSError, AttributeError) as error:
            raise EngineError(
                f"the engine library of wasmtime {version} cannot be used: {error}; install wasmtime 49.0.0",
                code="engine.unsupported",
            ) from error

    def __getattr__(self, name: str) -> Any:  # for the type checker: prototypes are set as slots
        raise AttributeError(name)


@lru_cache(maxsize=1)
def library() -> Library:
    """The engine library of this process, loaded on first use. Blocking for a few milliseconds then."""
    found = engine_library()
    return Library(found.path, found.version)


MAX_MESSAGE_BYTES = 64 << 10
"""Most bytes of an engine's message that are kept, from its start and its end: it quotes names out of the component."""


def take_message(lib: Library, error: int) -> str:
    """The text of an engine error, which stays owned by the caller; without control characters of a guest's choice."""
    text = ByteVec()
    lib.wasmtime_error_message(error, ctypes.addressof(text))
    try:
        if text.size <= MAX_MESSAGE_BYTES:
            return clean(ctypes.string_at(text.data or 0, text.size).decode("utf-8", "replace")) if text.size else ""
        half = MAX_MESSAGE_BYTES // 2
        start, end = (ctypes.string_at((text.data or 0) + at, half) for at in (0, text.size - half))
        return clean(f"{start.decode('utf-8', 'replace')}\n[…]\n{end.decode('utf-8', 'replace')}")
    finally:
        lib.wasm_byte_vec_delete(ctypes.addressof(text))


def take_error(lib: Library, error: int) -> str:
    """The text of an engine error; frees the error."""
    try:
        return take_message(lib, error)
    finally:
        lib.wasmtime_error_delete(error)
