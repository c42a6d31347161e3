"""The one path of every guest call in this process: thread, instance, call, events, and the instance given back."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import wait
from dataclasses import replace
from typing import Any

from cloche.engine.codec.finding import Finder
from cloche.engine.engine import Engine
from cloche.engine.instance import Cancellation, Control, Instance, Settings
from cloche.engine.linker import Linker
from cloche.engine.stacks import Place
from cloche.engine.stdio import STREAMS
from cloche.engine.wasi import outward_links
from cloche.errors import CapabilityError, ClocheError, UsageError
from cloche.lifecycle.performer import Life
from cloche.lifecycle.states import Event
from cloche.model import Instances, Limits, Outcome, State, Usage
from cloche.observe.events import EventKind
from cloche.observe.stream import EventStream
from cloche.runtime.hooks import Hooks
from cloche.runtime.pool import Pool
from cloche.runtime.resources import find_handle, handle_classes, handle_finder
from cloche.runtime.services import Services
from cloche.wit.types import Export, Interface

CLOSE_TIMEOUT_S = 30.0
"""How long `close` waits for running calls; their own deadline is usually shorter."""

MAX_CAUSE_CHARACTERS = 2000
"""Most of a backend's own error that an event keeps: it may quote what the guest handed over."""

MAX_LINKS = 1000
"""Most links out of mounts that one plugin's events tell of."""

_call_ids = itertools.count(1)

_FITS, _TOO_SMALL = Place.FITS, Place.TOO_SMALL  # members of an enum cost a look-up each time


