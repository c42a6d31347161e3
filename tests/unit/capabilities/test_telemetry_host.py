"""`cloche:host/telemetry`: only declared instruments, labels and values get through."""

from __future__ import annotations

import math
from typing import Any

import pytest

from cloche.capabilities.api import EventKind
from cloche.capabilities.telemetry.grant import DEFAULT_BUCKETS, INTERFACE, TelemetryRequest
from cloche.capabilities.telemetry.host import (
    MAX_EVENT_KIND_BYTES,
    MAX_PAYLOAD_BYTES,
    Telemetry,
    TelemetryHost,
)
from support.capability_rig import HandClock, Rig, err, ok

GRANT = {
    "instruments": {
        "pages": {"kind": "counter", "unit": "pages", "help": "Pages.", "labels": {"format": ["html", "plain"]}},
        "queue": {"kind": "gauge"},
        "latency": {"kind": "histogram", "unit": "s"},
    },
    "values-per-second": 10,
    "events-per-second": 2,
}


def host(rig: Rig) -> TelemetryHost:
    """A host object with one instrument of each kind."""
    opened = Telemetry(HandClock()).open(TelemetryRequest.model_validate(GRANT), rig.session())[INTERFACE]
    assert isinstance(opened, TelemetryHost)
    return opened


def test_values_become_metric_events() -> None:
    """Name, kind, unit and labels come from the grant."""
    rig = Rig()
    opened = host(rig)
    ok(opened.count("pages", 3, [("format", "html")]))
    ok(opened.gauge("queue", -1.5, []))
    ok(opened.observe("latency", 0.2, []))
    first, second, third = rig.of(EventKind.METRIC)
    assert first == {
        "name": "pages",
        "kind": "counter",
        "unit": "pages",
        "help": "Pages.",
        "value": 3,
        "labels": {"format": "html"},
    }
    assert (second["kind"], second["value"]) == ("gauge", -1.5)
    assert third["buckets"] == DEFAULT_BUCKETS


@pytest.mark.parametrize("labels", [[("format", "../../etc")], [("format", "")], []])
def test_values_outside_the_declaration_are_other(labels: Any) -> None:
    """A label value that was not declared, or not given, never reaches the metric."""
    rig = Rig()
    ok(host(rig).count("pages", 1, labels))
    assert rig.of(EventKind.METRIC)[0]["labels"] == {"format": "other"}


@pytest.mark.parametrize(
    ("method", "arguments", "expected"),
    [
        ("count", ("absent", 1, []), "undeclared"),
        ("count", ("pages", 1, [("plugin", "x")]), "undeclared"),
        ("count", ("queue", 1, []), "wrong-kind"),
        ("gauge", ("pages", 1.0, []), "wrong-kind"),
        ("observe", ("queue", 1.0, []), "wrong-kind"),
        ("gauge", ("queue", math.nan, []), "invalid-value"),
        ("gauge", ("queue", -math.inf, []), "invalid-value"),
        ("observe", ("latency", math.inf, []), "invalid-value"),
        ("event", ("k" * (MAX_EVENT_KIND_BYTES + 1), ""), "too-large"),
        ("event", ("k", "ü" * (MAX_PAYLOAD_BYTES // 2 + 1)), "too-large"),
    ],
)
def test_refusals(method: str, arguments: Any, expected: str) -> None:
    """Each mistake has its own error value and records nothing."""
    rig = Rig()
    assert err(getattr(host(rig), method)(*arguments)) == expected
    assert rig.events == []


def test_rates_refuse_at_once() -> None:
    """Values and events have rates of their own."""
    rig = Rig()
    opened = host(rig)
    answers = [opened.event("k", "p") for _ in range(3)]
    assert err(answers[2]) == "rate-limited"
    assert [data["untrusted"] for data in rig.of(EventKind.TELEMETRY)] == [{"kind": "k", "payload": "p"}] * 2
    values = [opened.gauge("queue", 1.0, []) for _ in range(11)]
    assert err(values[10]) == "rate-limited"
