"""Entries of a core module's memory, table and import sections, and the types in them.

Source: WebAssembly core specification, section 5.5; proposals threads, memory64 and custom-page-sizes for the flags of
limits.
"""

from __future__ import annotations

from dataclasses import dataclass

from cloche.binary.bounds import Budget
from cloche.binary.reader import Reader, malformed

PAGE_BYTES = 65_536
_REFERENCE_TYPES = range(0x69, 0x75)  # funcref, externref and the other one-byte abstract reference types
_VALUE_TYPES = range(0x7B, 0x80)  # v128, f64, f32, i64, i32


@dataclass(frozen=True, slots=True, order=True)
class MemoryType:
    """A linear memory's declared size in pages of `page_bytes` bytes; `max_pages` is None when it has no maximum."""

    min_pages: int
    max_pages: int | None = None
    shared: bool = False
    is_64: bool = False
    page_bytes: int = PAGE_BYTES

    @property
    def min_bytes(self) -> int:
        """Bytes that exist as soon as the memory is made."""
        return self.min_pages * self.page_bytes

    @property
    def max_bytes(self) -> int | None:
        """Bytes that it can never exceed, or None."""
        return None if self.max_pages is None else self.max_pages * self.page_bytes


@dataclass(frozen=True, slots=True, order=True)
class TableType:
    """A table's declared size in elements; `max_elements` is None when it has no maximum."""

    min_elements: int
    max_elements: int | None = None
    shared: bool = False
    is_64: bool = False


def read_memories(reader: Reader, budget: Budget) -> list[MemoryType]:
    """The entries of a core memory section."""
    number = reader.count("memories", 2)
    budget.charge_definitions(number)
    return [_memory_type(reader) for _ in range(number)]


def read_tables(reader: Reader, budget: Budget) -> list[TableType]:
    """The entries of a core table section, initial values passed over."""
    number = reader.count("tables", 3)
    budget.charge_definitions(number)
    return [_table_entry(reader) for _ in range(number)]


def skip_import_type(reader: Reader) -> bool:
    """Pass over the type of one core import; True when it is a memory."""
    kind = reader.byte("the kind of a core import")
    match kind:
        case 0x00:
            reader.u32("a function's type")
        case 0x01:
            _table_type(reader)
        case 0x02:
            _memory_type(reader)
        case 0x03:
            _skip_value_type(reader)
            reader.byte("a global's mutability")
        case 0x04:
            reader.byte("a tag's attribute")
            reader.u32("a tag's type")
        case _:
            malformed(reader.pos - 1, "the kind of a core import, 0 to 4", f"byte 0x{kind:02x}")
    return kind == 0x02


def _limits(reader: Reader, flags_allowed: int, what: str) -> tuple[int, int, int | None]:
    flags = reader.byte(f"the limits of a {what}")
    if flags & ~flags_allowed:
        malformed(reader.pos - 1, f"the limits of a {what}", f"byte 0x{flags:02x}")
    read = reader.u64 if flags & 0x04 else reader.u32
    least = read(f"the minimum of a {what}")
    most = read(f"the maximum of a {what}") if flags & 0x01 else None
    if most is not None and most < least:
        malformed(reader.pos, f"a maximum of at least {least} for a {what}", str(most))
    return flags, least, most


def _memory_type(reader: Reader) -> MemoryType:
    flags, least, most = _limits(reader, 0x0F, "memory")
    page_bytes = PAGE_BYTES
    if flags & 0x08:
        power = reader.u32("a memory's page size")
        if power not in (0, 16):
            malformed(reader.pos, "a page size of 1 or 65536 bytes", f"2 to the power {power}")
        page_bytes = 1 << power
    return MemoryType(least, most, bool(flags & 0x02), bool(flags & 0x04), page_bytes)


def _skip_reference_type(reader: Reader, what: str) -> None:
    byte = reader.byte(what)
    if byte in (0x63, 0x64):
        reader.s33(what)
    elif byte not in _REFERENCE_TYPES:
        malformed(reader.pos - 1, what, f"byte 0x{byte:02x}")


def _table_type(reader: Reader) -> TableType:
    _skip_reference_type(reader, "a table's element type")
    flags, least, most = _limits(reader, 0x07, "table")
    return TableType(least, most, bool(flags & 0x02), bool(flags & 0x04))


def _table_entry(reader: Reader) -> TableType:
    if reader.left < 2 or reader.data[reader.pos] != 0x40:
        return _table_type(reader)
    reader.skip(1, "a table")
    if reader.byte("a table with an initial value"):
        malformed(reader.pos - 1, "a table with an initial value", "another byte than 0")
    table = _table_type(reader)
    _skip_reference_value(reader)
    return table


def _skip_reference_value(reader: Reader) -> None:
    what = "a table's initial value"
    opcode = reader.byte(what)
    if opcode in (0x23, 0xD2):  # global.get, ref.func
        reader.u32(what)
    elif opcode == 0xD0:  # ref.null
        reader.s33(what)
    else:
        malformed(reader.pos - 1, what, f"opcode 0x{opcode:02x}")
    if reader.byte(what) != 0x0B:
        malformed(reader.pos - 1, f"the end of {what}", "another instruction")


def _skip_value_type(reader: Reader) -> None:
    if reader.pos < reader.end and reader.data[reader.pos] in _VALUE_TYPES:
        reader.skip(1, "a value type")
    else:
        _skip_reference_type(reader, "a value type")
