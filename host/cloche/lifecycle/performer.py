"""Keeps one plugin's state, moves it by the table and reports each change."""

from __future__ import annotations

import threading
from collections.abc import Callable

from cloche.lifecycle.states import Action, Event, step
from cloche.model import State


class Life:
    """The state of one plugin. Thread-safe. `report(before, event, after)` is called after each change."""

    def __init__(self, report: Callable[[State, Event, State], None]) -> None:
        self._lock = threading.Lock()
        self._report = report
        self.state = State.DISCOVERED

    def apply(self, event: Event) -> tuple[Action, ...]:
        """Move on and return what the caller has to do now, in order. Raises: UsageError for an impossible event."""
        with self._lock:
            before = self.state
            found = step(before, event)
            self.state = found.state
        self._report(before, event, found.state)
        return found.actions
