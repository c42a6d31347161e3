"""Text of strangers in messages."""

from __future__ import annotations

import pytest

from cloche.confine.limits import ChildLimits
from cloche.errors import LimitError
from cloche.model import Limits
from cloche.text import show


class _Odd:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


HUGE = 10**5000


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1, "1"),
        ("a\n\x1b", "'a\\n\\x1b'"),
        (HUGE, "a huge number"),
        (-HUGE, "a huge number"),
        ([HUGE], "this list"),
        (_Odd(), "this _Odd"),
        ("x" * 100, f"'{'x' * 56}..."),
    ],
    ids=range(7),
)
def test_anything_can_be_shown(value: object, shown: str) -> None:
    """Short, and without failing on what Python itself cannot write out."""
    assert show(value) == shown


@pytest.mark.parametrize("value", [HUGE, -HUGE, [HUGE], _Odd(), float("nan")], ids=range(5))
def test_limits_refuse_anything(value: object) -> None:
    """A limit that is no number in its range is `limit.range`, whatever it is instead."""
    for make in (lambda: Limits(fuel=value), lambda: ChildLimits(wall_ms=value)):  # type: ignore[arg-type]
        with pytest.raises(LimitError) as caught:
            make()
        assert caught.value.code == "limit.range"
