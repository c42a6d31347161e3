"""The top-level sections of a component or a core module, as spans: nothing inside them is read.

Source: component-model `design/mvp/Binary.md`; WebAssembly core specification, section 5.5.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from cloche.binary.reader import Buffer, Reader, malformed

MODULE_PREAMBLE = b"\0asm\x01\0\0\0"
COMPONENT_PREAMBLE = b"\0asm\x0d\0\x01\0"
PREAMBLE_BYTES = 8


class ComponentSection(IntEnum):
    """Section ids of a component."""

    CUSTOM = 0
    CORE_MODULE = 1
    CORE_INSTANCE = 2
    CORE_TYPE = 3
    COMPONENT = 4
    INSTANCE = 5
    ALIAS = 6
    TYPE = 7
    CANON = 8
    START = 9
    IMPORT = 10
    EXPORT = 11
    VALUE = 12


class ModuleSection(IntEnum):
    """Section ids of a core module."""

    CUSTOM = 0
    TYPE = 1
    IMPORT = 2
    FUNCTION = 3
    TABLE = 4
    MEMORY = 5
    GLOBAL = 6
    EXPORT = 7
    START = 8
    ELEMENT = 9
    CODE = 10
    DATA = 11
    DATA_COUNT = 12
    TAG = 13


# A core module has each of these at most once, in this order; custom sections stand anywhere.
_MODULE_ORDER = {section: rank for rank, section in enumerate((0, 1, 2, 3, 4, 5, 13, 6, 7, 8, 9, 12, 10, 11))}


@dataclass(frozen=True, slots=True)
class Section:
    """One section: its id, and its contents as offsets in the whole file. Added in 0.1."""

    id: int
    start: int
    end: int

    @property
    def size_bytes(self) -> int:
        """Bytes of contents, without the id and the size field."""
        return self.end - self.start


def ensure_preamble(data: Buffer, start: int, end: int, preamble: bytes, what: str) -> None:
    """Refuse a span that does not begin as `preamble` does. Raises: ContractError (`component.malformed`)."""
    found = bytes(data[start : min(start + PREAMBLE_BYTES, end)])
    if found != preamble:
        malformed(start, f"the first eight bytes of {what} ({preamble.hex(' ')})", found.hex(" ") or "the end")


def component_sections(data: Buffer, start: int = 0, end: int | None = None) -> Iterator[Section]:
    """Sections of the component that fills `start` to `end`, in order; its nested components are single spans.

    Raises: ContractError (`component.malformed`) at the first wrong preamble, id or size. Added in 0.1.
    """
    end = len(data) if end is None else end
    ensure_preamble(data, start, end, COMPONENT_PREAMBLE, "a component")
    for section in _walk(Reader(data, start + PREAMBLE_BYTES, end)):
        if section.id > ComponentSection.VALUE:
            malformed(section.start, "a component's section id of 0 to 12", str(section.id))
        yield section


def module_sections(data: Buffer, start: int = 0, end: int | None = None) -> Iterator[Section]:
    """Sections of the core module that fills `start` to `end`, checked to be in order and without repetition.

    Raises: ContractError (`component.malformed`). Added in 0.1.
    """
    end = len(data) if end is None else end
    ensure_preamble(data, start, end, MODULE_PREAMBLE, "a core module")
    last = 0
    for section in _walk(Reader(data, start + PREAMBLE_BYTES, end)):
        rank = _MODULE_ORDER.get(section.id)
        if rank is None:
            malformed(section.start, "a core module's section id of 0 to 13", str(section.id))
        if rank:
            if rank <= last:
                malformed(section.start, "a core module's sections once each and in order", f"section {section.id}")
            last = rank
        yield section


def _walk(reader: Reader) -> Iterator[Section]:
    while reader.left:
        number = reader.byte("a section id")
        size = reader.u32("a section's size")
        start = reader.pos
        reader.skip(size, f"section {number}")
        yield Section(number, start, reader.pos)
