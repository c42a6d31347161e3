"""Limits as an embedder states them."""

from __future__ import annotations

import pytest

from cloche.errors import LimitError
from cloche.model import BOUNDS, Limits


@pytest.mark.parametrize("name", sorted(BOUNDS))
def test_each_limit_is_an_integer_inside_its_bound(name: str) -> None:
    """The ends of the range are taken; what lies outside, floats, bools and texts are refused with the limit's name."""
    bound = BOUNDS[name]
    for good in (bound.least, bound.most):
        assert getattr(Limits(**{name: good}), name) == good
    for bad in (bound.least - 1, bound.most + 1, 2**64, True, 1e3, float("nan"), "100", None):
        with pytest.raises(LimitError, match=name) as caught:
            Limits(**{name: bad})  # type: ignore[arg-type]
        assert caught.value.code == "limit.range"
