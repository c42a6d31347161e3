"""The ticker: ticks while something runs, parks when nothing does, and ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from cloche.engine import ticker as ticker_module
from cloche.engine.ticker import Ticker
from cloche.errors import EngineError


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that must come, for a minute at most."""
    for _ in range(60_000):
        if condition():
            return
        time.sleep(0.001)
    raise AssertionError("it did not happen")


@pytest.fixture
def ticks() -> list[int]:
    return []


@pytest.fixture
def ticker(ticks: list[int], monkeypatch: pytest.MonkeyPatch) -> Iterator[Ticker]:
    monkeypatch.setattr(ticker_module, "IDLE_TICKS", 3)
    made = Ticker(lambda: ticks.append(1))
    yield made
    made.stop()


def threads() -> int:
    return sum(thread.name == "cloche-ticker" for thread in threading.enumerate())


def test_nothing_ticks_before_the_first_call(ticker: Ticker, ticks: list[int]) -> None:
    """A new ticker has no thread."""
    assert ticker.parked
    assert ticks == []


def test_it_ticks_while_a_call_runs_and_parks_after(ticker: Ticker, ticks: list[int]) -> None:
    """With a call in progress the epoch advances; without one it comes to rest, and the next call wakes it again."""
    for _ in range(3):
        enough = len(ticks) + 10
        ticker.running[self_ := object()] = None
        ticker.wake()
        while len(ticks) < enough:
            time.sleep(0.001)
        assert not ticker.parked
        ticker.running.pop(self_)
        until(lambda: ticker.parked)
        rest = len(ticks)
        assert ticker.now == rest
        time.sleep(0.05)
        assert len(ticks) == rest


def test_one_thread_serves_all_calls(ticker: Ticker, ticks: list[int]) -> None:
    """However often it is woken, one thread ticks."""
    before = set(threading.enumerate())
    for _ in range(20):
        ticker.running[object()] = None
        ticker.wake()
    until(lambda: bool(ticks))
    begun = [thread.name for thread in set(threading.enumerate()) - before]
    assert begun == ["cloche-ticker"]


def test_advancing_counts(ticker: Ticker, ticks: list[int]) -> None:
    """Advancing by hand moves the epoch and the count together."""
    ticker.advance(7)
    assert (len(ticks), ticker.now) == (7, 7)


def test_stopping_ends_it(ticker: Ticker, ticks: list[int]) -> None:
    """After `stop` nothing increments the epoch, whoever asks, and the thread ends."""
    before = threads()
    ticker.running[object()] = None
    ticker.wake()
    until(lambda: bool(ticks))
    ticker.stop()
    rest = len(ticks)
    ticker.advance(5)
    ticker.wake()
    until(lambda: threads() == before)
    assert len(ticks) == rest


def test_stopping_a_parked_one_ends_its_thread(ticker: Ticker) -> None:
    """A thread that waits for work ends as well."""
    before = threads()
    ticker.wake()
    until(lambda: ticker.parked)
    ticker.stop()
    until(lambda: threads() == before)


def test_a_thread_that_could_not_be_started_is_asked_for_again(
    ticker: Ticker, ticks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A system that had no thread to give for one call does not leave the next ones without a deadline."""

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(EngineError) as caught:
            ticker.wake()
    assert caught.value.code == "engine.resources"
    assert ticker.parked
    ticker.running[self_ := object()] = None
    ticker.wake()
    until(lambda: bool(ticks))
    ticker.running.pop(self_)
