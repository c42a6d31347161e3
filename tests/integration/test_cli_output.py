"""The command line when its output is full, closed, or cannot show a character."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.binary_wat import parse
from support.cli_plugins import TOOLS

COMMAND = [sys.executable, "-c", "import sys; from cloche.cli.main import run; sys.exit(run())"]
FULL = 4

pytestmark = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tools plugin as a file, beside the home that all tests here share."""
    file = tmp_path_factory.mktemp("output") / "tools.wasm"
    file.write_bytes(parse(TOOLS))
    return file


def shell(tools: Path, redirection: str, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A command whose streams the shell puts elsewhere; what is left comes back."""
    environment = {**os.environ, "CLOCHE_HOME": str(tools.parent / "home"), **variables}
    script = f'exec "$@" {redirection}'
    command = ["/bin/sh", "-c", script, "sh", *COMMAND, *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("form", [[], ["--json"]])
@pytest.mark.parametrize("verb", ["call", "list", "error", "help"])
def test_a_full_disk_is_one_clear_error(tools: Path, verb: str, form: list[str], unbuffered: str) -> None:
    """Whatever is being written, and whenever it fails: one block on standard error, and the status of its code."""
    words = {
        "call": ["call", "--trust", *form, str(tools), "echo", "x"],
        "list": ["cache", "list", *form],
        "error": ["call", "--trust", "--json", str(tools), "echo"],
        "help": ["--help"],
    }[verb]
    done = shell(tools, ">/dev/full", *words, PYTHONUNBUFFERED=unbuffered)
    first, *rest = done.stderr.splitlines()
    assert (done.returncode, first) == (
        FULL,
        "error[usage.output] standard output cannot be written: No space left on device",
    )
    assert [line.split(":")[0] for line in rest] == ["  remedy"]


def test_nothing_can_be_said_where_nothing_can_be_written(tools: Path) -> None:
    """With both streams full, the status is all there is."""
    done = shell(tools, ">/dev/full 2>/dev/full", "cache", "list")
    assert (done.returncode, done.stdout, done.stderr) == (FULL, "", "")


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_closed_streams_are_like_dev_null(tools: Path, closed: str) -> None:
    """No file of ours gets the number of a standard stream, and nothing fails for want of one."""
    done = shell(tools, closed, "call", "--trust", str(tools), "echo", "x")
    expected = "" if "1" in closed or ">&-" in closed.replace("2>&-", "") else "x\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, expected, "")


def test_what_the_encoding_lacks_is_escaped(tools: Path) -> None:
    """In results and in messages; a table falls back to plain lines."""
    ascii_only = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    done = shell(tools, "", "call", "--trust", str(tools), "echo", "ö€", **ascii_only)
    assert (done.returncode, done.stdout, done.stderr) == (0, "\\xf6\\u20ac\n", "")
    done = shell(tools, "", "call", "--trust", str(tools), "€", **ascii_only)
    assert (done.returncode, "has no function \\u20ac" in done.stderr) == (2, True)
    done = shell(tools, "", "inspect", str(tools), **ascii_only)
    assert (done.returncode, done.stdout.isascii(), done.stderr) == (0, True, "")
    done = shell(tools, "", "call", "--json", "--trust", str(tools), "echo", "ö€", **ascii_only)
    assert json.loads(done.stdout)["value"] == "ö€"


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_both_streams_in_one_place_keep_their_order(tools: Path, unbuffered: str) -> None:
    """The cost of a call stands below its answer, also in a file that gets both."""
    words = ("call", "--trust", "--usage", str(tools), "echo", "x")
    done = shell(tools, "2>&1", *words, PYTHONUNBUFFERED=unbuffered)
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == ["x", "cost"]
