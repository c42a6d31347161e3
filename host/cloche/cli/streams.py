"""The standard streams of a command: always there, able to show any text, and with one clear error when they fail."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class OutputError(Exception):
    """A standard stream takes no more. No error of the command: it passes by all that would try to show it there."""


def open_missing() -> None:
    """Put `/dev/null` in the place of standard descriptors that were closed, before a file of ours takes the number."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number


@contextlib.contextmanager
def checked() -> Iterator[None]:
    """Standard output and standard error for one command.

    A character that their encoding lacks is written as an escape. What the system refuses to write (a full disk) is a
    OutputError, wherever in the command it comes up; a reader that went away stays a BrokenPipeError.
    Streams that somebody else put there are left alone.
    """
    with contextlib.ExitStack() as stack:
        if sys.stdout is sys.__stdout__:
            stack.enter_context(contextlib.redirect_stdout(_stream(sys.stdout, 1)))
        if sys.stderr is sys.__stderr__:
            stack.enter_context(contextlib.redirect_stderr(_stream(sys.stderr, 2)))
        yield


def silence(descriptor: int) -> None:
    """Send what is still buffered, and everything from now on, nowhere: it cannot be written, and nobody reads it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


class _Writer(io.FileIO):
    """A standard descriptor whose failures are errors of ours. It stays open."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise
            name = "standard output" if self.fileno() == 1 else "standard error"
            raise OutputError(f"{name} cannot be written: {error.strerror}") from error


def _stream(found: object, descriptor: int) -> io.TextIOWrapper:
    """A stream over `descriptor` that behaves as `found` does, which is None where it was closed."""
    old = found if isinstance(found, io.TextIOWrapper) else None
    if old is not None:
        old.flush()
    is_unbuffered = old is not None and old.write_through
    writer = _Writer(descriptor, "w", closefd=False)
    return io.TextIOWrapper(
        writer if is_unbuffered else io.BufferedWriter(writer),  # as the interpreter does
        encoding=old.encoding if old else "utf-8",
        errors="backslashreplace",
        line_buffering=descriptor == 2 or (old is not None and old.line_buffering),
        write_through=is_unbuffered,
    )
