"""Rates: how many things get through, on a clock set by hand."""

from __future__ import annotations

from cloche.capabilities.rate import MAX_BUCKETS, TokenBucket, TokenBuckets
from support.capability_rig import HandClock


def test_a_burst_is_one_second_of_rate() -> None:
    """At most one second's worth gets through at once, and the rest is counted."""
    bucket = TokenBucket(3, HandClock())
    assert [bucket.take() for _ in range(5)] == [True, True, True, False, False]
    assert bucket.refused() == 2
    assert bucket.refused() == 0


def test_time_refills_up_to_the_burst() -> None:
    """Half a second gives half the rate, an hour no more than one burst."""
    clock = HandClock()
    bucket = TokenBucket(4, clock)
    assert sum(bucket.take() for _ in range(10)) == 4
    clock.now = 0.5
    assert sum(bucket.take() for _ in range(10)) == 2
    clock.now = 3600.0
    assert sum(bucket.take() for _ in range(10)) == 4


def test_a_clock_that_goes_back_changes_nothing() -> None:
    """A step back neither gives nor takes tokens."""
    clock = HandClock(100.0)
    bucket = TokenBucket(2, clock)
    assert bucket.take()
    clock.now = 0.0
    assert bucket.take()
    assert not bucket.take()


def test_rate_zero_refuses_everything() -> None:
    """Zero means nothing at all."""
    clock = HandClock()
    bucket = TokenBucket(0, clock)
    clock.now = 10.0
    assert not bucket.take()


def test_a_plugin_keeps_its_bucket() -> None:
    """A second instance of a plugin gets the bucket of the first; another plugin gets its own."""
    buckets = TokenBuckets(HandClock())
    assert buckets.get("a", 5) is buckets.get("a", 5)
    assert buckets.get("a", 5) is not buckets.get("b", 5)


def test_buckets_are_bounded() -> None:
    """Only so many plugins are remembered, the longest unused forgotten first."""
    buckets = TokenBuckets(HandClock())
    first, second = buckets.get("0", 1), buckets.get("1", 1)
    for number in range(2, MAX_BUCKETS):
        buckets.get(str(number), 1)
    assert buckets.get("0", 1) is first
    buckets.get("new", 1)
    assert buckets.get("0", 1) is first
    assert buckets.get("1", 1) is not second
