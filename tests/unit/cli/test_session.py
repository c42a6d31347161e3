"""What a command keeps of a plugin's output, and which log lines it shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cloche.cli.session import Request, Transcript, log_sink
from cloche.config import Settings
from cloche.errors import LimitError, UsageError
from cloche.grants.policy import Mount, MountMode
from cloche.observe.events import Event, EventKind


def log_event(level: str, message: str = "m") -> Event:
    return Event(
        EventKind.LOG, 1.0, plugin="a/b", data={"level": level, "untrusted": {"context": "", "message": message}}
    )


def output_event(stream: str, text: str) -> Event:
    return Event(EventKind.OUTPUT, 1.0, plugin="a/b", data={"stream": stream, "text": text, "dropped_bytes": 0})


def test_output_goes_where_the_plugin_wrote_it(capfd: pytest.CaptureFixture[str]) -> None:
    """Both streams pass through when the call is over, in order, and once."""
    transcript = Transcript(is_json=False)
    for stream, text in (("stdout", "one\n"), ("stderr", "two\n"), ("stdout", "three\n")):
        transcript(output_event(stream, text))
    assert capfd.readouterr() == ("", "")
    transcript.show()
    transcript.show()
    assert capfd.readouterr() == ("one\nthree\n", "two\n")


def test_a_traceback_is_shown_once(capfd: pytest.CaptureFixture[str]) -> None:
    """What the error block shows is left out of standard error; everything around it and on standard output stays."""
    transcript = Transcript(is_json=False)
    for stream, text in (("stdout", "T\n"), ("stderr", "before\nT\n"), ("stderr", "  at line 1\nafter\n")):
        transcript(output_event(stream, text))
    transcript.show(without="T\n  at line 1")
    assert capfd.readouterr() == ("T\n", "before\nafter\n")


def test_that_there_was_a_traceback_is_not_said_again(capfd: pytest.CaptureFixture[str]) -> None:
    """The panic of componentize-py's runtime goes with the traceback that it follows, and alone it stays."""
    panic = (
        "\nthread '<unnamed>' (1) panicked at runtime/src/lib.rs:1280:25:\n"
        "Python function threw an unexpected exception\nnote: run with `RUST_BACKTRACE=1`\n"
    )
    for traceback, rest in (("Error: x", ""), (None, "Error: x\n" + panic)):
        transcript = Transcript(is_json=False)
        transcript(output_event("stderr", "Error: x\n" + panic))
        transcript.show(without=traceback)
        assert capfd.readouterr().err == rest


def test_a_document_holds_output_and_log(capfd: pytest.CaptureFixture[str]) -> None:
    """In JSON mode nothing is printed beside the document; everything is kept for it, each message on one line."""
    transcript = Transcript(is_json=True)
    transcript(output_event("stdout", "out"))
    transcript(log_event("info", "two\nlines"))
    transcript.show()
    assert capfd.readouterr() == ("", "")
    assert transcript.output == {"stdout": "out", "log": "info: two\\nlines\n"}


@pytest.mark.parametrize(
    ("setting", "event", "shown"),
    [
        ("warning", log_event("info"), False),
        ("warning", log_event("warn"), True),
        ("warning", log_event("critical"), True),
        ("error", log_event("critical"), False),
        ("info", log_event("info"), True),
        ("info", log_event("debug"), False),
        ("debug", log_event("trace"), True),
        ("warning", Event(EventKind.TRAP, 1.0), False),
        ("info", Event(EventKind.TRAP, 1.0), True),
        ("info", Event(EventKind.CALL, 1.0), False),
        ("debug", Event(EventKind.CALL, 1.0), True),
    ],
)
def test_the_level_decides_what_is_shown(
    capfd: pytest.CaptureFixture[str], setting: str, event: Event, shown: bool
) -> None:
    """Plugins' messages from the level on; the host's own events only when asked for more than warnings."""
    log_sink(Settings(Path("/h"), log_level=setting))(event)
    assert bool(capfd.readouterr().err) is shown


def test_log_lines_can_be_json(capfd: pytest.CaptureFixture[str]) -> None:
    """With CLOCHE_LOG_FORMAT=json each line is an object."""
    log_sink(Settings(Path("/h"), log_format="json"))(log_event("error", "\x1b[2J"))
    line = capfd.readouterr().err
    assert json.loads(line)["untrusted"]["message"] == "\x1b[2J"
    assert "\x1b" not in line


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {}),
        ({"fuel": "2M", "memory": "1MiB"}, {"fuel": 2_000_000, "memory_bytes": 1 << 20}),
        ({"deadline": "1.5s"}, {"deadline_ms": 1500}),
    ],
)
def test_limits_are_read_with_their_units(given: dict[str, Any], expected: dict[str, int]) -> None:
    """Only what was given becomes a limit."""
    assert Request("x", **given).limits() == expected


@pytest.mark.parametrize("given", [{"fuel": "1.5"}, {"memory": "1M"}, {"deadline": "1"}, {"fuel": "true"}])
def test_limits_that_cannot_be_read(given: dict[str, Any]) -> None:
    """A limit without its unit or with an ambiguous one is `limit.range` and names the option."""
    with pytest.raises(LimitError, match="--") as caught:
        Request("x", **given).limits()
    assert caught.value.code == "limit.range"


def test_mounts_are_read_with_their_modes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory by any path, for reading unless `:rw` follows it."""
    (tmp_path / "a:b").mkdir()
    monkeypatch.chdir(tmp_path)
    bound = Request("x", mounts=("in=a:b", f"out={tmp_path / 'a:b'}:rw", "up=a:b/..:ro")).bound()
    assert bound == {
        "in": Mount(str(tmp_path / "a:b"), MountMode.READ_ONLY),
        "out": Mount(str(tmp_path / "a:b"), MountMode.READ_WRITE),
        "up": Mount(str(tmp_path), MountMode.READ_ONLY),
    }


@pytest.mark.parametrize(
    "text", ["", "in", "in=", "=/", "In=/", "in=/no/such/place", "in=/etc/passwd", "in=a\0b", "../x=/"]
)
def test_mounts_that_cannot_be_bound(text: str) -> None:
    """A wrong name, or what is no directory, is a wrong use of the option."""
    with pytest.raises(UsageError, match="--mount") as caught:
        Request("x", mounts=(text,)).bound()
    assert caught.value.code == "usage.argument"
