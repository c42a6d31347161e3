"""Asserts at engine start that what is switched off really is off (H8).

Each probe is the smallest binary that needs one feature; the engine must refuse it. A switch that a new version of the
engine renames or ignores is found here, before any plugin is.
"""

from __future__ import annotations

import ctypes

from cloche.engine.ffi import Library
from cloche.errors import EngineError

_MODULE = b"\0asm\x01\0\0\0"
_COMPONENT = b"\0asm\x0d\0\x01\0"

ACCEPTED = _MODULE + b"\x05\x03\x01\x00\x01"
"""A memory of one page: proves that a refusal below means something."""

REFUSED_MODULES: dict[str, bytes] = {
    "memory64": _MODULE + b"\x05\x03\x01\x04\x01",
    "multi-memory": _MODULE + b"\x05\x05\x02\x00\x01\x00\x01",
    "threads": _MODULE + b"\x05\x04\x01\x03\x01\x01",
    "gc": _MODULE + b"\x01\x03\x01\x5f\x00",
    "exceptions": _MODULE + b"\x01\x04\x01\x60\x00\x00" + b"\x0d\x03\x01\x00\x00",
    "function-references": _MODULE + b"\x01\x06\x01\x60\x01\x64\x70\x00",  # (type (func (param (ref func))))
    "wide-arithmetic": (  # i64.mul_wide_s
        _MODULE
        + b"\x01\x08\x01\x60\x02\x7e\x7e\x02\x7e\x7e"
        + b"\x03\x02\x01\x00"
        + b"\x0a\x0a\x01\x08\x00\x20\x00\x20\x01\xfc\x15\x0b"
    ),
    "custom-page-sizes": _MODULE + b"\x05\x04\x01\x08\x01\x00",
    "stack-switching": _MODULE + b"\x01\x06\x02\x60\x00\x00\x5d\x00",  # (type (cont 0))
}

REFUSED_COMPONENTS: dict[str, bytes] = {
    "component-model-async": _COMPONENT + b"\x07\x03\x01\x66\x00",  # (type (stream))
}


def ensure_features_off(lib: Library, engine: int) -> None:
    """Blocks for well under a millisecond. Raises: EngineError (`engine.unsupported`) naming what is still on."""
    if not _validates(lib, engine, ACCEPTED):
        raise EngineError("the engine refuses a module with one memory; it cannot be used", code="engine.unsupported")
    still_on = [name for name, module in REFUSED_MODULES.items() if _validates(lib, engine, module)]
    still_on += [name for name, component in REFUSED_COMPONENTS.items() if _compiles(lib, engine, component)]
    if still_on:
        raise EngineError(
            f"wasmtime {lib.version} does not let {', '.join(still_on)} be switched off; install wasmtime 49.0.0",
            code="engine.unsupported",
        )


def _validates(lib: Library, engine: int, module: bytes) -> bool:
    error = lib.wasmtime_module_validate(engine, module, len(module))
    if error:
        lib.wasmtime_error_delete(error)
    return not error


def _compiles(lib: Library, engine: int, component: bytes) -> bool:
    made = ctypes.c_void_p()
    error = lib.wasmtime_component_new(engine, component, len(component), ctypes.addressof(made))
    if error:
        lib.wasmtime_error_delete(error)
        return False
    lib.wasmtime_component_delete(made)
    return True
