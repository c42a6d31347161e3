"""One instance: store, functions, meter and limits behind one lock.

Store, component instance and functions never leave this object (H17). A call enters only when no other call is inside
(H13); after any trap the store is closed and the instance is finished (H14); closing while a call is inside waits for
the call to end.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import perf_counter_ns, thread_time_ns
from typing import Any, Protocol

from cloche.engine import endings
from cloche.engine.bounds import StoreBounds
from cloche.engine.codec.function import CallBuffer
from cloche.engine.codec.handles import ResourceBridge
from cloche.engine.ffi import VAL_BYTES, ComponentFunc, take_error
from cloche.engine.linker import Linker, RejectedError
from cloche.engine.mapping import close_and_measure, close_unmeasured, making_memories
from cloche.engine.pricing import BYTE_FUEL, HOST_CALL_FUEL
from cloche.engine.slots import HostSlot
from cloche.engine.stacks import ThisThread, this_thread
from cloche.engine.stdio import Output
from cloche.engine.ticker import TICK_MS, Ticker
from cloche.engine.wasi import Mount, new_wasi
from cloche.errors import ClocheError, EngineError, GrantError, LimitError, UsageError
from cloche.frozen import dataclass, field
from cloche.model import Limits, Usage
from cloche.wit.types import Export, ResourceType

Target = Callable[..., object]
"""A host function bound to one instance: takes the lifted arguments, returns the value to lower."""

ARM_TICKS = 100
"""Longest stretch for which an epoch deadline is armed. Bounds the work of stopping one guest at once."""

PROBE_FUEL = 10_000
"""Given to the memory probe, and not charged to anybody."""

PAGE_BYTES = 65_536

SHORT_NS = 1_000_000
"""Below this wall time `Usage.cpu_ms` is the wall time."""

UNREAD = -1
"""Stands for a processor time that was not read when the call began."""

FULL_SHARE = 0.9
"""A guest that grew to this share of its memory limit may have met allocations that failed, and be broken (H10)."""

PROBE_MASK = 15
PROBE_AFTER_FUEL = 50_000
"""The memory is read at every sixteenth call of an instance, the first included, and after each call that used more
fuel than this; in between `Usage.peak_memory` is the last reading. Reading it costs half of a small call."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What every instance of a plugin has in common. `probe` is the name of the memory probe's export, if any."""

    plugin: str
    limits: Limits
    bounds: StoreBounds
    probe: str | None = None
    mounts: tuple[Mount, ...] = ()
    guest_classes: Mapping[ResourceType, Callable[[ResourceBridge, ResourceType, int], object]] = field(
        default_factory=dict
    )
    """Makers of the handles of the guest's own resources."""


class Cancellation(Protocol):
    """How somebody else may stop one call: `Control`, or Ctrl-C on the main thread (`Interrupts`)."""

    cancelled: bool

    def attach(self, running: Instance | None, /) -> Any:
        """Name the instance that serves the call (None: none does any more); returns what was named before."""


class Control:
    """The caller's means to stop one call from another thread. `cancel()` may come before, during or after the call."""

    __slots__ = ("_instance", "_lock", "cancelled")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._instance: Instance | None = None
        self.cancelled = False

    def cancel(self) -> None:
        """Stop the call as soon as the guest reaches a loop or a function; a call not yet begun will not begin."""
        with self._lock:
            self.cancelled = True
            if self._instance is not None:
                self._instance.interrupt()

    def attach(self, running: Instance | None, /) -> Instance | None:
        """As `Cancellation`: no call is hit that began after the named one ended."""
        with self._lock:
            before, self._instance = self._instance, running
            return before


class Callee:
    """An exported function of one instance, ready to be called: `arguments` are those of the engine's C call."""

    __slots__ = ("arguments", "buffer", "is_long", "label", "struct")

    def __init__(self, label: str, struct: ComponentFunc, context: int, buffer: CallBuffer) -> None:
        self.label, self.struct, self.buffer = label, struct, buffer
        self.is_long = False
        self.arguments = (
            ctypes.byref(struct),
            ctypes.c_void_p(context),
            ctypes.c_void_p(buffer.arguments),
            ctypes.c_size_t(buffer.argument_count),
            ctypes.c_void_p(buffer.results),
            ctypes.c_size_t(buffer.result_count),
        )


