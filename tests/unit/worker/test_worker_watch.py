"""The watch over a worker: it looks while somebody is busy, and rests while nobody is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from cloche.worker import watch as watch_module
from cloche.worker.watch import Watch


class Caller:
    """An instance, as far as the watch sees one."""

    def __init__(self, *, is_busy: bool) -> None:
        self.is_busy = is_busy
        self.looks: list[int] = []

    def look(self, now: float, memory_bytes: int) -> None:
        assert now > 0
        self.looks.append(memory_bytes)


class Scales:
    """A worker, as far as the watch sees one."""

    weighed = 0

    def memory_bytes(self) -> int:
        self.weighed += 1
        return 77


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.001)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    monkeypatch.setattr(watch_module, "LOOK_S", 0.001)
    made = Watch(Scales())
    yield made
    made.end()
    until(lambda: not any(thread.name == "cloche-watch" for thread in threading.enumerate()))


def test_only_the_busy_are_looked_at(watch: Watch) -> None:
    """With the memory of the worker, which is weighed once for all of them."""
    busy, idle = Caller(is_busy=True), Caller(is_busy=False)
    watch.watched.update(dict.fromkeys((busy, idle)))
    watch.wake()
    until(lambda: len(busy.looks) > 3)
    assert set(busy.looks) == {77}
    assert idle.looks == []


def test_it_rests_while_nobody_is_busy_and_wakes(watch: Watch) -> None:
    """Parked it does nothing at all; who begins a call wakes it."""
    caller = Caller(is_busy=True)
    watch.watched[caller] = None
    assert watch.is_parked
    watch.wake()
    until(lambda: bool(caller.looks))
    caller.is_busy = False
    until(lambda: watch.is_parked)
    seen = len(caller.looks)
    caller.is_busy = True
    watch.wake()
    until(lambda: len(caller.looks) > seen)


def test_one_that_ended_starts_no_thread() -> None:
    """A worker that is gone needs no watch."""
    watch = Watch(Scales())
    watch.end()
    before = threading.active_count()
    watch.wake()
    assert threading.active_count() == before
