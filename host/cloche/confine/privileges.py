"""What the kernel calls capabilities: the rights that root has and other users have not. A child keeps none.

A filter of system calls is no substitute: with these rights, calls that every program needs do more than they should.
Source: the manual page capabilities(7).
"""

from __future__ import annotations

import ctypes
import os
import sys

_VERSION_3 = 0x20080522
_OVER_FILES = (1, 2)  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH


class _Header(ctypes.Structure):
    """`struct __user_cap_header_struct`."""

    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _Sets(ctypes.Structure):
    """`struct __user_cap_data_struct`; there are two, for the rights 0 to 31 and 32 to 63."""

    _fields_ = [("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32)]


def drop(*, keep_files: bool) -> None:
    """Give up every right of root in this thread and all it starts later, for good: the caller has set no_new_privs.

    With `keep_files` it keeps the rights to pass over the owners and modes of files, without which root could not read
    what lies in another user's home: which files these are, Landlock decides. Raises: OSError when the kernel refuses.
    Added in 0.1.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header, found = _Header(_VERSION_3, 0), (_Sets * 2)()
    _checked(libc.capget(ctypes.byref(header), found))
    kept = sum(1 << number for number in _OVER_FILES) if keep_files else 0
    low = found[0].permitted & kept
    _checked(libc.capset(ctypes.byref(header), (_Sets * 2)(_Sets(low, low, 0), _Sets(0, 0, 0))))


def _checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"capabilities: {os.strerror(number)}")
