"""How build tools are run: a small environment, a deadline, bounded output, and no process left behind."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from cloche.build import tool
from cloche.build.tool import run_tool
from cloche.errors import ContractError

FULL_FILE = """
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it
open("file", "wb").write(bytes(2 << 20))
"""


def run(code: str, work: Path, **options: object) -> tool.ToolResult:
    command = [sys.executable, "-c", code]
    return run_tool(command, tool="the tool", name="acme/x", work=work, **options)  # type: ignore[arg-type]


def test_status_and_both_streams_come_back(tmp_path: Path) -> None:
    """Output of both streams in order, with paths relative to the work directory."""
    code = "import os, sys; print('a', flush=True); print(os.getcwd() + '/b', file=sys.stderr); sys.exit(3)"
    result = run(code, tmp_path)
    assert (result.status, result.output.split()) == (3, ["a", "b"])


def test_the_environment_is_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this process's environment reaches a build; an installer gets all of it."""
    monkeypatch.setenv("SECRET_OF_MINE", "x")
    show = "import os; print(*sorted(os.environ))"
    names = set(run(show, tmp_path, environment={"EXTRA": "1"}).output.split())
    assert names - {"LC_CTYPE"} == {
        "EXTRA",
        "HOME",
        "LC_ALL",
        "PATH",
        "PYTHONDONTWRITEBYTECODE",
        "PYTHONHASHSEED",
        "SOURCE_DATE_EPOCH",
        "TMPDIR",
    }
    assert "SECRET_OF_MINE" in run(show, tmp_path, keep_environment=True).output.split()


def test_packages_are_found_where_this_process_has_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in a place that only this process's own path names; what the environment names besides is not there."""
    for place, name in (("mine", "found_here"), ("named", "found_there")):
        (tmp_path / place / name).mkdir(parents=True)
        (tmp_path / place / name / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path / "mine")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "named"))
    command = tool.python_command("found_here", "import found_here; print(sys.argv[1:]); import found_there", "a", "b")
    assert command is not None
    result = run_tool(command, tool="python", name="acme/x", work=tmp_path, keep_environment=True)
    assert "['a', 'b']" in result.output
    assert "No module named 'found_there'" in result.output
    assert tool.python_command("not_anywhere", "") is None


def test_output_is_bounded_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tool that floods its output costs disk for a moment, not memory."""
    monkeypatch.setattr(tool, "MAX_OUTPUT_BYTES", 100)
    output = run("print('x' * 100_000); print('end')", tmp_path).output
    assert (len(output), output.strip().endswith("end")) == (100, True)


def test_a_tool_that_cannot_start_is_named(tmp_path: Path) -> None:
    """The message has the tool's name and the reason."""
    with pytest.raises(ContractError, match=r"the tool cannot be started \(.*No such file"):
        run_tool([tmp_path / "gone"], tool="the tool", name="acme/x", work=tmp_path)


def test_a_slow_tool_is_ended_with_its_children(tmp_path: Path) -> None:
    """At the deadline the whole process group goes, grandchildren included."""
    child = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with pytest.raises(ContractError, match="did not finish within 2 seconds") as caught:
        run(code, tmp_path, limits=replace(tool.TOOL_LIMITS, wall_ms=2000))
    assert caught.value.code == "component.build"
    pid = int((tmp_path / "pid").read_text())
    for _ in range(200):  # the orphan is reaped by another process, soon
        status = Path(f"/proc/{pid}/stat")
        if not status.exists() or status.read_text().rsplit(")", 1)[1].split()[0] == "Z":
            break
        time.sleep(0.01)
    else:
        os.kill(pid, 9)
        pytest.fail("the grandchild outlived its tool")


@pytest.mark.parametrize(
    ("code", "limits", "words"),
    [
        ("while True: pass", {"cpu_seconds": 1}, "did not finish within 300 seconds, or 1 of processor time"),
        (FULL_FILE, {"file_bytes": 1 << 20}, "wrote a file of more than 1 MiB"),
    ],
)
def test_a_broken_bound_is_named(tmp_path: Path, code: str, limits: dict[str, int], words: str) -> None:
    """Processor time and file sizes end a tool, too, and the message says which bound it was."""
    with pytest.raises(ContractError, match=words) as caught:
        run(code, tmp_path, limits=replace(tool.TOOL_LIMITS, **limits))
    assert caught.value.code == "component.build"


def test_a_tool_that_dies_of_a_signal_says_so(tmp_path: Path) -> None:
    """Its status is the signal's number, negative, as if it had been started directly."""
    assert run("import os; os.abort()", tmp_path).status == -6


def test_memory_is_bounded(tmp_path: Path) -> None:
    """In each process: an allocation beyond it fails in the tool."""
    result = run("bytearray(200 << 20)", tmp_path, limits=replace(tool.TOOL_LIMITS, memory_bytes=100 << 20))
    assert (result.status, "MemoryError" in result.output) == (1, True)
