"""Bounds of a child process, and the words for how well it is confined."""

from __future__ import annotations

import pytest

from cloche.confine.level import WORDS, Level, offered
from cloche.confine.limits import BOUNDS, ChildLimits
from cloche.errors import LimitError


@pytest.mark.parametrize("name", sorted(BOUNDS))
def test_each_limit_is_an_integer_inside_its_bound(name: str) -> None:
    """The ends of the range are taken; what lies outside, floats, bools and texts are refused with the limit's name."""
    bound = BOUNDS[name]
    for good in (bound.least, bound.most):
        assert getattr(ChildLimits(**{name: good}), name) == good
    for bad in (bound.least - 1, bound.most + 1, True, 1e3, float("nan"), "100", None):
        with pytest.raises(LimitError, match=name) as caught:
            ChildLimits(**{name: bad})  # type: ignore[arg-type]
        assert caught.value.code == "limit.range"


@pytest.mark.parametrize(
    ("level", "word", "met"),
    [
        (Level(7, True, True), "landlock+seccomp", set(WORDS)),
        (Level(0, True, True), "seccomp", {"none", "rlimits", "seccomp"}),
        (Level(1, False, True), "landlock", {"none", "rlimits", "landlock"}),
        (Level(0, False, True), "rlimits", {"none", "rlimits"}),
        (Level(0, False, False), "none", {"none"}),
    ],
)
def test_a_level_has_one_word_and_meets_what_it_contains(level: Level, word: str, met: set[str]) -> None:
    """A policy that requires more than a level holds is not met by it."""
    assert level.word == word
    assert {each for each in WORDS if level.meets(each)} == met


def test_an_unknown_level_is_an_error() -> None:
    """A misspelt requirement is never taken as met."""
    with pytest.raises(ValueError, match="not a level"):
        offered().meets("landlok")
