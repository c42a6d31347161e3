"""A worker whose native code is a stranger's: it is started and locked in like any other, and then does what it wants.

`echo(b"deed:NAME")` makes it do one of `DEEDS` in the middle of the call and answer with what came of it. Nothing is
imported late: the lock is on by then.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import resource
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from cloche.engine.instance import Instance
from cloche.worker import child

MARK = b"deed:"
LIBC = ctypes.CDLL(None, use_errno=True)
_kept: list[object] = []
_control: list[socket.socket] = []


def prepare(arguments: list[str]) -> Callable[[], int]:
    """As that of `cloche.worker.child`, with every instance's `call` changed."""
    run = child.prepare(arguments)
    honest = Instance.call
    adopted = child._Worker.__init__

    def call(self: Instance, export: Any, args: Sequence[object], *rest: Any) -> Any:
        value, usage = honest(self, export, args, *rest)
        if isinstance(value, bytes) and value.startswith(MARK):
            value = DEEDS[value.removeprefix(MARK).decode()]()
        return value, usage

    def started(self: Any, control: socket.socket, *rest: Any) -> None:
        _control.append(control)
        adopted(self, control, *rest)

    Instance.call = call  # type: ignore[method-assign, assignment]
    child._Worker.__init__ = started  # type: ignore[method-assign, assignment]
    return run


def _syscall(number: int, *arguments: object) -> Callable[[], object]:
    def attempt() -> None:
        if LIBC.syscall(number, *arguments) == -1:
            raise OSError(ctypes.get_errno(), "refused")

    return attempt


def _attempts() -> dict[str, Callable[[], object]]:
    parent, here = os.getppid(), os.getpid()
    area = ctypes.create_string_buffer(64)
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        numbered = {}
    else:
        numbered = {
            "read its parent's memory": _syscall(310, parent, area, 1, area, 1, 0),
            "write its parent's memory": _syscall(311, parent, area, 1, area, 1, 0),
            "trace its parent": _syscall(101, 16, parent, 0, 0),
            "make a ring": _syscall(425, 8, area),
            "load a filter into the kernel": _syscall(321, 0, area, 48),
            "read the kernel's keys": _syscall(250, 0, -1, 0),
            "watch performance": _syscall(298, area, 0, -1, -1, 0),
            "handle its own page faults": _syscall(323, 0),
            "open another's descriptors": _syscall(434, parent, 0),
            "mount a file system": _syscall(165, b"none", b"/tmp", b"tmpfs", 0, None),
            "leave its namespaces": _syscall(272, 0x10000000),
            "make a process": _syscall(57),
            "make a process by another call": _syscall(58),
            "become another user": _syscall(105, 0),
        }
    return {
        **numbered,
        "read a file": lambda: os.open("/etc/passwd", os.O_RDONLY),
        "read its parent's environment": lambda: os.open(f"/proc/{parent}/environ", os.O_RDONLY),
        "write a file": lambda: os.open("/tmp/cloche-taken-over", os.O_WRONLY | os.O_CREAT, 0o600),
        "make a directory": lambda: Path("/tmp/cloche-taken-over").mkdir(),
        "make a link": lambda: Path("/tmp/cloche-taken-over").symlink_to("/etc/passwd"),
        "make a pipe with a name": lambda: os.mkfifo("/tmp/cloche-taken-over"),
        "make a memory file": lambda: os.memfd_create("x"),
        "go to another directory": lambda: os.chdir("/"),
        "talk over TCP": lambda: socket.create_connection(("127.0.0.1", 1), 0.1),
        "talk over UDP": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", 53)),
        "talk to the kernel": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
        "signal its parent": lambda: os.kill(parent, 0),
        "signal everybody": lambda: os.kill(-1, 0),
        "fork": os.fork,
        "execute a program": lambda: os.execv("/bin/true", ["true"]),
        "execute a program beside itself": lambda: os.posix_spawn("/bin/true", ["true"], {}),
        "raise a limit": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (1 << 20, 1 << 20)),
        "raise another's limit": lambda: resource.prlimit(parent, resource.RLIMIT_NOFILE),
        "take a higher priority": lambda: os.setpriority(os.PRIO_PROCESS, here, -5),
    }


def _try_all() -> bytes:
    """What each attempt came to: the error's name, or that it worked."""
    found = {}
    for what, attempt in _attempts().items():
        try:
            attempt()
        except OSError as error:
            found[what] = errno.errorcode.get(error.errno or 0, "unknown")
        except ValueError:
            found[what] = "ValueError"  # a limit above the ceiling
        else:
            found[what] = "it worked"
    return json.dumps(found).encode()


def _crash() -> bytes:
    return ctypes.string_at(0)


def _flood(chunk: bytes) -> bytes:
    while True:
        os.write(2, chunk)


def _last_words() -> bytes:
    os.write(2, b"x" * 5_000 + b"\n\x1b[2J\x1b]0;evil\x07\xe2\x80\xae" + b"y" * 5_000)
    os.abort()


def _take_memory() -> bytes:
    """Shared memory, which no limit on a process's data counts."""
    while True:
        area = mmap.mmap(-1, 64 << 20)
        for at in range(0, len(area), 4096):
            area[at] = 1
        _kept.append(area)


def _take_data() -> bytes:
    """Memory of its own until there is none, and then silence."""
    try:
        while True:
            _kept.append(b"x" * (16 << 20))
    except MemoryError:
        time.sleep(60)
    return b""


def _take_threads() -> bytes:
    with suppress(RuntimeError, MemoryError):
        for _ in range(100_000):
            threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    return str(threading.active_count()).encode()


def _chatter() -> bytes:
    """Talks on the socket on which only the host has something to say."""
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        try:
            _control[0].send(b"x" * 60_000, socket.MSG_DONTWAIT)
        except BlockingIOError:
            time.sleep(0.001)
    return b"done"


def _hush() -> bytes:
    time.sleep(60)
    return b""


def _close_everything() -> bytes:
    os.closerange(0, 1024)
    return b""


def _sever() -> bytes:
    """Ends every connection and lives on."""
    os._exit = lambda _status: time.sleep(600)  # type: ignore[assignment, return-value]  # its main thread would go
    _control[0].shutdown(socket.SHUT_RDWR)
    for descriptor in range(3, 1024):
        with suppress(OSError):
            LIBC.shutdown(descriptor, 2)
    time.sleep(600)
    return b""


DEEDS: dict[str, Callable[[], bytes]] = {
    "try": _try_all,
    "crash": _crash,
    "abort": lambda: os.abort(),  # noqa: PLW0108 - it never returns
    "exit": lambda: os._exit(0),
    "flood": lambda: _flood(b"x" * 4096),
    "last-words": _last_words,
    "shared-memory": _take_memory,
    "data": _take_data,
    "threads": _take_threads,
    "chatter": _chatter,
    "hush": _hush,
    "close": _close_everything,
    "sever": _sever,
}