class ComponentBackend:
    """Serves a component's functions from instances in this process. Thread-safe."""

    def __init__(
        self,
        engine: Engine,
        linker: Linker,
        settings: Settings,
        services: Services,
        mode: Instances,
        hooks: Hooks,
        config: Mapping[str, str],
        life: Life,
        exports: Sequence[tuple[str | None, Interface]],
        stream: EventStream,
        newer: Callable[[], Linker | None],
    ) -> None:
        classes = handle_classes(self, settings.limits, exports)
        settings = replace(settings, guest_classes=classes)
        self._engine, self._linker, self._settings = engine, linker, settings
        self._threads, self._interrupts = engine.threads, engine.interrupts
        self._stream, self._newer = stream, newer
        self._old_linkers: list[Linker] = []
        self._has_handles = bool(classes)
        self._carriers: dict[Export, tuple[tuple[int, Finder], ...]] = {}
        self._life_lock, self._linker_lock = threading.Lock(), threading.Lock()
        self._services, self._mode, self._hooks, self._config, self._life = services, mode, hooks, config, life
        self._targets = services.targets(linker.slots)
        self.limits = settings.limits
        self.pool = Pool(
            settings.plugin,
            mode,
            settings.limits,
            os.cpu_count() or 1,
            self._make,
            self._retire,
            self._serving_here,
        )
        self._links: set[str] = set()
        self._closed = False
        if mode is not Instances.SINGLE:
            life.apply(Event.INITIALIZE)
            life.apply(Event.ACTIVATE)

    @property
    def state(self) -> State:
        """Where the plugin is in its life."""
        return self._life.state

    def invoke(
        self, export: Export, args: Sequence[object], limits: Limits, control: Cancellation | None
    ) -> tuple[object, Usage]:
        """Serve one call on this thread, or on one of ours when this one's stack is too small. Blocking."""
        threads = self._threads
        try:
            place = threads.local.place
        except AttributeError:
            place = threads.place()
            if place is Place.MAIN:  # the host may have been made on another thread
                self._interrupts.install()
        if place is _FITS:
            return self._serve(export, args, limits, control)
        if place is _TOO_SMALL:
            return self._serve_elsewhere(export, args, limits, control or Control())
        interrupts = self._interrupts
        outer = interrupts.held
        interrupts.held = True
        try:
            return self._serve(export, args, limits, control or interrupts)
        finally:
            interrupts.held = outer
            if interrupts.cancelled and not outer:
                interrupts.raise_noted()

    def submit(self, call: Callable[[], Outcome[Any]]) -> asyncio.Future[Outcome[Any]]:
        """Run `call` on one of our threads."""
        return asyncio.wrap_future(self._engine.threads.submit(call))

    def health(self) -> object:
        """Ask the plugin how it is: the value of `health`, or None when it does not export lifecycle."""
        instance = self.pool.acquire(self.limits.deadline_ms)
        try:
            return self._hooks.health(instance)
        finally:
            self.pool.release(instance)

    def reset(self) -> None:
        """End a quarantine."""
        with self._life_lock:
            self.pool.reset()
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
        """Wait for running calls, stop the plugin and free everything. Idempotent.

        Calls that go on for longer than `CLOSE_TIMEOUT_S` are stopped. Raises: UsageError (`usage.re-entry`) from
        inside a host call of the same plugin.
        """
        if self._closed:
            return
        self.ensure_outside()
        self._closed = True
        with self._life_lock:
            if self._life.state is not State.FAILED:
                self._life.apply(Event.DRAIN)
        gone = self.pool.close(CLOSE_TIMEOUT_S)
        if not gone:
            for instance in self._instances():
                instance.interrupt()
            gone = self.pool.close(CLOSE_TIMEOUT_S)
        if self._life.state is State.DRAINING:
            self._life.apply(Event.STOP)
        if gone:
            for linker in (*self._old_linkers, self._linker):
                linker.close()

    def _instances(self) -> list[Instance]:
        linkers = (*self._old_linkers, self._linker)  # an instance lives on over the linker that it was made with
        return [instance for instance in list(self._engine.instances.values()) if instance.linker in linkers]

    def _serving_here(self) -> list[int]:
        """The instances that wait for a host function on this very thread."""
        here = threading.get_ident()
        return [instance.context for instance in self._instances() if instance.serving_thread == here]

    def _serve(
        self, export: Export, args: Sequence[object], limits: Limits, control: Cancellation | None
    ) -> tuple[object, Usage]:
        pool = self.pool
        try:
            if self._has_handles:
                instance = self._holder(export, args, limits, control) or pool.acquire(limits.deadline_ms, control)
            else:
                instance = pool.acquire(limits.deadline_ms, control)
        except ClocheError as error:
            self._report_failure(error, None, export.label)
            raise
        instance.call_id = next(_call_ids)
        try:
            answer = instance.call(export, args, limits, control)
            if self._stream.has_sinks:
                data = {"function": export.label, "usage": answer[1].to_json()}
                self._services.emit(EventKind.CALL, data, capability=None, call_id=instance.call_id)
            return answer
        except ClocheError as error:
            self._report_failure(error, instance, export.label)
            raise
        finally:
            if instance.output.is_used or instance.denied:
                self._report_output(instance)
            pool.release(instance)

    def _serve_elsewhere(
        self, export: Export, args: Sequence[object], limits: Limits, control: Cancellation
    ) -> tuple[object, Usage]:
        """On one of our threads, for a caller whose stack is too small. A Ctrl-C here stops the guest there."""
        future = self._threads.submit(self._serve, export, args, limits, control)
        try:
            return future.result()
        except BaseException:
            if not future.done() and isinstance(control, Control):
                control.cancel()
                wait([future])
            raise

    def _holder(
        self, export: Export, args: Sequence[object], limits: Limits, control: Cancellation | None
    ) -> Instance | None:
        """The instance that the handles among the arguments live in; None without one, or with a foreign one."""
        self.pool.sweep()
        carriers = self._carriers.get(export)
        if carriers is None:
            finders = enumerate(handle_finder(param.type) for param in export.function.params)
            carriers = tuple((index, find) for index, find in finders if find is not None)
            self._carriers[export] = carriers
        for index, find in carriers:
            handle = find_handle(args[index], find) if index < len(args) else None
            if handle is not None:
                if not handle.is_open:
                    raise UsageError(
                        f"the handle of {handle.resource.name} is closed, was moved, or its instance is gone",
                        code="usage.closed",
                    )
                return self.pool.acquire_holder(handle.context, limits.deadline_ms, control)
        return None

    def _make(self, control: Cancellation | None) -> Instance:
        """A new instance, initialized; a `single` one also started."""
        single = self._mode is Instances.SINGLE
        if single and self.pool.begun_again:
            self._services.emit(EventKind.RESTART, {}, capability=None, call_id=None)
        instance = Instance(self._current_linker(), self._settings, self._targets, control)
        try:
            if single:
                self._life.apply(Event.INITIALIZE)
            self._hooks.initialize(instance, self._config, control)
            if single:
                self._life.apply(Event.ACTIVATE)
                self._hooks.start(instance, control)
        except BaseException:
            self._end(instance)
            raise
        finally:
            self._report_output(instance)
        return instance

    def _current_linker(self) -> Linker:
        """The linker for new instances; the one over code compiled as a whole takes over once that is there."""
        with self._linker_lock:  # two threads that change it at once would lose one of the new ones
            newer = self._newer()
            if newer is not None:
                self._old_linkers.append(self._linker)
                self._linker, self._targets = newer, self._services.targets(newer.slots)
            return self._linker

    def _retire(self, instance: Instance) -> None:
        if self._mode is Instances.SINGLE and not instance.finished:
            try:
                self._hooks.stop(instance)
            except ClocheError as error:
                self._report_failure(error, instance, "stop")
            self._report_output(instance)
        self._end(instance)

    def _end(self, instance: Instance) -> None:
        """Close an instance, report what did not close, and note that a single one is gone."""
        try:
            instance.close()
        finally:
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

    def _report_failure(self, error: ClocheError, instance: Instance | None, function: str) -> None:
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

    def _report_output(self, instance: Instance) -> None:
        """Report what the guest wrote and which closed imports it hit since this was last asked."""
        output = instance.output
        for number, stream in enumerate(STREAMS):
            text = output.text(number)
            if text and self._services.is_heard:
                data = {"stream": stream, "text": text, "dropped_bytes": output.dropped}
                self._services.emit(EventKind.OUTPUT, data, capability=None, call_id=instance.call_id)
        for name, count in instance.denied.items():
            data = {"function": name, "count": count}
            self._services.emit(EventKind.DENIED, data, capability=None, call_id=instance.call_id)
        instance.denied.clear()
        output.begin(output.limit)
