"""Opening a path that cannot lead out of a directory, whatever stands in it.

From Linux 5.6 on the kernel guarantees it (`openat2` with RESOLVE_BENEATH, NO_SYMLINKS, NO_MAGICLINKS and NO_XDEV).
Where that call is missing or filtered, the path is walked name by name, each opened with O_NOFOLLOW relative to the
directory before it, which gives the same guarantee for names that are already checked to be neither `.` nor `..`.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from typing import Protocol

_SYS_OPENAT2 = 437  # the same number on every architecture that Linux added it to
_RESOLVE_NO_XDEV, _RESOLVE_NO_MAGICLINKS, _RESOLVE_NO_SYMLINKS, _RESOLVE_BENEATH = 0x01, 0x02, 0x04, 0x08
_RESOLVE = _RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_MAGICLINKS | _RESOLVE_NO_XDEV
_RETRIES = 16  # openat2 answers EAGAIN when something was renamed while it looked

# O_NONBLOCK: opening a FIFO that somebody planted must not wait for its other end.
_ALWAYS = os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


class Opener(Protocol):
    """Opens `names` below the directory `root` and returns a descriptor; never with O_PATH. Raises: OSError."""

    def __call__(self, root: int, names: tuple[bytes, ...], flags: int, mode: int = 0o600) -> int:
        """A new descriptor, to be closed by the caller. `root` itself when there are no names."""


class _OpenHow(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


class KernelOpener:
    """An `Opener` that leaves the work to `openat2`."""

    def __init__(self) -> None:
        self._syscall = ctypes.CDLL(None, use_errno=True).syscall
        self._syscall.restype = ctypes.c_long
        self._syscall.argtypes = [
            ctypes.c_long,
            ctypes.c_int,
            ctypes.c_char_p,
            ctypes.POINTER(_OpenHow),
            ctypes.c_size_t,
        ]

    def __call__(self, root: int, names: tuple[bytes, ...], flags: int, mode: int = 0o600) -> int:
        """See `Opener`."""
        how = _OpenHow(flags | _ALWAYS, mode if flags & os.O_CREAT else 0, _RESOLVE)
        path = b"/".join(names) or b"."
        for _ in range(_RETRIES):
            descriptor = int(self._syscall(_SYS_OPENAT2, root, path, ctypes.byref(how), ctypes.sizeof(how)))
            if descriptor >= 0:
                return descriptor
            code = ctypes.get_errno()
            if code not in (errno.EAGAIN, errno.EINTR):
                break
        raise OSError(code, os.strerror(code))


class WalkingOpener:
    """An `Opener` that walks name by name."""

    def __call__(self, root: int, names: tuple[bytes, ...], flags: int, mode: int = 0o600) -> int:
        """See `Opener`."""
        device = os.fstat(root).st_dev
        current = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root)
        try:
            for name in names[:-1]:
                below = self._step(current, name, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, 0)
                os.close(current)
                current = below
            last = self._step(current, names[-1] if names else b".", flags | _ALWAYS, mode)
        finally:
            os.close(current)
        try:
            if os.fstat(last).st_dev != device:
                raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        except BaseException:
            os.close(last)
            raise
        return last

    @staticmethod
    def _step(current: int, name: bytes, flags: int, mode: int) -> int:
        try:
            return os.open(name, flags | os.O_NOFOLLOW, mode, dir_fd=current)
        except NotADirectoryError:
            # A link where a directory is wanted: say so as openat2 does.
            if stat.S_ISLNK(os.stat(name, dir_fd=current, follow_symlinks=False).st_mode):
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP)) from None
            raise


def choose_opener() -> Opener:
    """The kernel's way where it works, else walking. Tries it once on the root directory."""
    try:
        kernel = KernelOpener()
        probe = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.close(kernel(probe, (), os.O_RDONLY | os.O_DIRECTORY))
        finally:
            os.close(probe)
    except (OSError, AttributeError):
        return WalkingOpener()
    return kernel
