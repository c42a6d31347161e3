"""The event stream: every sink gets every event, and nothing that a sink does harms the one who emits."""

from __future__ import annotations

import threading

from cloche.observe.events import Event, EventKind
from cloche.observe.stream import EventStream


def event(number: int = 0, kind: EventKind = EventKind.LOG, plugin: str = "acme/a") -> Event:
    """An event whose time is its number."""
    return Event(kind, float(number), plugin)


def test_each_sink_gets_each_event() -> None:
    """Sinks are called in order of their addition."""
    seen: list[tuple[str, float]] = []
    stream = EventStream([lambda e: seen.append(("first", e.at))])
    stream.add(lambda e: seen.append(("second", e.at)))
    stream(event(1))
    assert seen == [("first", 1.0), ("second", 1.0)]


def test_a_sink_can_be_removed() -> None:
    """The undo of an addition ends it, and may be called again."""
    seen: list[Event] = []
    stream = EventStream()
    remove = stream.add(seen.append)
    stream(event())
    remove()
    remove()
    stream(event())
    assert len(seen) == 1


def test_a_sink_added_twice_is_removed_once() -> None:
    """Each undo ends its own addition."""
    seen: list[Event] = []
    stream = EventStream()
    stream.add(seen.append)
    stream.add(seen.append)()
    stream(event())
    assert len(seen) == 1


def test_an_exception_that_cannot_be_shown_stays_inside() -> None:
    """A sink's exception whose text cannot be made is counted like any other."""

    class OddError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    def broken(_: Event) -> None:
        raise OddError

    stream = EventStream([broken])
    stream(event())
    assert [(failure.times, failure.cause) for failure in stream.failures()] == [(1, "OddError")]


def test_a_failing_sink_harms_nobody() -> None:
    """The event reaches the others, the caller sees nothing, and the failure is counted."""
    seen: list[Event] = []

    def broken(_: Event) -> None:
        raise OSError("disk full")

    stream = EventStream([broken, seen.append])
    stream(event())
    stream(event())
    assert len(seen) == 2
    (failure,) = stream.failures()
    assert (failure.times, failure.cause) == (2, "OSError: disk full")
    assert "broken" in failure.sink


def test_memory_is_bounded_but_counts_are_not() -> None:
    """Old events are forgotten; how many there were is not."""
    stream = EventStream(recent=10)
    for number in range(1000):
        stream(event(number, EventKind.TRAP if number % 2 else EventKind.LOG))
    assert [e.at for e in stream.recent()] == [float(number) for number in range(990, 1000)]
    assert stream.counts() == {EventKind.LOG: 500, EventKind.TRAP: 500}


def test_remembered_text_is_bounded() -> None:
    """A few events with much text push out older ones, but the newest is always there."""
    stream = EventStream()
    text = "x" * (1 << 20)
    for number in range(100):
        stream(Event(EventKind.OUTPUT, float(number), data={"text": text, "more": [{"text": text}]}))
    assert [e.at for e in stream.recent()] == [96.0, 97.0, 98.0, 99.0]
    stream(Event(EventKind.OUTPUT, 100.0, data={"text": text * 9}))
    assert [e.at for e in stream.recent()] == [100.0]


def test_recent_events_are_filtered() -> None:
    """By kind and by plugin."""
    stream = EventStream()
    stream(event(1, EventKind.LOG, "acme/a"))
    stream(event(2, EventKind.TRAP, "acme/a"))
    stream(event(3, EventKind.LOG, "acme/b"))
    assert [e.at for e in stream.recent(kind=EventKind.LOG)] == [1.0, 3.0]
    assert [e.at for e in stream.recent(kind=EventKind.LOG, plugin="acme/b")] == [3.0]


def test_threads_lose_nothing() -> None:
    """Events from several threads all arrive and are all counted."""
    seen: list[Event] = []
    stream = EventStream([seen.append])

    def emit() -> None:
        for _ in range(200):
            stream(event())

    threads = [threading.Thread(target=emit) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 800
    assert stream.counts() == {EventKind.LOG: 800}


def test_a_sink_may_emit() -> None:
    """A sink that emits an event of its own does not lock up."""
    stream = EventStream()

    def echo(e: Event) -> None:
        if e.kind is EventKind.TRAP:
            stream(event(2, EventKind.WARNING))

    stream.add(echo)
    stream(event(1, EventKind.TRAP))
    assert stream.counts() == {EventKind.TRAP: 1, EventKind.WARNING: 1}
