"""Running children: streams, cancellation, many threads at once, and nothing left behind."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cloche.confine.child import STDERR_BYTES, ChildOutcome, run_confined
from cloche.confine.limits import ChildLimits

pytestmark = pytest.mark.skipif(os.name != "posix", reason="children are POSIX processes")


def descriptors() -> int:
    """Open descriptors of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


def children() -> list[str]:
    """Ids of this process's children, zombies included."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a thread that ended since it was listed
            found += (task / "children").read_text().split()
    return found


@pytest.mark.parametrize("size", [0, 1, 1 << 16, 8 << 20])
def test_bytes_go_through_whole(size: int) -> None:
    """Input of any size comes back, also when it is larger than a pipe."""
    data = os.urandom(size)
    result = run_confined(["/bin/cat"], stdin=data)
    assert (result.outcome, result.stdout) == (ChildOutcome.OK, data)


def test_a_descriptor_can_be_the_input(tmp_path: Path) -> None:
    """A child reads from an open file that its own rules would not let it open."""
    (tmp_path / "input").write_bytes(b"from a file")
    with (tmp_path / "input").open("rb") as file:
        assert run_confined(["/bin/cat"], stdin=file.fileno()).stdout == b"from a file"


def test_output_at_its_bound_is_whole_and_one_byte_more_is_not() -> None:
    """The bound itself is allowed."""
    limits = ChildLimits(output_bytes=1000)
    assert run_confined(["/bin/cat"], stdin=b"x" * 1000, limits=limits).outcome is ChildOutcome.OK
    over = run_confined(["/bin/cat"], stdin=b"x" * 1001, limits=limits)
    assert (over.outcome, len(over.stdout)) == (ChildOutcome.OUTPUT, 1000)


def test_a_flood_of_errors_is_dropped_and_does_not_block() -> None:
    """Standard error is kept up to its bound; the rest is read and forgotten."""
    result = run_confined(
        ["/bin/sh", "-c", "i=0; while [ $i -lt 9000 ]; do echo 0123456789012345 >&2; i=$((i+1)); done"]
    )
    assert (result.outcome, len(result.stderr)) == (ChildOutcome.OK, STDERR_BYTES)


def test_the_exit_status_is_the_childs_own() -> None:
    """A failing program is a result with its status."""
    result = run_confined(["/bin/sh", "-c", "echo no >&2; exit 7"])
    assert (result.outcome, result.status, result.stderr) == (ChildOutcome.FAILED, 7, b"no\n")


def test_a_watcher_can_cancel() -> None:
    """A child ends soon after its watcher says no."""
    calls: list[float] = []

    def watch(elapsed_ms: float) -> bool:
        calls.append(elapsed_ms)
        return len(calls) < 3

    assert run_confined(["/bin/sleep", "60"], watch=watch).outcome is ChildOutcome.CANCELLED
    assert calls == sorted(calls)
    assert len(calls) == 3


def test_a_failing_watcher_leaves_no_child() -> None:
    """An exception on the way, such as Ctrl-C, kills and reaps the child before it goes on."""

    def watch(_: float) -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_confined(["/bin/sleep", "60"], watch=watch)
    assert children() == []


def test_fifty_runs_leave_nothing(tmp_path: Path) -> None:
    """Descriptors, zombies, threads and temporary files are the same after fifty runs, of every kind of end."""
    kinds = [
        (["/bin/true"], ChildLimits()),
        (["/bin/false"], ChildLimits()),
        (["/bin/sleep", "9"], ChildLimits(wall_ms=80)),
        (["/bin/cat", "/nonesuch"], ChildLimits()),
        (["/bin/cat"], ChildLimits(output_bytes=3)),
    ]
    run_confined(["/bin/true"])
    before = (descriptors(), threading.active_count())
    for number in range(50):
        argv, limits = kinds[number % len(kinds)]
        run_confined(argv, stdin=b"input", limits=limits, writable=(str(tmp_path),))
    assert (descriptors(), threading.active_count()) == before
    assert children() == []
    assert list(tmp_path.iterdir()) == []


PARENT = """
from cloche.confine.child import run_confined
print("ready", flush=True)
run_confined(["/bin/sleep", "300"])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal is Linux's")
def test_a_child_dies_with_its_parent() -> None:
    """A parent that is killed takes its child along."""
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        listing = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
        while not (found := listing.read_text().split()):
            time.sleep(0.01)
        child = Path("/proc") / found[0]
        parent.kill()
        parent.wait()
    for _ in range(1000):
        if not child.exists() or ") Z" in (child / "stat").read_text():
            return
        time.sleep(0.01)
    pytest.fail("the child outlived its parent")


def test_many_threads_at_once() -> None:
    """Children of different threads do not mix up their streams or their ends."""

    def run(number: int) -> bool:
        return run_confined(["/bin/cat"], stdin=b"%d" % number).stdout == b"%d" % number

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(run, range(24)))
    assert children() == []
