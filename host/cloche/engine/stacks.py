"""Threads that are fit to run a guest, and the stack of the thread that asks.

Source: H12: a guest on a stack smaller than the wasm stack plus 512 KiB kills the process. A guest runs on its
caller's thread when that stack is large enough, else on one of ours.
"""

from __future__ import annotations

import ctypes
import resource
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from enum import IntEnum
from typing import Any, TypeVar

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


class Place(IntEnum):
    """What a thread is to a guest: too small a stack, good enough, or good enough and the main thread."""

    TOO_SMALL = 0
    FITS = 1
    MAIN = 2


class GuestThreads:
    """Runs calls on threads with a known stack; says whether the calling thread will do."""

    def __init__(self, wasm_stack_bytes: int, threads: int) -> None:
        self._needed = wasm_stack_bytes + HEADROOM_BYTES
        self.local = threading.local()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="cloche-guest", initializer=self._mark)
        self._spawn = threading.Lock()

    def _mark(self) -> None:
        self.local.place = Place.FITS

    def place(self) -> Place:
        """Where the calling thread stands; measured once per thread. `local.place` is the same once it is there."""
        fits = thread_stack_bytes() >= self._needed
        is_main = threading.current_thread() is threading.main_thread()
        found = self.local.place = (Place.MAIN if is_main else Place.FITS) if fits else Place.TOO_SMALL
        return found

    def submit(self, function: Callable[..., T], *args: Any) -> Future[T]:
        """Run `function(*args)` on one of our threads."""
        with self._spawn:  # the stack size is a setting of the whole process: set it only while a thread is made
            before = threading.stack_size(OWN_STACK_BYTES)
            try:
                return self._pool.submit(function, *args)
            finally:
                # Somebody else may have set it meanwhile; putting theirs back would leave all later threads with it.
                if threading.stack_size() == OWN_STACK_BYTES:
                    threading.stack_size(before)

    def close(self) -> None:
        """Wait for running calls and end the threads."""
        self._pool.shutdown(wait=True)
