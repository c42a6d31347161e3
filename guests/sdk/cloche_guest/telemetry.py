"""Numbers and events for the operator, through `cloche:host/telemetry`. Instruments are declared in `plugin.toml`.

    telemetry.count("requests", http_status="200")            # the label `http-status`
    telemetry.count("requests", 3, {"http-status": 200})      # the same label, by its own name

Telemetry never breaks a plugin: each function says whether the host took the value. What it refused, or could not be
given at all, is told once for each instrument, by a warning in the log.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from cloche_guest import log
from cloche_guest.bindings import case_of, imported, payload_of
from cloche_guest.errors import Err, ServiceError
from cloche_guest.lowering import U64_MAX, exact, integer, shown

_host = imported("telemetry", "cloche_host_telemetry", having="observe")
_told: set[tuple[str, str]] = set()


def is_available() -> bool:
    """Whether the plugin's world imports `cloche:host/telemetry`."""
    return _host is not None


def count(name: str, increment: int = 1, labels: Mapping[str, object] | None = None, /, **more_labels: object) -> bool:
    """Add a whole number, 0 or more, to a counter. Returns: whether the host took it; False without the import."""
    return _record("count", name, lambda: (integer("increment", increment, 0, U64_MAX), _pairs(labels, more_labels)))


def gauge(name: str, value: float, labels: Mapping[str, object] | None = None, /, **more_labels: object) -> bool:
    """Set a gauge. Returns: whether the host took it; False without the import."""
    return _record("gauge", name, lambda: (float(value), _pairs(labels, more_labels)))


def observe(name: str, value: float, labels: Mapping[str, object] | None = None, /, **more_labels: object) -> bool:
    """Put a number into a histogram. Returns: whether the host took it; False without the import."""
    return _record("observe", name, lambda: (float(value), _pairs(labels, more_labels)))


def event(kind: str, payload: object = "") -> bool:
    """Record that something happened; a payload that is not a text is sent as JSON.

    Returns: whether the host took it; False without the import, and for what JSON cannot hold.
    """
    return _record(
        "event", kind, lambda: (_text("payload", payload if isinstance(payload, str) else json.dumps(payload)),)
    )


def _pairs(labels: Mapping[str, object] | None, more: Mapping[str, object]) -> list[tuple[str, str]]:
    """Labels under the names that the manifest gives them: kebab-case, which no keyword can be."""
    named = {**(labels or {}), **{name.replace("_", "-"): value for name, value in more.items()}}
    return [(_text("label", name), _text("label value", value)) for name, value in named.items()]


def _text(what: str, value: object) -> str:
    return exact(what, shown(value))


def _record(function: str, name: str, values: Callable[[], tuple[Any, ...]]) -> bool:
    """Hand `values` to the host; whatever is wrong with them, or with the host's answer, becomes False."""
    if _host is None:
        return False
    try:
        getattr(_host, function)(_text("name", name), *values())
    except Err as error:
        return _refused(name, case_of(error.value), payload_of(error.value))
    except ServiceError as error:
        return _refused(name, error.case, error.detail)
    except Exception as error:
        return _refused(name, "invalid_value", error)
    return True


def _refused(name: object, reason: str, detail: object) -> bool:
    name = shown(name)
    if (name, reason) not in _told:
        _told.add((name, reason))
        log.warning("telemetry refused", context="cloche_guest", name=name, reason=reason, detail=detail)
    return False
