"""Everything that happens in the host, as frozen values in one stream. Metrics, logs and the audit log feed on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol


class EventKind(StrEnum):
    """What happened."""

    STATE = "state"
    GRANT = "grant"
    INSTANCE = "instance"
    CALL = "call"
    TRAP = "trap"
    LIMIT = "limit"
    DENIED = "denied"
    LOG = "log"
    OUTPUT = "output"
    METRIC = "metric"
    TELEMETRY = "telemetry"
    COMPILE = "compile"
    CACHE = "cache"
    RESTART = "restart"
    WORKER = "worker"
    WARNING = "warning"
    BACKEND_ERROR = "backend-error"


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `at` is seconds since the epoch; `data` holds plain values; guest text stands under `untrusted`."""

    kind: EventKind
    at: float
    plugin: str | None = None
    version: str | None = None
    tier: str | None = None
    state: str | None = None
    capability: str | None = None
    call_id: int | None = None
    data: Mapping[str, Any] = field(default_factory=dict)


class Sink(Protocol):
    """Receives events. Called on the thread where they happen; must not block or raise."""

    def __call__(self, event: Event, /) -> None:
        """Take one event."""
