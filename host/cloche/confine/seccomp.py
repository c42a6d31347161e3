"""A system-call filter, written by hand: what is not listed fails with EPERM.

An allow-list, because the kernel grows new calls. Each group says why it is there; `DENIED` names the calls that matter
and are in no group, with what they would open. Source: the kernel's Documentation/userspace-api/seccomp_filter.rst,
H30.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
from collections.abc import Iterable
from enum import StrEnum

from cloche.confine.syscalls import TABLES


class Group(StrEnum):
    """A set of system calls that belong together."""

    COMPUTE = "compute"
    THREADS = "threads"
    NATIVE_CODE = "native-code"
    OPEN_FILES = "open-files"
    WRITE_FILES = "write-files"
    MOVE_FILES = "move-files"
    EXECUTE = "execute"
    MESSAGES = "messages"
    EVENTS = "events"


# fmt: off
GROUPS: dict[Group, tuple[str, tuple[str, ...]]] = {
    # newfstatat is how some C libraries spell fstat; it tells whether a path exists, which Landlock leaves open too.
    Group.COMPUTE: ("memory, time, signals of its own, and descriptors that it was given", (
        "read", "write", "readv", "writev", "pread64", "pwrite64", "close", "fstat", "lseek", "ftruncate", "fcntl",
        "dup", "dup2", "dup3", "mmap", "munmap", "mprotect", "mremap", "madvise", "brk", "rt_sigaction",
        "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "futex", "sched_yield", "sched_getaffinity", "clock_gettime",
        "clock_getres", "clock_nanosleep", "nanosleep", "gettimeofday", "getrandom", "exit", "exit_group", "getpid",
        "getppid", "gettid", "getuid", "geteuid", "getgid", "getegid", "uname", "getrusage", "poll", "ppoll",
        "restart_syscall", "arch_prctl", "set_tid_address", "set_robust_list", "rseq", "membarrier", "tgkill",
        "prlimit64", "newfstatat", "sysinfo",
    )),
    Group.THREADS: ("threads in this process; never another process, never a namespace of its own", ("clone",)),
    Group.NATIVE_CODE: ("memory that holds compiled code (without it, mmap and mprotect refuse PROT_EXEC)", ()),
    Group.OPEN_FILES: ("open and list files that Landlock lets through", (
        "open", "openat", "access", "faccessat", "faccessat2", "stat", "lstat", "statx", "readlink", "readlinkat",
        "getdents64", "getcwd",
    )),
    Group.WRITE_FILES: ("make and remove files where Landlock lets it", (
        "mkdir", "mkdirat", "unlink", "unlinkat", "fsync", "fdatasync",
    )),
    # Not utimensat: Landlock does not look at it, so it would change times anywhere.
    Group.MOVE_FILES: ("append to, rename and link files where Landlock lets it", (
        "pwritev2", "renameat", "renameat2", "linkat", "symlinkat",
    )),
    Group.EXECUTE: ("become the program that Landlock lets be executed, once and for all", ("execve",)),
    Group.MESSAGES: ("talk over sockets that it was given; it cannot make or connect one", (
        "sendto", "recvfrom", "sendmsg", "recvmsg", "shutdown",
    )),
    Group.EVENTS: ("wait for descriptors, as the engine's timers do", (
        "epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait", "eventfd2", "pipe2",
    )),
}
"""Group: why it exists, and its calls."""

DENIED: tuple[tuple[tuple[str, ...], str], ...] = (
    (("socket", "socketpair", "connect", "bind", "listen", "accept4"), "network, also UDP, which Landlock leaves open"),
    (("fork", "vfork", "clone3"), "a process that outlives its limits (clone3 answers ENOSYS, so libraries use clone)"),
    (("execveat",), "another program"),
    (("kill", "tkill", "rt_sigqueueinfo", "pidfd_send_signal"), "signals to other processes"),
    (("ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd", "kcmp"), "memory and descriptors of others"),
    (("memfd_create", "userfaultfd", "shmget"), "memory outside the accounted one; kernel attack surface"),
    (("io_uring_setup", "io_uring_enter", "io_uring_register"), "system calls that no filter sees"),
    (("unshare", "setns", "mount", "pivot_root", "chroot"), "namespaces and mounts (clone takes no flag for them)"),
    (("bpf", "perf_event_open", "keyctl", "add_key", "request_key"), "kernel attack surface"),
    (("prctl", "personality", "seccomp", "ioctl"), "changing the terms of confinement; devices"),
    (("setuid", "setgid", "setresuid", "setgroups", "capset"), "other identities"),
)
"""Calls that no group holds, and what they would open. For people; the filter denies whatever is not allowed."""
# fmt: on

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32_BIT = 0x40000000
_CLONE_THREAD = 0x00010000
# What C libraries set when they start a thread: CLONE_VM, FS, FILES, SIGHAND, THREAD, SYSVSEM, SETTLS, PARENT_SETTID,
# CHILD_CLEARTID, DETACHED, CHILD_SETTID. Not CLONE_NEWUSER and its kind, which open namespaces, nor CLONE_PTRACE.
_CLONE_FLAGS = 0x017D0F00
_PROT_EXEC = 4
# F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC. Not F_SETOWN and F_SETSIG: together they are `kill`.
_FCNTL_COMMANDS = (0, 1, 2, 3, 4, 1030)

_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_EPERM, _ENOSYS = _ERRNO | errno.EPERM, _ERRNO | errno.ENOSYS
_LOAD, _EQUAL, _GREATER_OR_EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06

_SECCOMP_CALL = {"x86_64": 317, "aarch64": 277}
_SET_MODE_FILTER, _TO_ALL_THREADS = 1, 1
_SET_NO_NEW_PRIVS, _GET_SECCOMP, _SET_SECCOMP, _MODE_FILTER = 38, 21, 22, 2


class _Program(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def is_available() -> bool:
    """Whether this kernel takes a filter and we know this machine's system-call numbers. Never blocks. Added in 0.1."""
    if sys.platform != "linux" or os.uname().machine not in _ARCHITECTURES or struct.calcsize("P") != 8:
        return False
    return int(ctypes.CDLL(None).prctl(_GET_SECCOMP, 0, 0, 0, 0)) >= 0


