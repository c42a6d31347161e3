"""Opening a path that cannot lead out of a directory, whatever stands in it.

From Linux 5.6 on the kernel guarantees it (`openat2` with RESOLVE_BENEATH and NO_MAGICLINKS). Where that call is
missing or filtered, the path is walked name by name, each opened with O_NOFOLLOW relative to the directory before it,
which gives the same guarantee.

An opener is strict unless it is made with `links`: a strict one follows no link and stays on one file system; with
`links` it follows relative links that stay below the directory, and mount points. An absolute link leads out, whatever
it names.
"""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path
from typing import Protocol

_SYS_OPENAT2 = 437  # the same number on every architecture that Linux added it to
_RESOLVE_NO_XDEV, _RESOLVE_NO_MAGICLINKS, _RESOLVE_NO_SYMLINKS, _RESOLVE_BENEATH = 0x01, 0x02, 0x04, 0x08
_RETRIES = 16  # openat2 answers EAGAIN when something was renamed while it looked
_MAX_LINKS = 40  # on one path, as the kernel has it

# O_NONBLOCK: opening a FIFO that somebody planted must not wait for its other end.
_ALWAYS = os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
# O_PATH, where there is one: a directory on the way need not be readable.
_DIRECTORY = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC


class Opener(Protocol):
    """Opens `names` below the directory `root` and returns a descriptor; never with O_PATH. Raises: OSError.

    What leads out of the directory is `EXDEV`, and so is another file system for a strict opener; a link where none is
    followed, and links in a circle, are `ELOOP`. No name is `.` or `..`.
    """

    def __call__(self, root: int, names: tuple[bytes, ...], flags: int, mode: int = 0o600) -> int:
        """A new descriptor, to be closed by the caller. `root` itself when there are no names."""


class _OpenHow(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


class KernelOpener:
    """An `Opener` that leaves the work to `openat2`."""

    def __init__(self, *, links: bool = False) -> None:
        strict = 0 if links else _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_XDEV
        self._resolve = _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS | strict
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
        how = _OpenHow(flags | _ALWAYS, mode if flags & os.O_CREAT else 0, self._resolve)
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

    def __init__(self, *, links: bool = False) -> None:
        self._links = links

    def __call__(self, root: int, names: tuple[bytes, ...], flags: int, mode: int = 0o600) -> int:
        """See `Opener`."""
        found = self._walk(root, names, flags, mode)
        try:
            if not self._links and os.fstat(found).st_dev != os.fstat(root).st_dev:
                raise _failure(errno.EXDEV)
        except BaseException:
            os.close(found)
            raise
        return found

    def _walk(self, root: int, names: tuple[bytes, ...], flags: int, mode: int) -> int:
        way = [os.open(".", _DIRECTORY, dir_fd=root)]  # a `..` in a link leads back along it, and no further
        left, followed = list(reversed(names)) or [b"."], 0
        try:
            while True:
                name = left.pop()
                if name == b"..":
                    if len(way) == 1:
                        raise _failure(errno.EXDEV)
                    os.close(way.pop())
                if name in (b"", b".", b".."):
                    if left:
                        continue
                    name = b"."
                wanted = _DIRECTORY if left else flags | _ALWAYS
                try:
                    found = os.open(name, wanted | os.O_NOFOLLOW, mode, dir_fd=way[-1])
                except OSError as error:
                    target = self._target(way[-1], name, error)
                    followed += 1
                    if followed > _MAX_LINKS:
                        raise _failure(errno.ELOOP) from None
                    left += reversed(target.split(b"/"))
                    continue
                if not left:
                    return found
                way.append(found)
        finally:
            for descriptor in way:
                os.close(descriptor)

    def _target(self, directory: int, name: bytes, error: OSError) -> bytes:
        """Where the link `name` leads, which could not be opened for being one. Raises: OSError for anything else."""
        if error.errno not in (errno.ELOOP, errno.ENOTDIR):  # ENOTDIR: a link, or a file, where a directory is wanted
            raise error
        try:
            target = os.readlink(name, dir_fd=directory)
        except OSError:
            raise error from None
        if not self._links:
            raise _failure(errno.ELOOP) from None
        if target.startswith(b"/"):
            raise _failure(errno.EXDEV) from None
        return target


def choose_opener(*, links: bool = False) -> Opener:
    """The kernel's way where it works, else walking. Tries it once on the root directory."""
    try:
        kernel = KernelOpener(links=links)
        probe = os.open("/", _DIRECTORY)
        try:
            os.close(kernel(probe, (), os.O_RDONLY | os.O_DIRECTORY))
        finally:
            os.close(probe)
    except (OSError, AttributeError):
        return WalkingOpener(links=links)
    return kernel


def open_inside(directory: Path, path: str) -> int:
    """A descriptor for reading what stands at the relative `path`; only links that stay inside are followed.

    Raises: OSError, as `Opener`.
    """
    root = os.open(directory, _DIRECTORY)
    try:
        return choose_opener(links=True)(root, tuple(os.fsencode(path).split(b"/")), os.O_RDONLY)
    finally:
        os.close(root)


def _failure(code: int) -> OSError:
    return OSError(code, os.strerror(code))
