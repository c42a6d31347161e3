"""Nearest known names, for messages. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

# Comparing names takes time that a component with thousands of strange imports could make the host spend.
MAX_SUGGESTIONS = 32
MAX_NAME_CHARS = 100


class Suggestions:
    """Finds the names most like a wrong one, for the first 32 wrong ones of a report."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = MAX_SUGGESTIONS

    def nearest(self, wrong: str, known: Iterable[str]) -> str:
        """``did you mean `a` or `b`?``, or an empty text when nothing is near."""
        if self._left <= 0 or len(wrong) > MAX_NAME_CHARS:
            return ""
        self._left -= 1
        near = get_close_matches(wrong, sorted(set(known)), n=2, cutoff=0.75)
        return f"did you mean {' or '.join(f'`{name}`' for name in near)}?" if near else ""