class Probe:
    """The memory probe of one instance: `func() -> u32`, pages of all memories together (`cloche.binary.probe`)."""

    __slots__ = ("_result", "address", "result", "struct")

    def __init__(self, struct: ComponentFunc) -> None:
        self.struct, self.address = struct, ctypes.addressof(struct)
        self._result = (ctypes.c_uint32 * (VAL_BYTES // 4))()
        self.result = ctypes.addressof(self._result)

    @property
    def memory_bytes(self) -> int:
        """What the last call of it said."""
        return int(self._result[2]) * PAGE_BYTES  # the union of an engine value begins at byte 8


class Instance:
    """A live instance. One call at a time, from any thread whose stack suffices (`Engine.stack_needed`).

    Made inside `limits` (by default those of `settings`): start functions run with the fuel and deadline of one call.
    Raises what a call raises.
    """

    def __init__(
        self,
        linker: Linker,
        settings: Settings,
        targets: Callable[[Instance], Sequence[Target]],
        control: Cancellation | None = None,
        limits: Limits | None = None,
    ) -> None:
        limits = limits or settings.limits
        self.linker, self.settings = linker, settings
        self.engine = engine = linker.engine
        self.failure: BaseException | None = None
        self.failed: HostSlot | None = None
        """The host function that raised `failure`, if it was one."""
        self.finished = False
        self.is_sound = True
        """False from when a guest is entered until it has returned well: whatever else happened, use it no more."""
        self.calls = 0
        self.bytes_returned = 0
        self.denied: dict[int, int] = {}
        """Calls of closed functions, by the position of their slot."""
        self.closers: list[Callable[[], None]] = []
        """Run once when the instance ends, after its store is gone."""
        self.unclosed: list[BaseException] = []
        """What failed while host objects were closed, for whoever retires the instance to report."""
        self.output = Output(limits.output_bytes)
        self.call_id: int | None = None
        self._lib = lib = engine.lib
        self._lock = threading.Lock()
        self._close_wanted = False
        self._stop: str | None = None
        self._deadline_ns = 0
        self._armed_tick = 0
        self._ticker = engine.ticker
        self._adopt(limits)
        self._host_fuel = self._unpaid_fuel = self._host_calls = self._host_bytes = 0
        self.serving: ThisThread | None = None
        """The thread on which the guest waits for host code now; None while it does not."""
        self.first_cost: Usage | None = None
        """What making it cost where that belongs to its next call (`charge_next_call`)."""
        self._spent_fuel = self._spent_ns = 0
        self._callees: dict[Export, Callee] = {}
        self._probe: Probe | None = None
        self._probe_name = settings.probe
        self._memory: int | None = None
        self._first_memory = 0
        self.has_filled_up = False
        """Whether its memories grew until hardly anything was left of the limit, as far as they were read."""
        self._func_call, self._get_fuel, self._set_fuel = lib.func_call, lib.get_fuel, lib.set_fuel
        self._fuel, self._left = ctypes.c_uint64(), ctypes.c_uint64()
        self._left_argument = ctypes.byref(self._left)
        self._counts_fuel = engine.profile.counts_fuel
        self._has_epochs = engine.profile.has_epochs
        self._store = lib.wasmtime_store_new(engine.pointer, None, None)
        self.context = int(lib.wasmtime_store_context(self._store))
        self._context_argument = ctypes.c_void_p(self.context)
        self.bridge = ResourceBridge(
            self.context, linker.type_ids, settings.limits.handles, guest_classes=settings.guest_classes
        )
        engine.instances[self.context] = self
        wall, cpu = perf_counter_ns(), thread_time_ns()
        try:
            bounds = settings.bounds
            lib.wasmtime_store_limiter(
                self._store,
                bounds.memory_bytes,
                bounds.table_elements,
                bounds.instances,
                bounds.tables,
                bounds.memories,
            )
            # Without a WASI context a guest's first WASI call aborts the process (H43).
            error = lib.wasmtime_context_set_wasi(self.context, new_wasi(engine, self.context, settings.mounts))
            if error:
                raise EngineError(f"no WASI context: {take_error(lib, error)}")
            if self._has_epochs:
                lib.wasmtime_store_epoch_deadline_callback(self._store, engine.epoch_reached, None, None)
            self.targets: Sequence[Target] = targets(self)
            self._begin(limits, wall)
            self._give_fuel(limits.fuel)
            with self._entered(control), making_memories():
                self._instance = linker.instantiate(self.context)
        except RejectedError as rejected:
            usage = self._usage(limits.fuel, wall, cpu, 0)
            raise self._explain(rejected.error, "instantiate", usage, is_new=True) from None
        except BaseException:
            self._delete()
            raise
        self.made = self._usage(limits.fuel, wall, cpu, 0)
        """What making it cost: its start functions."""

    def callee(self, export: Export) -> Callee:
        """The exported function, looked up once per instance. Raises: UsageError (`usage.not-found`)."""
        found = self._callees.get(export)
        if found is None:
            struct = self.linker.function(self._instance, self.context, export.interface, export.function.name)
            buffer = self.linker.plan(export).buffer(self._look)
            found = self._callees[export] = Callee(export.label, struct, self.context, buffer)
        return found

    def call(
        self, export: Export, args: Sequence[object], limits: Limits, control: Cancellation | None = None
    ) -> tuple[object, Usage]:
        """Call the guest. Blocks until it returns, traps or is stopped. A WIT `result` comes back as Ok or Err.

        Raises: UsageError (`usage.value`, `usage.argument`, `usage.re-entry`, `usage.closed`, `usage.interrupted`);
            LimitError (`limit.*`); GuestTrap; GrantError (`grant.denied`); CapabilityError; each with `usage` set once
            the guest was entered. Whatever a host function raised on purpose comes out unchanged.
        """
        # The hot path of the whole project: one frame, no helper calls that a scalar call would pay for.
        if not self._lock.acquire(False):  # by name it takes twice as long
            raise UsageError(
                "this instance already serves a call; an instance cannot be entered again", code="usage.re-entry"
            )
        try:
            if self.finished or not self.is_sound:
                raise UsageError("this instance is finished", code="usage.closed")
            callee = self._callees.get(export) or self.callee(export)
            bridge, buffer = self.bridge, callee.buffer
            if bridge.drops:
                self._drop_handles(control)
            # The clock runs while values are converted, too. Reading a thread's processor time is a system call: only
            # functions that were slow before pay for it.
            wall, cpu = perf_counter_ns(), thread_time_ns() if callee.is_long else UNREAD
            self._begin(limits, wall - self._spent_ns)
            outer = None
            if control is not None:
                outer = control.attach(self)
                if control.cancelled:
                    raise self._never_begun(control, outer)
            value = None
            try:
                if not buffer.lower_scalars(args, limits.payload_bytes):
                    self._lower(buffer, args, limits, wall, cpu)
                budget = limits.fuel - self._spent_fuel - buffer.bytes_in * BYTE_FUEL
                if budget < 0 and self._counts_fuel:
                    buffer.withdraw()
                    failed = endings.over_fuel(limits, self.settings.plugin)
                    failed.usage = self._unentered(wall, cpu, buffer.bytes_in)
                    raise failed
                if self._counts_fuel:
                    self._fuel.value = budget
                    self._set_fuel(self._context_argument, self._fuel)
                self.is_sound = False
                error = self._func_call(*callee.arguments)
                self.calls = calls = self.calls + 1
                if not error:
                    try:
                        value = buffer.lift(bridge, limits.payload_bytes)
                    except ClocheError as failure:
                        failure.usage = self._usage(budget, wall, cpu, buffer.bytes_in)
                        failure.plugin = self.settings.plugin
                        self._delete()
                        raise
            finally:
                self._ticker.running.pop(self, None)
                if control is not None:
                    control.attach(outer)
            if error:
                buffer.discard()
                raise self._explain(error, callee.label, self._usage(budget, wall, cpu, buffer.bytes_in))
            bytes_in, bytes_out = buffer.bytes_in, buffer.bytes_out
            self.bytes_returned += bytes_out
            guest_fuel: int | None = None
            host_fuel: int | None = None
            is_over = False
            if self._counts_fuel:
                self._get_fuel(self._context_argument, self._left_argument)
                charged = self._host_fuel
                guest_fuel = budget - self._left.value - charged
                host_fuel = charged + (bytes_in + bytes_out) * BYTE_FUEL
                is_over = guest_fuel + host_fuel + self._spent_fuel > limits.fuel
            elapsed = perf_counter_ns() - wall
            if elapsed < SHORT_NS and cpu == UNREAD:
                cpu_ms = elapsed / 1e6
            else:
                cpu_ms = self._cpu_ms(cpu, elapsed)
                callee.is_long = elapsed >= SHORT_NS
            if self._probe_name is not None and (
                calls & PROBE_MASK == 1 or guest_fuel is None or guest_fuel > PROBE_AFTER_FUEL
            ):
                self._memory = self._read_memory()
            fields = (
                guest_fuel, host_fuel, elapsed / 1e6, cpu_ms, self._memory, self._host_calls, bytes_in, bytes_out,
                0, 0, calls,
            )  # fmt: skip
            usage = tuple.__new__(Usage, fields)
            if is_over:
                failed = endings.over_fuel(limits, self.settings.plugin)
                failed.usage = usage
                self._delete()
                raise failed
            self.is_sound = True
            return value, usage
        finally:
            self._lock.release()
            if self._close_wanted:
                self.close()

    def charge_next_call(self, spent: Usage | None) -> None:
        """Count what making and initializing it cost against the limits of its next call, as that call's own."""
        self.first_cost = spent
        self._spent_fuel, self._spent_ns = (0, 0) if spent is None else (spent.fuel or 0, int(spent.wall_ms * 1e6))

    def interrupt(self) -> None:
        """Stop the call in progress as soon as the guest reaches a loop or a function. Any thread; returns at once.

        Without epochs, or while the guest blocks in WASI (H1), the call goes on until it next calls the host.
        """
        self._stop = "interrupted"
        if self._has_epochs:
            self.engine.ticker.advance(ARM_TICKS + 1)

    def close(self) -> None:
        """Close the store and everything that the instance holds; after the call in progress, if there is one."""
        self._close_wanted = True  # before the attempt: whoever holds the lock looks at it after giving the lock back
        if not self._lock.acquire(blocking=False):
            return
        try:
            self._delete()
        finally:
            self._lock.release()

    def serve(self, slot: HostSlot, arguments: int, count: int, results: int, result_count: int) -> None:
        """Serve one call of the guest to the host. Called by the engine's trampoline only; raising traps the guest."""
        limits = self._limits
        self._host_calls += 1
        if self._host_calls > limits.host_calls:
            raise endings.over_host_calls(limits, self.settings.plugin)
        if self._stop is not None:
            raise endings.stopped(self._stop, self._limits, self.settings.plugin)
        room = limits.host_call_bytes - self._host_bytes
        payable = self._payable_bytes(room)
        try:
            # Bounded by what can be paid for, so that nothing owned is taken over by a call that then fails.
            values, size_in = slot.plan.lift(arguments, count, self.bridge, payable, self._look)
        except LimitError as error:
            if payable < room and error.code == "limit.host-calls":
                self._charge(HOST_CALL_FUEL + (payable + 1) * BYTE_FUEL)
            raise self._named(error, limits) from None
        self._charge(HOST_CALL_FUEL + size_in * BYTE_FUEL)
        outer, here, needed = self.serving, this_thread(), self.engine.stack_needed
        self.serving = here
        here.room_bytes -= needed
        try:
            value = self._deny(slot) if slot.closed else self.targets[slot.position](*values)
            try:  # without a result the plan says that there must be none
                size_out = slot.plan.lower(
                    value, results, self.bridge, room - size_in if result_count else 0, self._look
                )
            except LimitError as error:
                raise self._named(error, limits) from None
        finally:
            here.room_bytes += needed
            self.serving = outer
        self._host_bytes += size_in + size_out
        if size_out:
            self._charge(size_out * BYTE_FUEL)
        if self._stop is not None:
            raise endings.stopped(self._stop, self._limits, self.settings.plugin)

    def dropped(self, type_id: int, rep: int) -> None:
        """The guest dropped a handle of a host resource. Called by the engine's callback only."""
        with self._serving():
            self.bridge.host_dropped(type_id, rep)

    def ticks_until_stop(self) -> int:
        """For the epoch callback: how long the guest may go on before it must be asked again; 0 stops it."""
        if self._stop is not None:
            return 0
        left_ms = (self._deadline_ns - perf_counter_ns()) // 1_000_000
        if left_ms <= 0:
            self._stop = "deadline"
            return 0
        ticks = min(ARM_TICKS, left_ms // TICK_MS + 1)
        self._armed_tick = self.engine.ticker.now + ticks
        return int(ticks)

    # -- one call, step by step ------------------------------------------------------------------------------------

    def _begin(self, limits: Limits, now_ns: int) -> None:
        """Reset the meters and arm the deadline."""
        if limits is not self._limits:
            self._adopt(limits)
        self.failure = self.failed = self._stop = None
        if self._host_calls:
            self._host_fuel = self._unpaid_fuel = self._host_calls = self._host_bytes = 0
        if self.output.is_used:
            self.output.begin(limits.output_bytes)
        if self._has_epochs:
            ticker = self._ticker
            ticker.running[self] = None
            if ticker.parked:
                self._wake(ticker)
            self._deadline_ns = now_ns + self._span_ns
            # Armed deadlines are looked at by the callback, so they need arming only when this one may come sooner.
            if self._span_ticks < self._armed_tick - ticker.now or self._armed_tick == 0:
                self._lib.wasmtime_context_set_epoch_deadline(self.context, self._span_ticks)
                self._armed_tick = ticker.now + self._span_ticks

    def _wake(self, ticker: Ticker) -> None:
        try:
            ticker.wake()
        except BaseException:
            ticker.running.pop(self, None)
            raise

    def _give_fuel(self, fuel: int) -> None:
        if self._counts_fuel:
            self._fuel.value = fuel
            self._set_fuel(self._context_argument, self._fuel)

    def _look(self) -> None:
        """Between pieces of a long conversion: raise when the call is to be stopped. The guest is not running then."""
        if self._stop is None and self._has_epochs and perf_counter_ns() >= self._deadline_ns:
            self._stop = "deadline"
        if self._stop is not None:
            raise endings.stopped(self._stop, self._limits, self.settings.plugin)

    def _lower(self, buffer: CallBuffer, args: Sequence[object], limits: Limits, wall: int, cpu: int) -> None:
        """Lower arguments that may run the caller's own code, which cannot be served by this instance."""
        self.serving = this_thread()
        try:
            buffer.lower_each(args, self.bridge, limits.payload_bytes)
            self._look()  # their code may have taken long, and so far the arguments and the instance are as before
        except ClocheError as failure:
            if self._stop is not None:
                buffer.withdraw()
                failure.usage = self._unentered(wall, cpu, 0)
            raise
        finally:
            self.serving = None

    def _adopt(self, limits: Limits) -> None:
        """Take over the limits of a call that differ from those of the call before."""
        self._limits = limits
        self._span_ns = limits.deadline_ms * 1_000_000
        self._span_ticks = min(ARM_TICKS, limits.deadline_ms // TICK_MS + 1)
        self.output.begin(limits.output_bytes)

    def _drop_handles(self, control: Cancellation | None) -> None:
        """Run the guest's destructors for handles that were given up, with the meter of one call of their own."""
        limits = self.settings.limits
        wall, cpu = perf_counter_ns(), thread_time_ns()
        self._begin(limits, wall)
        self._give_fuel(limits.fuel)

        def explain(error: int) -> BaseException:
            return self._explain(error, "a resource's destructor", self._usage(limits.fuel, wall, cpu, 0))

        with self._entered(control):
            self.is_sound = False
            failures = self.bridge.drop_pending(explain)
        if failures:
            raise failures[0]
        self.is_sound = True

    def _never_begun(self, control: Cancellation, outer: Any) -> ClocheError:
        """What a call fails with that was cancelled before it began."""
        control.attach(outer)
        self._ticker.running.pop(self, None)
        self._stop = "interrupted"
        return endings.stopped(self._stop, self._limits, self.settings.plugin)

    @contextmanager
    def _entered(self, control: Cancellation | None) -> Iterator[None]:
        outer = None
        if control is not None:
            outer = control.attach(self)
            if control.cancelled:
                raise self._never_begun(control, outer)
        try:
            yield
        finally:
            self._ticker.running.pop(self, None)
            if control is not None:
                control.attach(outer)

    @contextmanager
    def _serving(self) -> Iterator[None]:
        """While host code runs that may call the plugin back: with a stack that has less room for guests."""
        outer, here, needed = self.serving, this_thread(), self.engine.stack_needed
        self.serving = here
        here.room_bytes -= needed
        try:
            yield
        finally:
            here.room_bytes += needed
            self.serving = outer

    def _payable_bytes(self, room: int) -> int:
        """How many bytes of arguments the guest can pay for with what it has left, at most `room`."""
        if not self._counts_fuel:
            return room
        self._get_fuel(self._context_argument, self._left_argument)
        left = self._left.value - HOST_CALL_FUEL
        if left < 0:
            self._charge(HOST_CALL_FUEL)
        return min(room, left // BYTE_FUEL)

    def _charge(self, fuel: int) -> None:
        """Take the price of host work from what the guest has left."""
        self._host_fuel += fuel
        if not self._counts_fuel:
            return
        self._get_fuel(self._context_argument, self._left_argument)
        left = self._left.value - fuel
        if left < 0:
            self._unpaid_fuel = fuel
            raise endings.over_fuel(self._limits, self.settings.plugin)
        self._fuel.value = left
        self._set_fuel(self._context_argument, self._fuel)

    def _usage(self, budget: int, wall: int, cpu: int, bytes_in: int) -> Usage:
        """What a call that failed has cost so far."""
        guest_fuel = host_fuel = None
        if self._counts_fuel:
            self._get_fuel(self._context_argument, self._left_argument)
            guest_fuel = max(0, budget - self._left.value - (self._host_fuel - self._unpaid_fuel))
            host_fuel = self._host_fuel + bytes_in * BYTE_FUEL
        elapsed = perf_counter_ns() - wall
        return Usage(
            guest_fuel=guest_fuel,
            host_fuel=host_fuel,
            wall_ms=elapsed / 1e6,
            cpu_ms=self._cpu_ms(cpu, elapsed),
            host_calls=self._host_calls,
            bytes_in=bytes_in,
            instance_calls=self.calls,
        )

    def _unentered(self, wall: int, cpu: int, bytes_in: int) -> Usage:
        """What a call has cost that ends before its guest is entered."""
        guest_fuel = host_fuel = None
        if self._counts_fuel:
            guest_fuel, host_fuel = 0, bytes_in * BYTE_FUEL
        elapsed = perf_counter_ns() - wall
        return Usage(
            guest_fuel,
            host_fuel,
            wall_ms=elapsed / 1e6,
            cpu_ms=self._cpu_ms(cpu, elapsed),
            bytes_in=bytes_in,
            instance_calls=self.calls,
        )

    def _cpu_ms(self, begun_ns: int, elapsed_ns: int) -> float:
        """Processor time since `begun_ns`; where that was not read, at most since this thread was last looked at."""
        now, here = thread_time_ns(), this_thread()
        if begun_ns == UNREAD:
            begun_ns = max(here.cpu_ns, now - elapsed_ns)
        here.cpu_ns = now
        return (now - begun_ns) / 1e6

    def _read_memory(self) -> int | None:
        """Ask the probe for the size of the memories. Its fuel is not charged."""
        probe = self._probe
        if probe is None:
            assert self._probe_name is not None
            struct = self.linker.function(self._instance, self.context, None, self._probe_name)
            probe = self._probe = Probe(struct)
        if self._counts_fuel and self._left.value < PROBE_FUEL:
            self._fuel.value = PROBE_FUEL
            self._set_fuel(self._context_argument, self._fuel)
        error = self._lib.wasmtime_component_func_call(probe.address, self.context, None, 0, probe.result, 1)
        if error:  # an epoch that came due just now: the store is finished, the value of the call is not
            self._lib.wasmtime_error_delete(error)
            self._delete()
            return None
        found = probe.memory_bytes
        self._first_memory = self._first_memory or found
        if found > self._first_memory and found >= FULL_SHARE * self.settings.bounds.all_memory_bytes:
            self.has_filled_up = True
        return found

    def _deny(self, slot: HostSlot) -> object:
        self.denied[slot.position] = self.denied.get(slot.position, 0) + 1
        if slot.denial is not None:
            return slot.denial.value
        raise GrantError(
            f"the plugin called {slot.label}, but it has no grant for {slot.capability}; "
            f"ask for it in plugin.toml and allow it in the policy",
            plugin=self.settings.plugin,
        )

    # -- how calls fail --------------------------------------------------------------------------------------------

    def _named(self, error: LimitError, limits: Limits) -> LimitError:
        """What the codec refused, in terms of the whole call: it knows only what was left for one value."""
        return endings.over_host_bytes(limits, self.settings.plugin) if error.code == "limit.host-calls" else error

    def _explain(self, error: int, what: str, usage: Usage, *, is_new: bool = False) -> BaseException:
        """Turn the engine's error into ours, and finish the instance."""
        lib, status = self._lib, ctypes.c_int()
        exited = bool(lib.wasmtime_error_exit_status(error, ctypes.byref(status)))
        text, stderr, failure = take_error(lib, error), self.output.stderr_tail(), self.failure
        memories = self._delete(measure=True)
        result = endings.explain(
            endings.Ending(
                what=what,
                plugin=self.settings.plugin,
                limits=self._limits,
                text=text,
                exit_status=status.value if exited else None,
                stderr=stderr,
                failure=failure,
                failed=None if self.failed is None else (self.failed.capability, self.failed.label),
                stop=self._stop,
                memories=memories,
                memory_bound=self.settings.bounds.memory_bytes,
                is_new=is_new,
            )
        )
        if isinstance(result, ClocheError):
            # What a host function raised on purpose may concern another plugin, which it called.
            result.plugin = result.plugin or self.settings.plugin
            result.usage = usage if memories is None else usage._replace(peak_memory=sum(memories))
        return result

    def _delete(self, *, measure: bool = False) -> tuple[int, ...] | None:
        """Close the store, then everything behind handles. Never twice. With `measure`: the sizes of its memories.

        What fails is kept in `unclosed`; only what is no Exception (a Ctrl-C, say) is raised, once all is closed.
        """
        if self.finished:
            return None
        self.finished = True
        store, self._store = self._store, 0
        self._callees.clear()
        self._probe = None
        memories = None
        # Before the store goes: a store made on another thread may get the same address the moment it is gone.
        self.engine.instances.pop(self.context, None)
        failures = self.unclosed
        with self._serving():
            failures += self.bridge.close()
        if measure:
            memories = close_and_measure(lambda: self._lib.wasmtime_store_delete(store))
        else:
            close_unmeasured(lambda: self._lib.wasmtime_store_delete(store))
        with self._serving():
            for closer in self.closers:
                try:
                    closer()
                except BaseException as error:
                    failures.append(error)
        for failure in failures:
            if not isinstance(failure, Exception):
                raise failure
        return memories
