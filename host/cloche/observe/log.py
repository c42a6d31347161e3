"""Events as lines of text, rendered by structlog: one JSON object each, or for people at a terminal.

Text that comes from a guest stands under `untrusted` in an event. It is written as JSON strings in both forms, so that
a newline, an escape sequence or a right-to-left mark stays data and cannot start a line or colour a terminal.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Protocol, TextIO

from cloche.observe.events import Event, EventKind

MAX_LINE_CHARACTERS = 16_384
"""Longest value of one key that is written; a longer one is cut and marked."""

_LEVELS = {
    EventKind.TRAP: "warning",
    EventKind.LIMIT: "warning",
    EventKind.DENIED: "warning",
    EventKind.RESTART: "warning",
    EventKind.WARNING: "warning",
    EventKind.BACKEND_ERROR: "error",
    EventKind.METRIC: "debug",
    EventKind.INSTANCE: "debug",
    EventKind.CALL: "debug",
    EventKind.CACHE: "debug",
}
# What a plugin calls an error is no error of the host: the host's level of a guest's message is at most a warning.
_GUEST_LEVELS = {"trace": "debug", "debug": "debug", "info": "info"}
_RANKS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class Renderer(Protocol):
    """Turns the fields of one event into one line, or several for people."""

    def __call__(self, fields: dict[str, Any], /) -> str:
        """The text, without a newline at its end."""


def level_of(event: Event) -> str:
    """The host's level of an event: debug, info, warning or error."""
    if event.kind is EventKind.LOG:
        return _GUEST_LEVELS.get(str(event.data.get("level")), "warning")
    return _LEVELS.get(event.kind, "info")


def fields_of(event: Event) -> dict[str, Any]:
    """An event as flat fields: time, level, event, whom it concerns, then its data. What is None is left out."""
    fields: dict[str, Any] = {
        "timestamp": datetime.fromtimestamp(event.at, UTC).isoformat(timespec="milliseconds"),
        "level": level_of(event),
        "event": event.kind.value,
    }
    for name in ("plugin", "version", "tier", "state", "capability", "call_id"):
        value = getattr(event, name)
        if value is not None:
            fields[name] = str(value) if isinstance(value, str) else value
    for key, value in event.data.items():
        # A key of the data never replaces one of the host's own.
        fields[key if key not in fields else f"data_{key}"] = _plain(value)
    return fields


def _plain(value: object) -> Any:
    if isinstance(value, bool | int | float) or value is None:
        return value
    if isinstance(value, str):
        text = str(value)
        cut = len(text) - MAX_LINE_CHARACTERS
        return text if cut <= 0 else f"{text[:MAX_LINE_CHARACTERS]}… ({cut} characters cut)"
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    return _plain(repr(value))


def json_renderer() -> Renderer:
    """One JSON object in ASCII for each event."""
    import structlog  # noqa: PLC0415 - costs tens of milliseconds, and many runs never log

    render = structlog.processors.JSONRenderer(ensure_ascii=True)
    return lambda fields: str(render(None, "", fields))


def console_renderer(*, colors: bool) -> Renderer:
    """One line for people; every value that is not a plain word is written as a JSON string in ASCII."""
    import structlog  # noqa: PLC0415 - costs tens of milliseconds, and many runs never log

    render = structlog.dev.ConsoleRenderer(colors=colors, pad_event_to=12, sort_keys=False)

    def line(fields: dict[str, Any]) -> str:
        shown = {key: value if _is_word(value) else json.dumps(value) for key, value in fields.items()}
        return str(render(None, "", shown))

    return line


def _is_word(value: object) -> bool:
    return isinstance(value, bool | int | float) or (
        isinstance(value, str) and value.isascii() and value.isprintable() and " " not in value
    )


class LogSink:
    """A `Sink` that writes events of `least_level` and above to a text stream. Thread-safe; whole lines only.

    Added in 0.1.
    """

    def __init__(self, renderer: Renderer, stream: TextIO | None = None, least_level: str = "info") -> None:
        self._renderer = renderer
        self._stream = stream
        self._least = _RANKS[least_level]
        self._lock = threading.Lock()

    def __call__(self, event: Event, /) -> None:
        """Write one event if its level is high enough."""
        if _RANKS[level_of(event)] < self._least:
            return
        text = self._renderer(fields_of(event)) + "\n"
        # Looked up late, because tests and embedders replace standard error.
        stream = self._stream or sys.stderr
        with self._lock:
            stream.write(text)
            stream.flush()
