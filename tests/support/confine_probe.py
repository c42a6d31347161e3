"""Runs inside a confined child and tries what it must not be able to do."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import mmap
import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from cloche.confine import landlock, seccomp
from cloche.confine.level import offered

CLONE3, IO_URING_SETUP, PIDFD_OPEN, MEMFD_CREATE, EXECVEAT = 435, 425, 434, 319, 322
PROC_READ, UNSHARE, KEYCTL, BPF = 310, 272, 250, 321
LIMITS = sorted(name for name in dir(resource) if name.startswith("RLIMIT_"))


def prepare(arguments: list[str]) -> Callable[[], int]:
    """`probe` tries everything and reports; the other words each do one thing."""
    libc = ctypes.CDLL(None, use_errno=True)

    def call(number: int, *values: int) -> None:
        if libc.syscall(ctypes.c_long(number), *(ctypes.c_long(value) for value in values)) < 0:
            raise OSError(ctypes.get_errno(), "refused")

    def checked(result: int) -> None:
        if result < 0:
            raise OSError(ctypes.get_errno(), "refused")

    parent = os.getppid()
    attempts: dict[str, Callable[[], object]] = {
        "open": lambda: os.open("/etc/passwd", os.O_RDONLY),
        "create": lambda: os.open("/tmp/cloche-probe", os.O_CREAT | os.O_WRONLY),
        "listdir": lambda: list(Path("/").iterdir()),
        "mkdir": lambda: Path("/tmp/cloche-probe-directory").mkdir(),
        "tcp": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM),
        "udp": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
        "unix": lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM),
        "netlink": lambda: socket.socket(16, socket.SOCK_RAW),
        "fork": os.fork,
        "exec": lambda: os.execve("/bin/true", ["/bin/true"], {}),
        "exec-by-descriptor": lambda: call(EXECVEAT, 1, 0, 0, 0, 0x1000),
        "kill-parent": lambda: os.kill(parent, 0),
        "kill-self": lambda: os.kill(os.getpid(), 0),
        "signal-by-owner": lambda: fcntl.fcntl(1, fcntl.F_SETOWN, parent),
        "pidfd": lambda: call(PIDFD_OPEN, parent, 0),
        "ptrace": lambda: checked(libc.ptrace(16, parent, 0, 0)),
        "read-parent": lambda: call(PROC_READ, parent, 0, 0, 0, 0, 0),
        "memfd": lambda: call(MEMFD_CREATE, 0, 0),
        "unshare": lambda: call(UNSHARE, 0x10000000),
        "io-uring": lambda: call(IO_URING_SETUP, 8, 0),
        "bpf": lambda: call(BPF, 0, 0, 0),
        "keyctl": lambda: call(KEYCTL, 0, 0),
        "prctl": lambda: checked(libc.prctl(4, 1, 0, 0, 0)),
        "clone3": lambda: call(CLONE3, 0, 0),
        "raise-limit": lambda: resource.setrlimit(resource.RLIMIT_CPU, (5, 5)),
        "executable-memory": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC),
        "thread": _thread,
        "compute": lambda: sum(range(1000)),
    }

    def probe() -> int:
        results = {}
        for name, attempt in attempts.items():
            try:
                attempt()
                results[name] = "allowed"
            except OSError as error:
                results[name] = errno.errorcode.get(error.errno or 0, "?")
            except (RuntimeError, ValueError) as error:
                results[name] = str(error)
        os.write(1, json.dumps(results).encode())
        return 0

    def surroundings() -> int:
        # Found before the lock: the descriptors, environment and directory that a child starts with.
        os.write(1, json.dumps(found).encode())
        return 0

    def degraded() -> int:
        # Inside a filter neither Landlock nor another filter can be had: what a system without them looks like.
        level = offered()
        reached = [landlock.restrict(readable=["/"]), seccomp.restrict([seccomp.Group.COMPUTE])]
        os.write(1, json.dumps([level.word, reached]).encode())
        return 0

    def foreign_abi() -> int:
        libc.syscall(ctypes.c_long(0x40000000 | 39))
        return 0

    def spin() -> int:
        while True:
            pass

    def flood() -> int:
        while True:
            os.write(1, b"x" * 65536)

    def grow() -> int:
        held = []
        while True:
            held.append(bytearray(os.urandom(1 << 20)))

    def crash() -> int:
        os.abort()

    def hold() -> int:
        held = b"x" * (int(arguments[1]) << 20)
        os.write(1, b"holding")
        time.sleep(60)
        return len(held)

    def share() -> int:
        held = mmap.mmap(-1, int(arguments[1]) << 20)
        for position in range(0, len(held), mmap.PAGESIZE):
            held[position] = 1
        time.sleep(60)
        return 0

    def open_descriptors() -> int:
        found = []
        for number in range(resource.getrlimit(resource.RLIMIT_NOFILE)[0]):
            with contextlib.suppress(OSError):
                fcntl.fcntl(number, fcntl.F_GETFD)
                found.append(number)
        os.write(1, json.dumps(found).encode())
        return 0

    def status() -> int:
        os.write(1, os.pread(own_status, 1 << 16, 0))
        return 0

    if arguments[0] == "stubborn":
        signal.signal(signal.SIGXCPU, signal.SIG_IGN)
    own_status = os.open("/proc/self/status", os.O_RDONLY) if arguments[0] == "status" else -1
    found = {
        "environment": dict(os.environ),
        "directory": str(Path.cwd()),
        "descriptors": sorted(int(entry.name) for entry in Path("/proc/self/fd").iterdir()),
        "session": os.getsid(0) == os.getpid(),
        "limits": {name: resource.getrlimit(getattr(resource, name)) for name in LIMITS},
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "umask": os.umask(0o077),
        "mask": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
    }
    actions = {
        "probe": probe,
        "surroundings": surroundings,
        "degraded": degraded,
        "foreign-abi": foreign_abi,
        "spin": spin,
        "flood": flood,
        "grow": grow,
        "crash": crash,
        "hold": hold,
        "share": share,
        "descriptors": open_descriptors,
        "status": status,
        "stubborn": spin,
    }
    return actions[arguments[0]]


def _thread() -> None:
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()
