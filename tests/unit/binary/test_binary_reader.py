"""Reading and writing numbers, names and vectors."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.binary.leb import U32_MAX, encode_index, encode_name, encode_u32
from cloche.binary.reader import Reader
from cloche.errors import ContractError


@given(st.integers(0, U32_MAX))
def test_u32_round_trip(value: int) -> None:
    """What is written as u32 is read as the same number, and nothing is left."""
    reader = Reader(encode_u32(value))
    assert (value, 0) == (reader.u32(), reader.left)


@given(st.integers(0, U32_MAX))
def test_an_index_reads_the_same_signed_and_unsigned(value: int) -> None:
    """An index is the same number as u32 and as s33, so 64 to 127 never turn into a built-in type."""
    raw = encode_index(value)
    assert (value, value) == (Reader(raw).u32(), Reader(raw).s33())


@pytest.mark.parametrize("write", [encode_u32, encode_index])
@pytest.mark.parametrize("value", [-1, U32_MAX + 1])
def test_numbers_out_of_range_are_not_written(write: Callable[[int], bytes], value: int) -> None:
    """A number that is no u32 is the caller's mistake."""
    with pytest.raises(ValueError, match="unsigned 32-bit"):
        write(value)


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b"\x00", 0),
        (b"\x3f", 63),
        (b"\x40", -64),
        (b"\x7f", -1),
        (b"\xc0\x00", 64),
        (b"\xff\xff\xff\xff\x0f", (1 << 32) - 1),
        (b"\x80\x80\x80\x80\x70", -(1 << 32)),
    ],
)
def test_s33(raw: bytes, value: int) -> None:
    """Signed numbers of 33 bits read as the specification says."""
    assert value == Reader(raw).s33()


@pytest.mark.parametrize(
    ("raw", "read", "words"),
    [
        (b"", Reader.u32, "found the end"),
        (b"\x80", Reader.u32, "found the end"),
        (b"\x80\x80\x80\x80\x80\x00", Reader.u32, "at most 32 bits"),
        (b"\xff\xff\xff\xff\x1f", Reader.u32, "at most 32 bits"),
        (b"\xff" * 10 + b"\x00", Reader.u64, "at most 64 bits"),
        (b"\xff" * 9 + b"\x02", Reader.u64, "at most 64 bits"),
        (b"", Reader.s33, "found the end"),
        (b"\x80\x80\x80\x80\x80\x00", Reader.s33, "at most 33 bits"),
        (b"\xff\xff\xff\xff\x1f", Reader.s33, "at most 33 bits"),
        (b"", Reader.byte, "found the end"),
        (b"\x03ab", Reader.name, "3 bytes of a name"),
        (b"\x02a\xff", Reader.name, "byte 2: expected a name in UTF-8, found byte 0xff"),
        (b"\x03\xed\xa0\x80", Reader.name, "UTF-8"),
        (b"\x05ab", Reader.skip_name, "5 bytes of a name"),
        (b"\x7f\x00", lambda reader: reader.count("items"), "at most 1 items in 1 bytes, found 127"),
        (b"\x02\x00\x00\x00", lambda reader: reader.count("items", 2), "at most 1 items"),
        (b"\x00", lambda reader: reader.ensure_at_end("it"), "the end of it, found 1 more bytes"),
    ],
)
@pytest.mark.parametrize("wrap", [bytes, memoryview])
def test_malformed_bytes_name_offset_and_expectation(
    wrap: Callable[[bytes], bytes | memoryview], raw: bytes, read: Callable[[Reader], object], words: str
) -> None:
    """Every wrong byte gives `component.malformed` with the place and what should have stood there."""
    with pytest.raises(ContractError, match="malformed at byte") as caught:
        read(Reader(wrap(raw)))
    assert caught.value.code == "component.malformed"
    assert words in str(caught.value)


def test_a_reader_never_leaves_its_span() -> None:
    """Bytes behind the span are not read, though they exist."""
    reader = Reader(b"\x01\x02\x80\x01", 1, 3)
    assert reader.u32() == 2
    with pytest.raises(ContractError, match="byte 3"):
        reader.u32()


def test_a_span_outside_the_bytes_is_refused() -> None:
    """A span that the bytes do not have is the caller's mistake."""
    with pytest.raises(ValueError, match="not inside 2 bytes"):
        Reader(b"ab", 1, 3)


@pytest.mark.parametrize("text", ["", "a", "naïve", "x" * 200])
def test_names_round_trip(text: str) -> None:
    """A written name reads back."""
    assert text == Reader(encode_name(text)).name()
