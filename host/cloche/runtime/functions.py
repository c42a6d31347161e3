"""Functions of a plugin, called like Python functions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from cloche.engine.instance import Cancellation, Control
from cloche.errors import GuestError, LimitError, UsageError
from cloche.model import Err, Limits, Ok, Outcome, State, Usage
from cloche.quantities import QuantityError, parse_count, parse_duration_ms, parse_fuel, parse_size
from cloche.wit.names import snake
from cloche.wit.types import Export, Function, ResultType

T = TypeVar("T")

_OPTIONS: Mapping[str, tuple[str, Callable[..., int]]] = {
    "fuel": ("fuel", parse_fuel),
    "deadline": ("deadline_ms", parse_duration_ms),
    "payload": ("payload_bytes", parse_size),
    "output": ("output_bytes", parse_size),
    "host_calls": ("host_calls", parse_count),
    "host_bytes": ("host_call_bytes", parse_size),
}


MAX_SHOWN_BYTES = 64 << 10
"""Largest error value, in canonical-ABI bytes, that is written out in a message: Python's form takes ten times that."""


def shown(payload: object, usage: Usage) -> str:
    """An error value for a message, cut; only its size where writing it out would itself be costly."""
    size = usage.bytes_out
    return f"{payload!r:.500}" if size <= MAX_SHOWN_BYTES else f"a value of {size} bytes, too large to show"


class Backend(Protocol):
    """How calls reach a plugin: an instance in this process or in a worker, or a Python object."""

    @property
    def plugin(self) -> str:
        """The plugin's id."""

    @property
    def limits(self) -> Limits:
        """The plugin's limits, which call options may lower."""

    def invoke(
        self, export: Export, args: Sequence[object], limits: Limits, control: Cancellation | None
    ) -> tuple[object, Usage]:
        """Serve one call, blocking; the value as the codec gives it (a WIT result as Ok or Err)."""

    @property
    def state(self) -> State:
        """Where the plugin is in its life."""

    def ensure_outside(self) -> None:
        """Raises: UsageError (`usage.re-entry`) when this thread is inside a host call of the plugin."""

    def close(self) -> None:
        """Wait for running calls, stop the plugin and free everything. Idempotent."""

    def submit(self, work: Callable[..., T], *args: Any) -> Future[T]:
        """Run `work(*args)` on a thread that may run a guest. Raises: LimitError (`limit.queue`), UsageError."""

    def late_error(self, deadline_ms: int) -> LimitError:
        """What a call fails with that could not begin before its deadline."""

    def reset(self) -> None:
        """End a quarantine."""

    def health(self) -> object:
        """What the plugin says about itself; None when it says nothing. Blocking."""


class BoundFunction:
    """A guest's function. Call it for its value, or `call(…)` for the value and its `Usage`.

    Parameters are positional, in WIT order. A WIT `result<T, E>` returns T or raises GuestError carrying E. Safe from
    many threads; blocks until the guest answers. Errors: every `limit.*`, `guest.*`, `grant.denied`, `usage.value`.
    """

    __slots__ = ("__name__", "_answers_result", "_backend", "_export", "_limits")

    def __init__(self, backend: Backend, export: Export, limits: Limits) -> None:
        self._backend, self._export, self._limits = backend, export, limits
        self._answers_result = isinstance(export.function.result, ResultType)
        self.__name__ = snake(export.function.item_name)

    @property
    def wit(self) -> Function:
        """The function's WIT type, with its documentation."""
        return self._export.function

    def __repr__(self) -> str:
        return f"<guest function {self._export.label}>"

    def options(self, **limits: Any) -> BoundFunction:
        """The same function with other limits for its calls: fuel, deadline (seconds or "250ms"), payload, output,
        host_calls, host_bytes.

        An option may lower the plugin's limit and not raise it. Raises: LimitError (`limit.range`), UsageError.
        """
        changes: dict[str, int] = {}
        for name, value in limits.items():
            if name not in _OPTIONS:
                raise UsageError(f"unknown option {name!r}; known: {', '.join(_OPTIONS)}")
            field, parse = _OPTIONS[name]
            try:
                # Text needs a unit: "1" is nearly always a mistake.
                number = parse(value, unit_required=True) if isinstance(value, str) else parse(value)
                changes[field] = min(number, getattr(self._backend.limits, field))
            except QuantityError as error:
                raise LimitError(f"option {name}: {error}", code="limit.range") from error
        return BoundFunction(self._backend, self._export, replace(self._limits, **changes))

    def __call__(self, *args: object) -> Any:
        """Call the guest and return the value."""
        value, usage = self._backend.invoke(self._export, args, self._limits, None)
        return self._open(value, usage) if self._answers_result else value

    def call(self, *args: object) -> Outcome[Any]:
        """Call the guest and return the value together with what the call cost."""
        value, usage = self._backend.invoke(self._export, args, self._limits, None)
        if self._answers_result:
            value = self._open(value, usage)
        return tuple.__new__(Outcome, (value, usage))

    async def call_async(self, *args: object) -> Outcome[Any]:
        """The same without blocking the event loop. Cancelling stops the guest and raises after clean-up."""
        control = Control()

        def run() -> Outcome[Any]:
            value, usage = self._backend.invoke(self._export, args, self._limits, control)
            return Outcome(self._open(value, usage) if self._answers_result else value, usage)

        future = self._backend.submit(run)
        # A future and no task, which the end of a loop would cancel.
        answer = asyncio.wrap_future(future)
        try:
            done, _ = await asyncio.wait([answer], timeout=self._limits.deadline_ms / 1000)
            if not done and future.cancel():  # it has not even begun
                raise self._backend.late_error(self._limits.deadline_ms)
            return await asyncio.shield(answer)
        except asyncio.CancelledError:
            control.cancel()
            future.cancel()
            await asyncio.wait([answer])
            if not answer.cancelled():
                answer.exception()
            raise

    def _open(self, value: object, usage: Usage) -> object:
        """The value of a WIT result. Raises: GuestError with the value of its error case."""
        if isinstance(value, Err):
            payload = value.value
            name = self._export.function.name
            said = "" if payload is None else f": {shown(payload, usage)}"
            raise GuestError(f"{name} answered with an error{said}", payload, plugin=self._backend.plugin, usage=usage)
        return value.value if isinstance(value, Ok) else value
