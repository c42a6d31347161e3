"""Threads that are fit to run a guest, and how much of its stack a thread still has for one.

Source: H12: a guest on a stack smaller than the wasm stack plus 512 KiB kills the process. A guest runs on its
caller's thread when what is left of that stack is large enough, else on one of ours. Each guest that waits in a host
function has the whole of its wasm stack set aside, because the engine grants it to every store anew.
"""

from __future__ import annotations

import _thread
import ctypes
import resource
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from cloche.confine.shortage import starting_threads
from cloche.engine.forks import after_fork
from cloche.errors import UsageError
from cloche.model import KIB, MIB

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

T = TypeVar("T")

HEADROOM_BYTES = 512 * KIB
"""What host code above and below the guest may need besides the wasm stack."""

OWN_STACK_BYTES = 8 * MIB
"""Stack of the threads that we create."""


class _PthreadAttr(ctypes.Union):
    _fields_ = [("bytes", ctypes.c_char * 64), ("align", ctypes.c_long)]


def thread_stack_bytes() -> int:
    """Size of this thread's stack in bytes; 0 where the system does not tell."""
    if not sys.platform.startswith("linux"):
        return 0
    if threading.current_thread() is threading.main_thread():
        # The main thread's mapping grows up to the limit; glibc's figure follows the limit of the moment.
        soft, _ = resource.getrlimit(resource.RLIMIT_STACK)
        size = 64 * MIB if soft == resource.RLIM_INFINITY else soft
        return max(0, size - MIB)
    libc = ctypes.CDLL(None)
    attr, base, size_out = _PthreadAttr(), ctypes.c_void_p(), ctypes.c_size_t()
    libc.pthread_self.restype = ctypes.c_void_p
    libc.pthread_getattr_np.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    libc.pthread_attr_getstack.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
    if libc.pthread_getattr_np(libc.pthread_self(), ctypes.byref(attr)) != 0:
        return 0
    try:
        libc.pthread_attr_getstack(ctypes.byref(attr), ctypes.byref(base), ctypes.byref(size_out))
    finally:
        libc.pthread_attr_destroy(ctypes.byref(attr))
    return int(size_out.value)


class ThisThread:
    """What is known of one thread: the stack that is left on it for guests, and what it is.

    `cpu_ns` is its processor time when somebody last looked.
    """

    __slots__ = ("cpu_ns", "is_main", "is_ours", "room_bytes")

    def __init__(self, *, is_ours: bool = False) -> None:
        self.room_bytes = thread_stack_bytes()
        self.is_main = threading.current_thread() is threading.main_thread()
        self.is_ours = is_ours
        self.cpu_ns = 0


threads = threading.local()
"""`here` is the calling thread's `ThisThread`, once `this_thread` was asked on it."""


def this_thread() -> ThisThread:
    """The calling thread, measured when it is first seen."""
    try:
        here: ThisThread = threads.here
    except AttributeError:
        here = threads.here = ThisThread()
    return here


def _mark_ours() -> None:
    threads.here = ThisThread(is_ours=True)


@contextmanager
def _large_stacks() -> Iterator[None]:
    """While threads of ours are made. The stack size is a setting of the whole process.

    Raises: EngineError (`engine.resources`).
    """
    before = threading.stack_size(OWN_STACK_BYTES)
    try:
        with starting_threads():
            yield
    finally:
        # Somebody else may have set it meanwhile; putting theirs back would leave all later threads with it.
        if threading.stack_size() == OWN_STACK_BYTES:
            threading.stack_size(before)


