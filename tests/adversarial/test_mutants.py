"""Threat: a component damaged or forged at any byte. It is refused, or runs in its limits; the host goes on."""

import pytest

from support.mutant_corpus import corpus
from support.mutants import drive, mutant

pytestmark = pytest.mark.adversarial
COUNT = 500


def test_mutants_do_not_harm_the_host() -> None:
    """No mutant crashes or stops its host or brings out an exception that is not Cloche's; good plugins still run."""
    tally = drive(COUNT, jobs=2)
    print(tally)
    assert tally.findings == []
    assert tally.mutants == COUNT
    # A stock of mutants that are all refused at once would prove nothing.
    assert tally.codes["loaded"] > COUNT // 10
    assert tally.calls["answered"] > COUNT // 5
    assert {"component.malformed", "loaded"} < set(tally.codes)
    assert {"guest.trap", "limit.fuel", "answered"} < set(tally.calls)


def test_mutants_are_the_same_every_time() -> None:
    """A number names a mutant, so a finding can be looked at again; numbers give different mutants."""
    originals = corpus()
    first = [mutant(originals, number) for number in range(200)]
    assert first == [mutant(originals, number) for number in range(200)]
    assert len(set(first)) > 190
