"""Token buckets: how many lines or events a plugin may emit, kept per plugin so that fresh instances gain nothing."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

MAX_BUCKETS = 1024
"""Most plugins whose rate is remembered; the one idle longest is forgotten first, which only refills it."""

Clock = Callable[[], float]
"""Seconds that never go back, such as `time.monotonic`."""


class TokenBucket:
    """Lets `per_second` things through each second, and at most one second's worth at once. Thread-safe.

    Refuses at once, never waits. A rate of zero refuses everything.
    """

    __slots__ = ("_clock", "_last", "_lock", "_per_second", "_refused", "_tokens")

    def __init__(self, per_second: int, clock: Clock) -> None:
        self._per_second = per_second
        self._clock = clock
        self._tokens = float(per_second)
        self._last = clock()
        self._refused = 0
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Take one token if there is one; a refusal is counted."""
        with self._lock:
            now = self._clock()
            # A clock that went back adds nothing rather than taking tokens away.
            self._tokens = min(self._per_second, self._tokens + max(0.0, now - self._last) * self._per_second)
            self._last = now
            if self._tokens < 1:
                self._refused += 1
                return False
            self._tokens -= 1
            return True

    def refused(self) -> int:
        """How many were refused since this was last asked; asking starts the count anew."""
        with self._lock:
            count, self._refused = self._refused, 0
            return count


class TokenBuckets:
    """One bucket for each key (a plugin) and rate, at most `MAX_BUCKETS`. Thread-safe."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._buckets: OrderedDict[tuple[str, int], TokenBucket] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str, per_second: int) -> TokenBucket:
        """The bucket of `key` at this rate, made full when there is none yet."""
        with self._lock:
            bucket = self._buckets.get((key, per_second))
            if bucket is None:
                bucket = self._buckets[(key, per_second)] = TokenBucket(per_second, self._clock)
                if len(self._buckets) > MAX_BUCKETS:
                    self._buckets.popitem(last=False)
            else:
                self._buckets.move_to_end((key, per_second))
            return bucket
