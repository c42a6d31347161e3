"""What a wrong file is called, and the sections of a right one."""

import gzip
import io
import zipfile
from collections.abc import Callable, Iterator

import pytest

from cloche.binary.header import ensure_component, is_component
from cloche.binary.sections import COMPONENT_PREAMBLE, MODULE_PREAMBLE, Section, component_sections, module_sections
from cloche.errors import ContractError


def _zip() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a.wasm", b"")
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        (b"", "component.malformed", "empty"),
        (b"\0", "component.malformed", "ends after 1 bytes"),
        (b"\0asm", "component.malformed", "ends after 4 bytes"),
        (COMPONENT_PREAMBLE[:7], "component.malformed", "ends after 7 bytes"),
        (b"\0asm\x0e\0\x01\0", "component.malformed", "unknown version"),
        (b"\0asm\x02\0\0\0", "component.malformed", "unknown version"),
        (MODULE_PREAMBLE, "component.core-module", "wasm-tools component new"),
        (b"(component)", "component.not-wasm", "WebAssembly text"),
        (b"\xef\xbb\xbf;; note\n\n  ( module )", "component.not-wasm", "WebAssembly text"),
        (b"import json\n", "component.not-wasm", "is text"),
        ("é" * 5000, "component.not-wasm", "is text"),
        ("a" + "é" * 5000, "component.not-wasm", "is text"),
        (b"\x7fELF\x02\x01\x01", "component.not-wasm", "native code"),
        (b"MZ\x90\0", "component.not-wasm", "native code"),
        (gzip.compress(COMPONENT_PREAMBLE, mtime=0), "component.not-wasm", "gzip"),
        (b"\x28\xb5\x2f\xfd1234", "component.not-wasm", "zstd"),
        (_zip(), "component.not-wasm", "zip archive"),
        (b"\xff\xfe\x00\x01\x02", "component.not-wasm", "begins with ff fe 00 01 02"),
    ],
    ids=lambda value: value[:12] if isinstance(value, str) else None,
)
def test_a_wrong_file_is_named(data: str | bytes, code: str, words: str) -> None:
    """Each kind of wrong file gets its own code and says what it is."""
    raw = data.encode() if isinstance(data, str) else data
    with pytest.raises(ContractError) as caught:
        ensure_component(raw)
    assert (code, True) == (caught.value.code, words in str(caught.value))
    assert not is_component(raw)


def test_a_component_passes() -> None:
    """Only the header is judged here."""
    ensure_component(COMPONENT_PREAMBLE + b"anything")
    assert is_component(memoryview(COMPONENT_PREAMBLE))


def test_sections_are_spans() -> None:
    """Ids and spans come in order, and nested contents stay unread."""
    data = COMPONENT_PREAMBLE + b"\x00\x02\x01a" + b"\x04\x03\xff\xff\xff" + b"\x07\x00"
    assert [(s.id, s.start, s.end) for s in component_sections(data)] == [(0, 10, 12), (4, 14, 17), (7, 19, 19)]


@pytest.mark.parametrize(
    ("walk", "data", "words"),
    [
        (component_sections, MODULE_PREAMBLE, "byte 0: expected the first eight bytes of a component"),
        (component_sections, COMPONENT_PREAMBLE + b"\x0d\x00", "section id of 0 to 12, found 13"),
        (component_sections, COMPONENT_PREAMBLE + b"\x01", "byte 9: expected a section's size"),
        (component_sections, COMPONENT_PREAMBLE + b"\x01\x05ab", "byte 10: expected 5 bytes of section 1"),
        (module_sections, COMPONENT_PREAMBLE, "core module"),
        (module_sections, MODULE_PREAMBLE[:5], "found 00 61 73 6d 01"),
        (module_sections, MODULE_PREAMBLE + b"\x0e\x00", "section id of 0 to 13, found 14"),
        (module_sections, MODULE_PREAMBLE + b"\x03\x00\x01\x00", "in order, found section 1"),
        (module_sections, MODULE_PREAMBLE + b"\x0a\x00\x0a\x00", "in order, found section 10"),
    ],
)
def test_broken_sections_are_refused(walk: Callable[[bytes], Iterator[Section]], data: bytes, words: str) -> None:
    """Wrong headers, ids, sizes, order and repetition are malformed, with their place."""
    with pytest.raises(ContractError) as caught:
        list(walk(data))
    assert (caught.value.code, words in str(caught.value)) == ("component.malformed", True)


def test_tag_and_data_count_sections_stand_where_the_specification_puts_them() -> None:
    """Tags come before globals and the data count before the code, though their ids are higher."""
    ids = [1, 2, 3, 4, 5, 13, 6, 7, 8, 9, 12, 10, 11]
    data = MODULE_PREAMBLE + b"".join(bytes([number, 0]) for number in ids)
    assert ids == [section.id for section in module_sections(data)]
