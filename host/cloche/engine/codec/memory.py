"""Raw memory of this process as one buffer, and the two places where engine values are built.

The engine's values are reached by absolute address. `MEMORY` makes `struct` and numpy work on them in place, which
costs half of what a ctypes copy does; the addresses come from the engine or from an `Arena`, never from a guest. No
other module of the project reads or writes by address.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from struct import Struct
from typing import TYPE_CHECKING, Any, Protocol

from cloche.engine.codec.problem import TooLarge
from cloche.engine.ffi import VAL_BYTES, Library
from cloche.frozen import dataclass
from cloche.lazy_numpy import is_at_hand

if TYPE_CHECKING:
    import numpy as np
else:
    from cloche import lazy_numpy as np

MEMORY = memoryview((ctypes.c_ubyte * (1 << 56)).from_address(0)).cast("B")
"""The address space. Only slices, `struct` calls with an offset and numpy views of known extent are ever made of it."""

_NUMPY_BASE = 4096  # numpy takes a buffer at address 0 for none at all and would allocate
_NUMPY_SPACE = MEMORY[_NUMPY_BASE:]

ENTRY_BYTES = 48
"""One field of a record: the name's vector (16 bytes) and the value (32 bytes)."""
VECTOR_BYTES = 16
"""A vector: size and address."""
PAIR_BYTES = 2 * VAL_BYTES
"""One entry of a map."""

SMALL_LIST = 64
"""Up to here a list's columns are quicker to reach without numpy, in items."""

VECTOR = Struct("<QQ")
ADDRESS = Struct("<Q")
_NOTHING = ctypes.create_string_buffer(VAL_BYTES)
_NOTHING_AT = ctypes.addressof(_NOTHING)
_PIECE = 2048
"""Bytes that become engine values, or are read from them, at a time: those of one piece stay near the processor. More
are a third quicker with numpy, where it can be had."""

FIRST_CHUNK_BYTES = 4096
"""What an arena keeps between calls; enough for small arguments."""
NEXT_CHUNK_BYTES = 256 * 1024
"""Least size of a further chunk, given back after the call."""
MAX_ARGUMENT_BYTES = 1 << 31
"""Most memory for the engine values of one call's arguments: 32 bytes for each element of a list, whatever its size
(H7). So 64 MiB of `list<u8>`, the default limit on arguments, just fit; the engine's own copy comes on top."""
MAX_RESULT_BYTES = 1 << 30
"""The same for one result of a host function. A guest asks for those: 16 MiB of bytes, the most that the capabilities
of ours give at once, take half of it."""


@dataclass(frozen=True, slots=True)
class Names:
    """UTF-8 names at fixed addresses: of a record's fields, an enum's or variant's cases, or flags.

    `vectors` holds (length, address) of each; `template` is a record's entry table with the names in place; `size` is
    that of all texts together, in bytes.
    """

    texts: tuple[bytes, ...]
    vectors: tuple[tuple[int, int], ...]
    index: dict[bytes, int]
    template: bytes
    size: int
    keep: object


def names_at(names: tuple[str, ...]) -> Names:
    """Place `names` in memory that stays alive with the result."""
    texts = tuple(name.encode() for name in names)
    keep = ctypes.create_string_buffer(b"".join(texts))
    at = ctypes.addressof(keep)
    vectors = []
    for text in texts:
        vectors.append((len(text), at))
        at += len(text)
    template = b"".join(VECTOR.pack(*vector) + bytes(VAL_BYTES) for vector in vectors)
    index = {text: number for number, text in enumerate(texts)}
    return Names(texts, tuple(vectors), index, template, sum(map(len, texts)), keep)


class Place(Protocol):
    """Where a value's parts are put. Each method writes the vector at `at` and returns the address of its contents."""

    def text(self, at: int, data: bytes) -> None:
        """A byte vector with a copy of `data`."""

    def name(self, at: int, names: Names, index: int) -> None:
        """A byte vector with one of `names`."""

    def values(self, at: int, count: int, is_list: bool) -> int:
        """A list's or tuple's values."""

    def entries(self, at: int, names: Names) -> int:
        """A record's entries, the names in place."""

    def set_of(self, at: int, names: Names, bits: int) -> None:
        """A vector of the names whose bit is set."""

    def pairs(self, at: int, count: int) -> int:
        """A map's entries."""

    def box(self, at: int) -> int:
        """One value behind a pointer, which is written at `at`."""


class _Chunk:
    """Some memory of ours, which is not cleared first."""

    __slots__ = ("at",)

    def __init__(self, size: int) -> None:
        self.at: int = _allocate(size) or 0
        if not self.at:
            raise MemoryError(f"there are no {size} bytes of memory for the arguments of a call")

    def __del__(self) -> None:
        _free(self.at)


_allocate, _free = ctypes.pythonapi.PyMem_RawMalloc, ctypes.pythonapi.PyMem_RawFree
_allocate.restype, _allocate.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)
_free.restype, _free.argtypes = None, (ctypes.c_void_p,)


