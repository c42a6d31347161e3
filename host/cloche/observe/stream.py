"""The event stream: hands each event to every sink and remembers the last ones."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from cloche.observe.events import Event, EventKind, Sink

RECENT_EVENTS = 1000
"""How many events the stream remembers unless told otherwise."""
RECENT_CHARACTERS = 8 << 20
"""Most characters of text in the remembered events together: one output event alone may hold a MiB."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A sink that failed: how often, and the last cause as text."""

    sink: str
    times: int
    cause: str


@dataclass(slots=True, eq=False)
class _Added:
    """A sink as it was added; the same sink may be added twice."""

    sink: Sink
    times: int = 0
    cause: str = ""


class EventStream:
    """Itself a `Sink`: call it with an event. Never raises, and never waits for anything but its own short lock.

    Events that happen on several threads reach each sink one by one per thread, in no promised order between threads.
    A sink that raises is left in place; its failures are counted and the event still reaches the others. Added in 0.1.
    """

    def __init__(self, sinks: Iterable[Sink] = (), recent: int = RECENT_EVENTS) -> None:
        self._sinks = tuple(map(_Added, sinks))
        self.has_sinks = bool(self._sinks)
        """Whether anybody listens: what happens very often is not worth an event otherwise."""
        self._recent: deque[tuple[Event, int]] = deque()
        self._most, self._characters = recent, 0
        self._counts: Counter[EventKind] = Counter()
        self._lock = threading.Lock()

    def __call__(self, event: Event, /) -> None:
        """Take one event."""
        weight = _characters(event.data)
        with self._lock:
            self._recent.append((event, weight))
            self._characters += weight
            while len(self._recent) > self._most or (self._characters > RECENT_CHARACTERS and len(self._recent) > 1):
                self._characters -= self._recent.popleft()[1]
            self._counts[event.kind] += 1
            sinks = self._sinks
        for added in sinks:
            try:
                added.sink(event)
            except Exception as error:  # a broken sink must not break the call that is observed
                cause = _cause(error)
                with self._lock:
                    added.times, added.cause = added.times + 1, cause

    def add(self, sink: Sink) -> Callable[[], None]:
        """Hand all later events to `sink` too; returns its undo, which may be called more than once."""
        added = _Added(sink)
        with self._lock:
            self._sinks, self.has_sinks = (*self._sinks, added), True

        def remove() -> None:
            with self._lock:
                self._sinks = tuple(known for known in self._sinks if known is not added)
                self.has_sinks = bool(self._sinks)

        return remove

    def recent(self, *, kind: EventKind | None = None, plugin: str | None = None) -> list[Event]:
        """The remembered events, oldest first, of one kind or one plugin if given.

        They are bounded in number and in text together; the newest one is always there.
        """
        with self._lock:
            events = [event for event, _ in self._recent]
        return [
            event
            for event in events
            if (kind is None or event.kind is kind) and (plugin is None or event.plugin == plugin)
        ]

    def counts(self) -> dict[EventKind, int]:
        """How many events of each kind there were, the forgotten ones included."""
        with self._lock:
            return dict(self._counts)

    def failures(self) -> list[Failure]:
        """The sinks that have failed."""
        with self._lock:
            return [Failure(_name(added.sink), added.times, added.cause) for added in self._sinks if added.times]


def _name(sink: Sink) -> str:
    return str(getattr(sink, "__qualname__", type(sink).__qualname__))


def _cause(error: Exception) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # it is somebody else's class, and may fail to show itself
        return type(error).__name__


def _characters(value: object) -> int:
    """How much text a value of an event holds."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(_characters, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(_characters, value))
    return 0