def program(groups: Iterable[Group], machine: str, process: int) -> bytes:
    """The filter as BPF instructions (8 bytes each) for `machine` (`x86_64` or `aarch64`).

    `process` is the id of the process that will carry it: it may signal its own threads and nobody else. Pure.
    Raises: KeyError for a machine without a table. Added in 0.1.
    """
    wanted = frozenset(groups)
    numbers = TABLES[machine]
    code = [
        _instruction(_LOAD, 4),  # seccomp_data.arch
        _instruction(_EQUAL, _ARCHITECTURES[machine], 1, 0),
        _instruction(_RETURN, _KILL),
        _instruction(_LOAD, 0),  # seccomp_data.nr
    ]
    if machine == "x86_64":
        code += [_instruction(_GREATER_OR_EQUAL, _X32_BIT, 0, 1), _instruction(_RETURN, _KILL)]
    plain: list[str] = []
    for group in Group:
        if group in wanted:
            plain += [name for name in GROUPS[group][1] if name in numbers]
    checked = {
        "clone": _when_any_bit(0, ~_CLONE_FLAGS & 0xFFFFFFFF, _EPERM, None)
        + _when_any_bit(0, _CLONE_THREAD, _ALLOW, _EPERM),
        "fcntl": _when_one_of(1, _FCNTL_COMMANDS),
        "tgkill": _when_equal(0, process, _ALLOW, _EPERM),
        "prlimit64": _when_equal(0, 0, None, _EPERM)
        + _when_equal(2, 0, None, _EPERM)
        + [_instruction(_RETURN, _ALLOW)],
    }
    if Group.NATIVE_CODE not in wanted:
        checked["mmap"] = checked["mprotect"] = _when_any_bit(2, _PROT_EXEC, _EPERM, _ALLOW)
    for name in plain:
        block = checked.get(name, [_instruction(_RETURN, _ALLOW)])
        code += [_instruction(_EQUAL, numbers[name], 0, len(block)), *block]
    code += [_instruction(_EQUAL, numbers["clone3"], 0, 1), _instruction(_RETURN, _ENOSYS)]
    code.append(_instruction(_RETURN, _EPERM))
    return b"".join(code)


