"""How `cloche:host/telemetry` is asked for and allowed. Denied unless the policy allows it.

Every instrument, label and label value stands in the manifest, so the number of series is known before the plugin runs
and no text of a running guest ever becomes the name or the label of a metric.
"""

from __future__ import annotations

import math
import re
from enum import StrEnum
from typing import Annotated, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from cloche.capabilities.params import CapabilityParams, Count, Names, common, named
from cloche.grants.schema import GrantSchema, Params, Verdict
from cloche.model import Err
from cloche.values import Case

INTERFACE = "cloche:host/telemetry@1.0.0"

MAX_INSTRUMENTS = 64
"""Most instruments of one plugin."""
VALUES_PER_SECOND, EVENTS_PER_SECOND = 1000, 20
"""What a plugin gets unless it asks for less or the policy says more."""
MAX_LABELS = 8
"""Most labels of one instrument."""
MAX_LABEL_VALUES = 64
"""Most declared values of one label."""
MAX_SERIES = 1000
"""Most series of one plugin: the sum over its instruments of the product of their labels' values, `other` included."""
MAX_BUCKETS = 32
"""Most bucket bounds of one histogram."""
OTHER = "other"
"""What a label value that was not declared is recorded as."""
DEFAULT_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 50.0, 100.0)
"""Upper bounds of a histogram that declares none."""

_KEBAB = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_UNIT = re.compile(r"[A-Za-z0-9%/._-]{0,32}")

RESERVED_LABELS = frozenset({"plugin", "le"})
"""Labels that the host itself sets: whose series it is, and a bucket's upper bound."""


def _check_name(text: str) -> str:
    if len(text) > 64 or not _KEBAB.fullmatch(text):
        raise ValueError("a name in lower-case kebab, at most 64 characters")
    return text


def _check_unit(text: str) -> str:
    if not _UNIT.fullmatch(text):
        raise ValueError("at most 32 letters, digits and any of % / . _ -")
    return text


KebabName = Annotated[str, AfterValidator(_check_name)]


class Kind(StrEnum):
    """What an instrument does with its numbers."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


def _as_kind(value: object) -> object:
    return Kind(value) if isinstance(value, str) and value in list(Kind) else value


def _as_floats(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


class Instrument(CapabilityParams):
    """One declared instrument. `buckets` are the finite, increasing upper bounds of a histogram, in `unit`."""

    kind: Annotated[Kind, BeforeValidator(_as_kind)]
    unit: Annotated[str, AfterValidator(_check_unit)] = ""
    help: Annotated[str, Field(max_length=256)] = ""
    labels: Annotated[
        dict[KebabName, Annotated[Names, Field(max_length=MAX_LABEL_VALUES)]], Field(max_length=MAX_LABELS)
    ] = Field(default_factory=dict)
    buckets: Annotated[tuple[float, ...], BeforeValidator(_as_floats), Field(max_length=MAX_BUCKETS)] = ()

    @model_validator(mode="after")
    def _ensure_consistent(self) -> Self:
        if self.buckets and self.kind is not Kind.HISTOGRAM:
            raise ValueError(f"no buckets for a {self.kind}; remove them or declare a histogram")
        if reserved := RESERVED_LABELS & self.labels.keys():
            raise ValueError(f"another name for the label {named(sorted(reserved))}, which the host sets itself")
        if any(not math.isfinite(bound) for bound in self.buckets) or list(self.buckets) != sorted(set(self.buckets)):
            raise ValueError("buckets that are finite numbers, each larger than the one before")
        return self

    @property
    def series(self) -> int:
        """How many series the instrument can make at most."""
        return math.prod(len({*values, OTHER}) for values in self.labels.values())


class TelemetryRequest(CapabilityParams):
    """What a plugin may record: instruments by name, and values and events per second. Also the grant."""

    instruments: Annotated[dict[KebabName, Instrument], Field(max_length=MAX_INSTRUMENTS)] = Field(default_factory=dict)
    values_per_second: Count = VALUES_PER_SECOND
    events_per_second: Count = EVENTS_PER_SECOND

    @model_validator(mode="after")
    def _ensure_series(self) -> Self:
        total = sum(instrument.series for instrument in self.instruments.values())
        if total > MAX_SERIES:
            raise ValueError(f"at most {MAX_SERIES} series, and these instruments make {total}; use fewer labels")
        return self


class TelemetryAllowance(CapabilityParams):
    """What the operator allows: instruments by name (None: all that are asked for), and rates."""

    instruments: Names | None = None
    values_per_second: Count = VALUES_PER_SECOND
    events_per_second: Count = EVENTS_PER_SECOND


def intersect(request: Params, allowance: Params) -> Verdict:
    """The instruments that are asked for and allowed, at the lower rates."""
    assert isinstance(request, TelemetryRequest)
    assert isinstance(allowance, TelemetryAllowance)
    names, refused = common(request.instruments, allowance.instruments)
    granted = TelemetryRequest(
        instruments={name: request.instruments[name] for name in names},
        values_per_second=min(request.values_per_second, allowance.values_per_second),
        events_per_second=min(request.events_per_second, allowance.events_per_second),
    )
    parts = [f"instruments {named(names)}" if names else "events only, no instruments"]
    parts.append(f"at most {granted.values_per_second} values and {granted.events_per_second} events per second")
    if refused:
        parts.append(f"not allowed: {named(refused)}")
    return Verdict(granted, "; ".join(parts))


SCHEMA = GrantSchema(
    id="cloche:host/telemetry",
    version="1.0.0",
    summary="Record numbers and events for the operator",
    interfaces=(INTERFACE,),
    request=TelemetryRequest,
    allowance=TelemetryAllowance,
    intersect=intersect,
    without_grant=dict.fromkeys(("count", "gauge", "observe", "event"), Err(Case("undeclared"))),
)
