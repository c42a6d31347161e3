"""Run a program, or Python code of ours, in a confined child process and wait for it.

The child gets no environment, no descriptors but the named ones, `/` as directory, a session of its own, resource
limits, none of root's rights, and what Landlock and seccomp offer here. It dies with its parent, and everything in its
session is killed when it ends, however it ends. A build tool needs more (`run_supervised`); how it ends is the same.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

from cloche.confine.launcher import FAILED_STATUS
from cloche.confine.level import Level
from cloche.confine.limits import ChildLimits
from cloche.confine.memory import new_memory_file
from cloche.confine.seccomp import Group
from cloche.confine.shortage import shortage
from cloche.confine.spawn import start_child
from cloche.errors import EngineError, RegistryError
from cloche.frozen import dataclass
from cloche.model import GIB, KIB

STDERR_BYTES = 64 * KIB
"""Standard error is kept up to this length; the rest is read and dropped."""
_REPORT_BYTES = 16 * KIB
_READ_BYTES = 256 * KIB
_TICK_SECONDS = 0.02
_DRAIN_SECONDS = 1.0
_KILLS = (-signal.SIGKILL, -signal.SIGTERM)
_NEAR = 7 / 8  # of its bound on memory: what a child had at the last look before it was killed
# Address space beside memory: shared mappings, thread arenas and the library are reserved and never resident.
_ADDRESS_SPACE_EXTRA_BYTES = 2 * GIB
_SYSTEM_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache")
_PROGRAM_GROUPS = (Group.COMPUTE, Group.THREADS, Group.NATIVE_CODE, Group.OPEN_FILES, Group.EXECUTE)
_OUT_OF_MEMORY = re.compile(
    rb"memory allocation of \d+ bytes failed|MemoryError|bad_alloc|[Oo]ut of memory|Cannot allocate memory"
)


class ChildOutcome(StrEnum):
    """How a child ended."""

    OK = "ok"
    FAILED = "failed"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    OUTPUT = "output"
    CRASHED = "crashed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, repr=False)
class ChildResult:
    """How a child ended and what it wrote. Added in 0.1.

    `status` is its exit status, negative for the signal that ended it. `stdout` is whole when the outcome is `ok` or
    `failed`, `stderr` at most `STDERR_BYTES`. `peak_rss_bytes` is sampled every 20 ms: what came and went between two
    samples is missed. `level` is the confinement that was reached.
    """

    outcome: ChildOutcome
    status: int
    stdout: bytes
    stderr: bytes
    wall_ms: float
    peak_rss_bytes: int
    level: Level

    def __repr__(self) -> str:
        return (
            f"ChildResult({self.outcome}, status={self.status}, stdout={len(self.stdout)} B, "
            f"stderr={len(self.stderr)} B, wall_ms={self.wall_ms:.0f}, level={self.level.word})"
        )


def run_confined(
    argv: Sequence[str],
    *,
    stdin: bytes | int | None = None,
    limits: ChildLimits | None = None,
    readable: Sequence[str] = (),
    writable: Sequence[str] = (),
    pass_fds: Sequence[int] = (),
    nice: int = 0,
    watch: Callable[[float], bool] | None = None,
) -> ChildResult:
    """Run the program `argv[0]` (an absolute path) in a confined child and wait for it.

    `stdin` is bytes, a descriptor, or nothing; `readable` and `writable` are the files and directories that it may
    use beside the system's libraries; `pass_fds` keep their numbers. `watch` is called on this thread with the elapsed
    milliseconds about fifty times a second; when it answers False the child is killed. Blocks at most `limits.wall_ms`
    and a second; may be called from many threads at once.

    A child that is killed from outside (by hand, or because the system is out of memory) while it keeps its bounds is
    started once more, with all of its time, unless `stdin` is a descriptor.

    Returns: the outcome; a child that fails or breaks a limit is a result, not an exception.
    Raises: EngineError `engine.unsupported` when no child can be started or locked in, `engine.resources` when the
        system lacks what it takes or the child was killed from outside again; RegistryError (`registry.io`) when there
        is no room for its input. Added in 0.1.
    """
    plan = {
        "program": [str(part) for part in argv],
        "readable": [str(path) for path in readable],
        "writable": [str(path) for path in writable],
        "executable": [str(argv[0]), *_SYSTEM_LIBRARIES],
        "groups": [*_PROGRAM_GROUPS, *([Group.WRITE_FILES] if writable else [])],
    }
    return _run(plan, stdin, limits or ChildLimits(), pass_fds, nice, watch)


@dataclass(frozen=True, slots=True)
class Reach:
    """The files of a supervised program; a directory stands for everything below it. Added in 0.1."""

    readable: Sequence[str] = ()
    writable: Sequence[str] = ()
    executable: Sequence[str] = ()


def run_supervised(
    argv: Sequence[str],
    *,
    directory: Path,
    environment: Mapping[str, str],
    output: int,
    limits: ChildLimits,
    reach: Reach | None = None,
) -> ChildResult:
    """Run the program `argv[0]` (an absolute path) with processes of its own, and wait for it and all of them.

    For our own tools at work on a stranger's sources: they start others, and need an environment and a directory. Both
    streams go to the descriptor `output`; each process has the limits, without a bound on reserved addresses, which
    engines take by the terabyte. With `reach` they touch no file but those and the system's libraries, and no TCP
    port, where the kernel has Landlock. All end with this process, whatever ends it.

    Returns and raises as `run_confined`, without output and without a sampled peak. Added in 0.1.
    """
    plan = {
        "program": [str(part) for part in argv],
        "supervised": True,
        "readable": list(reach.readable) if reach else [],
        "writable": list(reach.writable) if reach else [],
        "executable": [*reach.executable, *_SYSTEM_LIBRARIES] if reach else None,
        "groups": None,
        "rlimits": {name: value for name, value in _rlimits(limits).items() if name != "RLIMIT_AS"},
    }
    return _run_once(plan, None, limits, (), 0, None, directory=str(directory), environment=environment, output=output)


def run_confined_python(
    module: str,
    arguments: Sequence[str],
    *,
    stdin: bytes | int | None = None,
    limits: ChildLimits | None = None,
    groups: Sequence[Group] = (Group.COMPUTE,),
    path: Sequence[str] = (),
    pass_fds: Sequence[int] = (),
    nice: int = 0,
    watch: Callable[[float], bool] | None = None,
) -> ChildResult:
    """Run `prepare(arguments)` of our own `module` in a confined child, lock it in, then run what it returned.

    `prepare` may still open files and load libraries; the callable that it returns runs without any file, and its int
    is the exit status. `path` goes before the standard library on the import path; site-packages are not on it. It
    begins what it writes to `pass_fds` at their start, as it may be started a second time. Otherwise as `run_confined`.
    Added in 0.1.
    """
    plan = {
        "program": None,
        "module": module,
        "arguments": list(arguments),
        "path": list(path),
        "readable": [],
        "writable": [],
        "executable": [],
        "groups": list(groups),
    }
    return _run(plan, stdin, limits or ChildLimits(), pass_fds, nice, watch)


class _KilledError(EngineError):
    """A child ended by a signal that neither it, nor a bound of its own, nor this process explains."""

    default_code = "engine.resources"


def _run(
    plan: dict[str, Any],
    stdin: bytes | int | None,
    limits: ChildLimits,
    pass_fds: Sequence[int],
    nice: int,
    watch: Callable[[float], bool] | None,
) -> ChildResult:
    started = time.monotonic()
    try:
        return _run_once(plan, stdin, limits, pass_fds, nice, watch)
    except _KilledError:
        if isinstance(stdin, int):  # what was read from it may be gone
            raise
    spent_ms = (time.monotonic() - started) * 1000
    again = None if watch is None else lambda elapsed_ms: watch(spent_ms + elapsed_ms)
    return _run_once(plan, stdin, limits, pass_fds, nice, again)


def _run_once(
    plan: dict[str, Any],
    stdin: bytes | int | None,
    limits: ChildLimits,
    pass_fds: Sequence[int],
    nice: int,
    watch: Callable[[float], bool] | None,
    *,
    directory: str = "/",
    environment: Mapping[str, str] | None = None,
    output: int = subprocess.PIPE,
) -> ChildResult:
    if not hasattr(os, "waitid") or not sys.executable:
        raise EngineError(
            "confined child processes need Linux, or a POSIX system with waitid, and a Python interpreter to start",
            code="engine.unsupported",
        )
    with _input(stdin) as standard_input, contextlib.ExitStack() as stack:
        try:
            read_end, write_end = os.pipe()
            stack.callback(os.close, read_end)
            try:
                selector = stack.enter_context(selectors.DefaultSelector())
                process = start_child(
                    {"rlimits": _rlimits(limits), **plan, "nice": nice},
                    report=write_end,
                    stdin=standard_input,
                    stdout=output,
                    stderr=subprocess.PIPE if output == subprocess.PIPE else subprocess.STDOUT,
                    environment=environment or {},
                    directory=directory,
                    pass_fds=pass_fds,
                )
            finally:
                os.close(write_end)
        except OSError as error:
            raise shortage("a child process cannot be started", error) from error
        with process:
            watcher = _Watcher(process, read_end, limits, watch)
            try:
                watcher.run(selector)
            finally:
                watcher.end()
        return watcher.result()


def _rlimits(limits: ChildLimits) -> dict[str, int]:
    """RLIMIT_DATA counts what a program really takes; RLIMIT_AS stays as a wide backstop over reservations."""
    return {
        "RLIMIT_CORE": 0,
        "RLIMIT_CPU": limits.cpu_seconds + 1,
        "RLIMIT_DATA": limits.memory_bytes,
        "RLIMIT_AS": limits.memory_bytes + _ADDRESS_SPACE_EXTRA_BYTES,
        "RLIMIT_FSIZE": limits.file_bytes,
        "RLIMIT_NOFILE": limits.open_files,
        "RLIMIT_MEMLOCK": 0,
        "RLIMIT_MSGQUEUE": 0,
    }


@contextlib.contextmanager
def _input(stdin: bytes | int | None) -> Iterator[int]:
    """Bytes go through a file in memory: no pipe to feed while the output is read."""
    if stdin is None:
        yield subprocess.DEVNULL
        return
    if isinstance(stdin, int):
        yield stdin
        return
    try:
        file = new_memory_file("cloche-input")
    except OSError as error:
        raise shortage("there is nowhere to keep the input of a child process", error) from error
    try:
        try:
            rest = memoryview(stdin)
            while rest:
                rest = rest[os.write(file, rest) :]
            os.lseek(file, 0, os.SEEK_SET)
        except OSError as error:
            raise RegistryError(
                f"{len(stdin)} bytes for a child process cannot be kept in memory: {error.strerror}; raise this "
                "process's limit on files (`ulimit -f`), or free memory"
            ) from error
        yield file
    finally:
        os.close(file)


class _Watcher:
    """Reads what one child writes, measures it, and ends it at the first bound that it breaks."""

    def __init__(
        self, process: subprocess.Popen[bytes], report: int, limits: ChildLimits, watch: Callable[[float], bool] | None
    ) -> None:
        self._process, self._limits, self._watch = process, limits, watch
        self._started = time.monotonic()
        self._stdout, self._stderr = bytearray(), bytearray()
        self._report = bytearray()
        self._caught = {report: (self._report, _REPORT_BYTES)}
        if process.stdout is not None:
            self._caught[process.stdout.fileno()] = (self._stdout, limits.output_bytes + 1)
        if process.stderr is not None:
            self._caught[process.stderr.fileno()] = (self._stderr, STDERR_BYTES)
        self._verdict: ChildOutcome | None = None
        self._peak_rss_bytes = 0
        self._cpu_seconds = 0.0
        self._wall_ms = 0.0

    def run(self, selector: selectors.BaseSelector) -> None:
        """Until the child ends or breaks a bound, then until its output is drained."""
        for descriptor in self._caught:
            os.set_blocking(descriptor, False)
            selector.register(descriptor, selectors.EVENT_READ)
        with self._exit_descriptor() as exited:
            if exited is not None:
                selector.register(exited, selectors.EVENT_READ)
            while self._verdict is None and not self._has_exited():
                self._read(selector, _TICK_SECONDS)
                self._verdict = self._judge()
            if exited is not None:
                selector.unregister(exited)
        self._wall_ms = (time.monotonic() - self._started) * 1000
        self._sample_processor()
        self._kill_session()
        until = time.monotonic() + _DRAIN_SECONDS
        while selector.get_map() and time.monotonic() < until:
            self._read(selector, _TICK_SECONDS)

    def end(self) -> None:
        """Kill what is left of the session; the caller reaps the child."""
        self._kill_session()

    def result(self) -> ChildResult:
        """What happened, once the child is reaped.

        Raises: EngineError `engine.unsupported` when it was not locked in, `engine.resources` when it was killed.
        """
        status = self._process.returncode
        stdout, stderr = bytes(self._stdout), bytes(self._stderr)
        report = self._read_report()
        verdict = self._verdict
        if verdict is None and len(stdout) > self._limits.output_bytes:
            verdict = ChildOutcome.OUTPUT
        if verdict is None and ("error" in report or (status == FAILED_STATUS and "level" not in report)):
            raise EngineError(
                f"a child process could not be confined: {report.get('error', 'it ended early')}",
                code="engine.unsupported",
            )
        if verdict is None:
            verdict = self._why_killed(status) if status in _KILLS else _outcome(status, stderr)
        return ChildResult(
            outcome=verdict,
            status=status,
            stdout=stdout[: self._limits.output_bytes],
            stderr=stderr,
            wall_ms=self._wall_ms,
            peak_rss_bytes=self._peak_rss_bytes,
            level=Level(**report["level"]) if "level" in report else Level(0, False, False),
        )

    @contextlib.contextmanager
    def _exit_descriptor(self) -> Iterator[int | None]:
        """A descriptor that is readable when the child ends, so that short children are not waited for too long."""
        try:
            descriptor = os.pidfd_open(self._process.pid)
        except (AttributeError, OSError):
            yield None
            return
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _has_exited(self) -> bool:
        # Not reaped yet: until then its id, which is also the session's, belongs to nobody else.
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _read(self, selector: selectors.BaseSelector, timeout: float) -> None:
        for key, _ in selector.select(timeout):
            descriptor = key.fd
            if descriptor not in self._caught:
                continue
            chunk = os.read(descriptor, _READ_BYTES)
            if not chunk:
                selector.unregister(descriptor)
                continue
            caught, most = self._caught[descriptor]
            caught += chunk[: most - len(caught)]

    def _judge(self) -> ChildOutcome | None:
        elapsed_ms = (time.monotonic() - self._started) * 1000
        if len(self._stdout) > self._limits.output_bytes:
            return ChildOutcome.OUTPUT
        if self._sample_memory() > self._limits.memory_bytes:
            return ChildOutcome.MEMORY
        if elapsed_ms > self._limits.wall_ms:
            return ChildOutcome.TIMEOUT
        if self._watch is not None and not self._watch(elapsed_ms):
            return ChildOutcome.CANCELLED
        return None

    def _sample_memory(self) -> int:
        try:
            text = Path(f"/proc/{self._process.pid}/status").read_bytes()
        except OSError:
            return 0
        match = re.search(rb"VmHWM:\s+(\d+) kB", text)
        peak = int(match[1]) * 1024 if match else 0
        self._peak_rss_bytes = max(self._peak_rss_bytes, peak)
        return peak

    def _sample_processor(self) -> None:
        # What remains of a process until it is reaped tells it, for all its threads.
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{self._process.pid}/stat").read_bytes().rpartition(b")")[2].split()
            self._cpu_seconds = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _why_killed(self, status: int) -> ChildOutcome:
        """What a signal says that we did not send and that no program dies of by itself."""
        if self._cpu_seconds >= self._limits.cpu_seconds:  # the hard limit, for who ignores the soft one
            return ChildOutcome.TIMEOUT
        if self._peak_rss_bytes >= _NEAR * self._limits.memory_bytes:
            return ChildOutcome.MEMORY
        raise _KilledError(
            f"a child process was killed from outside (signal {-status}) after {self._wall_ms / 1000:.1f} s, with "
            f"{self._peak_rss_bytes} bytes of memory, which is within its bounds; if nobody did that by hand, the "
            "system or the container ran out of memory: free some, or raise its limit"
        )

    def _kill_session(self) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _read_report(self) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for line in bytes(self._report).splitlines():
            with contextlib.suppress(ValueError):
                merged.update(json.loads(line))
        return merged


def _outcome(status: int, stderr: bytes) -> ChildOutcome:
    """What ended a child that nobody killed."""
    if status == 0:
        return ChildOutcome.OK
    if status == -signal.SIGXCPU:
        return ChildOutcome.TIMEOUT
    if _OUT_OF_MEMORY.search(stderr):
        return ChildOutcome.MEMORY
    if status == -signal.SIGXFSZ:
        return ChildOutcome.OUTPUT
    return ChildOutcome.CRASHED if status < 0 else ChildOutcome.FAILED
