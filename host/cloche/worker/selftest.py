"""What a worker tries once it is locked in: each of these must fail, or the lock does not hold."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
from collections.abc import Callable


def leaks(*, has_files: bool) -> list[str]:
    """The things that worked although they must not; empty when the lock holds. Never blocks. Added in 0.1."""
    return [what for what, attempt in _attempts(has_files) if _works(attempt)]


def _attempts(has_files: bool) -> list[tuple[str, Callable[[], object]]]:
    libc = ctypes.CDLL(None, use_errno=True)

    def call(name: str, *arguments: object) -> Callable[[], object]:
        def attempt() -> None:
            if getattr(libc, name)(*arguments) == -1:
                raise OSError(ctypes.get_errno(), name)

        return attempt

    return [
        ("read a file of the system", lambda: os.open("/etc/passwd", os.O_RDONLY)),
        ("list the root directory", lambda: os.listdir("/")),  # noqa: PTH208 - the call itself is what is tried
        ("make a TCP socket", lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM)),
        ("make a UDP socket", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)),
        ("make a local socket", lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)),
        ("signal its parent", lambda: os.kill(os.getppid(), 0)),
        ("signal itself as others would", lambda: os.kill(os.getpid(), signal.SIGWINCH)),
        ("trace a process", call("ptrace", 16, os.getppid(), 0, 0)),
        ("make a memory file", lambda: os.memfd_create("x")),
        ("leave its namespaces", call("unshare", 0x10000000)),
        ("execute a program", lambda: os.execv("/bin/true", ["true"])),  # noqa: S606 - it must fail
        ("change its directory's root", call("chroot", b"/")),
        *([] if has_files else [("make a directory", lambda: os.mkdir("/tmp/cloche-selftest"))]),  # noqa: S108, PTH102
    ]


def _works(attempt: Callable[[], object]) -> bool:
    with contextlib.suppress(OSError):
        attempt()
        return True
    return False
