"""Measures of one core module: what it defines, how much code there is, how large its largest function is.

Function bodies are passed over by their size; only the declaration of their locals is read. Source: WebAssembly core
specification, section 5.5; tool conventions, "Producers Section".
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from cloche.binary.bounds import Budget
from cloche.binary.core import MemoryType, TableType, read_memories, read_tables, skip_import_type
from cloche.binary.reader import Buffer, Reader, malformed
from cloche.binary.sections import ModuleSection, Section, module_sections
from cloche.errors import ContractError
from cloche.model import Digest


@dataclass(frozen=True, slots=True)
class CustomSection:
    """A custom section: its name (cut to `bounds.MAX_NAME_CHARS`) and the bytes after the name."""

    name: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ModuleSurvey:
    """One core module as it stands in the file: `offset` and `size_bytes` are its span, `sha256` that of its bytes.

    `functions` counts defined functions, `code_bytes` all their bodies, `largest_body_bytes` and `most_locals` the
    worst one. `memories` and `tables` are those it defines. Added in 0.1.
    """

    offset: int
    size_bytes: int
    sha256: Digest
    functions: int
    code_bytes: int
    largest_body_bytes: int
    most_locals: int
    memories: tuple[MemoryType, ...]
    tables: tuple[TableType, ...]
    imports: int
    imported_memories: int
    data_bytes: int
    custom: tuple[CustomSection, ...]
    producers: tuple[str, ...]


@dataclass(slots=True)
class _Draft:
    functions: int = 0
    bodies: int = 0
    code_bytes: int = 0
    largest_body_bytes: int = 0
    most_locals: int = 0
    memories: list[MemoryType] = field(default_factory=list)
    tables: list[TableType] = field(default_factory=list)
    imports: int = 0
    imported_memories: int = 0
    data_bytes: int = 0
    custom: list[CustomSection] = field(default_factory=list)
    producers: list[str] = field(default_factory=list)


def survey_module(data: Buffer, start: int, end: int, budget: Budget) -> ModuleSurvey:
    """Measure the core module that fills `start` to `end` of `data`, charging what it holds to `budget`.

    Linear in the number of functions, imports and sections; hashes the module once.

    Raises: ContractError: `component.malformed`, or `component.too-large` when `budget` is exceeded. Added in 0.1.
    """
    draft = _Draft()
    for section in module_sections(data, start, end):
        budget.charge_section()
        reader = Reader(data, section.start, section.end)
        match section.id:
            case ModuleSection.CUSTOM:
                add_custom(data, section, draft.custom, draft.producers)
            case ModuleSection.IMPORT:
                _read_imports(reader, draft, budget)
            case ModuleSection.FUNCTION:
                draft.functions = reader.count("functions")
                budget.charge_functions(draft.functions)
            case ModuleSection.TABLE:
                draft.tables = read_tables(reader, budget)
            case ModuleSection.MEMORY:
                draft.memories = read_memories(reader, budget)
            case ModuleSection.CODE:
                _walk_bodies(reader, draft, budget)
            case ModuleSection.DATA:
                draft.data_bytes = section.size_bytes
            case _:
                pass  # types, globals, exports, elements: the engine reads them
    if draft.bodies != draft.functions:
        malformed(end, f"{draft.functions} function bodies, as many as declared", str(draft.bodies))
    with memoryview(data) as view:
        digest = hashlib.sha256(view[start:end]).hexdigest()
    return ModuleSurvey(
        offset=start,
        size_bytes=end - start,
        sha256=Digest(digest),
        functions=draft.functions,
        code_bytes=draft.code_bytes,
        largest_body_bytes=draft.largest_body_bytes,
        most_locals=draft.most_locals,
        memories=tuple(draft.memories),
        tables=tuple(draft.tables),
        imports=draft.imports,
        imported_memories=draft.imported_memories,
        data_bytes=draft.data_bytes,
        custom=tuple(draft.custom),
        producers=tuple(draft.producers),
    )


def add_custom(data: Buffer, section: Section, custom: list[CustomSection], producers: list[str]) -> None:
    """Note a custom section in `custom`, and the tools that it names in `producers`.

    Custom sections cannot change behaviour, so a broken `producers` section is simply not summarised; only an
    unreadable name is malformed. No more than `bounds.MAX_CUSTOM_SECTIONS` are kept.
    """
    reader = Reader(data, section.start, section.end)
    size = reader.u32("the length of a custom section's name")
    name_start = reader.pos
    reader.skip(size, "a custom section's name")
    name = _text(data, name_start, reader.pos)
    if len(custom) < Budget.MAX_CUSTOM_SECTIONS:
        custom.append(CustomSection(name, reader.left))
    if name == "producers" and not producers:
        producers.extend(_read_producers(reader))


def _text(data: Buffer, start: int, end: int) -> str:
    # Four bytes make at most one character, so that a long name is never decoded whole.
    cut = bytes(data[start : min(end, start + 4 * Budget.MAX_NAME_CHARS)])
    return cut.decode("utf-8", "replace")[: Budget.MAX_NAME_CHARS]


def _read_producers(reader: Reader) -> list[str]:
    """`field: tool version` for the first `Budget.MAX_PRODUCERS` tools; an empty list when the section is broken."""
    found: list[str] = []
    try:
        for _ in range(min(reader.count("producer fields"), Budget.MAX_PRODUCER_FIELDS)):
            kind = reader.name()[: Budget.MAX_NAME_CHARS]
            for _ in range(reader.count("producers")):
                tool = f"{reader.name()[: Budget.MAX_NAME_CHARS]} {reader.name()[: Budget.MAX_NAME_CHARS]}"
                found.append(f"{kind}: {tool.strip()}")
                if len(found) >= Budget.MAX_PRODUCERS:
                    return found
    except ContractError:
        return []
    return found


def _read_imports(reader: Reader, draft: _Draft, budget: Budget) -> None:
    draft.imports = reader.count("imports", 4)
    budget.charge_definitions(draft.imports)
    for _ in range(draft.imports):
        reader.skip_name()
        reader.skip_name()
        if skip_import_type(reader):
            draft.imported_memories += 1


def _walk_bodies(reader: Reader, draft: _Draft, budget: Budget) -> None:
    draft.bodies = reader.count("function bodies", 3)
    u32, byte = reader.u32, reader.byte
    largest = most_locals = 0
    section_end = reader.end
    for _ in range(draft.bodies):
        size = u32()
        start = reader.pos
        body_end = start + size
        if body_end > section_end:
            malformed(start, f"{size} bytes of a function body", f"{section_end - start} bytes")
        if size > largest:
            largest = size
            budget.ensure_body(size, start)
        reader.end = body_end
        groups = u32()
        if groups:
            budget.charge_local_groups(groups, start)
            number = 0
            for _ in range(groups):
                number += u32()
                if byte() in (0x63, 0x64):
                    reader.s33()
            if number > most_locals:
                most_locals = number
                budget.ensure_locals(number, start)
        reader.end = section_end
        reader.pos = body_end
        draft.code_bytes += size
    reader.ensure_at_end("the code section")
    draft.largest_body_bytes, draft.most_locals = largest, most_locals
