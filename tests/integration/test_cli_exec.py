"""`cloche exec` as a shell uses it: exit statuses, streams, mounts, and nothing left when it is over."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

COMMAND = (sys.executable, "-c", "import sys; from cloche.cli.main import run; sys.exit(run())", "exec")
HEAVY = ("numpy", "pydantic", "structlog", "typer", "rich", "asyncio", "dataclasses", "concurrent.futures")


def run_exec(
    *words: str | Path, stdin: bytes | None = None, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """One command; without `stdin` it has none."""
    command = [*COMMAND, *map(str, words)]
    given: dict[str, Any] = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
    return subprocess.run(command, capture_output=True, check=False, env={**os.environ, **(env or {})}, **given)


def workers_of(group: int) -> list[str]:
    """Command lines of live processes whose session or parent was started by `group`."""
    found = []
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            try:
                status, line = (place / "status").read_text(), (place / "cmdline").read_text()
            except OSError:
                continue
            if f"PPid:\t{group}\n" in status and "zombie" not in status:
                found.append(line)
    return found


def test_output_and_status_are_the_scripts() -> None:
    """Both streams pass through; so does the exit status."""
    done = run_exec("-c", "import sys; print(6 * 7); print('oh', file=sys.stderr); sys.exit(7)")
    assert (done.stdout, done.stderr, done.returncode) == (b"42\n", b"oh\n", 7)


def test_an_exception_is_status_1_with_its_traceback() -> None:
    """The traceback has the script's own lines."""
    done = run_exec("-c", "def f():\n    1 / 0\nf()")
    assert done.returncode == 1
    assert b'File "<string>", line 2, in f\n    1 / 0' in done.stderr
    assert done.stderr.rstrip().endswith(b"ZeroDivisionError: division by zero")


def test_a_file_with_arguments(tmp_path: Path) -> None:
    """What follows the file is the script's, options or not."""
    (tmp_path / "s.py").write_text("import sys\nprint(sys.argv[1:], __file__ == sys.argv[0])")
    done = run_exec(tmp_path / "s.py", "a", "--fuel", "-c")
    assert done.stdout == b"['a', '--fuel', '-c'] True\n"
    assert run_exec("-c", "import sys; print(sys.argv)", "x").stdout == b"['<string>', 'x']\n"
    assert run_exec("-", stdin=b"print('from stdin')").stdout == b"from stdin\n"


def test_standard_input_from_a_pipe() -> None:
    """Bytes of a pipe are the script's standard input."""
    done = run_exec("-c", "import sys; print(sys.stdin.buffer.read()[::-1])", stdin=b"\x00abc")
    assert done.stdout == b"b'cba\\x00'\n"


