"""Threat: code in a child was taken over and tries to get out. Everything it tries fails, and the host goes on."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from cloche.confine import launcher
from cloche.confine.child import ChildOutcome, ChildResult, run_confined, run_confined_python
from cloche.confine.level import offered
from cloche.confine.limits import ChildLimits
from cloche.confine.seccomp import Group
from cloche.errors import EngineError
from cloche.model import GIB, MIB

pytestmark = [
    pytest.mark.adversarial,
    pytest.mark.skipif(sys.platform != "linux", reason="Landlock and seccomp are Linux's"),
]
TESTS = str(Path(__file__).resolve().parent.parent)
COMPUTE = (Group.COMPUTE,)


def child(
    action: str,
    *groups: Group,
    limits: ChildLimits | None = None,
    watch: Callable[[float], bool] | None = None,
    argument: str = "",
) -> ChildResult:
    """Run one action of the probe."""
    return run_confined_python(
        "support.confine_probe",
        [action, argument],
        groups=groups or COMPUTE,
        path=(TESTS,),
        limits=limits,
        watch=watch,
    )


def rights(status: bytes) -> set[int]:
    """What the kernel calls capabilities: the permitted, effective, inheritable and ambient sets of a process."""
    return {int(line.split()[1], 16) for line in status.splitlines() if line[:6] in {b"CapPrm", b"CapEff", b"CapInh"}}


@pytest.mark.skipif(not offered().meets("landlock+seccomp"), reason=f"this system offers {offered().word}")
def test_a_confined_child_cannot_get_out() -> None:
    """Files, sockets, processes, signals, debugging, new memory files and raised limits are all refused."""
    result = child("probe")
    assert result.outcome is ChildOutcome.OK, result.stderr
    found = json.loads(result.stdout)
    assert {found.pop("compute"), found.pop("clone3")} == {"allowed", "ENOSYS"}
    assert found.pop("raise-limit") == "not allowed to raise maximum limit"
    assert found.pop("thread") == "can't start new thread"
    assert set(found.values()) == {"EPERM"}, found
    assert result.level.word == "landlock+seccomp"


@pytest.mark.skipif(not offered().landlock_abi, reason="no Landlock here")
def test_landlock_alone_closes_files() -> None:
    """Where the filter lets files be opened, Landlock still lets none through; threads and code work if granted."""
    result = child("probe", Group.COMPUTE, Group.OPEN_FILES, Group.WRITE_FILES, Group.THREADS, Group.NATIVE_CODE)
    found = json.loads(result.stdout)
    assert {found[name] for name in ("open", "create", "listdir", "mkdir")} <= {"EACCES", "EPERM"}
    assert {found[name] for name in ("thread", "executable-memory", "compute")} == {"allowed"}


def test_a_child_keeps_no_right_of_root(tmp_path: Path) -> None:
    """Our own code keeps nothing; a program, which opens the files that it was given, only what passes over modes."""
    own = child("status")
    assert (own.outcome, rights(own.stdout)) == (ChildOutcome.OK, {0}), own.stderr
    program = run_confined(["/bin/cat", "/proc/self/status"], readable=("/proc",))
    assert program.outcome is ChildOutcome.OK, program.stderr
    assert rights(program.stdout) <= {0, 0b110}
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    (private / "file").write_text("given")
    if os.geteuid() == 0:
        os.chown(private, 12345, 12345)
    assert run_confined(["/bin/cat", str(private / "file")], readable=(str(private),)).stdout == b"given"


def test_a_child_starts_with_nothing() -> None:
    """No environment, no descriptor but its streams, the report and the listing; its own session."""
    found = json.loads(child("surroundings").stdout)
    assert found["environment"].keys() <= {"LC_CTYPE"}
    assert found["directory"] == "/"
    assert len(found["descriptors"]) <= 5
    assert found["session"] is True
    assert found["umask"] == 0o077


def test_a_child_keeps_only_its_streams_once_it_is_locked_in() -> None:
    """Neither our code nor a program can write into the report of how well it is confined."""
    assert json.loads(child("descriptors").stdout) == [0, 1, 2]
    listing = run_confined(["/bin/ls", "/proc/self/fd"], readable=("/proc",))
    assert len(listing.stdout.split()) == 4, listing  # and the listed directory


def test_a_child_blocks_no_signal() -> None:
    """What the thread that starts it has blocked could not end the child at its bounds."""
    blocked = {signal.SIGXCPU, signal.SIGTERM, signal.SIGSEGV}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    try:
        found = json.loads(child("surroundings").stdout)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert found["mask"] == []


def test_each_resource_of_a_child_is_bounded() -> None:
    """Every limit is in force as given, soft and hard, or lower where ours is; a child may be given less priority."""
    limits = ChildLimits(cpu_seconds=7, memory_bytes=200 * MIB, file_bytes=12345, open_files=33)
    expected = {
        "RLIMIT_CORE": 0,
        "RLIMIT_DATA": 200 * MIB,
        "RLIMIT_AS": 200 * MIB + 2 * GIB,
        "RLIMIT_FSIZE": 12345,
        "RLIMIT_NOFILE": 33,
        "RLIMIT_MEMLOCK": 0,
        "RLIMIT_MSGQUEUE": 0,
    }
    result = run_confined_python("support.confine_probe", ["surroundings"], path=(TESTS,), limits=limits, nice=1)
    found = json.loads(result.stdout)
    for name, value in expected.items():
        ours = resource.getrlimit(getattr(resource, name))[1]
        bound = value if ours == resource.RLIM_INFINITY else min(value, ours)
        assert found["limits"][name] == [bound, bound], name
    assert found["limits"]["RLIMIT_CPU"] == [7, 8]
    assert found["nice"] == min(19, os.getpriority(os.PRIO_PROCESS, 0) + 1)


def test_memory_that_is_shared_counts_too() -> None:
    """No limit of the kernel counts shared pages; they are measured."""
    result = child("share", limits=ChildLimits(memory_bytes=128 * MIB), argument="192")
    assert result.outcome is ChildOutcome.MEMORY


def test_a_child_that_wrote_too_much_and_ended_is_refused() -> None:
    """It ends before anybody looks at what it wrote, and is told apart from one that kept to its bound."""

    def wait_for_its_end(_: float) -> bool:
        listing = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()
        os.waitid(os.P_PID, int(listing[0]), os.WEXITED | os.WNOWAIT)
        return True

    limits = ChildLimits(output_bytes=1000)
    result = run_confined(["/bin/cat"], stdin=b"x" * 1001, limits=limits, watch=wait_for_its_end)
    assert (result.outcome, len(result.stdout)) == (ChildOutcome.OUTPUT, 1000)


def test_a_child_gains_no_privilege_by_exec() -> None:
    """Our own code and programs are locked in so that no set-user-id program lifts them out."""
    program = run_confined(["/bin/cat", "/proc/self/status"], readable=("/proc",))
    for status in (child("status").stdout, program.stdout):
        assert b"NoNewPrivs:\t1\n" in status


def test_a_child_whose_parent_is_gone_does_not_begin() -> None:
    """A parent that dies before the child has bound itself to it leaves no child that nobody watches."""
    read_end, write_end = os.pipe()
    plan = {"report": write_end, "parent": 1 << 30, "rlimits": {}, "nice": 0, "program": ["/bin/echo", "begun"]}
    plan |= {"package": str(Path(launcher.__file__).parent.parent), "path": [], "supervised": True}
    plan |= {"readable": [], "writable": [], "executable": None, "groups": None}
    argv = [sys.executable, "-I", "-S", launcher.__file__, json.dumps(plan)]
    result = subprocess.run(argv, pass_fds=[write_end], capture_output=True, check=False)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as report:
        assert (result.returncode, result.stdout, report.read()) == (launcher.FAILED_STATUS, b"", b"")


@pytest.mark.skipif(not offered().seccomp, reason="no seccomp here")
def test_a_system_without_landlock_and_seccomp_is_told_apart() -> None:
    """Where the kernel refuses both, the level says so and nothing pretends to be confined."""
    assert json.loads(child("degraded").stdout) == ["rlimits", [0, False]]


@pytest.mark.skipif(not offered().seccomp, reason="no seccomp here")
def test_a_foreign_abi_ends_the_child() -> None:
    """A call by the x32 numbers is no way around the filter."""
    result = child("foreign-abi")
    assert (result.outcome, result.status) == (ChildOutcome.CRASHED, -signal.SIGSYS)


@pytest.mark.parametrize(
    ("action", "limits", "expected"),
    [
        ("spin", ChildLimits(wall_ms=2_000), ChildOutcome.TIMEOUT),
        ("spin", ChildLimits(cpu_seconds=1), ChildOutcome.TIMEOUT),
        ("stubborn", ChildLimits(cpu_seconds=1), ChildOutcome.TIMEOUT),
        ("flood", ChildLimits(output_bytes=100_000), ChildOutcome.OUTPUT),
        ("grow", ChildLimits(memory_bytes=128 * MIB), ChildOutcome.MEMORY),
        ("crash", ChildLimits(), ChildOutcome.CRASHED),
    ],
)
def test_each_bound_ends_the_child(action: str, limits: ChildLimits, expected: ChildOutcome) -> None:
    """Endless loops, floods and growth end at their bound, with its name; the next child works."""
    result = child(action, limits=limits)
    assert result.outcome is expected
    assert len(result.stdout) <= limits.output_bytes
    assert child("surroundings").outcome is ChildOutcome.OK


def test_a_program_reads_only_what_it_was_given(tmp_path: Path) -> None:
    """A confined program sees a file that was named, not its neighbour, and starts no other program."""
    if not offered().landlock_abi:
        pytest.skip("no Landlock here")
    (tmp_path / "given").write_text("open")
    (tmp_path / "other").write_text("closed")
    given = run_confined(["/bin/cat", str(tmp_path / "given")], readable=(str(tmp_path / "given"),))
    assert (given.outcome, given.stdout) == (ChildOutcome.OK, b"open")
    for argv in (["/bin/cat", str(tmp_path / "other")], ["/bin/sh", "-c", "/bin/cat /etc/passwd"]):
        refused = run_confined(argv, readable=(str(tmp_path / "given"),))
        assert (refused.outcome, refused.stdout) == (ChildOutcome.FAILED, b"")


def test_a_program_that_is_not_there_is_an_error() -> None:
    """What cannot be started is the host's failure and names the reason."""
    with pytest.raises(EngineError, match="No such file") as caught:
        run_confined(["/nonesuch/program"])
    assert caught.value.code == "engine.unsupported"
