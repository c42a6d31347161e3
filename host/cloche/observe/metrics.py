"""Counters, gauges and histograms fed by the event stream, bounded in number, as values or as Prometheus text.

Names and labels come from the host and from granted declarations; what a running guest says never becomes either. When
the registry is full, further series of a family are added up in one series of the plugin `other`.
"""

from __future__ import annotations

import math
import threading
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cloche.observe.events import Event, EventKind

MAX_SERIES = 20_000
"""Most series in the registry; one is a few hundred bytes."""
MAX_SERIES_OF_PLUGIN = 2_000
"""Most series of one plugin: twice what its declared instruments can make."""
MAX_FAMILIES = 2_000
"""Most metric names."""
MAX_LABEL_CHARACTERS = 128
"""Longest label value."""
OTHER = "other"

_USAGE_SUMS = ("guest_fuel", "host_fuel", "wall_ms", "cpu_ms", "host_calls", "bytes_in", "bytes_out")

_WITH_COST = {
    EventKind.INSTANCE,
    EventKind.CALL,
    EventKind.TRAP,
    EventKind.LIMIT,
    EventKind.DENIED,
    EventKind.BACKEND_ERROR,
}
"""One of these ends each call, also one that failed, and the making of an instance that serves many."""

Labels = tuple[tuple[str, str], ...]


OVERFLOW: Labels = (("plugin", OTHER),)
"""The labels of the one series of a family that takes what found no room."""


@dataclass(slots=True)
class Series:
    """One series. A histogram counts per bucket (the last is for everything above) and adds up in `value`."""

    value: float = 0
    counts: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Family:
    """All series of one name. `kind` is counter, gauge or histogram."""

    kind: str
    help: str
    series: dict[Labels, Series] = field(default_factory=dict)
    bounds: dict[Labels, tuple[float, ...]] = field(default_factory=dict)


