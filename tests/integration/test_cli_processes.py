"""The command line as a process: start-up, signals, pipes."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cloche.build.scaffold import create_project
from cloche.build.settings import Language
from support.binary_wat import parse
from support.cli_plugins import TOOLS

COMMAND = [sys.executable, "-c", "import sys; from cloche.cli.main import run; sys.exit(run())"]
PATIENCE_S = 60


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """The tools plugin as a file in a directory whose name has a space."""
    file = tmp_path / "a b" / "tools.wasm"
    file.parent.mkdir()
    file.write_bytes(parse(TOOLS))
    return file


def start(home: Path, *words: str) -> subprocess.Popen[bytes]:
    """A `cloche` process with a home of its own."""
    environment = {**os.environ, "CLOCHE_HOME": str(home)}
    return subprocess.Popen([*COMMAND, *words], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_the_installed_command_answers(tmp_path: Path, tools: Path) -> None:
    """The console script runs a plugin from a path with a space, with a home that does not exist yet."""
    script = Path(sys.executable).with_name("cloche")
    environment = {**os.environ, "CLOCHE_HOME": str(tmp_path / "new home")}
    words = [str(script), "call", "--trust", str(tools), "echo", "hello there"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert (done.returncode, done.stdout, done.stderr) == (0, "hello there\n", "")


@pytest.mark.parametrize("heavy", ["typer", "rich", "numpy", "pydantic", "structlog", "cloche.app"])
def test_the_version_needs_nothing_heavy(heavy: str) -> None:
    """`cloche --version` imports neither the parser nor the host."""
    program = f"import sys; from cloche.cli.main import run; run(['--version']); sys.exit({heavy!r} in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )
    assert done.returncode == 0
    assert done.stdout.startswith("cloche 0.")


@pytest.mark.parametrize("verb", [["doctor", "--help"], ["cache", "--help"], ["call", "--help"]])
def test_help_does_not_load_the_host(verb: list[str]) -> None:
    """Help comes without the engine's and numpy's import time."""
    program = f"import sys; from cloche.cli.main import run; run({verb!r}); sys.exit('cloche.app' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False, timeout=PATIENCE_S)
    assert done.returncode == 0


def wait_for_native_code(home: Path, process: subprocess.Popen[bytes]) -> None:
    """Until the plugin is compiled: from here on the process serves, or is about to serve, the call."""
    end = time.monotonic() + PATIENCE_S
    while not list(home.glob("cache/native/*.native")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("delay_s", [0.0, 0.3])
def test_ctrl_c_stops_a_running_guest(tmp_path: Path, tools: Path, delay_s: float) -> None:
    """An endless loop ends at Ctrl-C with status 130 and no traceback."""
    words = ["call", "--json", "--trust", "--fuel", "9000000T", "--deadline", "1h", str(tools), "spin"]
    process = start(tmp_path / "home", *words)
    wait_for_native_code(tmp_path / "home", process)
    time.sleep(delay_s)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert json.loads(out)["error"]["code"] == "usage.interrupted"
    assert err == b""


def test_ctrl_c_before_the_guest_runs(tmp_path: Path, tools: Path) -> None:
    """Ctrl-C while the host starts or compiles ends with status 130 too, and leaves a home that works."""
    home = tmp_path / "home"
    process = start(home, "call", "--trust", str(tools), "echo", "x")
    while not home.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out) == (130, b"")
    assert err.startswith(b"error[usage.interrupted]")
    assert b"Traceback" not in err
    again = start(home, "call", "--trust", str(tools), "echo", "x")
    assert again.communicate(timeout=PATIENCE_S) == (b"x\n", b"")


def on_terminal(home: Path, *words: str) -> bytes:
    """Everything that a `cloche` process writes to a terminal."""
    ours, its = pty.openpty()
    environment = {**os.environ, "CLOCHE_HOME": str(home), "TERM": "xterm"}
    process = subprocess.Popen([*COMMAND, *words], env=environment, stdin=its, stdout=its, stderr=its)
    os.close(its)
    written = b""
    # A terminal whose last writer is gone gives an error in place of an end.
    with contextlib.suppress(OSError):
        while part := os.read(ours, 65536):
            written += part
    os.close(ours)
    process.wait(PATIENCE_S)
    return written


def test_a_plugin_cannot_drive_the_terminal(tmp_path: Path, tools: Path) -> None:
    """Escape sequences in a result are shown on a terminal and kept in a pipe."""
    text = "\x1b]0;owned\x07 and \x1b[2J"
    shown = on_terminal(tmp_path / "home", "call", "--trust", str(tools), "echo", text)
    assert rb"\x1b]0;owned\x07 and \x1b[2J" in shown
    assert b"\x1b]0;" not in shown
    piped = start(tmp_path / "home", "call", "--trust", str(tools), "echo", text).communicate(timeout=PATIENCE_S)
    assert piped == (f"{text}\n".encode(), b"")


def test_progress_is_for_terminals_only(tmp_path: Path, tools: Path) -> None:
    """Loading is shown on a terminal; without one there is nothing but the answer."""
    words = ("call", "--trust", str(tools), "echo", "x")
    assert b"loading" in on_terminal(tmp_path / "home", *words)
    assert start(tmp_path / "other", *words).communicate(timeout=PATIENCE_S) == (b"x\n", b"")


@pytest.mark.parametrize("verb", [["inspect"], ["check"], ["grants", "explain"], ["build"], ["run", "--trust"]])
def test_a_build_is_shown_by_every_verb_that_builds(tmp_path: Path, verb: list[str]) -> None:
    """Building may take long, so whoever waits sees that it is going on."""
    root = create_project("acme/shout", Language.C, parent=tmp_path)
    assert b"building acme/shout from app.c" in on_terminal(tmp_path / "home", *verb, str(root))


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    """`cloche … | head` ends quietly, with the status that other programs give for a closed pipe."""
    process = start(tmp_path / "home", "doctor", "--json")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    err = process.stderr.read()
    process.stderr.close()
    assert (process.wait(PATIENCE_S), err) == (141, b"")


def test_a_home_that_cannot_be_made_is_reported(tmp_path: Path, tools: Path) -> None:
    """A file where the home should be gives `registry.io`, its status and the way out."""
    (tmp_path / "home").write_text("not a directory")
    process = start(tmp_path / "home", "call", "--trust", str(tools), "echo", "x")
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out) == (4, b"")
    assert err.startswith(b"error[registry.io]")
    assert b"CLOCHE_HOME" in err
    assert b"Traceback" not in err


def test_two_processes_share_a_cold_home(tmp_path: Path, tools: Path) -> None:
    """Commands that start together on an empty home all answer."""
    processes = [start(tmp_path / "home", "call", "--trust", str(tools), "add", str(n), "1") for n in range(3)]
    answers = [(process.communicate(timeout=PATIENCE_S), process.returncode) for process in processes]
    assert [((f"{n + 1}\n".encode(), b""), 0) for n in range(3)] == answers
