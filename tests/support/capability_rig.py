"""Builders for tests of capability packages: a session with its events collected, and a clock set by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cloche.capabilities.api import EventKind, Session
from cloche.model import Err, Limits, Ok
from cloche.values import Case


@dataclass
class HandClock:
    """A clock that moves only when a test says so, in seconds."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Rig:
    """A plugin session as a capability sees it, and the events that it emitted."""

    storage: Path = Path("unused")
    limits: Limits = field(default_factory=Limits)
    config: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    events: list[tuple[EventKind, dict[str, Any]]] = field(default_factory=list)

    def session(self) -> Session:
        """A session of `acme/test`."""
        return Session(
            plugin="acme/test",
            version="1.0.0",
            tier="trusted",
            limits=self.limits,
            storage=self.storage,
            config=self.config,
            secrets=self.secrets,
            emit=lambda kind, data: self.events.append((kind, dict(data))),
            call_id=lambda: 7,
        )

    def of(self, kind: EventKind) -> list[dict[str, Any]]:
        """The data of all events of one kind."""
        return [data for known, data in self.events if known is kind]


def ok(result: Any) -> Any:
    """The value of an `Ok`; anything else fails the test."""
    assert isinstance(result, Ok), result
    return result.value


def err(result: Any) -> str:
    """The case name of an `Err`; anything else fails the test."""
    assert isinstance(result, Err), result
    assert isinstance(result.value, Case), result
    return result.value.name


def reason(result: Any) -> str:
    """The text of an `Err(other(text))`."""
    assert err(result) == "other", result
    return str(result.value.payload)
