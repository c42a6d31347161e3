"""Captures what a guest writes to stdout and stderr, under a quota.

Source: H20. The engine's callback must take every byte offered and never fail; what is over the quota is
counted and dropped.
"""

from __future__ import annotations

STREAMS = ("stdout", "stderr")

TAIL_BYTES = 16 * 1024
"""The newest bytes of stderr that are kept beyond the quota, so that a flood cannot hide the traceback."""


class Output:
    """Both output streams of one instance, per call. Not thread-safe: the instance's call owns it.

    `is_used` is set once the guest writes, so that a silent call costs nothing here.
    """

    __slots__ = ("_kept", "_left", "_lost", "_tail", "is_used", "limit")

    def __init__(self, limit_bytes: int) -> None:
        self.begin(limit_bytes)

    def begin(self, limit_bytes: int) -> None:
        """Start a call with a fresh quota."""
        self.limit = self._left = limit_bytes
        # One buffer each: a list of writes would cost a hundred times the bytes when a guest writes them one by one.
        self._kept = (bytearray(), bytearray())
        self._lost = [0, 0]
        self._tail = bytearray()
        self.is_used = False

    @property
    def dropped(self) -> int:
        """Bytes over the quota, of both streams."""
        return sum(self._lost)

    def write(self, stream: int, data: bytes) -> None:
        """Take `data` written to `STREAMS[stream]`."""
        self.is_used = True
        if stream == 1:
            self._tail += data[-TAIL_BYTES:]
            if len(self._tail) > 2 * TAIL_BYTES:
                del self._tail[:-TAIL_BYTES]
        kept = data[: self._left]
        self._left -= len(kept)
        self._lost[stream] += len(data) - len(kept)
        self._kept[stream].extend(kept)

    def taken(self) -> tuple[tuple[bytes, bytes], tuple[int, int]]:
        """What both streams received and what was dropped of each, in bytes; then as after `begin`."""
        kept, lost = self._kept, self._lost
        self.begin(self.limit)
        return (bytes(kept[0]), bytes(kept[1])), (lost[0], lost[1])

    def add(self, stream: int, data: bytes, lost: int) -> None:
        """Take over what a worker kept of a stream, and how much it dropped."""
        if data or lost:
            self.write(stream, data)
            self._lost[stream] += lost

    def text(self, stream: int) -> str:
        """What one stream received in this call, decoded; marked where the quota cut it."""
        text = self._kept[stream].decode("utf-8", "replace")
        if self._lost[stream]:
            text += f"\n[truncated: {self._lost[stream]} bytes over the output limit of {self.limit} bytes]\n"
        return text

    def stderr_tail(self) -> str:
        """The newest part of stderr, kept also past the quota."""
        return self._tail[-TAIL_BYTES:].decode("utf-8", "replace")
