"""Numbers, names, vectors and sections as WebAssembly writes them. Source: core specification, sections 5.1 to 5.5."""

from __future__ import annotations

from collections.abc import Sequence

U32_MAX = (1 << 32) - 1


def encode_u32(value: int) -> bytes:
    """`value` as the shortest unsigned LEB128.

    Raises: ValueError when it is not in 0 to 2^32 - 1 (the caller's mistake, never the guest's). Added in 0.1.
    """
    if not 0 <= value <= U32_MAX:
        raise ValueError(f"{value} is not an unsigned 32-bit number")
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode_index(value: int) -> bytes:
    """`value` as an LEB128 that reads the same as `u32` and as `s33`.

    Where a value type may be a primitive or an index, the index is an s33: 64 to 127 in one byte would be negative and
    mean a primitive (0x6b alone is `option`). Raises: ValueError as `encode_u32`. Added in 0.1.
    """
    if not 0 <= value <= U32_MAX:
        raise ValueError(f"{value} is not an unsigned 32-bit number")
    out = bytearray()
    while value > 0x3F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode_name(text: str) -> bytes:
    """`text` as UTF-8 with its length before it. Added in 0.1."""
    raw = text.encode()
    return encode_u32(len(raw)) + raw


def encode_vector(items: Sequence[bytes]) -> bytes:
    """`items`, each already encoded, with their number before them. Added in 0.1."""
    return encode_u32(len(items)) + b"".join(items)


def encode_section(number: int, contents: bytes) -> bytes:
    """A section of a component or a core module: its id, its size and its contents. Added in 0.1."""
    return bytes([number]) + encode_u32(len(contents)) + contents
