"""Threads of our own with a known stack."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from cloche.engine.stacks import OWN_STACK_BYTES, GuestThreads, thread_stack_bytes
from cloche.model import KIB

SMALL_BYTES = 128 * KIB


@pytest.fixture
def guest_threads() -> Iterator[GuestThreads]:
    """Threads that are gone after the test, and the process's own setting as it was."""
    before = threading.stack_size()
    threads = GuestThreads("test", 2)
    yield threads
    threads.close()
    threading.stack_size(before)


def test_our_threads_have_our_stack_and_the_setting_stays(guest_threads: GuestThreads) -> None:
    """A thread of ours is large whatever the process's setting is, and the setting is the same afterwards."""
    threading.stack_size(SMALL_BYTES)
    assert guest_threads.submit(thread_stack_bytes).result() >= OWN_STACK_BYTES // 2
    assert threading.stack_size() == SMALL_BYTES


def test_a_setting_that_somebody_changes_meanwhile_is_theirs(
    guest_threads: GuestThreads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread that puts its own setting back while a thread of ours is made is not overruled."""
    guest_threads.submit(int).result()
    pool = guest_threads._pool
    assert pool is not None
    real = pool.submit

    def submit(*args: Any) -> Future[Any]:
        threading.stack_size(0)
        return real(*args)

    threading.stack_size(SMALL_BYTES)
    monkeypatch.setattr(pool, "submit", submit)
    guest_threads.submit(int).result()
    assert threading.stack_size() == 0
