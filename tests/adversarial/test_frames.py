"""Threat: a worker that was taken over says whatever it likes (H41). The host ends each call in an error of its own,
soon, in little memory, and everything that the worker's guest held is closed."""

from __future__ import annotations

import math

import pytest

from cloche.errors import ClocheError
from cloche.worker.instance import RemoteInstance
from cloche.worker.messages import Made, encode
from support.frames import converse, deepened, framed
from support.ledger import grown, resident_bytes
from support.stand_in import COST, LIMITS, SETTINGS, WELL, Offers, StandIn

pytestmark = pytest.mark.adversarial
CONVERSATIONS = 1_000


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
    assert {"engine.worker-protocol", "engine.worker-lost", "limit.payload", "guest.trap", "a value"} <= codes
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


@pytest.mark.xfail(
    strict=True, raises=RecursionError, reason="the decoder's own error for it is another than for the rest"
)
def test_a_message_nested_beyond_all_bounds_is_no_message() -> None:
    """A part that nobody asked for is skipped, but not down to any depth."""
    assert made_with(deepened(encode(Made(COST, WELL)), 100_000)) == "engine.worker-protocol"


@pytest.mark.xfail(strict=True, reason="no bound from above on what a worker says a call took")
@pytest.mark.parametrize("wall_ms", [math.inf, 1e300])
def test_a_call_that_took_for_ever_is_no_answer(wall_ms: float) -> None:
    """Such a figure would stay in the host's sums."""
    cost = type(COST)(1, 1, wall_ms, 0.1, None, 0, 1, 1, 1)
    assert made_with(encode(Made(cost, WELL))) == "engine.worker-protocol"
