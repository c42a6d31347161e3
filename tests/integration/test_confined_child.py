"""Running children: streams, cancellation, many threads at once, and nothing left behind."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cloche.confine.child import STDERR_BYTES, ChildOutcome, run_confined, run_confined_python
from cloche.confine.limits import ChildLimits
from cloche.errors import Blame, EngineError

TESTS = str(Path(__file__).resolve().parent.parent)

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


def killer(signal_: int, times: int) -> tuple[Callable[[float], bool], list[str], list[float]]:
    """A watcher that kills the first `times` children as soon as each is seen, as somebody else would.

    And the children that it saw, and what it was told.
    """
    seen: list[str] = []
    told: list[float] = []

    def watch(elapsed_ms: float) -> bool:
        told.append(elapsed_ms)
        for found in children():
            if found not in seen:
                seen.append(found)
                if len(seen) <= times:
                    os.kill(int(found), signal_)
        return True

    return watch, seen, told


@pytest.mark.parametrize("signal_", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_that_is_killed_from_outside_is_started_once_more(signal_: int) -> None:
    """Its input is there again, and its watcher goes on counting."""
    watch, seen, told = killer(signal_, 1)
    result = run_confined(["/bin/cat"], stdin=b"input", watch=watch)
    assert (result.outcome, result.stdout, len(seen)) == (ChildOutcome.OK, b"input", 2)
    assert told == sorted(told)


def test_a_child_that_is_killed_twice_is_the_systems_fault() -> None:
    """Nobody else is blamed, and nothing is left."""
    before = descriptors()
    watch, seen, _ = killer(signal.SIGKILL, 2)
    with pytest.raises(EngineError, match="killed from outside") as caught:
        run_confined(["/bin/sleep", "60"], stdin=b"input", watch=watch)
    assert (caught.value.code, caught.value.blame) == ("engine.resources", Blame.HOST)
    assert (len(seen), children(), descriptors()) == (2, [], before)


def test_a_child_whose_input_is_a_descriptor_is_not_started_again(tmp_path: Path) -> None:
    """What it has read cannot be read again."""
    (tmp_path / "input").write_bytes(b"from a file")
    watch, seen, _ = killer(signal.SIGKILL, 1)
    with (tmp_path / "input").open("rb") as file, pytest.raises(EngineError):
        run_confined(["/bin/sleep", "60"], stdin=file.fileno(), watch=watch)
    assert len(seen) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="memory is looked at in /proc")
def test_a_child_that_is_killed_at_its_bound_has_broken_it() -> None:
    """Who has taken nearly all that it may is ended by the system for that reason."""
    limits = ChildLimits(memory_bytes=256 << 20)

    def watch(elapsed_ms: float) -> bool:
        for found in children():
            match = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{found}/status").read_text())
            if match and int(match[1]) > 232 << 10 and elapsed_ms > 200:
                os.kill(int(found), signal.SIGKILL)
        return True

    result = run_confined_python("support.confine_probe", ["hold", "230"], path=(TESTS,), limits=limits, watch=watch)
    assert result.outcome is ChildOutcome.MEMORY


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM, errno.EPERM])
@pytest.mark.parametrize("call", ["os.pipe", "subprocess.Popen", "selectors.DefaultSelector"])
def test_a_system_that_lacks_something_says_what_to_do(monkeypatch: pytest.MonkeyPatch, call: str, number: int) -> None:
    """A failing system call is an error of the host with its remedy, and leaves no descriptor."""

    def refuse(*_: object, **__: object) -> object:
        raise OSError(number, os.strerror(number))

    before = descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(f"cloche.confine.child.{call}", refuse)
        with pytest.raises(EngineError, match=os.strerror(number)) as caught:
            run_confined(["/bin/true"], stdin=b"input")
    assert caught.value.blame is Blame.HOST
    expected = "engine.unsupported" if number == errno.EPERM else "engine.resources"
    assert caught.value.code == expected
    assert descriptors() == before


def test_without_memory_files_the_input_is_a_file_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that refuses memory files runs children all the same; one without any place for a file says so."""

    def refuse(*_: object) -> int:
        raise PermissionError(errno.EPERM, "refused")

    monkeypatch.setattr(os, "memfd_create", refuse, raising=False)
    assert run_confined(["/bin/cat"], stdin=b"input").stdout == b"input"

    def nowhere() -> object:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "TemporaryFile", nowhere)
    with pytest.raises(EngineError, match="No usable temporary directory") as caught:
        run_confined(["/bin/cat"], stdin=b"input")
    assert caught.value.code == "engine.unsupported"


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
        while (child / "comm").read_text() != "sleep\n":  # from then on only the kernel ends it
            time.sleep(0.01)
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
