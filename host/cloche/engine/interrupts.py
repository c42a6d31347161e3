"""Ctrl-C while a guest runs on the main thread.

Python runs a signal's handler only between bytecodes of the main thread: never inside wasm, and at the first bytecode
of the next host callback, where a raised KeyboardInterrupt would crash the engine (H15). So while a call is in progress
on the main thread our handler only takes a note; a watcher thread, woken through the wake-up descriptor, stops the
guest by its epoch; and the call raises after it has cleaned up.

Other signals' handlers are not ours to hold back, and they may raise, too (an alarm's time-out, say). While there is
one the guest runs on another thread, where Python runs no handler; `is_quiet` answers that for each call.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import contextlib
import os
import select
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Protocol

from cloche.confine.shortage import shortage, starting_threads
from cloche.engine.forks import after_fork
from cloche.errors import EngineError

Handler = Callable[[int, FrameType | None], Any]

handler_of: Callable[[int], object] = _signal.getsignal
"""A signal's handler. Python's own function makes an enum of each answer, which takes ten times as long."""

RAISING = tuple(
    int(getattr(signal, name))
    for name in (
        "SIGINT", "SIGALRM", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGCHLD", "SIGQUIT", "SIGPROF", "SIGVTALRM"
    )
    if hasattr(signal, name)
)  # fmt: skip
"""Signals whose handlers are looked at before each call on the main thread: those that programs raise from."""


class Interruptible(Protocol):
    """A call in progress."""

    def interrupt(self) -> None:
        """Stop it soon. Called by the watcher thread; returns at once."""


class Interrupts:
    """Installed on the main thread by the first host, removed by `close()`. Elsewhere it does nothing.

    `held` is set while the main thread is on its way through a call; a Ctrl-C is then noted in `cancelled`, and stops
    what `attach` named. So it is also the `Cancellation` of every call on the main thread that has no other.
    """

    def __init__(self) -> None:
        self.held = False
        self.cancelled = False
        self._running: Interruptible | None = None
        self._previous: Handler | None = None
        self._old_fd = self._forward_fd = -1
        self._lock = threading.RLock()
        """Held while a signal's byte is read and acted upon. Reentrant, because our handler may run anywhere."""
        self._pipe: tuple[int, int] | None = None
        self._watcher: threading.Thread | None = None
        self.quiet: tuple[object, ...] = ()
        """The handlers that were found to be harmless, so that the same ones need no second look."""
        after_fork(self, Interrupts._begin_anew)

    def attach(self, running: Interruptible | None) -> Interruptible | None:
        """Name what a Ctrl-C stops; returns what it was before."""
        before, self._running = self._running, running
        if self.cancelled:
            with self._lock:  # the watcher may be about to stop what was named: it must not stop what comes after
                pass
            if running is not None:  # a call inside this one was stopped, and may have kept that to itself
                running.interrupt()
        return before

    def is_quiet(self) -> bool:
        """Whether no signal handler of somebody else's could raise on the main thread now. For the main thread only.

        A hot path compares the handlers with `quiet` first.
        """
        handlers = tuple(map(handler_of, RAISING))
        if any(callable(handler) and not _is_ours(handler) for handler in handlers):
            return False
        self.quiet = handlers
        return True

    def install(self) -> None:
        """Take over SIGINT if this is the main thread and a Python handler is in place. Idempotent.

        Raises: EngineError (`engine.resources`) when the system has no thread or descriptors to give; nothing is taken.
        """
        if self._pipe is not None or threading.current_thread() is not threading.main_thread():
            return
        previous = signal.getsignal(signal.SIGINT)
        if not callable(previous):
            return
        self._previous = previous
        # First of all our handler, which only takes notes while `held`: a Ctrl-C in here must not leave half of this.
        outer, self.held = self.held, True
        signal.signal(signal.SIGINT, self._handle)
        try:
            self._old_fd = self._listen()
            # A copy, because whoever was there before us may close the descriptor, and its number then means another
            # file.
            self._forward_fd = os.dup(self._old_fd) if self._old_fd >= 0 else -1
        except EngineError:
            signal.signal(signal.SIGINT, previous)
            raise
        finally:
            self.held = outer
        if self.cancelled and not outer:
            self.raise_noted()

    def close(self) -> None:
        """Give SIGINT and the wake-up descriptor back, unless somebody else took them meanwhile."""
        if self._pipe is None or threading.current_thread() is not threading.main_thread():
            return
        outer, self.held = self.held, True
        read, write = self._pipe
        self._pipe = None
        current = signal.set_wakeup_fd(-1)
        before = self._old_fd if _is_same_file(self._old_fd, self._forward_fd) else -1
        signal.set_wakeup_fd(before if current == write else current, warn_on_full_buffer=False)
        os.write(write, b"\0")
        if self._watcher is not None:
            self._watcher.join()
            self._watcher = None  # still held: a Ctrl-C while a thread object is freed would be lost
        for descriptor in (read, write, self._forward_fd):
            if descriptor >= 0:
                os.close(descriptor)
        self._forward_fd = -1
        # Last: from here on a Ctrl-C raises again.
        previous = self._previous_alive()
        if signal.getsignal(signal.SIGINT) == self._handle:
            signal.signal(signal.SIGINT, previous)
        self.held = outer
        if self.cancelled and not outer and previous is not None:
            self.cancelled = False
            previous(signal.SIGINT, None)

    def raise_noted(self) -> None:
        """After a call: hand a noted Ctrl-C to the handler that was there before us, which usually raises."""
        self._drain()
        self.cancelled = False
        if self._previous is not None:
            self._previous(signal.SIGINT, None)

    def _listen(self) -> int:
        """Have signals' numbers written to a pipe of ours that a watcher reads; the descriptor that got them before."""
        try:
            read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise shortage("signals cannot be watched", error) from error
        watcher = threading.Thread(target=self._watch, args=(read,), name="cloche-interrupts", daemon=True)
        try:
            with starting_threads():
                watcher.start()
        except EngineError:
            os.close(read)
            os.close(write)
            raise
        before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        self._pipe, self._watcher = (read, write), watcher
        return before

    def _begin_anew(self) -> None:
        """In a forked child: its signals must not reach the parent's pipe, and it needs a watcher of its own."""
        self._lock, self._running = threading.RLock(), None
        if self._pipe is not None:
            inherited = self._pipe
            self._listen()
            for descriptor in inherited:
                os.close(descriptor)

    def _previous_alive(self) -> Handler | None:
        """The handler before us; past those of hosts that were closed before this one."""
        handler = self._previous
        while isinstance(owner := getattr(handler, "__self__", None), Interrupts) and owner._pipe is None:
            handler = owner._previous
        return handler

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.held:
            self.cancelled = True
        elif self._previous is not None:
            self._drain()
            self._previous(number, frame)

    def _drain(self) -> None:
        """Read the bytes of signals that were delivered, so that the watcher cannot stop a later call for them."""
        with self._lock:
            if self._pipe is not None:
                self._take(self._pipe[0])

    def _take(self, read: int) -> bytes:
        try:
            data = os.read(read, 4096)
        except BlockingIOError:  # the other thread was faster
            return b""
        signals = data.replace(b"\0", b"")  # the zero is `close`'s own
        if signals and self._forward_fd >= 0:
            with contextlib.suppress(OSError):
                os.write(self._forward_fd, signals)
        return data

    def _watch(self, read: int) -> None:
        while True:
            select.select([read], [], [])
            with self._lock:
                data = self._take(read)
                if b"\0" in data:
                    return
                if signal.SIGINT in data and self.held:
                    self.cancelled = True
                    running = self._running
                    if running is not None:
                        running.interrupt()


def _is_ours(handler: object) -> bool:
    return isinstance(getattr(handler, "__self__", None), Interrupts)


def _is_same_file(left: int, right: int) -> bool:
    try:
        return os.path.sameopenfile(left, right)
    except OSError:
        return False
