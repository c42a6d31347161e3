"""The builtin tier: a Python object behind the same extension-point protocol, called directly."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from time import perf_counter_ns, thread_time_ns
from typing import Any, TypeVar

from cloche.engine.codec.handles import close_item
from cloche.engine.codec.local import LocalPlan, LocalResources
from cloche.engine.instance import Cancellation, Target
from cloche.engine.stacks import GuestThreads
from cloche.errors import ClocheError, LimitError, UsageError
from cloche.model import Limits, State, Usage
from cloche.runtime.plugin import python_names
from cloche.runtime.resources import handle_classes
from cloche.runtime.services import host_function
from cloche.wit.types import Export, Function, FunctionKind, Interface

T = TypeVar("T")

THREADS = 32
"""Threads for awaited calls of one object, which may be waiting for something itself."""


class BuiltinBackend:
    """Serves functions from methods of a Python object, by the naming rules of capabilities' host objects.

    There is no sandbox and no meter: the object is the embedder's own code. Fuel in `Usage` is None. Arguments and
    results are checked and become what they are for a component. Behind the handles of its resources stand Python
    objects of its own; one whose handle was given up is closed before the next call, and the others with the plugin.
    The object is closed with the last backend that serves it, which `closes` says of this one.
    """

    def __init__(self, name: str, subject: object, interface: Interface, *, closes: bool = True) -> None:
        self.plugin, self._subject, self._closes = name, subject, closes
        self._names = python_names(interface)
        self._plans: dict[Export, LocalPlan] = {}
        self.limits = Limits()
        self._resources = LocalResources(handle_classes(self, self.limits, [(interface.id, interface)]))
        self.state = State.ACTIVE
        self._calls = 0
        self._lock = threading.Lock()
        self._threads = GuestThreads(name, THREADS)

    def invoke(
        self, export: Export, args: Sequence[object], limits: Limits, control: Cancellation | None
    ) -> tuple[object, Usage]:
        """Call the method.

        Raises: what it raises; UsageError (`usage.value`, `usage.argument`; `usage.closed` after `close`); GuestTrap
            (`guest.invalid-value`) for a value that it must not return; LimitError (`limit.payload`).
        """
        del control
        if self.state is State.STOPPED:
            raise UsageError(f"plugin {self.plugin} is closed", code="usage.closed", plugin=self.plugin)
        wall, cpu = perf_counter_ns(), thread_time_ns()
        plan = self._plans.get(export)
        if plan is None:
            plan = self._plans[export] = LocalPlan(export.function, self._resources)
        self._resources.drop_pending()
        with self._naming():
            values, bytes_in = plan.arguments(args, limits.payload_bytes)
        value = self._method(export.function)(*values)
        with self._naming():
            value, bytes_out = plan.result(value, limits.payload_bytes)
        self._calls += 1
        return value, Usage(
            wall_ms=(perf_counter_ns() - wall) / 1e6,
            cpu_ms=(thread_time_ns() - cpu) / 1e6,
            bytes_in=bytes_in,
            bytes_out=bytes_out,
            instance_calls=self._calls,
        )

    def submit(self, work: Callable[..., T], *args: Any) -> Future[T]:
        """Run `work(*args)` on a thread of its own pool. Raises: UsageError (`usage.closed`)."""
        return self._threads.submit(work, *args)

    def late_error(self, deadline_ms: int) -> LimitError:
        """What a call fails with that could not begin before its deadline."""
        return LimitError(
            f"no thread for {self.plugin} came free within {deadline_ms} ms", code="limit.deadline", plugin=self.plugin
        )

    def health(self) -> object:
        """A Python object says nothing about itself."""
        return None

    def reset(self) -> None:
        """Nothing to reset: it is never quarantined."""

    @contextmanager
    def _naming(self) -> Iterator[None]:
        """Errors about values name the plugin and have a Usage, as those of a component do."""
        try:
            yield
        except ClocheError as error:
            error.plugin, error.usage = error.plugin or self.plugin, error.usage or Usage()
            raise

    def _method(self, function: Function) -> Target:
        name = "" if function.kind is FunctionKind.METHOD else self._names[function.name]
        return host_function(self._subject, function, self.plugin, name)

    def ensure_outside(self) -> None:
        """Nothing to ensure: a Python object may be closed by itself."""

    def close(self) -> None:
        """Refuse calls from now on, and close the object if it can be closed. Calls that run go on. Idempotent."""
        with self._lock:
            if self.state is State.STOPPED:
                return
            self.state = State.STOPPED
        self._threads.close(wait=False)
        with ExitStack() as steps:  # each is closed, whatever comes of the ones before
            if self._closes:
                steps.callback(close_item, self._subject)
            for item in self._resources.close():
                steps.callback(close_item, item)
