"""`wasi:logging/logging`: levels, cuts and rates."""

from __future__ import annotations

import pytest

from cloche.capabilities.api import EventKind
from cloche.capabilities.logging.grant import INTERFACE, Level, LoggingParams
from cloche.capabilities.logging.host import MAX_CONTEXT_CHARACTERS, MAX_MESSAGE_CHARACTERS, Logging, LoggingHost
from cloche.model import Limits
from support.capability_rig import HandClock, Rig


def host(rig: Rig, clock: HandClock | None = None, **grant: object) -> LoggingHost:
    """A host object over the rig's session."""
    opened = Logging(clock or HandClock()).open(LoggingParams.model_validate(grant), rig.session())[INTERFACE]
    assert isinstance(opened, LoggingHost)
    return opened


def test_a_message_becomes_an_event() -> None:
    """Level stays the host's word; both texts stand under `untrusted`."""
    rig = Rig()
    host(rig).log("warn", "io", "slow disk")
    assert rig.of(EventKind.LOG) == [{"level": "warn", "untrusted": {"context": "io", "message": "slow disk"}}]


def test_levels_below_the_grant_are_left_out() -> None:
    """Messages below the granted level vanish and cost no rate."""
    rig = Rig(limits=Limits(log_lines_per_second=1))
    opened = host(rig, level="error")
    for level in Level:
        opened.log(level, "", "x")
    assert [data["level"] for data in rig.of(EventKind.LOG)] == ["error"]


def test_control_characters_stay_data() -> None:
    """Newlines, escapes and marks reach the event unchanged; whoever shows them encodes them."""
    rig = Rig()
    text = "a\nb\x1b[31mc\x00d\u202ee"
    host(rig).log("info", text, text)
    assert rig.of(EventKind.LOG)[0]["untrusted"] == {"context": text, "message": text}


def test_long_texts_are_cut_and_marked() -> None:
    """The event says how many characters are missing."""
    rig = Rig()
    host(rig).log("info", "c" * (MAX_CONTEXT_CHARACTERS + 2), "m" * (MAX_MESSAGE_CHARACTERS + 3))
    (data,) = rig.of(EventKind.LOG)
    assert len(data["untrusted"]["message"]) == MAX_MESSAGE_CHARACTERS
    assert len(data["untrusted"]["context"]) == MAX_CONTEXT_CHARACTERS
    assert data["cut_characters"] == 5


@pytest.mark.parametrize(("limit", "granted"), [(5, 2), (2, 5)])
def test_the_lower_rate_counts(limit: int, granted: int) -> None:
    """The plugin's limit and the grant's rate both bound the lines; later lines say what was dropped."""
    rig, clock = Rig(limits=Limits(log_lines_per_second=limit)), HandClock()
    opened = host(rig, clock, lines_per_second=granted)
    for number in range(10):
        opened.log("info", "", str(number))
    assert len(rig.of(EventKind.LOG)) == 2
    clock.now = 1.0
    opened.log("info", "", "after")
    assert rig.of(EventKind.LOG)[-1]["dropped_before"] == 8


def test_drops_are_reported_at_the_end() -> None:
    """What no later line reports becomes a limit event when the instance ends."""
    rig = Rig(limits=Limits(log_lines_per_second=0))
    opened = host(rig)
    opened.log("info", "", "x")
    opened.close()
    assert rig.of(EventKind.LIMIT) == [{"code": "limit.output", "limit": "log_lines_per_second", "dropped": 1}]


def test_fresh_instances_share_the_rate() -> None:
    """A plugin whose instances live for one call gains no lines by being called often."""
    rig, capability = Rig(limits=Limits(log_lines_per_second=3)), Logging(HandClock())
    for _ in range(10):
        opened = capability.open(LoggingParams(), rig.session())[INTERFACE]
        assert isinstance(opened, LoggingHost)
        opened.log("info", "", "x")
        opened.close()
    assert len(rig.of(EventKind.LOG)) == 3
