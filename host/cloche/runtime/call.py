"""The one path of every guest call in this process: thread, instance, call, events, and the instance given back."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from cloche.engine.codec.finding import Finder
from cloche.engine.codec.handles import GuestResource
from cloche.engine.endings import UnreachedError
from cloche.engine.instance import Cancellation, Control, Target
from cloche.engine.interrupts import RAISING, Interrupts, handler_of
from cloche.engine.slots import HostSlot
from cloche.engine.stacks import Courier, GuestThreads, ThisThread, this_thread, threads
from cloche.engine.stdio import STREAMS
from cloche.engine.wasi import Mount, outward_links
from cloche.errors import CapabilityError, ClocheError, LimitError, UsageError
from cloche.lifecycle.performer import Life
from cloche.lifecycle.states import Event
from cloche.model import Instances, Limits, State, Usage
from cloche.observe.events import EventKind
from cloche.observe.stream import EventStream
from cloche.runtime.hooks import Hooks
from cloche.runtime.pool import Pool
from cloche.runtime.resources import find_handle, handle_classes, handle_finder
from cloche.runtime.services import Services
from cloche.wit.types import Export, Interface, ResourceType

CLOSE_TIMEOUT_S = 30.0
"""How long `close` waits for running calls; their own deadline is usually shorter."""

MAX_CAUSE_CHARACTERS = 2000
"""Most of a backend's own error that an event keeps: it may quote what the guest handed over."""

MAX_LINKS = 1000
"""Most links out of mounts that one plugin's events tell of."""

_call_ids = itertools.count(1)

T = TypeVar("T")


AnyInstance = Any
"""`cloche.engine.instance.Instance`, or `cloche.worker.instance.RemoteInstance`, which looks the same."""


class Housing(Protocol):
    """Where instances of one plugin live: in this process (`LocalHouse`) or in a worker (`worker.house.House`)."""

    @property
    def slots(self) -> Sequence[HostSlot]:
        """The host functions that the plugin imports, by position."""

    def make(
        self,
        targets: Callable[[Any], Sequence[Target]],
        classes: Mapping[ResourceType, Callable[[Any, ResourceType, int], object]],
        control: Cancellation | None,
        limits: Limits,
    ) -> AnyInstance:
        """A new instance."""

    def end(self, instance: Any, /) -> None:
        """Forget an instance that is closed."""

    def instances(self) -> Sequence[Any]:
        """Those that are alive."""

    def reset(self) -> None:
        """End a quarantine."""

    def close(self) -> None:
        """Free everything, once no instance is alive."""


@dataclass(frozen=True, slots=True)
class About:
    """What each call of a plugin needs to know. `stack_needed` is what a call takes of a thread's stack, in bytes."""

    plugin: str
    limits: Limits
    mounts: tuple[Mount, ...]
    interrupts: Interrupts
    stack_needed: int