class Metrics:
    """A `Sink` that counts. Thread-safe; never blocks beyond its own short lock. Added in 0.1."""

    def __init__(self, max_series: int = MAX_SERIES, max_series_of_plugin: int = MAX_SERIES_OF_PLUGIN) -> None:
        self._families: dict[str, Family] = {}
        self._max_series, self._max_of_plugin = max_series, max_series_of_plugin
        self._total = 0
        self._of_plugin: dict[str, int] = {}
        self._dropped = 0
        self._lock = threading.Lock()

    def __call__(self, event: Event, /) -> None:
        """Take one event."""
        plugin = event.plugin or ""
        with self._lock:
            labels = {
                "plugin": plugin,
                "kind": event.kind.value,
                "capability": event.capability or "",
                "code": str(event.data.get("code") or ""),
            }
            self._add("cloche_events_total", "counter", "Events by kind.", labels, 1)
            if event.kind is EventKind.METRIC:
                self._record(plugin, event.data)
            usage = event.data.get("usage") if event.kind in _WITH_COST else None
            if isinstance(usage, Mapping):
                for name in _USAGE_SUMS:
                    amount = usage.get(name)
                    if isinstance(amount, int | float):
                        help_text = f"Sum of {name} over all calls."
                        self._add(f"cloche_call_{name}_total", "counter", help_text, {"plugin": plugin}, amount)

    def snapshot(self) -> dict[str, list[dict[str, Any]]]:
        """Every series by family name: labels, value, and for histograms count, sum and buckets (bound → count)."""
        with self._lock:
            return {
                name: [_as_values(family, labels, series) for labels, series in family.series.items()]
                for name, family in self._families.items()
            }

    def prometheus(self) -> str:
        """The registry in the Prometheus text format 0.0.4."""
        with self._lock:
            lines: list[str] = []
            for name, family in self._families.items():
                lines += [f"# HELP {name} {_escape(family.help)}", f"# TYPE {name} {family.kind}"]
                for labels, series in family.series.items():
                    lines += _exposed(name, family, labels, series)
            lines += [
                "# HELP cloche_metrics_overflow_total Values that found no room for a series of their own.",
                "# TYPE cloche_metrics_overflow_total counter",
                f"cloche_metrics_overflow_total {self._dropped}",
            ]
        return "\n".join(lines) + "\n"

    @property
    def series_count(self) -> int:
        """How many series there are."""
        return self._total

    def _record(self, plugin: str, data: Mapping[str, Any]) -> None:
        kind, value = str(data["kind"]), data["value"]
        stem = str(data["name"]).replace("-", "_")
        # The kind is a part of the name: plugins that know nothing of each other may use one name for two kinds.
        name = f"cloche_{kind}_{stem}" + ("_total" if kind == "counter" else "")
        help_text = " ".join(
            part for part in (str(data.get("help", "")), f"[{data['unit']}]" if data["unit"] else "") if part
        )
        labels = {str(key).replace("-", "_"): str(item) for key, item in data["labels"].items()} | {"plugin": plugin}
        self._add(name, kind, help_text or stem, labels, value, data.get("buckets", ()))

    def _add(
        self,
        name: str,
        kind: str,
        help_text: str,
        labels: Mapping[str, str],
        value: float,
        bounds: Sequence[float] = (),
    ) -> None:
        family = self._families.get(name)
        if family is None:
            if len(self._families) >= MAX_FAMILIES:
                self._dropped += 1
                return
            family = self._families[name] = Family(kind, help_text)
        key: Labels = tuple((label, text[:MAX_LABEL_CHARACTERS]) for label, text in labels.items())
        series = family.series.get(key)
        if series is None:
            plugin = labels.get("plugin", "")
            if self._total >= self._max_series or self._of_plugin.get(plugin, 0) >= self._max_of_plugin:
                self._dropped += 1
                key = OVERFLOW
                series = family.series.get(key)
            else:
                self._of_plugin[plugin] = self._of_plugin.get(plugin, 0) + 1
                self._total += 1
            if series is None:
                series = family.series[key] = Series(counts=[0] * (len(bounds) + 1) if kind == "histogram" else [])
                family.bounds[key] = tuple(bounds)
        if kind == "gauge":
            series.value = value
        else:
            series.value += value
        if kind == "histogram":
            # The bounds of the series, which for `other` may be another plugin's.
            series.counts[bisect_left(family.bounds[key], value)] += 1


def _as_values(family: Family, labels: Labels, series: Series) -> dict[str, Any]:
    values: dict[str, Any] = {"labels": dict(labels), "kind": family.kind}
    if family.kind != "histogram":
        return {**values, "value": series.value}
    bounds = [*family.bounds[labels], math.inf]
    buckets = {_number(bound): count for bound, count in zip(bounds, series.counts, strict=True)}
    return {**values, "count": sum(series.counts), "sum": series.value, "buckets": buckets}


def _exposed(name: str, family: Family, labels: Labels, series: Series) -> list[str]:
    if family.kind != "histogram":
        return [f"{name}{_label_text(labels)} {_number(series.value)}"]
    lines, running = [], 0
    for bound, count in zip([*family.bounds[labels], math.inf], series.counts, strict=True):
        running += count
        lines.append(f"{name}_bucket{_label_text((*labels, ('le', _number(bound))))} {running}")
    lines += [
        f"{name}_sum{_label_text(labels)} {_number(series.value)}",
        f"{name}_count{_label_text(labels)} {running}",
    ]
    return lines


def _number(value: float) -> str:
    return "+Inf" if value == math.inf else repr(value)


def _label_text(labels: Labels) -> str:
    return "{" + ",".join(f'{label}="{_escape(text, quote=True)}"' for label, text in labels) + "}"


def _escape(text: str, *, quote: bool = False) -> str:
    escaped = text.replace("\\", "\\\\").replace("\n", "\\n")
    return escaped.replace('"', '\\"') if quote else escaped
