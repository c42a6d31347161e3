"""Frames over pipes: bounds, pieces, ends, and whether anything was taken."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

from cloche.worker.channel import FIRST_BYTES, MORE_BYTES, Channel, ChannelClosed, FrameError, lane


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    ours, (inward, outward) = lane()
    theirs = Channel(inward, outward)
    yield ours, theirs
    ours.close()
    theirs.close()


@pytest.mark.parametrize("size", [0, 1, FIRST_BYTES, MORE_BYTES, MORE_BYTES + 1, 1 << 20])
def test_a_frame_arrives_as_it_was_sent(ends: tuple[Channel, Channel], size: int) -> None:
    """Whatever its size, and the one after it, too."""
    ours, theirs = ends
    body = os.urandom(size)

    def send_both() -> None:
        for _ in range(2):
            ours.send(b"message", [body, b"end"])

    sender = threading.Thread(target=send_both)
    sender.start()
    for _ in range(2):
        message, found = theirs.receive(size + 3)
        assert (message, bytes(found)) == (b"message", body + b"end")
    sender.join()


def test_a_frame_may_come_in_pieces(ends: tuple[Channel, Channel]) -> None:
    """Byte by byte."""
    ours, theirs = ends
    for byte in (3).to_bytes(4, "little") + (2).to_bytes(4, "little") + b"abcde":
        ours.write(bytes([byte]))
    message, body = theirs.receive(2)
    assert (message, bytes(body)) == (b"abc", b"de")


@pytest.mark.parametrize("sizes", [(0, 11), (1 << 30, 0), (2**32 - 1, 2**32 - 1)])
def test_a_frame_beyond_its_bounds_is_refused(ends: tuple[Channel, Channel], sizes: tuple[int, int]) -> None:
    """Before anything is allocated for it."""
    ours, theirs = ends
    ours.write(b"".join(size.to_bytes(4, "little") for size in sizes))
    with pytest.raises(FrameError):
        theirs.receive(10)


def test_the_end_of_the_other_is_an_error_of_ours(ends: tuple[Channel, Channel]) -> None:
    """Reading, writing and asking, and with what was closed here."""
    ours, theirs = ends
    theirs.close()
    for work in (ours.read, lambda: ours.receive(1), lambda: ours.write(b"x"), lambda: ours.ask(b"x")):
        with pytest.raises(ChannelClosed):
            work()
    ours.close()
    with pytest.raises(ChannelClosed):
        ours.read()


def test_what_lies_in_the_pipe_was_not_read(ends: tuple[Channel, Channel]) -> None:
    """Also when the other end is gone; one byte that it took is enough."""
    ours, theirs = ends
    assert not ours.was_read()
    ours.write(b"frame")
    assert not ours.was_read()
    assert theirs.read(1) == b"f"
    assert ours.was_read()
    theirs.close()
    assert ours.was_read()


def test_nothing_was_read_by_one_that_was_gone_before(ends: tuple[Channel, Channel]) -> None:
    """Neither what it left in the pipe nor what could not be written any more."""
    ours, theirs = ends
    ours.write(b"frame")
    theirs.close()
    assert not ours.was_read()
    with pytest.raises(ChannelClosed):
        ours.write(b"more")
    assert not ours.was_read()