class Arena:
    """Our memory for arguments, which the engine only reads. Each call reuses it; nothing is freed piece by piece."""

    __slots__ = ("_chunks", "_end", "_held", "_next", "_own", "_start", "first")

    def __init__(self, reserved: int) -> None:
        self._own = ctypes.create_string_buffer(reserved + FIRST_CHUNK_BYTES)
        self._chunks: list[_Chunk] = []
        self._held = 0
        self.first = ctypes.addressof(self._own)
        self._start = self._next = self.first + reserved
        self._end = self.first + len(self._own)

    def reset(self) -> None:
        """Forget everything; give larger chunks back."""
        if self._held:
            self._chunks.clear()
            self._held = 0
            self._end = self.first + len(self._own)
        self._next = self._start

    def reserve(self, size: int) -> int:
        """The address of `size` fresh bytes, aligned to 8; their contents are undefined. Raises: TooLarge."""
        at = self._next
        end = at + (size + 7 & ~7)
        if end <= self._end:
            self._next = end
            return at
        length = max(size + 7 & ~7, NEXT_CHUNK_BYTES)
        if self._held + length > MAX_ARGUMENT_BYTES:
            raise _too_many_values(MAX_ARGUMENT_BYTES)
        chunk = _Chunk(length)
        self._chunks.append(chunk)
        self._held += length
        at = chunk.at
        self._next = at + (size + 7 & ~7)
        self._end = at + length
        return at

    def text(self, at: int, data: bytes) -> None:
        """See `Place`."""
        size = len(data)
        to = self._next
        end = to + size + 7 & ~7
        if end <= self._end:  # `reserve`, spelled out: most calls carry a string
            self._next = end
        else:
            to = self.reserve(size)
        MEMORY[to : to + size] = data
        VECTOR.pack_into(MEMORY, at, size, to)

    def name(self, at: int, names: Names, index: int) -> None:
        """See `Place`; the name stays where the plan keeps it."""
        VECTOR.pack_into(MEMORY, at, *names.vectors[index])

    def values(self, at: int, count: int, is_list: bool) -> int:  # noqa: ARG002 - same layout for both
        """See `Place`."""
        to = self.reserve(count * VAL_BYTES)
        VECTOR.pack_into(MEMORY, at, count, to)
        return to

    def entries(self, at: int, names: Names) -> int:
        """See `Place`."""
        size = len(names.template)
        to = self.reserve(size)
        MEMORY[to : to + size] = names.template
        VECTOR.pack_into(MEMORY, at, len(names.texts), to)
        return to

    def set_of(self, at: int, names: Names, bits: int) -> None:
        """See `Place`."""
        chosen = [vector for bit, vector in enumerate(names.vectors) if bits >> bit & 1]
        to = self.reserve(len(chosen) * VECTOR_BYTES)
        VECTOR.pack_into(MEMORY, at, len(chosen), to)
        for vector in chosen:
            VECTOR.pack_into(MEMORY, to, *vector)
            to += VECTOR_BYTES

    def pairs(self, at: int, count: int) -> int:
        """See `Place`."""
        to = self.reserve(count * PAIR_BYTES)
        VECTOR.pack_into(MEMORY, at, count, to)
        return to

    def box(self, at: int) -> int:
        """See `Place`."""
        to = self.reserve(VAL_BYTES)
        ADDRESS.pack_into(MEMORY, at, to)
        return to


