"""Landlock by system call: from then on a process reaches only the files that were named, and no TCP port.

Source: the kernel's Documentation/userspace-api/landlock.rst. Numbers 444 to 446 are the same on every architecture.
Landlock does not cover UDP; seccomp closes that (H29).
"""

from __future__ import annotations

import ctypes
import os
import stat
import sys
from collections.abc import Iterable

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_GET_VERSION = 1
_RULE_PATH_BENEATH = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_TRUNCATE, _IOCTL_DEVICE = 1 << 14, 1 << 15
_ON_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEVICE
_READ = _READ_FILE | _READ_DIR

# ABI: number of file-system rights known to it. All known rights are handled, so all not granted are denied.
_RIGHTS_BY_ABI = ((5, 16), (3, 15), (2, 14), (1, 13))
_NET_SINCE_ABI, _NET_ALL = 4, 0b11
_SCOPES_SINCE_ABI, _SCOPES_ALL = 6, 0b11


class _Ruleset(ctypes.Structure):
    """`struct landlock_ruleset_attr`."""

    _fields_ = [("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64)]


class _PathBeneath(ctypes.Structure):
    """`struct landlock_path_beneath_attr`."""

    _pack_ = 1
    _layout_ = "ms"
    _fields_ = [("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32)]


def _syscall(number: int, *arguments: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    return int(libc.syscall(ctypes.c_long(number), *arguments))


def abi() -> int:
    """The Landlock version of this kernel; 0 where there is none. Never blocks. Added in 0.1."""
    if sys.platform != "linux":
        return 0
    return max(0, _syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_GET_VERSION)))


def restrict(*, readable: Iterable[str] = (), writable: Iterable[str] = (), executable: Iterable[str] = ()) -> int:
    """Lock this thread (and all it starts later) out of every file but the given ones, and out of TCP.

    `readable` may be read, `writable` also written and made below, `executable` read and executed. A directory stands
    for everything below it; what does not exist is left out. With ABI 6 signals and abstract sockets reach only
    processes that are locked in the same way. Cannot be undone; other threads that run already are not covered. Sets
    nothing else: the caller has set no_new_privs.

    Returns: the ABI used, or 0 when the kernel has no Landlock. Raises: OSError when the kernel refuses. Added in 0.1.
    """
    version = abi()
    if version == 0:
        return 0
    every = (1 << next(bits for least, bits in _RIGHTS_BY_ABI if version >= least)) - 1
    attributes = _Ruleset(
        every, _NET_ALL if version >= _NET_SINCE_ABI else 0, _SCOPES_ALL if version >= _SCOPES_SINCE_ABI else 0
    )
    size = 24 if version >= _SCOPES_SINCE_ABI else 16 if version >= _NET_SINCE_ABI else 8
    ruleset = _checked(_syscall(_CREATE_RULESET, ctypes.byref(attributes), ctypes.c_size_t(size), ctypes.c_uint32(0)))
    try:
        for paths, rights in ((readable, _READ), (writable, every & ~_EXECUTE), (executable, _READ | _EXECUTE)):
            for path in paths:
                _allow(ruleset, path, rights & every)
        _checked(_syscall(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0)))
    finally:
        os.close(ruleset)
    return version


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= _ON_FILES
        rule = _PathBeneath(rights, descriptor)
        _checked(
            _syscall(
                _ADD_RULE,
                ctypes.c_int(ruleset),
                ctypes.c_int(_RULE_PATH_BENEATH),
                ctypes.byref(rule),
                ctypes.c_uint32(0),
            )
        )
    finally:
        os.close(descriptor)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"Landlock: {os.strerror(number)}")
    return result