class _Errand:
    """One piece of work for another thread, and its end: the answer or the exception."""

    __slots__ = ("answer", "args", "begun", "done", "error", "over", "withdrawn", "work")

    def __init__(self, work: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.work, self.args = work, args
        self.begun = self.over = self.withdrawn = False
        self.answer: Any = None
        self.error: BaseException | None = None
        self.done: SimpleQueue[None] = SimpleQueue()

    def run(self) -> None:
        self.begun = True
        try:
            if not self.withdrawn:
                self.answer = self.work(*self.args)
        except BaseException as error:
            self.error = error
        finally:
            self.over = True
            self.done.put(None)

    def withdraw(self) -> bool:
        """Keep it from beginning; whether that came too late."""
        self.withdrawn = True  # before the question: the other thread says that it begins before it looks at this
        return self.begun


class Courier:
    """Runs what the main thread must not run itself on a thread of ours, one errand at a time.

    The main thread touches nothing here but queues written in C. An exception of a signal's handler leaves those as
    they are, between whatever two steps it comes; the locks of Python's executors and conditions it would break.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._errands: SimpleQueue[_Errand | None] = SimpleQueue()
        self._started = self._closed = False
        after_fork(self, Courier._begin_anew)

    def run(
        self, work: Callable[..., T], *args: Any, wait_s: float, late: Callable[[], Exception], stop: Callable[[], None]
    ) -> T:
        """`work(*args)`, or what it raises. Blocks until it is over, also when an exception arises here: after `stop`.

        Raises: what `late` makes when the work could not begin within `wait_s` seconds; UsageError (`usage.closed`).
        """
        errand = _Errand(work, args)
        if not self._started and not self._closed:
            with _large_stacks():
                _thread.start_new_thread(self._serve, (self._errands,))
            self._started = True
        try:
            self._errands.put(errand)
            if self._closed and not errand.withdraw():
                raise UsageError(f"plugin {self._name} is closed", code="usage.closed", plugin=self._name)
            try:
                errand.done.get(timeout=wait_s)
            except Empty:
                if not errand.withdraw():
                    raise late() from None
                errand.done.get()
        except BaseException:
            if errand.withdraw() and not errand.over:
                stop()
                errand.done.get()
            raise
        if errand.error is not None:
            raise errand.error
        answer: T = errand.answer
        return answer

    def close(self) -> None:
        """End the thread, after what it runs. Idempotent."""
        self._closed = True
        self._errands.put(None)

    @staticmethod
    def _serve(errands: SimpleQueue[_Errand | None]) -> None:
        _mark_ours()
        while (errand := errands.get()) is not None:
            errand.run()
            del errand  # what it holds must not live on until the next one comes

    def _begin_anew(self) -> None:
        """In a forked child, where the thread is not."""
        self._errands, self._started = SimpleQueue(), False


class GuestThreads:
    """Threads with a large stack, made when they are first needed; `name` is what they are called."""

    def __init__(self, name: str, most: int) -> None:
        self._name, self._most = name, most
        self._pool: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        self._closed = False
        after_fork(self, GuestThreads._begin_anew)

    def submit(self, function: Callable[..., T], *args: Any) -> Future[T]:
        """Run `function(*args)` on one of our threads. Raises: UsageError (`usage.closed`) after `close`."""
        from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - not in a worker, which has threads for calls

        with self._lock:
            self._ensure_open()
            if self._pool is None:
                self._pool = ThreadPoolExecutor(
                    self._most, thread_name_prefix=f"cloche-{self._name}", initializer=_mark_ours
                )
            with _large_stacks():
                return self._pool.submit(self._run, function, *args)

    def close(self, *, wait: bool = True) -> None:
        """End the threads, each after what it runs; with `wait` only return then. Idempotent.

        What has not begun fails with UsageError (`usage.closed`): cancelled it would look as if its caller did that.
        """
        with self._lock:
            self._closed = True
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=wait)

    def _run(self, function: Callable[..., T], *args: Any) -> T:
        self._ensure_open()
        return function(*args)

    def _ensure_open(self) -> None:
        if self._closed:
            raise UsageError(f"plugin {self._name} is closed", code="usage.closed", plugin=self._name)

    def _begin_anew(self) -> None:
        """In a forked child, where none of the threads are."""
        self._lock, self._pool = threading.Lock(), None


def _forget_threads() -> None:
    """In a forked child the thread that forked is the main one, whatever it was before."""
    threads.__dict__.clear()


after_fork(threads, lambda _: _forget_threads())
