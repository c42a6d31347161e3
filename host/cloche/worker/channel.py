"""Frames on a stream socket: two lengths, a message, a body. Both lengths are checked before anything is allocated."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from struct import Struct
from typing import TypeVar

from cloche.worker.messages import MAX_MESSAGE_BYTES

T = TypeVar("T")

_HEAD = Struct("<II")
_LENGTH = Struct("<I")
_TIME = Struct("ll")
_FIRST_BYTES = 64 * 1024
"""What one read takes: most frames come whole."""
SLICE_S = 0.1
"""Longest that a read of the host blocks before it looks whether it should go on."""


class ChannelClosed(Exception):
    """The other end is gone."""


class FrameError(Exception):
    """Bytes that are no frame, or one that is larger than allowed."""


class Channel:
    """One end of a lane. Used by one thread at a time. `most` bounds the body of each frame that is received."""

    def __init__(self, end: socket.socket) -> None:
        self.socket = end
        self._rest = b""

    def send(
        self,
        message: bytes,
        segments: Sequence[bytes | memoryview] = (),
        look: Callable[[], None] | None = None,
    ) -> None:
        """Send one frame; blocks while the other end does not read. `look`: see `receive`. Raises: ChannelClosed."""
        size = sum(map(len, segments))
        head = _HEAD.pack(len(message), size) + message
        if size <= _FIRST_BYTES:
            self._send_all(b"".join((head, *segments)), look)
            return
        self._send_all(head, look)
        for segment in segments:
            self._send_all(segment, look)

    def receive(self, most: int, look: Callable[[], None] | None = None) -> tuple[bytes, memoryview]:
        """The next frame's message and body, which has at most `most` bytes.

        Blocks; `look` is called about every `SLICE_S` where the socket has a time limit, and stops the wait by raising.
        Raises: ChannelClosed, FrameError.
        """
        data, self._rest = self._rest, b""
        if not data:
            data = self._read(look)
        while len(data) < _HEAD.size:
            data += self._read_more(look)
        message_size, body_size = _HEAD.unpack_from(data)
        if message_size > MAX_MESSAGE_BYTES or body_size > most:
            raise FrameError(f"a frame of {message_size} and {body_size} bytes; {MAX_MESSAGE_BYTES} and {most} may be")
        end = _HEAD.size + message_size
        while len(data) < end:
            data += self._read_more(look)
        message, whole = data[_HEAD.size : end], end + body_size
        if len(data) >= whole:
            self._rest = data[whole:]
            return message, memoryview(data)[end:whole]
        body = bytearray(body_size)
        view, at = memoryview(body), len(data) - end
        view[:at] = data[end:]
        while at < body_size:
            if look is not None:
                look()
            at += self._read_into(view[at:], look)
        return message, view.toreadonly()

    def close(self) -> None:
        """Close this end. Idempotent."""
        self.socket.close()

    def _send_all(self, data: bytes | memoryview, look: Callable[[], None] | None) -> None:
        """All of it. An end that reads slowly, or not at all, keeps nobody from looking around."""
        try:
            sent = self.socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise ChannelClosed from error
        if sent == len(data):
            return
        rest = memoryview(data)[sent:]
        while rest:
            if look is not None:
                look()
            try:
                rest = rest[self.socket.send(rest) :]
            except BlockingIOError:
                continue
            except OSError as error:
                raise ChannelClosed from error

    def _read_more(self, look: Callable[[], None] | None) -> bytes:
        """Another piece of a frame. Looks around first: pieces may come one byte at a time."""
        if look is not None:
            look()
        return self._read(look)

    def _read(self, look: Callable[[], None] | None) -> bytes:
        return self._waiting(lambda: self.socket.recv(_FIRST_BYTES), look)

    def _read_into(self, view: memoryview, look: Callable[[], None] | None) -> int:
        return self._waiting(lambda: self.socket.recv_into(view), look)

    @staticmethod
    def _waiting(read: Callable[[], T], look: Callable[[], None] | None) -> T:
        """What `read` gives once there is something."""
        while True:
            try:
                found = read()
            except BlockingIOError:
                if look is not None:
                    look()
                continue
            except OSError as error:
                raise ChannelClosed from error
            if not found:
                raise ChannelClosed
            return found


def limit_waits(end: socket.socket) -> None:
    """Let reads and writes of a blocking socket give up after `SLICE_S`, so that who waits can look around."""
    seconds = int(SLICE_S)
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        end.setsockopt(socket.SOL_SOCKET, option, _TIME.pack(seconds, int((SLICE_S - seconds) * 1_000_000)))


def send_whole(end: socket.socket, data: bytes, descriptors: Sequence[int]) -> None:
    """Send any amount of data with descriptors; `receive_whole` takes it. Raises: OSError."""
    socket.send_fds(end, [_LENGTH.pack(len(data))], list(descriptors))
    end.sendall(data)


def receive_whole(end: socket.socket, most_descriptors: int) -> tuple[bytes, list[int]]:
    """What `send_whole` sent; `b""` when the other end is gone. Blocks. Raises: OSError."""
    head, descriptors, _, _ = socket.recv_fds(end, _LENGTH.size, most_descriptors)
    if not head:
        return b"", descriptors
    data, size = bytearray(), _LENGTH.unpack(head)[0]
    while len(data) < size:
        part = end.recv(min(size - len(data), 1 << 20))
        if not part:
            return b"", descriptors
        data += part
    return bytes(data), descriptors


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected stream sockets. Raises: OSError."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
