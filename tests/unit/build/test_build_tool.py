"""How build tools are run: a small environment, a deadline, bounded output, and no process left behind."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from cloche.build import tool
from cloche.build.tool import run_tool
from cloche.errors import ContractError


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


def test_output_is_bounded_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tool that floods its output costs disk for a moment, not memory."""
    monkeypatch.setattr(tool, "MAX_OUTPUT_BYTES", 100)
    output = run("print('x' * 100_000); print('end')", tmp_path).output
    assert (len(output), output.strip().endswith("end")) == (100, True)


def test_a_tool_that_cannot_start_is_named(tmp_path: Path) -> None:
    """The message has the tool's name and the reason."""
    with pytest.raises(ContractError, match=r"the tool cannot be started \(No such file"):
        run_tool([tmp_path / "gone"], tool="the tool", name="acme/x", work=tmp_path)


def test_a_slow_tool_is_ended_with_its_children(tmp_path: Path) -> None:
    """At the deadline the whole process group goes, grandchildren included."""
    child = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with pytest.raises(ContractError, match="did not finish within 2 seconds") as caught:
        run(code, tmp_path, deadline_s=2.0)
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
