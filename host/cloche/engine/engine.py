"""One engine per profile: the C engine, its ticker, and the one trampoline through which it calls back.

Everything the engine can call goes through `_host_function`, `_resource_dropped`, `_epoch_reached` or `_output`, which
catch `BaseException`, keep it with the instance that is being served and hand the engine one opaque error (H15, H16).
The callback table is ours and grows only under a lock (H45).
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cloche.engine import ffi
from cloche.engine.features import ensure_features_off
from cloche.engine.interrupts import Interrupts
from cloche.engine.pollable import learn_pollable
from cloche.engine.profile import Profile, new_engine
from cloche.engine.selfcheck import two_borrows_work
from cloche.engine.stacks import HEADROOM_BYTES
from cloche.engine.ticker import Ticker
from cloche.errors import UsageError

if TYPE_CHECKING:
    from cloche.engine.instance import Instance
    from cloche.engine.linker import Linker
    from cloche.engine.slots import HostSlot

OPAQUE = b"the host ended this call"
"""All that a guest's backtrace may ever say about a failure in the host."""


class Engine:
    """Shared by all instances of one profile. Thread-safe. The C engine lives until the last linker is closed.

    Raises: EngineError (`engine.unsupported`) when the library cannot be used.
    """

    def __init__(self, profile: Profile, interrupts: Interrupts) -> None:
        self.profile = profile
        self.lib = lib = ffi.library()
        self.pointer = engine = new_engine(lib, profile)
        ensure_features_off(lib, engine)
        self.takes_two_borrows = two_borrows_work(lib, engine)
        """Whether host functions may take two borrowed resources; tried at start where the version is not known."""
        self.interrupts = interrupts
        increment, argument = lib.increment_epoch, ffi.ptr(engine)
        self.ticker = Ticker(lambda: increment(argument))
        self.stack_needed = profile.stack_bytes + HEADROOM_BYTES
        """What must be left of a thread's stack for one more guest, in bytes."""
        self.instances: dict[int, Instance] = {}
        """Live instances by the address of their store's context."""
        self._lock = threading.Lock()
        self._slots: list[HostSlot | None] = [None]
        self._free: list[int] = []
        self._linkers: set[Linker] = set()
        self._closed = self._deleted = False
        self._pollable = 0
        self._new_error: Callable[[bytes], int] = lib.wasmtime_error_new
        # Kept for as long as the engine: the C side holds their addresses.
        self.host_function = ffi.HostFunction(self._host_function)
        self.resource_dropped = ffi.ResourceDestructor(self._resource_dropped)
        self.epoch_reached = ffi.EpochCallback(self._epoch_reached)
        self.outputs = tuple(ffi.OutputCallback(self._writer(stream)) for stream in (0, 1))

    def register(self, slot: HostSlot) -> int:
        """Reserve a number in the callback table; it is what the C side carries."""
        with self._lock:
            if self._free:
                number = self._free.pop()
                self._slots[number] = slot
            else:
                self._slots.append(slot)
                number = len(self._slots) - 1
            return number

    def unregister(self, numbers: list[int]) -> None:
        """Give numbers back, once the linker that used them is deleted."""
        with self._lock:
            for number in numbers:
                self._slots[number] = None
            self._free.extend(numbers)

    def pollable_type(self) -> int:
        """The engine's type of `wasi:io/poll.pollable`, learned once."""
        with self._lock:
            if not self._pollable:
                self._pollable = learn_pollable(self.lib, self.pointer)
            return self._pollable

    def adopt(self, linker: Linker) -> None:
        """Know a linker that begins to use the engine. Raises: UsageError (`usage.closed`) after `close`."""
        with self._lock:
            if self._closed:
                raise UsageError("the host is closed", code="usage.closed")
            self._linkers.add(linker)

    def release(self, linker: Linker) -> None:
        """Forget a linker that is closed, with all instances made from it; one that is not known is no matter."""
        with self._lock:
            self._linkers.discard(linker)
        self._delete_if_unused()

    def abandon(self) -> None:
        """Close what nobody refers to any more, and the engine with it."""
        for linker in list(self._linkers):
            linker.close()
        self.close()

    def close(self) -> bool:
        """Refuse new linkers; stop the ticker and delete the engine as soon as none is left. Idempotent.

        Returns: whether that is so now; else the last linker's end does it.
        """
        with self._lock:
            self._closed = True
        return self._delete_if_unused()

    def _delete_if_unused(self) -> bool:
        with self._lock:
            if self._deleted or not self._closed or self._linkers:
                return self._deleted
            self._deleted = True
        self.ticker.stop()
        if self._pollable:
            self.lib.wasmtime_component_resource_type_delete(self._pollable)
        self.lib.wasm_engine_delete(self.pointer)
        return True

    def _host_function(
        self, data: int, context: int, _type: int, arguments: int, count: int, results: int, result_count: int
    ) -> int:
        # Nothing of Python's is called while an exception is handled here: near the recursion limit it would raise.
        instance = slot = None
        try:
            instance = self.instances[context]
            slot = self._slots[data]
            assert slot is not None
            instance.serve(slot, arguments, count, results, result_count)
            return 0
        except BaseException as error:
            if instance is not None and instance.failure is None:
                instance.failure, instance.failed = error, slot
            return self._new_error(OPAQUE)

    def _resource_dropped(self, data: int | None, context: int, rep: int) -> int:
        instance = None
        try:
            instance = self.instances[context]
            instance.dropped(data or 0, rep)
            return 0
        except BaseException as error:
            if instance is not None and instance.failure is None:
                instance.failure = error
            return self._new_error(OPAQUE)

    def _epoch_reached(self, context: int, _data: int | None, ticks: Any, kind: Any) -> int:
        instance = None
        try:
            instance = self.instances[context]
            more = instance.ticks_until_stop()
            if more <= 0:
                return self._new_error(OPAQUE)
            ticks[0] = more
            kind[0] = 0
            return 0
        except BaseException as error:
            if instance is not None and instance.failure is None:
                instance.failure = error
            return self._new_error(OPAQUE)

    def _writer(self, stream: int) -> Callable[[int | None, int, int], int]:
        instances = self.instances

        def write(context: int | None, data: int, size: int) -> int:
            try:
                instance = instances.get(context or 0)
                if instance is not None and size:
                    instance.output.write(stream, ctypes.string_at(data, size))
            except BaseException:  # noqa: S110 - an output callback has no way to report; bytes are dropped
                pass
            return size

        return write
