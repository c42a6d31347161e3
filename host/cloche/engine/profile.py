"""Engine profiles: the settings that decide what native code looks like, and so belong to every cache key.

Source: H8 (features that had sandbox bugs are off), H4 (stack), H10 (reservation), H24 (cache key).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloche.errors import EngineError
from cloche.frozen import dataclass
from cloche.model import BOUNDS, GIB, KIB, Metering, ensure_limit

if TYPE_CHECKING:
    from cloche.engine.ffi import Library

# Features that guests do not need. Each had a 2026 sandbox bug or lets a guest wait for ever.
DISABLED_FEATURES = (
    "wasm_threads",
    "shared_memory",
    "wasm_gc",
    "gc_support",
    "wasm_function_references",
    "wasm_multi_memory",
    "wasm_memory64",
    "wasm_wide_arithmetic",
    "wasm_exceptions",
    "wasm_custom_page_sizes",
    "wasm_stack_switching",
    "wasm_component_model_async",
    "concurrency_support",
)
ENABLED_FEATURES = ("wasm_component_model", "wasm_component_model_map")


@dataclass(frozen=True, slots=True)
class Profile:
    """One way to run the engine: metering × stack × memory reservation. Normally a process uses one.

    `reservation_bytes` is the address space kept for each linear memory; below 4 GiB memories may move.
    """

    metering: Metering = Metering.BOTH
    stack_bytes: int = BOUNDS["stack_bytes"].default
    reservation_bytes: int = 4 * GIB

    def __post_init__(self) -> None:
        ensure_limit("stack_bytes", self.stack_bytes)

    @property
    def counts_fuel(self) -> bool:
        """Whether the engine counts fuel."""
        return self.metering is not Metering.DEADLINE

    @property
    def has_epochs(self) -> bool:
        """Whether epochs can stop a guest."""
        return self.metering is not Metering.FUEL

    def key(self) -> bytes:
        """Everything that native code depends on, for the cache key."""
        return (
            f"metering={self.metering};stack={self.stack_bytes};reservation={self.reservation_bytes};"
            f"off={','.join(DISABLED_FEATURES)};on={','.join(ENABLED_FEATURES)}"
        ).encode()


STACK_STEPS = (32, 64, 128, 256, 512, 1024)
"""Wasm stacks that engines are made for, in KiB: each is a profile with native code of its own."""


def stack_step(stack_bytes: int) -> int:
    """The largest step within a stack limit, in bytes."""
    return max((step * KIB for step in STACK_STEPS if step * KIB <= stack_bytes), default=STACK_STEPS[0] * KIB)


def new_engine(lib: Library, profile: Profile) -> int:
    """A hardened engine (`wasm_engine_t*`); the caller deletes it with `wasm_engine_delete`.

    Raises: EngineError (`engine.unsupported`) when the library refuses.
    """
    config = lib.wasm_config_new()
    for name in DISABLED_FEATURES:
        getattr(lib, f"wasmtime_config_{name}_set")(config, False)
    for name in ENABLED_FEATURES:
        getattr(lib, f"wasmtime_config_{name}_set")(config, True)
    lib.wasmtime_config_consume_fuel_set(config, profile.counts_fuel)
    lib.wasmtime_config_epoch_interruption_set(config, profile.has_epochs)
    lib.wasmtime_config_max_wasm_stack_set(config, profile.stack_bytes)
    if profile.reservation_bytes != 4 * GIB:
        lib.wasmtime_config_memory_reservation_set(config, profile.reservation_bytes)
        lib.wasmtime_config_memory_guard_size_set(config, 65536)
    engine = lib.wasm_engine_new_with_config(config)
    if not engine:
        raise EngineError("the engine refused its configuration", code="engine.unsupported")
    return int(engine)
