"""Frames on a stream socket: two lengths, a message, a body. Both lengths are checked before anything is allocated."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from struct import Struct

from cloche.worker.messages import MAX_MESSAGE_BYTES

_HEAD = Struct("<II")
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

    def send(self, message: bytes, segments: Sequence[bytes | memoryview] = ()) -> None:
        """Send one frame; blocks while the other end does not read. Raises: ChannelClosed."""
        size = sum(map(len, segments))
        try:
            if size <= _FIRST_BYTES:
                self.socket.sendall(b"".join((_HEAD.pack(len(message), size), message, *segments)))
                return
            self.socket.sendall(_HEAD.pack(len(message), size) + message)
            for segment in segments:
                self.socket.sendall(segment)
        except OSError as error:
            raise ChannelClosed from error

    def receive(self, most: int, look: Callable[[], None] | None = None) -> tuple[bytes, memoryview]:
        """The next frame's message and body, which has at most `most` bytes.

        Blocks; `look` is called about every `SLICE_S` where the socket has a time limit, and stops the wait by raising.
        Raises: ChannelClosed, FrameError.
        """
        data, self._rest = self._rest, b""
        while len(data) < _HEAD.size:
            data += self._read(look)
        message_size, body_size = _HEAD.unpack_from(data)
        if message_size > MAX_MESSAGE_BYTES or body_size > most:
            raise FrameError(f"a frame of {message_size} and {body_size} bytes; {MAX_MESSAGE_BYTES} and {most} may be")
        end = _HEAD.size + message_size
        while len(data) < end:
            data += self._read(look)
        message, whole = data[_HEAD.size : end], end + body_size
        if len(data) >= whole:
            self._rest = data[whole:]
            return message, memoryview(data)[end:whole]
        body = bytearray(body_size)
        view, at = memoryview(body), len(data) - end
        view[:at] = data[end:]
        while at < body_size:
            at += self._read_into(view[at:], look)
        return message, view.toreadonly()

    def close(self) -> None:
        """Close this end. Idempotent."""
        self.socket.close()

    def _read(self, look: Callable[[], None] | None) -> bytes:
        while True:
            try:
                data = self.socket.recv(_FIRST_BYTES)
            except BlockingIOError:
                if look is not None:
                    look()
                continue
            except OSError as error:
                raise ChannelClosed from error
            if not data:
                raise ChannelClosed
            return data

    def _read_into(self, view: memoryview, look: Callable[[], None] | None) -> int:
        while True:
            try:
                count = self.socket.recv_into(view)
            except BlockingIOError:
                if look is not None:
                    look()
                continue
            except OSError as error:
                raise ChannelClosed from error
            if not count:
                raise ChannelClosed
            return count


def limit_reads(end: socket.socket) -> None:
    """Let reads of a blocking socket give up after `SLICE_S`, so that whoever reads can look around."""
    seconds = int(SLICE_S)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIME.pack(seconds, int((SLICE_S - seconds) * 1_000_000)))


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected stream sockets. Raises: OSError."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
