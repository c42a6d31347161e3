"""Events as lines of text."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import pytest

from cloche.model import State, Tier
from cloche.observe.events import Event, EventKind
from cloche.observe.log import MAX_LINE_CHARACTERS, LogSink, console_renderer, fields_of, json_renderer, level_of

LOG = Event(
    EventKind.LOG,
    0.0,
    plugin="acme/a",
    version="1.0.0",
    tier=Tier.TRUSTED,
    state=State.ACTIVE,
    capability="wasi:logging",
    call_id=3,
    data={"level": "info", "untrusted": {"context": "c", "message": "hello\n\x1b[31mred"}},
)


def test_json_lines_hold_every_binding() -> None:
    """Plugin, version, tier, state, capability and call id are keys of their own."""
    out = io.StringIO()
    LogSink(json_renderer(), out)(LOG)
    assert json.loads(out.getvalue()) == {
        "timestamp": "1970-01-01T00:00:00.000+00:00",
        "level": "info",
        "event": "log",
        "plugin": "acme/a",
        "version": "1.0.0",
        "tier": "trusted",
        "state": "active",
        "capability": "wasi:logging",
        "call_id": 3,
        "data_level": "info",
        "untrusted": {"context": "c", "message": "hello\n\x1b[31mred"},
    }


@pytest.mark.parametrize("renderer", [json_renderer(), console_renderer(colors=False)], ids=["json", "console"])
@pytest.mark.parametrize(
    "text", ["a\nb", "\x1b[2J", "\x00", "\u202egnp", "\u2028", "\x9b31m", "\r", "\x7f", "\ud800", "é"]
)
def test_guest_text_stays_on_its_line(renderer: object, text: str) -> None:
    """Whatever a guest writes gives one line of printable ASCII."""
    out = io.StringIO()
    data = {"level": "info", "untrusted": {"message": text}, "text": text}
    LogSink(renderer, out)(Event(EventKind.LOG, 0.0, plugin=text, data=data))  # type: ignore[arg-type]
    line = out.getvalue()
    assert line.endswith("\n")
    assert line.count("\n") == 1
    assert line[:-1].isascii()
    assert line[:-1].isprintable()


def test_data_cannot_replace_the_hosts_fields() -> None:
    """A key of the data that the host uses itself gets another name."""
    fields = fields_of(Event(EventKind.TRAP, 0.0, plugin="acme/a", data={"plugin": "acme/b", "event": "log"}))
    assert (fields["plugin"], fields["event"]) == ("acme/a", "trap")
    assert (fields["data_plugin"], fields["data_event"]) == ("acme/b", "log")


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (Event(EventKind.LOG, 0, data={"level": "critical"}), "warning"),
        (Event(EventKind.LOG, 0, data={"level": "trace"}), "debug"),
        (Event(EventKind.TRAP, 0), "warning"),
        (Event(EventKind.BACKEND_ERROR, 0), "error"),
        (Event(EventKind.METRIC, 0), "debug"),
        (Event(EventKind.STATE, 0), "info"),
    ],
)
def test_levels(event: Event, expected: str) -> None:
    """A plugin's own alarm is at most a warning of the host."""
    assert level_of(event) == expected


def test_lower_levels_are_left_out() -> None:
    """Only events of the least level and above are written."""
    out = io.StringIO()
    sink = LogSink(json_renderer(), out, "warning")
    sink(LOG)
    sink(Event(EventKind.TRAP, 0.0))
    assert [json.loads(line)["event"] for line in out.getvalue().splitlines()] == ["trap"]


def test_long_and_strange_values_are_bounded() -> None:
    """Long text is cut and marked, bytes show their length, anything else its repr."""
    data = {"text": "x" * (MAX_LINE_CHARACTERS + 9), "bytes": b"secret", "seen": {1}, "none": None, "what": EventKind}
    fields = fields_of(Event(EventKind.OUTPUT, 0.0, data=data))
    assert fields["text"].endswith("(9 characters cut)")
    assert fields["bytes"] == "<6 bytes>"
    assert fields["seen"] == [1]
    assert fields["none"] is None
    assert "EventKind" in fields["what"]


def test_structlog_is_loaded_late() -> None:
    """Importing the room does not import structlog, which short commands never need."""
    code = "import sys, cloche.observe.log, cloche.observe.stream; print('structlog' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
