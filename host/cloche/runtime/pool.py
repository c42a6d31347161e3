"""Where instances come from and go to: a fresh one per call, a pool, or a single one that keeps its state.

Waiting is a bounded queue: a caller waits for an instance that another caller will give back, never for one that only
itself could free (`usage.re-entry`). A full queue refuses at once (`limit.queue`).

An instance whose resources somebody holds handles of is set aside between calls: it serves calls with those handles
only, and takes no place among the calls at once. A `single` instance is never set aside; it serves them all.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from typing import Protocol

from cloche.engine.instance import Cancellation, Instance
from cloche.errors import LimitError, UsageError
from cloche.model import MIB, Instances, Limits

RECYCLE_CALLS = 10_000
"""Calls that a pooled instance serves before it is replaced: a CPython guest grows by about 0.7 KB a call (H11), and
making a new one costs what 300 small calls cost."""

RECYCLE_BYTES = 32 * MIB
"""Bytes that a pooled instance returns before it is replaced: componentize-py leaks each list it hands out."""

WAIT_SLICE_S = 0.5
"""Longest uninterrupted wait, so that Ctrl-C and a closing host are noticed."""


class Maker(Protocol):
    """Makes an initialized instance; may block for milliseconds and raise what a call raises."""

    def __call__(self, control: Cancellation | None) -> Instance:
        """A new instance; `control` may stop its making."""


class Pool:
    """Instances of one plugin. Thread-safe."""

    def __init__(
        self,
        plugin: str,
        mode: Instances,
        limits: Limits,
        cores: int,
        make: Maker,
        retire: Callable[[Instance], None],
        serving_here: Callable[[], Collection[int]],
    ) -> None:
        self._plugin, self._mode, self._make, self._retire = plugin, mode, make, retire
        self._serving_here = serving_here
        self._most = 1 if mode is Instances.SINGLE else limits.concurrency or max(1, cores)
        self._queue = limits.queue
        self._free: deque[Instance] = deque()
        self._aside: dict[int, Instance] = {}
        self._lent: set[int] = set()
        self._alive = 0
        self._begun = False
        self._waiting = 0
        self._closed = False
        self._changed = threading.Condition()
        self._restarts: deque[float] = deque()
        self._restart_limit = limits.restarts_per_minute
        self.made = 0
        """Instances made so far; a counter for tests and metrics."""

    @property
    def alive(self) -> int:
        """Instances that exist now, those that are set aside not counted."""
        return self._alive

    @property
    def begun_again(self) -> bool:
        """Whether the single instance being made now replaces another."""
        return bool(self._restarts)

    @property
    def aside(self) -> int:
        """Instances that live on only because somebody holds handles of their resources."""
        return len(self._aside)

    def acquire(self, deadline_ms: int, control: Cancellation | None = None) -> Instance:
        """An instance that nobody else uses. Blocks while all are busy, for at most `deadline_ms`.

        Raises: LimitError (`limit.queue` when the queue is full, `limit.deadline` when the wait took too long,
            `limit.restarts` when a single instance failed too often); UsageError (`usage.closed`); and what making an
            instance raises.
        """
        try:
            return self._free.pop()
        except IndexError:
            return self._acquire_slowly(deadline_ms, control)

    def acquire_holder(self, context: int, deadline_ms: int, control: Cancellation | None = None) -> Instance | None:
        """The instance behind `context`, which handles among a call's arguments name; None when it is not of this pool.

        Waits while another call is inside it, and while too many calls run. Raises: as `acquire`.
        """
        if self._mode is Instances.SINGLE:
            instance = self.acquire(deadline_ms, control)
            if instance.context == context:
                return instance
            self.release(instance)
            return None
        end = time.monotonic() + deadline_ms / 1000
        with self._changed:
            while True:
                if self._closed:
                    raise self._closed_error()
                if context not in self._lent and context not in self._aside:
                    return None
                if context in self._aside and self._alive - len(self._free) < self._most:
                    self._lent.add(context)
                    self._alive += 1
                    return self._aside.pop(context)
                here = self._serving_here()
                if context in here or len(here) >= self._most:
                    raise self._re_entry()
                self._waiting += 1
                try:
                    self._wait(end, deadline_ms, control)
                finally:
                    self._waiting -= 1

    def release(self, instance: Instance) -> None:
        """Give an instance back after a call. Finished and worn-out ones are retired."""
        if instance.bridge.held and self._mode is not Instances.SINGLE and not instance.finished:
            with self._changed:
                if not self._closed:
                    self._lent.discard(instance.context)
                    self._aside[instance.context] = instance
                    self._alive -= 1
                    self._changed.notify_all()
                    return
        if self._lent:
            with self._changed:
                self._lent.discard(instance.context)
        keep = (
            self._mode is not Instances.PER_CALL
            and not instance.finished
            and not self._closed
            and (
                self._mode is Instances.SINGLE
                or (
                    instance.calls < RECYCLE_CALLS
                    and instance.bytes_returned < RECYCLE_BYTES
                    and self._alive <= self._most
                )
            )
        )
        if keep:
            self._free.append(instance)
        else:
            try:
                self._retire(instance)
            finally:
                with self._changed:
                    self._alive -= 1
        if self._waiting or self._closed:
            with self._changed:
                self._changed.notify_all()

    def sweep(self) -> None:
        """Take back the instances that were set aside for handles which have all been dropped since."""
        if not self._aside:
            return
        with self._changed:
            idle = [context for context, instance in self._aside.items() if not instance.bridge.held]
            instances = [self._aside.pop(context) for context in idle]
            self._alive += len(instances)
        for instance in instances:
            self.release(instance)

    def close(self, timeout_s: float) -> bool:
        """Refuse new calls, wait up to `timeout_s` for running ones and retire every instance; True if all are gone."""
        end = time.monotonic() + timeout_s
        with self._changed:
            self._closed = True
            self._free.extend(self._aside.values())
            self._alive += len(self._aside)
            self._aside.clear()
            self._changed.notify_all()
        while True:
            while (instance := self._pop_free()) is not None:
                try:
                    self._retire(instance)
                finally:
                    with self._changed:
                        self._alive -= 1
            with self._changed:
                left = end - time.monotonic()
                if self._alive <= 0 or left <= 0:
                    return self._alive <= 0
                if not self._free:
                    self._changed.wait(min(left, WAIT_SLICE_S))

    def reset(self) -> None:
        """Forget past restarts: ends a quarantine."""
        with self._changed:
            self._restarts.clear()

    def _pop_free(self) -> Instance | None:
        try:
            return self._free.pop()
        except IndexError:  # looking first and popping then would not do: other threads pop without the lock
            return None

    def _acquire_slowly(self, deadline_ms: int, control: Cancellation | None) -> Instance:
        end = time.monotonic() + deadline_ms / 1000
        with self._changed:
            waiting = False
            try:
                while True:
                    if self._closed:
                        raise self._closed_error()
                    found = self._pop_free()
                    if found is not None:
                        return found
                    if self._alive < self._most:
                        self._note_restart()
                        self._alive += 1
                        break
                    if not waiting:
                        self._join_queue()
                        waiting = True
                        continue  # whoever gave an instance back before this moment has notified nobody
                    self._wait(end, deadline_ms, control)
            finally:
                if waiting:
                    self._waiting -= 1
        try:
            instance = self._make(control)
        except BaseException:
            with self._changed:
                self._alive -= 1
                self._changed.notify_all()
            raise
        self.made += 1
        return instance

    def _join_queue(self) -> None:
        if len(self._serving_here()) >= self._most:
            raise self._re_entry()
        if self._waiting >= self._queue:
            raise LimitError(
                f"{self._waiting} calls already wait for {self._plugin} ({self._most} at once); "
                f"call less often or raise the limits `queue` or `concurrency`",
                code="limit.queue",
                plugin=self._plugin,
            )
        self._waiting += 1

    def _wait(self, end: float, deadline_ms: int, control: Cancellation | None) -> None:
        """Wait a while for a change. Raises when the call is cancelled or has waited until its deadline."""
        if control is not None and control.cancelled:
            raise UsageError("the call was cancelled while it waited", code="usage.interrupted")
        left = end - time.monotonic()
        if left <= 0:
            raise LimitError(
                f"no instance of {self._plugin} came free within {deadline_ms} ms",
                code="limit.deadline",
                plugin=self._plugin,
            )
        self._changed.wait(min(left, WAIT_SLICE_S))

    def _closed_error(self) -> UsageError:
        return UsageError(f"plugin {self._plugin} is closed", code="usage.closed", plugin=self._plugin)

    def _re_entry(self) -> UsageError:
        return UsageError(
            f"a host function or an argument of a call of {self._plugin} calls it back, and it has no other instance "
            f"to serve that",
            code="usage.re-entry",
            plugin=self._plugin,
        )

    def _note_restart(self) -> None:
        """A single instance that must be made again counts; too many within a minute are refused."""
        if self._mode is not Instances.SINGLE:
            return
        if not self._begun:  # the first one is no restart, also when it cannot be made
            self._begun = True
            return
        now = time.monotonic()
        while self._restarts and now - self._restarts[0] > 60:
            self._restarts.popleft()
        if len(self._restarts) >= self._restart_limit:
            raise LimitError(
                f"{self._plugin} was restarted {self._restart_limit} times within a minute and is quarantined; "
                f"mend it, then reset it",
                code="limit.restarts",
                plugin=self._plugin,
            )
        self._restarts.append(now)
