"""Where instances come from and go to: a fresh one per call, a pool, or a single one that keeps its state.

Waiting is a bounded queue, first come, first served: a caller waits for an instance that another caller will give back,
never for one that only itself could free (`usage.re-entry`). A full queue refuses at once (`limit.queue`).

An instance whose resources somebody holds handles of is set aside between calls: it serves calls with those handles
only, and takes no place among the calls at once. A `single` instance is never set aside; it serves them all.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Protocol

from cloche.engine.instance import Cancellation, Instance
from cloche.errors import LimitError, UsageError
from cloche.model import MIB, Instances, Limits

RECYCLE_CALLS = 10_000
"""Calls that a pooled instance serves before it is replaced: a CPython guest grows by about 0.7 KB a call (H11), and
making a new one costs what 300 small calls cost."""

RECYCLE_BYTES = 32 * MIB
"""Bytes that a pooled instance returns before it is replaced: componentize-py leaks each list it hands out."""

MAX_ASIDE = 64
"""Instances of one plugin that may live on only for handles: each holds its memories, and 4 GiB of addresses."""

WAIT_SLICE_S = 0.5
"""Longest uninterrupted wait, so that Ctrl-C and a closing host are noticed."""


class Maker(Protocol):
    """Makes an initialized instance; may block for milliseconds and raise what a call raises."""

    def __call__(self, limits: Limits, control: Cancellation | None) -> Instance:
        """A new instance for a call with `limits`; `control` may stop its making."""


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
        self._keeps, self._may_replace = mode is not Instances.PER_CALL, mode is not Instances.SINGLE
        self._most_calls: float = RECYCLE_CALLS if self._may_replace else math.inf
        self._most_bytes: float = RECYCLE_BYTES if self._may_replace else math.inf
        self._queue = limits.queue
        self._free: deque[Instance] = deque()
        self._aside: dict[int, Instance] = {}
        self._lent: set[int] = set()
        self._alive = 0
        self._begun = self._closed = self._quarantined = False
        self._line: deque[object] = deque()
        """Tickets of the callers that wait for any instance, the first to come first."""
        self._beside: deque[object] = deque()
        """Tickets of those that wait for one instance, which nobody else can serve them with."""
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

    @property
    def has_aside(self) -> bool:
        """Whether there are any, so that some may have to be swept."""
        return bool(self._aside)

    def acquire(self, limits: Limits, control: Cancellation | None = None) -> Instance:
        """An instance that nobody else uses. Blocks while all are busy, for at most the deadline of `limits`.

        Raises: LimitError (`limit.queue` when the queue is full, `limit.deadline` when the wait took too long,
            `limit.restarts` when a single instance failed too often, `limit.handles` when too many instances live on
            for handles); UsageError (`usage.closed`); and what making an instance raises.
        """
        if not self._line:
            try:
                instance = self._free.pop()
            except IndexError:
                pass
            else:
                if not instance.finished:
                    return instance
                self._discard(instance)
        return self._acquire_slowly(limits, control)

    def acquire_holder(self, context: int, limits: Limits, control: Cancellation | None = None) -> Instance | None:
        """The instance behind `context`, which handles among a call's arguments name; None when it is not of this pool.

        Waits while another call is inside it, and while too many calls run. Raises: as `acquire`.
        """
        if self._mode is Instances.SINGLE:
            instance = self.acquire(limits, control)
            if instance.context == context:
                return instance
            self.release(instance)
            return None
        with self._changed, self._queueing(self._beside, limits, control) as wait:
            while True:
                self.ensure_open()
                if context not in self._lent and context not in self._aside:
                    return None
                if context in self._aside and self._alive - len(self._free) < self._most:
                    self._lent.add(context)
                    self._alive += 1
                    return self._aside.pop(context)
                if context in self._serving_here():
                    raise self._re_entry()
                wait()

    def ensure_room(self, calls: int) -> None:
        """Whether one more may join so many calls on threads of ours, which wait in no longer a queue than others.

        Raises: LimitError (`limit.queue`).
        """
        if calls >= self._most + self._queue:
            raise self._queue_error(calls - self._most)

    def late_error(self, deadline_ms: int) -> LimitError:
        """What a call fails with that has waited until its deadline."""
        return LimitError(
            f"no instance of {self._plugin} came free within {deadline_ms} ms",
            code="limit.deadline",
            plugin=self._plugin,
        )

    @property
    def most(self) -> int:
        """Calls at once."""
        return self._most

    def release(self, instance: Instance) -> None:
        """Give an instance back after a call. Finished and worn-out ones are retired."""
        if instance.bridge.guests and self._set_aside(instance):
            return
        if self._lent:
            with self._changed:
                self._lent.discard(instance.context)
        if (
            self._keeps
            and instance.is_sound
            and not instance.finished
            and not self._closed
            and instance.calls < self._most_calls
            and instance.bytes_returned < self._most_bytes
            and not (self._may_replace and (instance.has_filled_up or self._alive > self._most))
        ):
            self._free.append(instance)
        else:
            self._discard(instance)
        if self._line or self._beside or self._closed:
            with self._changed:
                self._changed.notify_all()

    def _set_aside(self, instance: Instance) -> bool:
        """Keep an instance for the handles that somebody holds of it, and for nothing else; whether that was done."""
        if not self._may_replace or not instance.bridge.held or instance.finished or not instance.is_sound:
            return False
        with self._changed:
            if self._closed:
                return False
            self._lent.discard(instance.context)
            self._aside[instance.context] = instance
            self._alive -= 1
            self._changed.notify_all()
            return True

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

    def refuse(self) -> None:
        """Refuse new calls from now on, also those that wait."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def close(self, timeout_s: float, control: Cancellation | None = None) -> bool:
        """Refuse new calls, wait up to `timeout_s` for running ones and retire every instance; True if all are gone.

        Waits no longer once `control` is cancelled.
        """
        self.refuse()
        end = time.monotonic() + timeout_s
        with self._changed:
            self._free.extend(self._aside.values())
            self._alive += len(self._aside)
            self._aside.clear()
            self._changed.notify_all()
        while True:
            while (instance := self._pop_free()) is not None:
                self._discard(instance)
            with self._changed:
                left = end - time.monotonic()
                if self._alive <= 0 or left <= 0 or (control is not None and control.cancelled):
                    return self._alive <= 0
                if not self._free:
                    self._changed.wait(min(left, WAIT_SLICE_S))

    def reset(self) -> None:
        """Forget past restarts: ends a quarantine."""
        with self._changed:
            self._restarts.clear()
            self._quarantined = False

    def _discard(self, instance: Instance) -> None:
        """Retire one that nobody uses: its worker ended while it was free, say."""
        try:
            self._retire(instance)
        finally:
            with self._changed:
                self._alive -= 1

    def _pop_free(self) -> Instance | None:
        try:
            return self._free.pop()
        except IndexError:  # looking first and popping then would not do: other threads pop without the lock
            return None

    def _acquire_slowly(self, limits: Limits, control: Cancellation | None) -> Instance:
        with self._changed, self._queueing(self._line, limits, control) as wait:
            while True:
                self.ensure_open()
                found = self._pop_free()
                if found is not None and not found.finished:
                    return found
                if found is not None:
                    self._discard(found)
                    continue
                if self._alive < self._most:
                    self._ensure_may_make()
                    self._alive += 1
                    break
                wait()
        try:
            instance = self._make(limits, control)
        except BaseException:
            with self._changed:
                self._alive -= 1
                self._changed.notify_all()
            raise
        self.made += 1
        return instance

    @contextmanager
    def _queueing(
        self, queue: deque[object], limits: Limits, control: Cancellation | None
    ) -> Iterator[Callable[[], None]]:
        """Gives a function that waits until something changed; in the line, until it may also be this caller's turn.

        The function raises when the queue is full, the call is cancelled, or it has waited until its deadline.
        """
        end, ticket = time.monotonic() + limits.deadline_ms / 1000, object()

        def wait() -> None:
            if ticket in queue:
                self._wait(end, limits.deadline_ms, control)
            else:
                if len(self._serving_here()) >= self._most:
                    raise self._re_entry()
                waiting = len(self._line) + len(self._beside)
                if waiting >= self._queue:
                    raise self._queue_error(waiting)
                queue.append(ticket)  # and look again: who gave an instance back before this has notified nobody
            while queue is self._line and queue[0] is not ticket and not self._closed:
                self._wait(end, limits.deadline_ms, control)

        try:
            if queue is self._line and queue:
                wait()
            yield wait
        finally:
            if ticket in queue:
                queue.remove(ticket)
                self._changed.notify_all()

    def _wait(self, end: float, deadline_ms: int, control: Cancellation | None) -> None:
        """Wait a while for a change. Raises when the call is cancelled or has waited until its deadline."""
        if control is not None and control.cancelled:
            raise UsageError("the call was cancelled while it waited", code="usage.interrupted")
        left = end - time.monotonic()
        if left <= 0:
            raise self.late_error(deadline_ms)
        self._changed.wait(min(left, WAIT_SLICE_S))

    def ensure_open(self) -> None:
        """Raises: UsageError (`usage.closed`) once the plugin is being closed."""
        if self._closed:
            raise UsageError(f"plugin {self._plugin} is closed", code="usage.closed", plugin=self._plugin)

    def _queue_error(self, waiting: int) -> LimitError:
        return LimitError(
            f"{waiting} calls already wait for {self._plugin} ({self._most} at once); "
            f"call less often or raise the limits `queue` or `concurrency`",
            code="limit.queue",
            plugin=self._plugin,
        )

    def _re_entry(self) -> UsageError:
        return UsageError(
            f"a host function or an argument of a call of {self._plugin} calls it back, and it has no other instance "
            f"to serve that",
            code="usage.re-entry",
            plugin=self._plugin,
        )

    def _ensure_may_make(self) -> None:
        """Whether there may be one more instance. One of a single plugin that must be made again counts as a restart.

        Raises: LimitError (`limit.restarts`, `limit.handles`).
        """
        if self._mode is not Instances.SINGLE:
            if len(self._aside) >= MAX_ASIDE:
                raise LimitError(
                    f"{len(self._aside)} instances of {self._plugin} live on for handles that somebody holds; "
                    f"close handles first",
                    code="limit.handles",
                    plugin=self._plugin,
                )
            return
        if not self._begun:  # the first one is no restart, also when it cannot be made
            self._begun = True
            return
        now = time.monotonic()
        while self._restarts and now - self._restarts[0] > 60:
            self._restarts.popleft()
        if self._quarantined or len(self._restarts) >= self._restart_limit:
            self._quarantined = True
            raise LimitError(
                f"{self._plugin} was restarted {self._restart_limit} times within a minute and is quarantined; "
                f"mend it, then reset it (`plugin.reset()`) or load it again",
                code="limit.restarts",
                plugin=self._plugin,
            )
        self._restarts.append(now)
