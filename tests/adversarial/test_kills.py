"""Threat: workers die at any moment of any call, again and again (H41). No call is lost, done twice or left open."""

from pathlib import Path

import pytest

from support.kills import drive

pytestmark = pytest.mark.adversarial


def test_callers_are_told_what_became_of_their_calls(tmp_path: Path) -> None:
    """Each call ends with its value or as not known, nothing is tried again, and the host holds no more than before."""
    tally = drive(10, tmp_path)
    print(tally)
    assert tally.findings == []
    assert tally.kills == 10
    assert set(tally.failed) == {"engine.worker-lost"}
    assert len(tally.done) >= 10
