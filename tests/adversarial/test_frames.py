"""Threat: a worker that was taken over says whatever it likes (H41). The host ends each call in an error of its own,
soon, in little memory, and everything that the worker's guest held is closed."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from cloche.errors import ClocheError
from cloche.wit.types import OwnType
from cloche.worker.instance import RemoteInstance
from cloche.worker.messages import Condition, Done, HostCall, Made, encode
from support.frames import converse
from support.hostile_frames import deepened, framed
from support.ledger import grown, resident_bytes
from support.stand_in import ANSWERS, COST, EXPORTS, LIMITS, SETTINGS, THING, WELL, Offers, StandIn, Thing

pytestmark = pytest.mark.adversarial
CONVERSATIONS = 1_000
GIVES_A_THING = [result for result, _ in ANSWERS].index(OwnType(THING))
"""The export that gives its caller an object of the host."""


def test_hostile_frames_get_nowhere() -> None:
    """Noise, and frames of every kind changed, cut, joined and out of order: coded errors, no hang, nothing left."""
    tallies, sizes = [], []
    for first in range(0, 4 * CONVERSATIONS, CONVERSATIONS):
        tallies.append(converse(range(first, first + CONVERSATIONS)))
        sizes.append(resident_bytes())
    print(*tallies, sep="\n")
    assert [finding for tally in tallies for finding in tally.findings] == []
    assert sum(tally.conversations for tally in tallies) == 4 * CONVERSATIONS
    # Frames that the host never reads would prove nothing, nor would those that are all refused at the first look.
    assert sum(tally.frames for tally in tallies) > 3 * CONVERSATIONS
    codes = {code for tally in tallies for code in tally.outcomes}
    assert {"engine.worker-protocol", "engine.worker-lost", "limit.payload", "a value"} <= codes
    assert grown(sizes) < 8 << 20


def made_with(message: bytes) -> str:
    """The code of making an instance in a worker that answers so."""
    worker, offers = StandIn(), Offers()
    worker.say(framed(message), is_last=True)
    try:
        with pytest.raises(ClocheError) as caught:
            RemoteInstance(worker, SETTINGS, lambda _: offers.targets, None, LIMITS)  # type: ignore[arg-type]
        return caught.value.code
    finally:
        worker.end()


def test_a_message_nested_beyond_all_bounds_is_no_message() -> None:
    """A part that nobody asked for is skipped, but not down to any depth."""
    assert made_with(deepened(encode(Made(COST, WELL)), 100_000)) == "engine.worker-protocol"


@pytest.mark.parametrize("wall_ms", [math.inf, 1e300])
def test_a_call_that_took_for_ever_is_no_answer(wall_ms: float) -> None:
    """Such a figure would stay in the host's sums."""
    cost = type(COST)(1, 1, wall_ms, 0.1, None, 0, 1, 1, 1)
    assert made_with(encode(Made(cost, WELL))) == "engine.worker-protocol"


def leak(frames: list[bytes], export: int, act: Callable[[RemoteInstance], None] = lambda _: None) -> list[int]:
    """How often each object was closed that the host made in a conversation which ends in an error."""
    worker, offers = StandIn(), Offers()
    worker.say(framed(encode(Made(COST, WELL))), *frames, is_last=True)
    instance = RemoteInstance(worker, SETTINGS, lambda _: offers.targets)  # type: ignore[arg-type]
    offers.on_make = lambda: act(instance)
    with pytest.raises(ClocheError):
        instance.call(EXPORTS[export], ("hello", Thing(), None, []), LIMITS)
    instance.close()
    worker.end()
    assert offers.made
    return [thing.closed for thing in offers.made]


MAKE = framed(encode(HostCall(2, [])))


def test_a_value_beside_nonsense_keeps_no_object() -> None:
    """What a worker gives its caller is closed where the rest of the answer is refused."""
    odd = Condition(True, False, False, {}, [99], 0, 0, 0, 0)
    answer = framed(encode(Done(COST, odd)), (2).to_bytes(4, "little"))
    assert leak([MAKE, answer], GIVES_A_THING) == [1]


def test_a_host_call_after_the_end_takes_nothing_over() -> None:
    """What a worker hands to the host in a call that was cancelled is closed."""
    take = framed(encode(HostCall(3, [])), (2).to_bytes(4, "little"))
    assert leak([MAKE, take], GIVES_A_THING, lambda instance: instance.interrupt()) == [1]
