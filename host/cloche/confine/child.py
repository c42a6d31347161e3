"""Run a program, or Python code of ours, in a confined child process and wait for it.

The child gets no environment, no descriptors but the named ones, `/` as directory, a session of its own, resource
limits, and what Landlock and seccomp offer here. It dies with its parent, and everything in its session is killed when
it ends, however it ends. A build tool needs more (`run_supervised`); how it ends is the same.
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
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from cloche.confine.launcher import FAILED_STATUS
from cloche.confine.level import Level
from cloche.confine.limits import ChildLimits
from cloche.confine.seccomp import Group
from cloche.errors import EngineError, RegistryError
from cloche.model import GIB, KIB

STDERR_BYTES = 64 * KIB
"""Standard error is kept up to this length; the rest is read and dropped."""
_REPORT_BYTES = 16 * KIB
_READ_BYTES = 256 * KIB
_TICK_SECONDS = 0.02
_DRAIN_SECONDS = 1.0
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

    Returns: the outcome; a child that fails or breaks a limit is a result, not an exception.
    Raises: EngineError (`engine.unsupported`) when no child can be started or locked in; RegistryError (`registry.io`)
        when there is no room for its input. Added in 0.1.
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
    return _run(plan, None, limits, (), 0, None, directory=str(directory), environment=environment, output=output)


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
    is the exit status. `path` goes before the standard library on the import path; site-packages are not on it.
    Otherwise as `run_confined`. Added in 0.1.
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


def _run(
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
    package = Path(__file__).resolve().parent.parent
    with _input(stdin) as standard_input, contextlib.ExitStack() as stack:
        read_end, write_end = os.pipe()
        stack.callback(os.close, read_end)
        try:
            full_plan = {
                "path": [],
                "supervised": False,
                "rlimits": _rlimits(limits),
                **plan,
                "report": write_end,
                "parent": os.getpid(),
                "package": str(package),
                "nice": nice,
            }
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-B", str(package / "confine" / "launcher.py"), json.dumps(full_plan)],
                stdin=standard_input,
                stdout=output,
                stderr=subprocess.PIPE if output == subprocess.PIPE else subprocess.STDOUT,
                env=environment or {},
                cwd=directory,
                close_fds=True,
                pass_fds=(write_end, *pass_fds),
                start_new_session=True,
            )
        except OSError as error:
            raise EngineError(f"a child process cannot be started: {error}", code="engine.unsupported") from error
        finally:
            os.close(write_end)
        with process:
            watcher = _Watcher(process, read_end, limits, watch)
            try:
                watcher.run()
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
    elif isinstance(stdin, int):
        yield stdin
    else:
        with tempfile.TemporaryFile(buffering=0) if not hasattr(os, "memfd_create") else _memory_file() as file:
            try:
                rest = memoryview(stdin)
                while rest:
                    rest = rest[os.write(file.fileno(), rest) :]
            except OSError as error:
                raise RegistryError(
                    f"{len(stdin)} bytes for a child process cannot be kept in memory: {error.strerror}; raise this "
                    "process's limit on files (`ulimit -f`), or free memory"
                ) from error
            os.lseek(file.fileno(), 0, os.SEEK_SET)
            yield file.fileno()


def _memory_file() -> Any:
    return os.fdopen(os.memfd_create("cloche-input"), "w+b", buffering=0)


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
        self._wall_ms = 0.0

    def run(self) -> None:
        """Until the child ends or breaks a bound, then until its output is drained."""
        with selectors.DefaultSelector() as selector:
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
            self._kill_session()
            until = time.monotonic() + _DRAIN_SECONDS
            while selector.get_map() and time.monotonic() < until:
                self._read(selector, _TICK_SECONDS)

    def end(self) -> None:
        """Kill what is left of the session; the caller reaps the child."""
        self._kill_session()

    def result(self) -> ChildResult:
        """What happened, once the child is reaped. Raises: EngineError (`engine.unsupported`): it was not locked in."""
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
            could_use_ms = self._wall_ms * (os.cpu_count() or 1)
            verdict = _outcome(status, stderr, could_use_ms >= self._limits.cpu_seconds * 1000)
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


def _outcome(status: int, stderr: bytes, may_have_used_its_time: bool) -> ChildOutcome:
    """What ended a child that we did not end ourselves."""
    if status == 0:
        return ChildOutcome.OK
    if status == -signal.SIGXCPU:
        return ChildOutcome.TIMEOUT
    if status == -signal.SIGKILL:
        # From the kernel: the hard processor limit, for who ignores the soft one, or the system ran out of memory.
        return ChildOutcome.TIMEOUT if may_have_used_its_time else ChildOutcome.MEMORY
    if _OUT_OF_MEMORY.search(stderr):
        return ChildOutcome.MEMORY
    if status == -signal.SIGXFSZ:
        return ChildOutcome.OUTPUT
    return ChildOutcome.CRASHED if status < 0 else ChildOutcome.FAILED
