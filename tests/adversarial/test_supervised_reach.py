"""Threat: a build tool is taken over by the sources that it works on. It reaches nothing but what it was given."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from cloche.confine import landlock
from cloche.confine.child import ChildOutcome, ChildResult, Reach, run_supervised
from cloche.confine.limits import ChildLimits

pytestmark = [
    pytest.mark.adversarial,
    pytest.mark.skipif(sys.platform != "linux", reason="Landlock and parent-death signals are Linux's"),
]
PROBE = Path(__file__).resolve().parent.parent / "support/reach_probe.py"
PLACES = ("readable", "writable", "executable", "other")


def supervised(tmp_path: Path, argv: list[str], reach: Reach | None = None) -> tuple[ChildResult, str]:
    """Run a program under supervision, and what it wrote."""
    with (tmp_path / "output").open("w+b") as output:
        result = run_supervised(
            argv,
            directory=tmp_path,
            environment={},
            output=output.fileno(),
            limits=ChildLimits(file_bytes=1 << 20),
            reach=reach,
        )
        output.seek(0)
        return result, output.read().decode()


@pytest.mark.skipif(landlock.abi() == 0, reason="no Landlock here")
def test_a_supervised_program_reaches_only_what_it_was_given(tmp_path: Path) -> None:
    """Each kind of directory gives its own rights and no others; TCP, signals and sockets of others are closed."""
    for place in PLACES:
        (tmp_path / place).mkdir()
        (tmp_path / place / "data").write_text("data")
        shutil.copy("/bin/true", tmp_path / place / "true")
    python = os.path.realpath(sys.executable)
    name = f"cloche-reach-{os.getpid()}"
    reach = Reach(
        readable=[str(tmp_path / "readable"), str(PROBE)],
        writable=[str(tmp_path / "writable")],
        executable=[str(tmp_path / "executable"), python, sys.base_prefix],
    )
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(f"\0{name}")
        unix.listen()
        argv = [python, "-I", "-S", "-B", str(PROBE), str(server.getsockname()[1]), name, str(os.getpid())]
        result, output = supervised(tmp_path, [*argv, *(str(tmp_path / place) for place in PLACES)], reach)
    assert result.outcome is ChildOutcome.OK, output
    found = json.loads(output)
    allowed = {"signal-own", "readable: read", "writable: read", "writable: write", "writable: make"}
    allowed |= {"executable: read", "executable: execute"}
    if landlock.abi() < 4:
        allowed |= {"connect", "listen"}
    if landlock.abi() < 6:
        allowed |= {"abstract-socket", "signal"}
    assert {what for what, outcome in found.items() if outcome == "yes"} == allowed
    assert {outcome for what, outcome in found.items() if what not in allowed} <= {"EACCES", "EPERM"}, found


def test_what_a_supervised_program_started_ends_with_it(tmp_path: Path) -> None:
    """A process that it leaves behind does not go on."""
    result, output = supervised(tmp_path, ["/bin/sh", "-c", "/bin/sleep 60 & echo $!"])
    assert result.outcome is ChildOutcome.OK
    for _ in range(500):
        try:
            if Path(f"/proc/{int(output)}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return
        except (FileNotFoundError, ProcessLookupError):
            return
        time.sleep(0.01)
    os.kill(int(output), signal.SIGKILL)
    pytest.fail("it outlived the program")
