"""Metrics: what events become, and how many series there can be."""

from __future__ import annotations

from typing import Any

import pytest

from cloche.observe.events import Event, EventKind
from cloche.observe.metrics import MAX_LABEL_CHARACTERS, Metrics


def metric(name: str, kind: str, value: float, plugin: str = "acme/a", **more: Any) -> Event:
    """A `metric` event as the telemetry capability emits it."""
    data = {"name": name, "kind": kind, "unit": "", "help": "", "labels": {}, "value": value, **more}
    return Event(EventKind.METRIC, 0.0, plugin=plugin, data=data)


def values(metrics: Metrics, name: str) -> list[Any]:
    """The values of a family, without labels."""
    return [series["value"] for series in metrics.snapshot()[name]]


def test_events_are_counted_by_plugin_capability_and_code() -> None:
    """Equal events share a series, others get their own."""
    metrics = Metrics()
    for code in ("limit.fuel", "limit.fuel", "limit.memory"):
        metrics(Event(EventKind.LIMIT, 0.0, plugin="acme/a", data={"code": code}))
    metrics(Event(EventKind.DENIED, 0.0, plugin="acme/a", capability="wasi:config"))
    found = {
        (series["labels"]["kind"], series["labels"]["capability"], series["labels"]["code"]): series["value"]
        for series in metrics.snapshot()["cloche_events_total"]
    }
    assert found == {
        ("limit", "", "limit.fuel"): 2,
        ("limit", "", "limit.memory"): 1,
        ("denied", "wasi:config", ""): 1,
    }


def test_usage_of_calls_adds_up() -> None:
    """Fuel and time of calls are summed; a figure that is not known is left out."""
    metrics = Metrics()
    for fuel in (5, 7, None):
        metrics(Event(EventKind.CALL, 0.0, plugin="acme/a", data={"usage": {"guest_fuel": fuel, "wall_ms": 1.5}}))
    assert values(metrics, "cloche_call_guest_fuel_total") == [12]
    assert values(metrics, "cloche_call_wall_ms_total") == [4.5]


@pytest.mark.parametrize("kind", [EventKind.TRAP, EventKind.LIMIT, EventKind.DENIED, EventKind.BACKEND_ERROR])
def test_failed_calls_cost_something_too(kind: EventKind) -> None:
    """The usage of a call that failed is summed like any other's."""
    metrics = Metrics()
    for end in (EventKind.CALL, kind):
        metrics(Event(end, 0.0, plugin="acme/a", data={"usage": {"guest_fuel": 5}}))
    assert values(metrics, "cloche_call_guest_fuel_total") == [10]


def test_instruments() -> None:
    """Counters add up, gauges keep the last value, histograms count into their buckets."""
    metrics = Metrics()
    for value in (1, 2):
        metrics(metric("pages-done", "counter", value))
        metrics(metric("queue", "gauge", value))
    for seconds in (0.5, 1.0, 2.0, 99.0):
        metrics(metric("latency", "histogram", seconds, buckets=(1.0, 10.0)))
    assert values(metrics, "cloche_counter_pages_done_total") == [3]
    assert values(metrics, "cloche_gauge_queue") == [2]
    (latency,) = metrics.snapshot()["cloche_histogram_latency"]
    assert (latency["count"], latency["sum"]) == (4, 102.5)
    assert latency["buckets"] == {"1.0": 2, "10.0": 1, "+Inf": 1}


def test_prometheus_text() -> None:
    """Help, type, escaped labels, and cumulative buckets."""
    metrics = Metrics()
    metrics(metric("pages", "counter", 2, help="Pages\nmade \\ kept.", unit="pages", labels={"out-format": 'a"b\n'}))
    metrics(metric("latency", "histogram", 0.5, buckets=(1.0,)))
    metrics(metric("latency", "histogram", 5.0, buckets=(1.0,)))
    lines = metrics.prometheus().splitlines()
    assert "# HELP cloche_counter_pages_total Pages\\nmade \\\\ kept. [pages]" in lines
    assert "# TYPE cloche_counter_pages_total counter" in lines
    assert 'cloche_counter_pages_total{out_format="a\\"b\\n",plugin="acme/a"} 2' in lines
    assert 'cloche_histogram_latency_bucket{plugin="acme/a",le="1.0"} 1' in lines
    assert 'cloche_histogram_latency_bucket{plugin="acme/a",le="+Inf"} 2' in lines
    assert 'cloche_histogram_latency_count{plugin="acme/a"} 2' in lines
    assert lines[-1] == "cloche_metrics_overflow_total 0"


def test_one_name_for_two_kinds() -> None:
    """Plugins that use one name for different kinds do not disturb each other."""
    metrics = Metrics()
    metrics(metric("x", "counter", 1, "acme/a"))
    metrics(metric("x", "gauge", 5, "acme/b"))
    assert values(metrics, "cloche_counter_x_total") == [1]
    assert values(metrics, "cloche_gauge_x") == [5]


def test_a_label_cannot_name_another_plugin() -> None:
    """The host's `plugin` label stands, whatever an event's labels say."""
    metrics = Metrics()
    metrics(metric("x", "counter", 1, labels={"plugin": "acme/b"}))
    (series,) = metrics.snapshot()["cloche_counter_x_total"]
    assert series["labels"] == {"plugin": "acme/a"}


@pytest.mark.parametrize("kind", ["counter", "gauge", "histogram"])
def test_a_full_registry_adds_up_the_rest(kind: str) -> None:
    """Beyond the bound, values go to one series of the family, and are counted as overflow."""
    metrics = Metrics(max_series=10)
    for number in range(100):
        metrics(metric("x", kind, 1, labels={"n": str(number)}, buckets=(1.0,)))
    assert metrics.series_count == 10
    assert len(metrics.snapshot()[next(name for name in metrics.snapshot() if name.endswith(("x", "x_total")))]) <= 11
    assert '{plugin="other"' in metrics.prometheus()
    assert metrics.prometheus().splitlines()[-1] == "cloche_metrics_overflow_total 91"


def test_overflow_is_one_series_whatever_the_labels_are_called() -> None:
    """Label names that differ from value to value make no series beyond the bound and the one for the rest."""
    metrics = Metrics(max_series=3)
    for number in range(1000):
        metrics(metric("x", "counter", 1, labels={f"n{number}": "1"}))
    (family,) = [series for name, series in metrics.snapshot().items() if name.endswith("x_total")]
    assert len(family) <= 4


def test_a_label_is_cut() -> None:
    """What a series is kept by has a bound, however long the text that an event carries."""
    metrics = Metrics()
    metrics(metric("x", "counter", 1, "p" * 100_000, labels={"n": "v" * 100_000}))
    metrics(Event(EventKind.LIMIT, 0.0, plugin="acme/a", data={"code": "c" * 100_000}))
    labels = [text for family in metrics.snapshot().values() for series in family for text in series["labels"].values()]
    assert max(map(len, labels)) == MAX_LABEL_CHARACTERS


def test_one_plugin_cannot_fill_the_registry() -> None:
    """A plugin has a bound of its own, so that the others keep their series."""
    metrics = Metrics(max_series=1000, max_series_of_plugin=5)
    for number in range(100):
        metrics(metric("x", "counter", 1, "acme/greedy", labels={"n": str(number)}))
    metrics(metric("x", "counter", 1, "acme/modest", labels={"n": "1"}))
    assert metrics.series_count < 10
    own = [s for s in metrics.snapshot()["cloche_counter_x_total"] if s["labels"]["plugin"] == "acme/modest"]
    assert [series["value"] for series in own] == [1]
