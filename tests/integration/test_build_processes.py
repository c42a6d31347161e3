"""What is left of a build whose command is killed: no process, and no files that the next command does not remove."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cloche.build.scaffold import create_project
from cloche.build.settings import Language

pytestmark = [
    pytest.mark.adversarial,
    pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal is Linux's"),
]

WAIT_S = 60
COMMAND = [sys.executable, "-c", "import sys; from cloche.cli.main import run; sys.exit(run())"]
# A function of 100,000 statements, which the compiler works on for minutes in a process of its own.
C_BOMB = """\
#define TEN(x) x x x x x x x x x x
int f(int i) { TEN(TEN(TEN(TEN(TEN(i = i * 3 + 1;))))) return i; }
"""


def descendants(pid: int) -> dict[int, str]:
    """The processes below `pid`, with their command lines."""
    found: dict[int, str] = {}
    queue = [pid]
    while queue:
        try:
            parent = queue.pop()
            tasks = list(Path(f"/proc/{parent}/task").iterdir())
            children = [int(each) for task in tasks for each in (task / "children").read_text().split()]
            found |= {child: Path(f"/proc/{child}/cmdline").read_text().replace("\0", " ") for child in children}
            queue += children
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def until(condition: object, what: str) -> None:
    """Wait until `condition()` holds."""
    assert callable(condition)
    for _ in range(WAIT_S * 50):
        if condition():
            return
        time.sleep(0.02)
    pytest.fail(what)


def is_alive(pid: int) -> bool:
    """Whether the process still does something; one that waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def start(home: Path, project: Path) -> subprocess.Popen[bytes]:
    """`cloche build` of the project, with a home of its own."""
    environment = {**os.environ, "CLOCHE_HOME": str(home)}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([*COMMAND, "build", str(project)], env=environment, **quiet)  # type: ignore[call-overload,no-any-return]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A C plugin that takes the compiler minutes."""
    made = create_project("acme/bomb", Language.C, parent=tmp_path)
    (made / "app.c").write_text((made / "app.c").read_text() + C_BOMB)
    return made


def kill_and_look(command: subprocess.Popen[bytes], tool: str, number: signal.Signals) -> None:
    """Kill the command once its `tool` works, and wait until all that it started is gone."""
    with command:
        try:
            until(lambda: any(tool in line for line in descendants(command.pid).values()), f"no {tool} was started")
            started = descendants(command.pid)
            command.send_signal(number)
            command.wait(WAIT_S)
            until(lambda: not any(map(is_alive, started)), "the build's processes outlived the command")
        finally:
            for pid in filter(is_alive, (command.pid, *descendants(command.pid))):
                os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_killed_build_leaves_no_compiler(tmp_path: Path, project: Path, number: signal.Signals) -> None:
    """The compiler's own child goes, too, and what the build had written goes with the next `gc`."""
    home = tmp_path / "home"
    kill_and_look(start(home, project), "zig clang", number)
    assert len(list(home.glob("cache/build/work-*"))) == 1
    environment = {**os.environ, "CLOCHE_HOME": str(home)}
    subprocess.run([*COMMAND, "cache", "gc"], env=environment, check=True, stdout=subprocess.DEVNULL)
    assert [path for path in home.rglob("*") if path.is_file()] == []


def test_ctrl_c_ends_a_build_at_once(tmp_path: Path, project: Path) -> None:
    """Processes and files are gone before the command ends with its status for that."""
    home = tmp_path / "home"
    command = start(home, project)
    kill_and_look(command, "zig clang", signal.SIGINT)
    assert command.returncode == 130
    assert list(home.glob("cache/build/work-*")) == []


def test_module_level_of_a_python_plugin_dies_with_the_command(tmp_path: Path) -> None:
    """A plugin that loops while it is built does not go on when the command is gone."""
    made = create_project("acme/loop", parent=tmp_path)
    (made / "app.py").write_text("while True:\n    pass\n")
    kill_and_look(start(tmp_path / "home", made), "componentize_py", signal.SIGKILL)
