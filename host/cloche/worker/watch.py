"""Looks at the calls that a worker serves, some times a second, and kills the worker when one has to end.

So whoever waits for a worker just waits: the end of the worker is the end of the wait.
"""

from __future__ import annotations

import threading
import time
from typing import Protocol

from cloche.confine.shortage import starting_threads

LOOK_S = 0.05
"""From one look to the next, while calls run."""
IDLE_LOOKS = 20
"""Looks without a running call before the thread parks; waking it costs a thread switch."""


class Watched(Protocol):
    """What makes calls: an instance."""

    @property
    def is_busy(self) -> bool:
        """Whether a call is in progress."""

    def look(self, now: float, memory_bytes: int) -> None:
        """End what has to end at the time `now` (`time.monotonic`) with so much memory in use by the worker."""


class Weighed(Protocol):
    """A worker."""

    def memory_bytes(self) -> int:
        """Resident memory of the process now."""


class Watch:
    """The watch over one worker: `watched` holds its instances. Thread-safe. `end` it with the worker.

    Who begins a call looks at `is_parked` afterwards, and calls `wake` when it is set.
    """

    def __init__(self, worker: Weighed) -> None:
        self.watched: dict[Watched, None] = {}
        self.is_parked = True
        self._worker = worker
        self._lock, self._wake = threading.Lock(), threading.Event()
        self._begun = self._ended = False

    def wake(self) -> None:
        """Start looking. Raises: EngineError (`engine.resources`) when the system has no thread to give."""
        with self._lock:
            if not self._begun and not self._ended:
                with starting_threads():
                    threading.Thread(target=self._run, name="cloche-watch", daemon=True).start()
                self._begun = True
            self.is_parked = False
            self._wake.set()

    def end(self) -> None:
        """End the thread. Idempotent."""
        with self._lock:
            self._ended = True
            self._wake.set()

    def _run(self) -> None:
        idle = 0
        while not self._ended:
            time.sleep(LOOK_S)
            idle = 0 if self._look() else idle + 1
            if idle >= IDLE_LOOKS:
                self._wake.clear()
                self.is_parked = True
                # Whose call began between the two lines saw that and sets the event, or is seen here.
                if not self._look() and not self._ended:
                    self._wake.wait()
                self.is_parked = False
                idle = 0

    def _look(self) -> bool:
        """Whether anybody was busy."""
        busy = [watched for watched in list(self.watched) if watched.is_busy]
        if busy:
            now, memory_bytes = time.monotonic(), self._worker.memory_bytes()
            for watched in busy:
                watched.look(now, memory_bytes)
        return bool(busy)
