"""Frames on a pair of pipes: two lengths, a message, a body. Both lengths are checked before anything is allocated.

Pipes, because the kernel passes small amounts over them in two thirds of the time that a socket takes.
"""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Sequence
from struct import Struct
from termios import FIONREAD

from cloche.worker.messages import MAX_MESSAGE_BYTES

HEAD = Struct("<II")
"""How a frame begins: the sizes of its message and of its body."""
FIRST_BYTES = 448
"""What the first read of a frame takes: most frames come whole, and so few bytes Python allocates in no time."""
MORE_BYTES = 64 * 1024
"""What further reads take, and the largest body that is joined with its message to be sent at once."""

_LENGTH = Struct("<I")
_read, _write = os.read, os.write
_COUNT = Struct("i")


class ChannelClosed(Exception):
    """The other end is gone."""


class FrameError(Exception):
    """Bytes that are no frame, or one that is larger than allowed."""


class Channel:
    """One end of a lane. Used by one thread at a time. It owns its descriptors: `close` it.

    Everything blocks until it is done or the other end is gone.
    """

    def __init__(self, inward: int, outward: int) -> None:
        self.inward, self.outward = inward, outward
        self.sent_bytes = 0
        """Bytes handed to the kernel since somebody set this to 0."""
        self._rest = b""

    def send(self, message: bytes, segments: Sequence[bytes | memoryview] = ()) -> None:
        """Send one frame. Raises: ChannelClosed."""
        size = sum(map(len, segments))
        head = HEAD.pack(len(message), size)
        if size <= MORE_BYTES:
            self.write(b"".join((head, message, *segments)))
            return
        self.write(head + message)
        for segment in segments:
            self.write(segment)

    def receive(self, most: int, data: bytes = b"") -> tuple[bytes, memoryview]:
        """The next frame's message and body, which has at most `most` bytes; `data` is what `read` gave of it.

        Raises: ChannelClosed, FrameError.
        """
        if not data:
            data, self._rest = self._rest or self.read(), b""
        while len(data) < HEAD.size:
            data += self.read(MORE_BYTES)
        message_size, body_size = HEAD.unpack_from(data)
        if message_size > MAX_MESSAGE_BYTES or body_size > most:
            raise FrameError(f"a frame of {message_size} and {body_size} bytes; {MAX_MESSAGE_BYTES} and {most} may be")
        end = HEAD.size + message_size
        while len(data) < end:
            data += self.read(MORE_BYTES)
        message, whole = data[HEAD.size : end], end + body_size
        if len(data) >= whole:
            self._rest = data[whole:]
            return message, memoryview(data)[end:whole]
        body = bytearray(body_size)
        view, at = memoryview(body), len(data) - end
        view[:at] = data[end:]
        while at < body_size:
            try:
                size = os.readv(self.inward, [view[at:]])
            except OSError as error:
                raise ChannelClosed from error
            if not size:
                raise ChannelClosed
            at += size
        return message, view.toreadonly()

    def read(self, most: int = FIRST_BYTES) -> bytes:
        """What is there, at least a byte and at most `most`. Raises: ChannelClosed."""
        try:
            data = _read(self.inward, most)
        except OSError as error:
            raise ChannelClosed from error
        if not data:
            raise ChannelClosed
        return data

    def write(self, data: bytes | memoryview) -> None:
        """All of it. Raises: ChannelClosed."""
        while True:
            try:
                sent = _write(self.outward, data)
            except OSError as error:
                raise ChannelClosed from error
            self.sent_bytes += sent
            if sent == len(data):
                return
            data = memoryview(data)[sent:]

    @property
    def has_more(self) -> bool:
        """Whether more than the last frame has been read."""
        return bool(self._rest)

    def ask(self, frame: bytes) -> bytes:
        """Write a small frame, the first since `sent_bytes` was 0, and read what comes next. Raises: ChannelClosed."""
        self.sent_bytes = 0
        try:
            sent = self.sent_bytes = _write(self.outward, frame)
            if sent != len(frame):
                self.write(memoryview(frame)[sent:])
            data = _read(self.inward, FIRST_BYTES)
        except OSError as error:
            raise ChannelClosed from error
        if not data:
            raise ChannelClosed
        return data

    def was_read(self) -> bool:
        """Whether the other end may have taken any of `sent_bytes`: it has not if the kernel says that all lie here."""
        try:
            unread = _COUNT.unpack(fcntl.ioctl(self.outward, FIONREAD, bytes(_COUNT.size)))[0]
        except OSError:
            return True
        return bool(unread != self.sent_bytes)

    def __del__(self) -> None:
        self.close()  # of a host that nobody closed

    def close(self) -> None:
        """Close this end. Idempotent."""
        inward, outward, self.inward, self.outward = self.inward, self.outward, -1, -1
        for descriptor in (inward, outward):
            if descriptor >= 0:
                os.close(descriptor)


def lane() -> tuple[Channel, list[int]]:
    """A new lane: the host's end, and the descriptors of the worker's, which the caller closes. Raises: OSError."""
    inward, theirs_out = os.pipe()
    try:
        theirs_in, outward = os.pipe()
    except OSError:
        os.close(inward)
        os.close(theirs_out)
        raise
    return Channel(inward, outward), [theirs_in, theirs_out]


def send_whole(end: socket.socket, data: bytes, descriptors: Sequence[int] = ()) -> None:
    """Send any amount of data with descriptors; `receive_whole` takes it. Raises: OSError."""
    socket.send_fds(end, [_LENGTH.pack(len(data))], list(descriptors))
    end.sendall(data)


def receive_whole(end: socket.socket, most_bytes: int, most_descriptors: int = 0) -> tuple[bytes, list[int]]:
    """What `send_whole` sent; `b""` when the other end is gone. Blocks. Raises: OSError, FrameError."""
    head, descriptors, _, _ = socket.recv_fds(end, _LENGTH.size, most_descriptors)
    if len(head) < _LENGTH.size:
        return b"", descriptors
    data, size = bytearray(), _LENGTH.unpack(head)[0]
    if size > most_bytes:
        raise FrameError(f"a message of {size} bytes; {most_bytes} may be")
    while len(data) < size:
        part = end.recv(min(size - len(data), 1 << 20))
        if not part:
            return b"", descriptors
        data += part
    return bytes(data), descriptors


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected stream sockets. Raises: OSError."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
