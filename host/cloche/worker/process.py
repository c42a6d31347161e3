"""One worker process as the host sees it: started by exec, spoken to over lanes, and killed when it must be.

The thread that starts the process stays until it ends: the kernel kills a worker when the thread that started it is
gone, and somebody has to notice its death and reap it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import msgspec

from cloche.confine.level import Level
from cloche.confine.shortage import shortage, starting_threads
from cloche.confine.spawn import start_child
from cloche.engine.installed import engine_library
from cloche.errors import CODES, EngineError
from cloche.model import KIB
from cloche.text import one_line
from cloche.worker.channel import Channel, ChannelClosed, FrameError, lane, pair, receive_whole, send_whole
from cloche.worker.messages import (
    CONTROL,
    MAX_MESSAGE_BYTES,
    OPEN_LANE,
    Order,
    Ready,
    Refused,
    encode,
    from_worker,
)
from cloche.worker.watch import Watch

START_TIMEOUT_S = 30.0
"""Longest time from the start of a worker until it serves."""
HANG_UP_S = 0.2
"""How long a worker may live after the end of its connection: it has nothing to do then."""
STDERR_BYTES = 16 * KIB
_OPEN_FILES = 1024


def is_available() -> bool:
    """Whether this system can have workers at all: POSIX, with descriptors that go from process to process."""
    return hasattr(socket, "send_fds") and hasattr(os, "waitid") and bool(sys.executable)


class WorkerProcess:
    """A worker that serves one plugin once `take` was called. Thread-safe. `close` it when done.

    `ended` is called with it once it is dead, on a thread of its own.

    Raises: EngineError (`engine.worker-start`, `engine.resources`) when it cannot be started. Added in 0.1.
    """

    def __init__(self, ended: Callable[[WorkerProcess], None] | None = None) -> None:
        self.level = Level(0, False, False)
        self.is_usable = True
        """False from when it is to be killed, or is found dead."""
        self.is_crashed = False
        """Whether it ended, or was killed, because it did what it must not: what counts as a restart."""
        self.reason = ""
        """How it ended, in words, once it is dead."""
        self.ran_out_of_memory = False
        """Whether it ended for lack of memory, or was killed for having taken too much."""
        self.watch = Watch(self)
        self._lock = threading.Lock()
        self._idle: list[Channel] = []
        self._tell_end = ended
        self._ended = threading.Event()
        self._started = threading.Event()
        self._failure: OSError | None = None
        self._wanted = ""
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._control, self._theirs = pair()
            self._first, self._first_theirs = pair()
        except OSError as error:
            raise shortage("a worker cannot be started", error) from error
        with starting_threads():
            threading.Thread(target=self._keep, name="cloche-worker", daemon=True).start()
        self._started.wait()
        if self._failure is not None:
            self._control.close()
            self._first.close()
            raise shortage("a worker cannot be started", self._failure) from self._failure

    @property
    def pid(self) -> int:
        """The id of the process."""
        return 0 if self._process is None else self._process.pid

    def take(self, order: Order, descriptors: Sequence[int]) -> Level:
        """Tell it which plugin to serve. Blocks until it has loaded the code and is locked in; the level reached.

        Raises: EngineError: what the worker refused (`engine.cache`, `engine.instantiate`), `engine.worker-start`.
        """
        try:
            with self._first as first:
                send_whole(first, encode(order), descriptors)
                first.settimeout(START_TIMEOUT_S)
                message = from_worker(receive_whole(first, MAX_MESSAGE_BYTES)[0])
        except (OSError, FrameError, msgspec.DecodeError) as error:
            self.kill("it did not get ready")
            self._ended.wait(START_TIMEOUT_S)
            raise EngineError(
                f"a worker did not get ready: {self.reason or error}", code="engine.worker-start"
            ) from error
        if isinstance(message, Refused):
            self.kill("it refused its plugin")
            code = message.code if message.code in CODES else "engine.worker-start"
            raise EngineError(f"a worker cannot serve the plugin: {message.text}", code=code)
        if not isinstance(message, Ready) or message.leaks:
            self.kill("its lock does not hold")
            what = ", ".join(message.leaks) if isinstance(message, Ready) else "nonsense"
            raise EngineError(f"a worker could do what it must not: {what}", code="engine.worker-start")
        self.level = Level(message.landlock_abi, message.seccomp, True)
        return self.level

    def borrow_lane(self) -> Channel:
        """A lane that nobody else uses. Raises: ChannelClosed when the worker is gone; EngineError."""
        try:
            return self._idle.pop()
        except IndexError:
            pass
        try:
            channel, theirs = lane()
        except OSError as error:
            raise shortage("there is no further lane to a worker", error) from error
        try:
            with self._lock:
                socket.send_fds(self._control, [CONTROL.pack(OPEN_LANE)], theirs)
        except OSError as error:
            channel.close()
            raise ChannelClosed from error
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        return channel

    def return_lane(self, lane: Channel) -> None:
        """Give a lane back; in the middle of an exchange only once the worker is not usable."""
        self._idle.append(lane)
        if not self.is_usable:
            self._close_idle()

    def interrupt(self, instance: int) -> None:
        """Ask it to stop what an instance is doing. Never blocks for long; a dead worker is no matter."""
        with contextlib.suppress(OSError), self._lock:
            self._control.send(CONTROL.pack(instance), socket.MSG_DONTWAIT)

    def kill(self, why: str, *, is_crash: bool = False, over_memory: bool = False) -> None:
        """End it now; the first `why` becomes its reason. Idempotent, any thread, does not wait."""
        with self._lock:
            if self._process is not None and self.is_usable:
                self.is_usable, self.is_crashed, self._wanted = False, is_crash, why
                self.ran_out_of_memory = over_memory
                self._process.kill()

    def wait(self, timeout_s: float) -> bool:
        """Until it is dead and reaped; whether it is."""
        return self._ended.wait(timeout_s)

    def memory_bytes(self) -> int:
        """Resident memory of the process now; 0 when it cannot be read."""
        try:
            fields = Path(f"/proc/{self.pid}/statm").read_bytes().split()
        except OSError:
            return 0
        return int(fields[1]) * _PAGE_BYTES

    def close(self) -> None:
        """End it and wait until it is gone. Idempotent."""
        self.kill("closed by the host")
        self._ended.wait(START_TIMEOUT_S)

    # -- its thread ------------------------------------------------------------------------------------------------

    def _keep(self) -> None:
        try:
            self._process = process = _start(self._theirs, self._first_theirs)
        except OSError as error:
            self._failure = error
            self._ended.set()
            return
        finally:
            self._theirs.close()
            self._first_theirs.close()
            self._started.set()
        with contextlib.suppress(OSError):
            while self._control.recv(4096):  # it has nothing to say here: the end of the stream is what counts
                pass
        try:
            status = process.wait(HANG_UP_S)
        except subprocess.TimeoutExpired:  # it hung up and lives on
            self.kill("it closed its connection to the host", is_crash=True)
            status = process.wait()
        assert process.stderr is not None
        os.set_blocking(process.stderr.fileno(), False)
        words = (process.stderr.read(STDERR_BYTES) or b"").decode("utf-8", "replace").strip()
        process.stderr.close()
        with self._lock:
            if self.is_usable:
                self.is_usable, self.is_crashed = False, True
            how = f"signal {-status}" if status < 0 else f"status {status}"
            last = one_line(words.splitlines()[-1])[:500] if words else ""
            self.ran_out_of_memory |= "memory allocation of" in last
            self.reason = ": ".join(part for part in (self._wanted or f"it ended by {how}", last) if part)
            self._control.close()
        self.watch.end()
        self._close_idle()  # whoever uses another sees its end, and closes it
        self._first.close()
        self._ended.set()
        if self._tell_end is not None:
            self._tell_end(self)

    def _close_idle(self) -> None:
        """Close the lanes of a worker that is gone. Any thread."""
        with contextlib.suppress(IndexError):
            while True:
                self._idle.pop().close()


_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def _packages() -> list[str]:
    """Where the packages lie that a worker imports: the engine's own place comes before the others."""
    found = [engine_library().path.parents[2], Path(msgspec.__file__).parents[1]]
    numpy = find_spec("numpy")
    if numpy is not None and numpy.origin is not None:
        found.append(Path(numpy.origin).parents[1])
    return list(dict.fromkeys(map(str, found)))


def _start(control: socket.socket, first: socket.socket) -> subprocess.Popen[bytes]:
    quiet = os.open(os.devnull, os.O_WRONLY)
    plan = {
        "program": None,
        "module": "cloche.worker.child",
        "arguments": [str(control.fileno()), str(first.fileno())],
        "path": _packages(),
        "readable": [],
        "writable": [],
        "executable": None,
        "groups": None,
        "rlimits": {
            "RLIMIT_CORE": 0,
            "RLIMIT_NOFILE": _OPEN_FILES,
            "RLIMIT_MEMLOCK": 0,
            "RLIMIT_MSGQUEUE": 0,
        },
    }
    try:
        return start_child(
            plan,
            report=quiet,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            environment={"OPENBLAS_NUM_THREADS": "1"},
            pass_fds=(control.fileno(), first.fileno()),
        )
    finally:
        os.close(quiet)