def set_no_new_privileges() -> None:
    """Never gain privileges by exec from here on, as Landlock and seccomp require. Raises: OSError. Added in 0.1."""
    _prctl(_SET_NO_NEW_PRIVS, 1)


def restrict(groups: Iterable[Group], *, all_threads: bool = False) -> bool:
    """Install the filter for this thread and all it starts later; the caller has set no_new_privs. Cannot be undone.

    With `all_threads` it holds for every thread of the process, or the kernel refuses.

    Returns: False where filters are not available. Raises: OSError when the kernel refuses. Added in 0.1.
    """
    if not is_available():
        return False
    code = program(groups, os.uname().machine, os.getpid())
    buffer = ctypes.create_string_buffer(code, len(code))
    filter_ = _Program(len(code) // 8, ctypes.addressof(buffer))
    if all_threads:
        _install_for_all(filter_)
    else:
        _prctl(_SET_SECCOMP, _MODE_FILTER, ctypes.byref(filter_))
    return True


def _install_for_all(filter_: _Program) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    number = ctypes.c_long(_SECCOMP_CALL[os.uname().machine])
    flags = ctypes.c_uint(_TO_ALL_THREADS)
    result = libc.syscall(number, ctypes.c_uint(_SET_MODE_FILTER), flags, ctypes.byref(filter_))
    if result > 0:
        raise OSError(errno.EACCES, f"seccomp: thread {result} cannot be filtered")
    if result < 0:
        raise OSError(ctypes.get_errno(), f"seccomp: {os.strerror(ctypes.get_errno())}")


def _instruction(code: int, value: int, when_true: int = 0, when_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, when_true, when_false, value)


def _load_argument(index: int, *, high: bool) -> bytes:
    return _instruction(_LOAD, 16 + 8 * index + (4 if high else 0))


def _when_any_bit(index: int, bits: int, then: int, otherwise: int | None) -> list[bytes]:
    """The lower half of the argument is looked at; `otherwise` None falls through to what follows."""
    block = [
        _load_argument(index, high=False),
        _instruction(_ANY_BIT, bits, 0, 1),
        _instruction(_RETURN, then),
    ]
    return block if otherwise is None else [*block, _instruction(_RETURN, otherwise)]


def _when_one_of(index: int, values: tuple[int, ...]) -> list[bytes]:
    block = [_load_argument(index, high=False)]
    for value in values:
        block += [_instruction(_EQUAL, value, 0, 1), _instruction(_RETURN, _ALLOW)]
    return [*block, _instruction(_RETURN, _EPERM)]


def _when_equal(index: int, value: int, then: int | None, otherwise: int) -> list[bytes]:
    """Both halves of the argument are compared; `then` None falls through to what follows."""
    block = [
        _load_argument(index, high=True),
        _instruction(_EQUAL, value >> 32, 1, 0),
        _instruction(_RETURN, otherwise),
        _load_argument(index, high=False),
        _instruction(_EQUAL, value & 0xFFFFFFFF, 1, 0),
        _instruction(_RETURN, otherwise),
    ]
    return block if then is None else [*block, _instruction(_RETURN, then)]


def _prctl(option: int, *arguments: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    values = [value if not isinstance(value, int) else ctypes.c_ulong(value) for value in arguments]
    values += [ctypes.c_ulong(0)] * (4 - len(values))
    if libc.prctl(ctypes.c_int(option), *values) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl: {os.strerror(number)}")
