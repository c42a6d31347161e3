"""Host side of `cloche:host/telemetry`."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from cloche.capabilities.api import EventKind, HostInterface, Session
from cloche.capabilities.rate import Clock, TokenBucket, TokenBuckets
from cloche.capabilities.telemetry.grant import (
    DEFAULT_BUCKETS,
    INTERFACE,
    OTHER,
    SCHEMA,
    Instrument,
    Kind,
    TelemetryRequest,
)
from cloche.grants.schema import Params
from cloche.model import Err, Ok
from cloche.resources import wit_dir
from cloche.values import Case

MAX_EVENT_KIND_BYTES = 64
"""Longest kind of an event, in bytes of UTF-8."""
MAX_PAYLOAD_BYTES = 8192
"""Longest payload of an event, in bytes of UTF-8."""

Labels = Sequence[tuple[str, str]]


class TelemetryHost:
    """`cloche:host/telemetry` for one instance. Source: wit/host/telemetry.wit. No method blocks.

    A recorded value becomes a `metric` event whose name and labels all come from the grant; an event becomes a
    `telemetry` event with the guest's text under `untrusted`.
    """

    def __init__(self, grant: TelemetryRequest, session: Session, values: TokenBucket, events: TokenBucket) -> None:
        self._grant, self._session, self._values, self._events = grant, session, values, events

    def count(self, name: str, increment: int, labels: Labels) -> Ok[None] | Err[Case]:
        """Add to a counter."""
        return self._record(Kind.COUNTER, name, increment, labels)

    def gauge(self, name: str, value: float, labels: Labels) -> Ok[None] | Err[Case]:
        """Set a gauge; `invalid-value` for NaN and infinities."""
        return self._record(Kind.GAUGE, name, value, labels)

    def observe(self, name: str, value: float, labels: Labels) -> Ok[None] | Err[Case]:
        """Put a number into a histogram; `invalid-value` for NaN and infinities."""
        return self._record(Kind.HISTOGRAM, name, value, labels)

    def event(self, kind: str, payload: str) -> Ok[None] | Err[Case]:
        """Record that something happened; `too-large` or `rate-limited` when it was not recorded."""
        if len(kind.encode()) > MAX_EVENT_KIND_BYTES or len(payload.encode()) > MAX_PAYLOAD_BYTES:
            return Err(Case("too-large"))
        if not self._events.take():
            return Err(Case("rate-limited"))
        self._session.emit(EventKind.TELEMETRY, {"untrusted": {"kind": kind, "payload": payload}})
        return Ok(None)

    def close(self) -> None:
        """Nothing to release."""

    def _record(self, kind: Kind, name: str, value: float, labels: Labels) -> Ok[None] | Err[Case]:
        instrument = self._grant.instruments.get(name)
        if instrument is None:
            return Err(Case("undeclared"))
        if instrument.kind is not kind:
            return Err(Case("wrong-kind"))
        if not math.isfinite(value):
            return Err(Case("invalid-value"))
        declared = _declared(instrument, labels)
        if declared is None:
            return Err(Case("undeclared"))
        if not self._values.take():
            return Err(Case("rate-limited"))
        data: dict[str, object] = {
            "name": name,
            "kind": kind.value,
            "unit": instrument.unit,
            "help": instrument.help,
            "value": value,
            "labels": declared,
        }
        if kind is Kind.HISTOGRAM:
            data["buckets"] = instrument.buckets or DEFAULT_BUCKETS
        self._session.emit(EventKind.METRIC, data)
        return Ok(None)


def _declared(instrument: Instrument, labels: Labels) -> dict[str, str] | None:
    """Every declared label with a declared value or `other`; None when a label that was given is not declared."""
    given = dict(labels)
    if not given.keys() <= instrument.labels.keys():
        return None
    return {label: given[label] if given.get(label) in values else OTHER for label, values in instrument.labels.items()}


class Telemetry:
    """The capability `cloche:host/telemetry`. `clock` gives seconds that never go back."""

    schema = SCHEMA

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._values, self._events = TokenBuckets(clock), TokenBuckets(clock)

    def wit(self) -> Path:
        """The directory of the WIT package."""
        return wit_dir() / "host"

    def open(self, grant: Params, session: Session) -> Mapping[str, HostInterface]:
        """The host object for one instance; all instances of a plugin share its rates."""
        assert isinstance(grant, TelemetryRequest)
        key = str(session.storage)
        values = self._values.get(key, grant.values_per_second)
        events = self._events.get(key, grant.events_per_second)
        return {INTERFACE: TelemetryHost(grant, session, values, events)}
