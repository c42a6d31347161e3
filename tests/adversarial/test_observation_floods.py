"""Threat: a plugin floods logs, metrics and events, or writes text that attacks whoever reads them.

Expected: bounded lines, series and memory, and every line is one line of printable ASCII.
"""

from __future__ import annotations

import io
import itertools
import json
import time
import tracemalloc
from collections.abc import Mapping

import pytest

from cloche.capabilities.api import EventKind
from cloche.capabilities.logging.grant import INTERFACE as LOGGING
from cloche.capabilities.logging.grant import LoggingParams
from cloche.capabilities.logging.host import Logging, LoggingHost
from cloche.capabilities.telemetry.grant import INTERFACE as TELEMETRY
from cloche.capabilities.telemetry.grant import TelemetryRequest
from cloche.capabilities.telemetry.host import Telemetry, TelemetryHost
from cloche.model import Limits
from cloche.observe.events import Event
from cloche.observe.log import LogSink, console_renderer, json_renderer
from cloche.observe.metrics import MAX_FAMILIES, Metrics
from cloche.observe.stream import EventStream
from support.capability_rig import HandClock, Rig

pytestmark = pytest.mark.adversarial

NASTY = "\x1b]0;owned\x07\x1b[2J\r\nlevel=critical plugin=acme/bank\x00\u202e\u2066\x9b31m\u2028{}\"'`$(rm -rf /)"


class Feeding(Rig):
    """A rig whose events go into a stream instead of a list."""

    def __init__(self, stream: EventStream, limits: Limits | None = None) -> None:
        super().__init__(limits=limits or Limits())
        self.stream = stream
        feed = self

        class Forward(list):  # type: ignore[type-arg]
            def append(self, item: tuple[EventKind, Mapping[str, object]]) -> None:
                feed.stream(Event(item[0], time.time(), "acme/test", data=item[1]))

        self.events = Forward()


def test_log_flood() -> None:
    """100,000 messages within a second become as many lines as the limit allows, and one report of the rest."""
    out = io.StringIO()
    stream = EventStream([LogSink(json_renderer(), out)])
    clock = HandClock()
    rig = Feeding(stream, Limits(log_lines_per_second=200))
    host = Logging(clock).open(LoggingParams(), rig.session())[LOGGING]
    assert isinstance(host, LoggingHost)
    for _ in range(100_000):
        clock.now += 0.00001
        host.log("error", NASTY, NASTY)
    host.close()
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    logged = [line for line in lines if line["event"] == "log"]
    assert 200 <= len(logged) <= 401
    assert len(logged) + sum(line.get("dropped_before", 0) for line in logged) + lines[-1].get("dropped", 0) == 100_000


@pytest.mark.parametrize("renderer", [json_renderer(), console_renderer(colors=False)], ids=["json", "console"])
def test_hostile_text_stays_one_line(renderer: object) -> None:
    """A message cannot forge a second line, a field or a colour."""
    out = io.StringIO()
    stream = EventStream([LogSink(renderer, out)])  # type: ignore[arg-type]
    host = Logging(HandClock()).open(LoggingParams(), Feeding(stream).session())[LOGGING]
    assert isinstance(host, LoggingHost)
    host.log("info", NASTY, NASTY)
    line = out.getvalue()
    assert line.count("\n") == 1
    assert line[:-1].isascii()
    assert line[:-1].isprintable()
    assert "plugin=acme/bank" not in line.replace("\\", "").split('"')[0]


def test_huge_messages_are_cut() -> None:
    """A message of 64 MiB costs a few KiB in every place where events are kept."""
    out = io.StringIO()
    stream = EventStream([LogSink(json_renderer(), out)])
    host = Logging(HandClock()).open(LoggingParams(), Feeding(stream).session())[LOGGING]
    assert isinstance(host, LoggingHost)
    host.log("info", "c" * (1 << 20), "m" * (64 << 20))
    assert len(out.getvalue()) < 20_000
    assert sum(len(text) for text in stream.recent()[0].data["untrusted"].values()) < 10_000


def test_100k_metric_names_make_no_series() -> None:
    """Names and labels that are not declared are refused and leave nothing behind."""
    metrics = Metrics()
    stream = EventStream([metrics])
    grant = TelemetryRequest.model_validate({"instruments": {"ok": {"kind": "counter", "labels": {"a": ["x"]}}}})
    host = Telemetry(HandClock()).open(grant, Feeding(stream).session())[TELEMETRY]
    assert isinstance(host, TelemetryHost)
    host.count("ok", 1, [("a", "x")])
    series = metrics.series_count
    for number in range(90_000):
        host.count(f"name-{number}", 1, [])
        host.count("ok", 1, [(f"label-{number}", "x")])
    tracemalloc.start()  # slows everything down, so only the end is watched
    for number in range(90_000, 100_000):
        host.count(f"name-{number}", 1, [])
        host.count("ok", 1, [(f"label-{number}", "x")])
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert metrics.series_count == series
    assert grown < 100_000


def test_100k_label_values_and_event_kinds_stay_bounded() -> None:
    """Label values that are not declared share `other`; kinds of events make no series at all."""
    metrics = Metrics()
    stream = EventStream([metrics], recent=100)
    clock = HandClock()
    grant = TelemetryRequest.model_validate(
        {
            "instruments": {"ok": {"kind": "counter", "labels": {"a": ["x"]}}},
            "values-per-second": 1_000_000,
            "events-per-second": 1_000_000,
        }
    )
    host = Telemetry(clock).open(grant, Feeding(stream).session())[TELEMETRY]
    assert isinstance(host, TelemetryHost)
    for number in range(100_000):
        host.count("ok", 1, [("a", f"value-{number}")])
        host.event(f"kind-{number}", "payload")
    (series,) = metrics.snapshot()["cloche_counter_ok_total"]
    assert (series["labels"]["a"], series["value"]) == ("other", 100_000)
    assert metrics.series_count == 3
    assert len(stream.recent()) == 100


def test_hostile_events_cannot_grow_the_registry() -> None:
    """Even events that no capability of ours would emit stay within the bounds of the registry."""
    metrics = Metrics(max_series=100)
    tracemalloc.start()
    for number, kind in itertools.product(range(2_000), ("counter", "gauge", "histogram")):
        data = {"name": f"n{number}", "kind": kind, "unit": "", "help": "", "labels": {"a": "x" * 10_000}, "value": 1}
        metrics(Event(EventKind.METRIC, 0.0, plugin=f"acme/p{number}", data=data))
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert metrics.series_count == 100
    assert len(metrics.snapshot()) == MAX_FAMILIES
    assert grown < 8 << 20