class ComponentBackend:
    """Serves a component's functions from instances, wherever they live. Thread-safe."""

    def __init__(
        self,
        house: Housing,
        about: About,
        services: Services,
        mode: Instances,
        hooks: Hooks,
        config: Mapping[str, str],
        life: Life,
        exports: Sequence[tuple[str | None, Interface]],
        stream: EventStream,
    ) -> None:
        self._classes = handle_classes(self, about.limits, exports)
        self._house, self._settings = house, about
        self._stack_needed, self._interrupts = about.stack_needed, about.interrupts
        self._stream = stream
        self._has_handles = bool(self._classes)
        self._carriers: dict[Export, tuple[tuple[int, Finder], ...]] = {}
        self._life_lock, self._closing = threading.Lock(), threading.RLock()
        self._services, self._mode, self._hooks, self._config, self._life = services, mode, hooks, config, life
        self._targets = services.targets(house.slots)
        self.limits = about.limits
        self.pool = Pool(
            about.plugin,
            mode,
            about.limits,
            os.cpu_count() or 1,
            self._make,
            self._retire,
            self._serving_here,
        )
        self._threads = GuestThreads(about.plugin, self.pool.most)
        self._courier = Courier(about.plugin)
        self._pending: list[Future[Any]] = []
        self._work: Callable[..., Any] = self._serve
        self._links: set[str] = set()
        self._closed = False
        if mode is not Instances.SINGLE:
            life.apply(Event.INITIALIZE)
            life.apply(Event.ACTIVATE)

    @property
    def plugin(self) -> str:
        """The plugin's id."""
        return self._settings.plugin

    @property
    def state(self) -> State:
        """Where the plugin is in its life."""
        return self._life.state

    def invoke(
        self,
        export: Export | None,
        args: Sequence[object],
        limits: Limits,
        control: Cancellation | None,
        work: Callable[..., Any] | None = None,
        *,
        apart: bool = False,
    ) -> Any:
        """Serve one call, or do other `work` that runs guests: on this thread, or on one of ours. Blocking.

        This one is not fit when too little is left of its stack, and the main thread is not while somebody's signal
        handler could raise in the middle. On the main thread a Ctrl-C is noted, and raised once the work is over. With
        `apart` the other thread is none of those that serve calls.
        """
        # The way of every call: helpers that a scalar call would pay for are written out.
        work = work or self._work
        try:
            here = threads.here
        except AttributeError:
            here = this_thread()
        interrupts = self._interrupts
        if here.room_bytes < self._stack_needed:
            return self._elsewhere(here, apart, work, export, args, limits, control)
        if not here.is_main:
            return work(export, args, limits, control)
        if tuple(map(handler_of, RAISING)) != interrupts.quiet and not self._is_quiet():
            return self._elsewhere(here, apart, work, export, args, limits, control)
        outer = interrupts.held
        interrupts.held = True
        try:
            return work(export, args, limits, control or interrupts)
        finally:
            interrupts.held = outer
            if interrupts.cancelled and not outer:
                interrupts.raise_noted()

    def submit(self, work: Callable[..., T], *args: Any) -> Future[T]:
        """Run `work(*args)` on one of our threads. Raises: LimitError (`limit.queue`), UsageError (`usage.closed`)."""
        # Counted by looking, not by adding and taking away: a signal's handler may raise between any two steps here.
        self._pending = [future for future in list(self._pending) if not future.done()]
        self.pool.ensure_room(len(self._pending))
        future = self._threads.submit(work, *args)
        self._pending.append(future)
        return future

    def late_error(self, deadline_ms: int) -> LimitError:
        """What a call fails with that could not begin before its deadline."""
        return self.pool.late_error(deadline_ms)

    def health(self) -> object:
        """Ask the plugin how it is: the value of `health`, or None when it does not export lifecycle."""
        return self.invoke(None, (), self.limits, None, self._ask_health)

    def reset(self) -> None:
        """End a quarantine."""
        with self._life_lock:
            self.pool.reset()
            self._house.reset()
            if self._life.state is State.QUARANTINED:
                self._life.apply(Event.RESET)

    def ensure_outside(self) -> None:
        """Raises: UsageError (`usage.re-entry`) when this thread serves a host call of this plugin right now."""
        if self._serving_here():
            name = self._settings.plugin
            raise UsageError(
                f"{name} cannot be closed by a host function or an argument of its own call",
                code="usage.re-entry",
                plugin=name,
            )

    def close(self) -> None:
        """Wait for running calls, stop the plugin and free everything. Idempotent, and whoever comes second waits, too.

        Calls that go on for longer than `CLOSE_TIMEOUT_S` are stopped. Raises: UsageError (`usage.re-entry`) from
        inside a host call of the same plugin. What is cut short by a Ctrl-C is finished by the next call.
        """
        self.ensure_outside()
        if not self._closed:
            self.invoke(None, (), self.limits, None, self._close, apart=True)
            if self._closed:
                self._courier.close()

    def _is_quiet(self) -> bool:
        if not self._interrupts.is_quiet():
            self._interrupts.install()  # the host may have been made on another thread
        return self._interrupts.is_quiet()

    def _elsewhere(
        self,
        here: ThisThread,
        apart: bool,
        work: Callable[..., T],
        export: Export | None,
        args: Sequence[object],
        limits: Limits,
        control: Cancellation | None,
    ) -> T:
        """On one of our threads. An exception here, a Ctrl-C say, stops the guest there and waits until it has ended.

        Raises: LimitError (`limit.stack`) where this is one already: calls from plugin to plugin must have an end;
            `limit.queue`, and `limit.deadline` when no thread came free.
        """
        control = control or Control()
        stop = control.cancel if isinstance(control, Control) else lambda: None
        wait_s = limits.deadline_ms / 1000
        if here.is_main or apart:
            courier = self._courier if here.is_main else Courier(self._settings.plugin)
            try:
                return courier.run(
                    work, export, args, limits, control,
                    wait_s=wait_s, late=lambda: self.late_error(limits.deadline_ms), stop=stop,
                )  # fmt: skip
            finally:
                if courier is not self._courier:
                    courier.close()
        if here.is_ours:
            raise LimitError(
                f"calls between plugins are nested too deep for a call of {self._settings.plugin}: "
                f"{here.room_bytes} bytes are left of the thread's stack, {self._stack_needed} are needed",
                code="limit.stack",
                plugin=self._settings.plugin,
            )
        future = self.submit(work, export, args, limits, control)
        if not wait([future], wait_s).done and future.cancel():
            raise self.late_error(limits.deadline_ms)
        return future.result()

    def _ask_health(self, _export: object, _args: object, limits: Limits, control: Cancellation | None) -> object:
        instance = self.pool.acquire(limits, control)
        try:
            return self._hooks.health(instance, control)
        finally:
            self.pool.release(instance)

    def _close(self, _export: object, _args: object, _limits: Limits, control: Cancellation | None) -> None:
        """What `close` says, on a thread that is fit for it and none of those that serve calls."""
        with self._closing:
            if self._closed:
                return
            with self._life_lock:
                self.pool.refuse()
                if self._life.state not in {State.FAILED, State.DRAINING}:
                    self._life.apply(Event.DRAIN)
            gone = self.pool.close(CLOSE_TIMEOUT_S, control)
            if not gone:
                for instance in self._house.instances():
                    instance.interrupt()
                gone = self.pool.close(CLOSE_TIMEOUT_S, control)
            if not gone and control is not None and control.cancelled:
                return
            if gone:
                self._house.close()
            self._threads.close(wait=gone)
            self._life.apply(Event.STOP)
            self._closed = True

    def _serving_here(self) -> list[int]:
        """The instances that wait for a host function on this very thread."""
        here = this_thread()
        return [instance.context for instance in self._house.instances() if instance.serving is here]

    def _serve(
        self,
        export: Export,
        args: Sequence[object],
        limits: Limits,
        control: Cancellation | None,
        is_again: bool = False,
    ) -> tuple[object, Usage]:
        pool = self.pool
        try:
            if self._has_handles and (pool.has_aside or self._carriers.get(export) != ()):
                instance = self._holder(export, args, limits, control) or pool.acquire(limits, control)
            else:
                instance = pool.acquire(limits, control)
        except ClocheError as error:
            self._report_failure(error, None, export.label)
            raise
        instance.call_id = next(_call_ids)
        try:
            answer = instance.call(export, args, limits, control)
            if instance.first_cost is not None:
                answer = answer[0], instance.first_cost + answer[1]
            if self._stream.has_sinks:
                data = {"function": export.label, "usage": answer[1].to_json()}
                self._services.emit(EventKind.CALL, data, capability=None, call_id=instance.call_id)
            return answer
        except UnreachedError as error:  # the worker ended while nobody looked: nothing of this call has happened
            if is_again:
                self._report_failure(error, instance, export.label)
                raise
        except ClocheError as error:
            if instance.first_cost is not None and error.usage is not None:
                error.usage = instance.first_cost + error.usage
            self._report_failure(error, instance, export.label)
            raise
        finally:
            if instance.output.is_used or instance.denied:
                self._report_output(instance)
            if instance.first_cost is not None:  # handles may bring more calls to it
                instance.charge_next_call(None)
            pool.release(instance)
        return self._serve(export, args, limits, control, is_again=True)

    def _holder(
        self, export: Export, args: Sequence[object], limits: Limits, control: Cancellation | None
    ) -> AnyInstance | None:
        """The instance that the handles among the arguments live in; None without one, or with a foreign one."""
        self.pool.sweep()
        carriers = self._carriers.get(export)
        if carriers is None:
            finders = enumerate(handle_finder(param.type, self.limits) for param in export.function.params)
            carriers = tuple((index, find) for index, find in finders if find is not None)
            self._carriers[export] = carriers
        for index, find in carriers:
            handle = find_handle(args[index], find) if index < len(args) else None
            if handle is not None:
                if not handle.is_open:
                    raise self._gone(handle)
                found = self.pool.acquire_holder(handle.context, limits, control)
                if found is None and not handle.is_open:  # its instance ended while this call waited for it
                    raise self._gone(handle)
                return found
        return None

    @staticmethod
    def _gone(handle: GuestResource) -> UsageError:
        text = f"the handle of {handle.resource.name} is closed, was moved, or its instance is gone"
        return UsageError(text, code="usage.closed")

    def _make(self, limits: Limits, control: Cancellation | None) -> AnyInstance:
        """A new instance, initialized; a `single` one also started.

        A fresh one for a call is made within that call's limits, and what it cost is the call's. Others serve many
        calls, so the limits are the plugin's own, and an event tells the cost.
        """
        single, per_call = self._mode is Instances.SINGLE, self._mode is Instances.PER_CALL
        if single and self.pool.begun_again:
            self._services.emit(EventKind.RESTART, {}, capability=None, call_id=None)
        limits = limits if per_call else self.limits
        instance = self._house.make(self._targets, self._classes, control, limits)
        try:
            if single:
                self._begin(Event.INITIALIZE)
            cost = instance.made + self._hooks.initialize(instance, self._config, limits, control)
            if single:
                self._begin(Event.ACTIVATE)
                cost += self._hooks.start(instance, control)
        except BaseException:
            self._end(instance)
            raise
        finally:
            self._report_output(instance)
        if per_call:
            instance.charge_next_call(cost)
        elif self._stream.has_sinks:
            self._services.emit(EventKind.INSTANCE, {"usage": cost.to_json()}, capability=None, call_id=None)
        return instance

    def _begin(self, event: Event) -> None:
        """Move the life of a single plugin on. Raises: UsageError (`usage.closed`) when it is being closed."""
        with self._life_lock:
            self.pool.ensure_open()
            self._life.apply(event)

    def _retire(self, instance: AnyInstance) -> None:
        if self._mode is Instances.SINGLE and instance.is_sound and not instance.finished:
            try:
                self._hooks.stop(instance, self._interrupts if this_thread().is_main else None)
            except ClocheError as error:
                self._report_failure(error, instance, "stop")
            self._report_output(instance)
        self._end(instance)

    def _end(self, instance: AnyInstance) -> None:
        """Close an instance, report what did not close, and note that a single one is gone."""
        try:
            instance.close()
        finally:
            self._house.end(instance)
            for failure in instance.unclosed:
                data = {
                    "code": "capability.backend",
                    "message": "a host object failed to close",
                    "cause": repr(failure),
                }
                self._services.emit(EventKind.BACKEND_ERROR, data, capability=None, call_id=instance.call_id)
            self._report_links()
            with self._life_lock:
                if self._mode is Instances.SINGLE and self._life.state in {State.INITIALIZED, State.ACTIVE}:
                    self._life.apply(Event.CRASH)

    def _quarantine(self) -> None:
        with self._life_lock:
            if self._life.state is State.LOADED:
                self._life.apply(Event.TOO_MANY_RESTARTS)

    def _report_failure(self, error: ClocheError, instance: AnyInstance | None, function: str) -> None:
        family = error.code.partition(".")[0]
        kind = {
            "limit": EventKind.LIMIT,
            "grant": EventKind.DENIED,
            "capability": EventKind.BACKEND_ERROR,
            "usage": EventKind.CALL,
        }.get(family, EventKind.TRAP)
        if error.plugin is None:
            error.plugin = self._settings.plugin
        if error.usage is None:
            error.usage = Usage()
        if error.code == "limit.restarts":
            self._quarantine()
        if family == "usage" and error.code != "usage.interrupted":
            return  # the caller's own mistake: nothing happened in the plugin
        data = {
            "code": error.code,
            "message": error.message,
            "function": function,
            "usage": error.usage.to_json() if error.usage is not None else None,
            "cause": f"{error.__cause__!r:.{MAX_CAUSE_CHARACTERS}}" if error.__cause__ is not None else None,
        }
        call_id = None if instance is None else instance.call_id
        capability = error.capability if isinstance(error, CapabilityError) else None
        self._services.emit(kind, data, capability=capability, call_id=call_id)

    def _report_links(self) -> None:
        """Report, once each, the links that lead out of a mount which the plugin may write to."""
        for mount in self._settings.mounts:
            for link in outward_links(mount) if mount.writable else ():
                if link not in self._links and len(self._links) < MAX_LINKS:
                    self._links.add(link)
                    data = {"text": "a link in a writable mount leads out of it", "untrusted": {"path": link}}
                    self._services.emit(EventKind.WARNING, data, capability="wasi:filesystem", call_id=None)

    def _report_output(self, instance: AnyInstance) -> None:
        """Report what the guest wrote and which closed imports it hit since this was last asked."""
        output = instance.output
        for number, stream in enumerate(STREAMS):
            text = output.text(number)
            if text and self._services.is_heard:
                data = {"stream": stream, "text": text, "dropped_bytes": output.dropped}
                self._services.emit(EventKind.OUTPUT, data, capability=None, call_id=instance.call_id)
        for position, count in instance.denied.items():
            slot = self._house.slots[position]
            data = {"function": slot.label, "count": count}
            self._services.emit(EventKind.DENIED, data, capability=slot.capability, call_id=instance.call_id)
        instance.denied.clear()
        output.begin(output.limit)