class EngineMemory:
    """Memory of the engine's for one result, which it takes over and frees. Everything is zeroed before it is filled.

    A zeroed value is a bool and owns nothing, so a tree that was left half built can be deleted like a whole one.
    """

    __slots__ = ("_left", "_lib")

    def __init__(self, lib: Library) -> None:
        self._lib = lib
        self._left = MAX_RESULT_BYTES

    def text(self, at: int, data: bytes) -> None:
        """See `Place`."""
        self._lib.wasm_byte_vec_new(at, len(data), data)

    def name(self, at: int, names: Names, index: int) -> None:
        """See `Place`."""
        size, address = names.vectors[index]
        self._take(size)
        self._lib.wasm_byte_vec_new(at, size, address)

    def values(self, at: int, count: int, is_list: bool) -> int:
        """See `Place`."""
        lib = self._lib
        make = lib.wasmtime_component_vallist_new_uninit if is_list else lib.wasmtime_component_valtuple_new_uninit
        return self._made(make, at, count, VAL_BYTES)

    def entries(self, at: int, names: Names) -> int:
        """See `Place`."""
        self._take(names.size)
        to = entry = self._made(self._lib.wasmtime_component_valrecord_new_uninit, at, len(names.texts), ENTRY_BYTES)
        for vector in names.vectors:
            self._lib.wasm_byte_vec_new(entry, *vector)
            entry += ENTRY_BYTES
        return to

    def set_of(self, at: int, names: Names, bits: int) -> None:
        """See `Place`."""
        chosen = [vector for bit, vector in enumerate(names.vectors) if bits >> bit & 1]
        self._take(names.size)
        to = self._made(self._lib.wasmtime_component_valflags_new_uninit, at, len(chosen), VECTOR_BYTES)
        for vector in chosen:
            self._lib.wasm_byte_vec_new(to, *vector)
            to += VECTOR_BYTES

    def pairs(self, at: int, count: int) -> int:
        """See `Place`."""
        return self._made(self._lib.wasmtime_component_valmap_new_uninit, at, count, PAIR_BYTES)

    def box(self, at: int) -> int:
        """See `Place`."""
        self._take(VAL_BYTES)
        to = int(self._lib.wasmtime_component_val_new(_NOTHING_AT))
        ADDRESS.pack_into(MEMORY, at, to)
        return to

    def _made(self, make: Any, at: int, count: int, width: int) -> int:
        self._take(count * width)
        make(at, count)
        to: int = ADDRESS.unpack_from(MEMORY, at + 8)[0]
        if count:
            ctypes.memset(to, 0, count * width)
        return to

    def _take(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise _too_many_values(MAX_RESULT_BYTES)


def _too_many_values(most: int) -> TooLarge:
    return TooLarge(
        f"the values need more than the {most} bytes of the host's memory that one call may take, {VAL_BYTES} for each "
        f"list element and more; hand them over in pieces, or bytes as a string"
    )


def view(at: int, count: int, stride: int, dtype: np.dtype[Any]) -> np.ndarray[Any, np.dtype[Any]]:
    """`count` items of `dtype` from address `at`, `stride` bytes apart, in place."""
    return np.ndarray((count,), dtype, _NUMPY_SPACE, at - _NUMPY_BASE, (stride,))


def set_kinds(at: int, count: int, kind: int) -> None:
    """Write the kind of `count` values that stand from address `at`."""
    if count <= SMALL_LIST:
        MEMORY[at : at + count * VAL_BYTES : VAL_BYTES] = bytes((kind,)) * count
    else:
        view(at, count, VAL_BYTES, np.dtype("u1"))[:] = kind


def kinds_are(at: int, count: int, kind: int) -> bool:
    """Whether all `count` values from address `at` have that kind."""
    if count <= SMALL_LIST:
        return MEMORY[at : at + count * VAL_BYTES : VAL_BYTES].tobytes().count(kind) == count
    return not (view(at, count, VAL_BYTES, np.dtype("u1")) != kind).any()


def put_bytes(at: int, kind: int, data: bytes | memoryview) -> None:
    """Write each byte of `data` as a value of that kind, from address `at`."""
    if len(data) > _PIECE and is_at_hand():
        set_kinds(at, len(data), kind)
        view(at + 8, len(data), VAL_BYTES, np.dtype("u1"))[:] = np.frombuffer(data, np.uint8)
        return
    piece = bytearray(min(len(data), _PIECE) * VAL_BYTES)
    piece[::VAL_BYTES] = bytes((kind,)) * (len(piece) // VAL_BYTES)
    for start in range(0, len(data), _PIECE):
        part = data[start : start + _PIECE]
        del piece[len(part) * VAL_BYTES :]
        piece[8::VAL_BYTES] = part
        MEMORY[at : at + len(piece)] = piece
        at += len(piece)


def take_bytes(at: int, kind: int, count: int) -> bytes | None:
    """The bytes that stand as `count` values of that kind from address `at`; None where one has another kind."""
    if count > _PIECE and is_at_hand():
        is_right = kinds_are(at, count, kind)
        return view(at + 8, count, VAL_BYTES, np.dtype("u1")).tobytes() if is_right else None
    parts = []
    for start in range(0, count, _PIECE):
        piece = MEMORY[at + start * VAL_BYTES : at + min(start + _PIECE, count) * VAL_BYTES].tobytes()
        if piece[::VAL_BYTES].count(kind) * VAL_BYTES != len(piece):
            return None
        parts.append(piece[8::VAL_BYTES])
    return b"".join(parts)


@lru_cache(maxsize=64)
def _space(dtype: np.dtype[Any]) -> np.ndarray[Any, np.dtype[Any]]:
    return np.ndarray(((1 << 55) // dtype.itemsize,), dtype, _NUMPY_SPACE)


def gather(addresses: np.ndarray[Any, np.dtype[Any]], dtype: np.dtype[Any]) -> np.ndarray[Any, np.dtype[Any]]:
    """The items of `dtype` at `addresses`, each aligned to its size, in one pass of numpy."""
    return _space(dtype)[(addresses - _NUMPY_BASE) // dtype.itemsize]  # type: ignore[no-any-return]


def scatter(addresses: np.ndarray[Any, np.dtype[Any]], dtype: np.dtype[Any], values: Any) -> None:
    """Write `values` as `dtype` to `addresses`, each aligned to its size, in one pass of numpy."""
    _space(dtype)[(addresses - _NUMPY_BASE) // dtype.itemsize] = values