def test_environment_and_mounts(tmp_path: Path) -> None:
    """Only what is named: a variable by value or by name, a directory to read, another to write."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "f").write_text("seen")
    (tmp_path / "out").mkdir()
    code = "import os; open('/out/g', 'w').write(open('/in/f').read()); print(dict(os.environ))"
    done = run_exec(
        "--mount", f"{tmp_path}/in:/in", f"--mount={tmp_path}/out:out:rw", "--env", "A=1", "--env", "FROM_HERE",
        "-c", code, env={"FROM_HERE": "2", "NOT": "3"},
    )  # fmt: skip
    assert done.stdout == b"{'A': '1', 'FROM_HERE': '2'}\n", done.stderr
    assert (tmp_path / "out" / "g").read_text() == "seen"
    done = run_exec("--mount", f"{tmp_path}/in:/in", "-c", "open('/in/f', 'w')")
    assert (done.returncode, (tmp_path / "in" / "f").read_text()) == (1, "seen")


STOPPED: dict[str, tuple[Sequence[str], int, str]] = {
    "deadline": (["--deadline", "300ms", "-c", "import time; time.sleep(60)"], 124, "limit.deadline"),
    "fuel": (["--fuel", "50M", "-c", "while True: pass"], 125, "limit.fuel"),
    "memory": (["-c", "x = bytearray(1 << 30)"], 137, "limit.memory"),
    "output": (["-c", "for _ in range(2000): print('x' * 1000)"], 123, "limit.output"),
    "mount": (["--mount", "/nowhere:/x", "-c", "1"], 2, "usage.argument"),
    "range": (["--memory", "1TiB", "-c", "1"], 2, "limit.range"),
    "unit": (["--deadline", "5", "-c", "1"], 2, "limit.range"),
    "image": (["--image", "none", "-c", "1"], 2, "usage.not-found"),
    "file": (["no-such-file.py"], 2, "usage.not-found"),
    "option": (["--fule", "1", "-c", "1"], 2, "usage.argument"),
    "nothing": ([], 2, "usage.argument"),
}


@pytest.mark.adversarial
@pytest.mark.parametrize(("words", "status", "code"), STOPPED.values(), ids=STOPPED)
def test_each_end_has_its_status(words: Sequence[str], status: int, code: str) -> None:
    """As text and as JSON."""
    done = run_exec(*words)
    assert (done.returncode, f"error[{code}]" in done.stderr.decode()) == (status, True), done.stderr
    done = run_exec("--json", *words)
    assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (status, code)


@pytest.mark.parametrize(
    ("code", "outcome", "status"), [("6 * 7", "ok", 0), ("1 / 0", "exception", 1), ("raise SystemExit(1)", "exit", 1)]
)
def test_json_tells_outcomes_apart(code: str, outcome: str, status: int) -> None:
    """`outcome` is what counts where exit statuses collide."""
    done = run_exec("--json", "-c", f"print('p')\n{code}")
    document = json.loads(done.stdout)
    assert (document["outcome"], document["exit_status"], done.returncode) == (outcome, status, status)
    assert document["stdout"] == "p\n"
    assert document["value"] == (42 if outcome == "ok" else None)
    assert document["usage"]["guest_fuel"] > 0


def test_the_policy_refuses(tmp_path: Path) -> None:
    """Status 126, and the place that says so; a changed policy counts at once."""
    policy = tmp_path / "policy.toml"
    policy.write_text('format-version = 1\n[plugins."*"]\ndeny = ["wasi:filesystem"]\n')
    words = ("--policy", policy, "--mount", f"{tmp_path}:/d", "-c", "import os; print(os.listdir('/d'))")
    done = run_exec(*words)
    assert (done.returncode, b"denied by" in done.stderr) == (126, True)
    policy.write_text("format-version = 1\n")
    assert run_exec(*words).stdout == b"['policy.toml']\n"
    policy.write_text('format-version = 1\n[defaults]\nlimits = { fuel = "50M" }\n')
    assert run_exec("--policy", policy, "-c", "while True: pass").returncode == 125
    assert run_exec("--policy", policy, "--fuel", "60M", "-c", "1").returncode == 2
    assert run_exec("--policy", tmp_path / "none.toml", "-c", "1").returncode == 3


def start(code: str) -> subprocess.Popen[bytes]:
    """A command whose script runs: it has written to a file of its mount."""
    return subprocess.Popen(
        [*COMMAND, "--deadline", "60s", "-c", code],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def worker_of(process: subprocess.Popen[bytes]) -> list[str]:
    """Waits until it has one."""
    for _ in range(600):
        if found := workers_of(process.pid):
            return found
        time.sleep(0.05)
    raise AssertionError("no worker")


def test_ctrl_c_ends_it() -> None:
    """Status 130, at once, and no worker is left."""
    process = start("while True: pass")
    assert len(worker_of(process)) == 1
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert (process.returncode, b"usage.interrupted" in said) == (130, True)
    assert workers_of(process.pid) == []


def test_a_killed_command_leaves_no_worker() -> None:
    """The kernel ends the worker with it."""
    process = start("while True: pass")
    worker_of(process)
    pids = [
        int(place.name)
        for place in Path("/proc").iterdir()
        if place.name.isdigit() and f"PPid:\t{process.pid}\n" in _status(place)
    ]
    assert len(pids) == 1
    time.sleep(1)
    process.kill()
    process.communicate()
    for _ in range(100):
        if not Path(f"/proc/{pids[0]}").exists() or "zombie" in _status(Path(f"/proc/{pids[0]}")):
            return
        time.sleep(0.05)
    raise AssertionError("the worker outlives its command")


def _status(place: Path) -> str:
    try:
        return (place / "status").read_text()
    except OSError:
        return ""


def test_it_imports_only_what_it_needs() -> None:
    """A second run knows nothing of the rooms that decided the first: that is what makes it quick."""
    assert run_exec("-c", "1").returncode == 0
    code = (
        "import sys\nfrom cloche.cli.main import run\nstatus = run(['exec', '-c', '1'])\n"
        f"print(status, [name for name in {HEAVY!r} if name in sys.modules], 'cloche.app' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, stdin=subprocess.DEVNULL, check=True)
    assert done.stdout == b"0 [] False\n"


def test_a_record_that_was_tampered_with_does_not_count(tmp_path: Path) -> None:
    """The record on disk is authenticated: a changed byte, and everything is decided anew."""
    home = {"CLOCHE_HOME": str(tmp_path)}
    source = Path(os.environ.get("CLOCHE_HOME", Path.home() / ".local/share/cloche"))
    (tmp_path / "cache").mkdir()
    if (source / "cache" / "native").is_dir():
        subprocess.run(["cp", "-a", source / "cache", tmp_path], check=True)
    assert run_exec("-c", "print(1)", env=home).stdout == b"1\n"
    entries = sorted((tmp_path / "cache" / "native").glob("*.native"), key=lambda path: path.stat().st_size)
    records = [path for path in entries if b'"kind": "script"' in path.read_bytes()[:400]]
    assert records
    for path in records:
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.chmod(0o600)
        path.write_bytes(data)
    assert run_exec("-c", "print(2)", env=home).stdout == b"2\n"
