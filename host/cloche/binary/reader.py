"""A bounded cursor over immutable bytes: each read is checked, each failure names the offset and what was expected."""

from __future__ import annotations

from typing import NoReturn

from cloche.errors import ContractError

Buffer = bytes | memoryview
"""Bytes of a component. A memoryview must be one-dimensional, of format `B`, over memory that nobody writes to."""


def malformed(offset: int, expected: str, found: str) -> NoReturn:
    """Raise `component.malformed` for the byte at `offset` of the file. Added in 0.1."""
    raise ContractError(
        f"The component is malformed at byte {offset}: expected {expected}, found {found}. "
        "Build it again; `wasm-tools validate` shows more.",
        code="component.malformed",
    )


class Reader:
    """Reads `data` from `start` to `end`, never past `end`. `pos` is the next byte's offset in the whole file.

    Never recurses and copies only names. Every method raises ContractError (`component.malformed`) when the bytes are
    not what it reads. Added in 0.1.
    """

    __slots__ = ("data", "end", "pos")

    def __init__(self, data: Buffer, start: int = 0, end: int | None = None) -> None:
        self.data = data
        self.pos = start
        self.end = len(data) if end is None else end
        if not 0 <= start <= self.end <= len(data):
            raise ValueError(f"span {start} to {self.end} is not inside {len(data)} bytes")

    @property
    def left(self) -> int:
        """How many bytes are still unread."""
        return self.end - self.pos

    def byte(self, expected: str = "a byte") -> int:
        """The next byte."""
        pos = self.pos
        if pos >= self.end:
            malformed(pos, expected, "the end")
        self.pos = pos + 1
        return self.data[pos]

    def u32(self, expected: str = "an unsigned number") -> int:
        """An unsigned LEB128 number of at most 32 bits in at most 5 bytes."""
        pos = self.pos
        if pos < self.end and (first := self.data[pos]) < 0x80:  # nine in ten numbers take one byte
            self.pos = pos + 1
            return first
        return self._unsigned(32, expected)

    def u64(self, expected: str = "an unsigned number") -> int:
        """An unsigned LEB128 number of at most 64 bits in at most 10 bytes."""
        return self._unsigned(64, expected)

    def _unsigned(self, bits: int, expected: str) -> int:
        pos, end, data = self.pos, self.end, self.data
        value = shift = 0
        while True:
            if pos >= end:
                malformed(pos, expected, "the end")
            byte = data[pos]
            value |= (byte & 0x7F) << shift
            pos += 1
            if byte < 0x80:
                break
            shift += 7
            if shift >= bits:
                malformed(self.pos, f"{expected} of at most {bits} bits", "a longer one")
        if value >> bits:
            malformed(self.pos, f"{expected} of at most {bits} bits", f"{value}")
        self.pos = pos
        return value

    def s33(self, expected: str = "a signed number") -> int:
        """A signed LEB128 number of 33 bits in at most 5 bytes: a type index, or negative for a built-in type."""
        start = self.pos
        value = shift = 0
        while True:
            byte = self.byte(expected)
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
            if shift >= 33:
                malformed(start, f"{expected} of at most 33 bits", "a longer one")
        if byte & 0x40:
            value -= 1 << shift
        if not -(1 << 32) <= value < 1 << 32:
            malformed(start, f"{expected} of at most 33 bits", f"{value}")
        return value

    def count(self, expected: str, least_bytes: int = 1) -> int:
        """The length of a vector of items of at least `least_bytes` bytes each; refused when they cannot fit."""
        start = self.pos
        number = self.u32(f"the number of {expected}")
        if number * least_bytes > self.end - self.pos:
            malformed(start, f"at most {self.left // least_bytes} {expected} in {self.left} bytes", f"{number}")
        return number

    def skip(self, size: int, expected: str) -> None:
        """Pass over `size` bytes without reading them."""
        if size > self.end - self.pos:
            malformed(self.pos, f"{size} bytes of {expected}", f"{self.left} bytes")
        self.pos += size

    def skip_name(self, expected: str = "a name") -> None:
        """Pass over a name without decoding it."""
        self.skip(self.u32(f"the length of {expected}"), expected)

    def name(self, expected: str = "a name") -> str:
        """A name: its length in bytes, then UTF-8 without surrogates."""
        size = self.u32(f"the length of {expected}")
        start = self.pos
        self.skip(size, expected)
        try:
            return str(self.data[start : self.pos], "utf-8")
        except UnicodeDecodeError as error:
            malformed(start + error.start, f"{expected} in UTF-8", f"byte 0x{self.data[start + error.start]:02x}")

    def ensure_at_end(self, of: str) -> None:
        """Refuse bytes that are left over."""
        if self.pos != self.end:
            malformed(self.pos, f"the end of {of}", f"{self.left} more bytes")
