"""Advances an engine's epoch every 10 ms while a call is running, and stands still while none is.

Source: H5. One daemon thread per engine; it holds no reference to the engine's owner, begins anew in a forked
child, and is not needed at interpreter exit.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from cloche.confine.shortage import starting_threads
from cloche.engine.forks import after_fork

TICK_MS = 10
"""Length of one epoch tick in milliseconds: how exactly a deadline is kept."""

IDLE_TICKS = 50
"""Ticks without a running call before the thread parks; waking it costs a thread switch."""


class Ticker:
    """`running` holds one key per call in progress; adding and removing a key is the whole cost for a call.

    `now` counts ticks. Thread-safe.
    """

    def __init__(self, increment: Callable[[], None]) -> None:
        self._increment = increment
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopped = False
        self._begun = False
        self.now = 0
        self.parked = True
        self.running: dict[object, None] = {}
        after_fork(self, Ticker._begin_anew)

    def wake(self) -> None:
        """Start ticking; call it after adding to `running` when `parked` is set."""
        with self._lock:
            if self._stopped:
                return
            if not self._begun:
                with starting_threads():
                    threading.Thread(target=self._run, name="cloche-ticker", daemon=True).start()
                self._begun = True  # not where the system has no thread to give: the next call asks again
            self.parked = False
            self._wake.set()

    def advance(self, ticks: int) -> None:
        """Advance the epoch by `ticks` at once, so that armed deadlines are looked at now."""
        with self._lock:
            if not self._stopped:
                self.now += ticks  # first: who arms a deadline meanwhile must not take it for longer than it is
                for _ in range(ticks):
                    self._increment()

    def stop(self) -> None:
        """End the thread. The engine may be deleted once this has returned."""
        with self._lock:
            self._stopped = True
            self._wake.set()

    def _begin_anew(self) -> None:
        """In a forked child, where the thread is not: the next call wakes a new one."""
        self._lock, self._wake = threading.Lock(), threading.Event()
        self._begun, self.parked = False, True

    def _run(self) -> None:
        wake, idle = self._wake, 0
        while not self._stopped:
            time.sleep(TICK_MS / 1000)
            self.advance(1)
            idle = 0 if self.running else idle + 1
            if idle >= IDLE_TICKS:
                wake.clear()
                self.parked = True
                # Who called or stopped between the two lines saw `parked` and sets the event, or is seen here.
                if not self.running and not self._stopped:
                    wake.wait()
                self.parked = False
                idle = 0
