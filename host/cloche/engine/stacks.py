"""Threads that are fit to run a guest, and how much of its stack a thread still has for one.

Source: HAZARDS H12: a guest on a stack smaller than the wasm stack plus 512 KiB kills the process. A guest runs on its
caller's thread when what is left of that stack is large enough, else on one of ours. Each guest that waits in a host
function has the whole of its wasm stack set aside, because the engine grants it to every store anew.
"""

from __future__ import annotations

import ctypes
import resource
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from cloche.engine.forks import after_fork
from cloche.errors import UsageError
from cloche.model import KIB, MIB

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
        return threads.here  # type: ignore[no-any-return]
    except AttributeError:
        here = threads.here = ThisThread()
        return here


def _mark_ours() -> None:
    threads.here = ThisThread(is_ours=True)


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
        with self._lock:  # the stack size is a setting of the whole process: set it only while a thread is made
            if self._closed:
                raise UsageError(f"{self._name} is closed", code="usage.closed")
            if self._pool is None:
                self._pool = ThreadPoolExecutor(
                    self._most, thread_name_prefix=f"cloche-{self._name}", initializer=_mark_ours
                )
            before = threading.stack_size(OWN_STACK_BYTES)
            try:
                return self._pool.submit(function, *args)
            finally:
                # Somebody else may have set it meanwhile; putting theirs back would leave all later threads with it.
                if threading.stack_size() == OWN_STACK_BYTES:
                    threading.stack_size(before)

    def close(self, *, wait: bool = True) -> None:
        """End the threads, each after what it runs; with `wait` only return then. Idempotent."""
        with self._lock:
            self._closed = True
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=wait, cancel_futures=True)

    def _begin_anew(self) -> None:
        """In a forked child, where none of the threads are."""
        self._lock, self._pool = threading.Lock(), None


def _forget_threads() -> None:
    """In a forked child the thread that forked is the main one, whatever it was before."""
    threads.__dict__.clear()


after_fork(threads, lambda _: _forget_threads())
