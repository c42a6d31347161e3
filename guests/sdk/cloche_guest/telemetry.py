"""Numbers and events for the operator, through `cloche:host/telemetry`. Instruments are declared in `plugin.toml`.

Telemetry never breaks a plugin: each function says whether the host took the value. What it refused is told once for
each instrument, by a warning in the log.
"""

from __future__ import annotations

import json
from typing import Any

from cloche_guest import log
from cloche_guest.bindings import case_of, imported, payload_of
from cloche_guest.errors import Err

_host = imported("telemetry", "cloche_host_telemetry", having="observe")
_told: set[tuple[str, str]] = set()


def is_available() -> bool:
    """Whether the plugin's world imports `cloche:host/telemetry`."""
    return _host is not None


def count(name: str, increment: int = 1, **labels: str) -> bool:
    """Add to a counter. Returns: whether the host took it; False without the import."""
    return _record("count", name, increment, list(labels.items()))


def gauge(name: str, value: float, **labels: str) -> bool:
    """Set a gauge. Returns: whether the host took it; False without the import."""
    return _record("gauge", name, float(value), list(labels.items()))


def observe(name: str, value: float, **labels: str) -> bool:
    """Put a number into a histogram. Returns: whether the host took it; False without the import."""
    return _record("observe", name, float(value), list(labels.items()))


def event(kind: str, payload: object = "") -> bool:
    """Record that something happened; a payload that is not a text is sent as JSON.

    Returns: whether the host took it; False without the import. Raises: TypeError for what JSON cannot hold.
    """
    return _record("event", kind, payload if isinstance(payload, str) else json.dumps(payload))


def _record(function: str, name: str, *values: Any) -> bool:
    if _host is None:
        return False
    try:
        getattr(_host, function)(name, *values)
    except Err as error:
        reason = case_of(error.value)
        if (name, reason) not in _told:
            _told.add((name, reason))
            log.warning(
                "telemetry refused", context="cloche_guest", name=name, reason=reason, detail=payload_of(error.value)
            )
        return False
    return True
