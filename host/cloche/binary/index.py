"""The index spaces of a component's root, and which linear memory each core memory index really is.

Two indices may name one memory (an alias of an alias, a re-export through a bag or another module). `find_memory`
follows them to the core instance that made it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from cloche.binary.bounds import Budget
from cloche.binary.core import MemoryType, read_memories, skip_import_type
from cloche.binary.reader import Buffer, Reader, malformed
from cloche.binary.root import (
    Alias,
    Bag,
    Export,
    ExportAlias,
    Instance,
    Instantiate,
    Lift,
    Sort,
    read_aliases,
    read_canons,
    read_core_instances,
    read_exports,
    read_imports,
)
from cloche.binary.sections import ComponentSection, ModuleSection, Section, component_sections, module_sections

_NOT_READ = (ComponentSection.CORE_TYPE, ComponentSection.TYPE)


@dataclass(slots=True)
class RootIndex:
    """How many items each index space has, and the definitions of those that a memory can be traced through.

    `core_modules` holds None for a core module that is not in the file. Added in 0.1.
    """

    counts: Counter[Sort] = field(default_factory=Counter)
    core_modules: list[Section | None] = field(default_factory=list)
    core_instances: list[Instance] = field(default_factory=list)
    core_memories: list[Alias] = field(default_factory=list)
    export_names: list[str] = field(default_factory=list)
    lifts: int = 0


@dataclass(frozen=True, slots=True)
class MemoryPlace:
    """Where a linear memory is made: memory `index` of what core instance `instance` instantiates."""

    instance: int
    index: int
    type: MemoryType


def index_root(data: Buffer) -> RootIndex:
    """Count the index spaces of the component `data`. Core modules, types and nested components are passed over.

    Raises: ContractError: `component.malformed` also for everything that this host does not know (asynchronous
        functions, values, start functions), `component.too-large` for too many definitions. Added in 0.1.
    """
    budget = Budget()
    index = RootIndex()
    for section in component_sections(data):
        budget.charge_section()
        if section.id == ComponentSection.CUSTOM:
            continue
        if section.id == ComponentSection.CORE_MODULE:
            index.counts[Sort.CORE_MODULE] += 1
            index.core_modules.append(section)
        elif section.id == ComponentSection.COMPONENT:
            index.counts[Sort.COMPONENT] += 1
        else:
            reader = Reader(data, section.start, section.end)
            number = reader.count("definitions")
            budget.charge_definitions(number)
            if section.id not in _NOT_READ:
                budget.charge_definition_bytes(section.size_bytes)
            reader.pos = section.start
            _read(index, section.id, reader, number)
    return index


def _read(index: RootIndex, section_id: int, reader: Reader, number: int) -> None:
    match section_id:
        case ComponentSection.CORE_INSTANCE:
            index.core_instances.extend(read_core_instances(reader))
            index.counts[Sort.CORE_INSTANCE] += number
        case ComponentSection.CORE_TYPE:
            index.counts[Sort.CORE_TYPE] += number
        case ComponentSection.INSTANCE:
            index.counts[Sort.INSTANCE] += number
        case ComponentSection.ALIAS:
            for alias in read_aliases(reader):
                _add(index, alias.sort)
                if alias.sort == Sort.CORE_MEMORY:
                    index.core_memories.append(alias)
        case ComponentSection.TYPE:
            index.counts[Sort.TYPE] += number
        case ComponentSection.CANON:
            for canon in read_canons(reader):
                index.lifts += isinstance(canon, Lift)
                _add(index, Sort.FUNC if isinstance(canon, Lift) else Sort.CORE_FUNC)
        case ComponentSection.IMPORT:
            for item in read_imports(reader):
                _add(index, item.sort)
        case ComponentSection.EXPORT:
            for export in read_exports(reader):
                _add_export(index, export)
        case _:
            malformed(reader.pos, "a section that this host knows", f"section {section_id}")


def _add(index: RootIndex, sort: Sort) -> None:
    index.counts[sort] += 1
    if sort == Sort.CORE_MODULE:
        index.core_modules.append(None)


def _add_export(index: RootIndex, export: Export) -> None:
    index.export_names.append(export.name)
    _add(index, export.of.sort)


def find_memory(data: Buffer, index: RootIndex, memory: int, budget: Budget) -> MemoryPlace | None:
    """Where core memory `memory` of the root is made, or None when that cannot be told from the bytes.

    Follows aliases, bags and imports of core modules. Each step must lead to an earlier core instance, and the names
    read on the way are charged to `budget`, so that bytes made for it cannot make this slow.

    Raises: ContractError: `component.malformed`, `component.too-large`. Added in 0.1.
    """
    target = _alias_target(index, memory)
    before = len(index.core_instances)
    while target is not None:
        number, name = target
        if number >= before:
            return None
        before = number
        instance = index.core_instances[number]
        if isinstance(instance, Bag):
            item = instance.exports.get(name)
            target = _alias_target(index, item.index) if item and item.sort == Sort.CORE_MEMORY else None
            continue
        section = index.core_modules[instance.of.index] if instance.of.index < len(index.core_modules) else None
        found = None if section is None else _exported_memory(data, section, name, budget)
        if isinstance(found, _Defined):
            return MemoryPlace(number, found.index, found.type)
        target = None if found is None else _argument(instance, found)
    return None


@dataclass(frozen=True, slots=True)
class _Defined:
    index: int
    type: MemoryType


@dataclass(frozen=True, slots=True)
class _Imported:
    module: str
    name: str


def _alias_target(index: RootIndex, memory: int) -> tuple[int, str] | None:
    alias = index.core_memories[memory] if memory < len(index.core_memories) else None
    if isinstance(alias, ExportAlias) and alias.instance.sort == Sort.CORE_INSTANCE:
        return alias.instance.index, alias.name
    return None


def _argument(instance: Instantiate, item: _Imported) -> tuple[int, str] | None:
    argument = instance.arguments.get(item.module)
    return None if argument is None else (argument.index, item.name)


def _exported_memory(data: Buffer, module: Section, name: str, budget: Budget) -> _Defined | _Imported | None:
    """The memory that a core module exports as `name`, None when it exports none."""
    imported: list[_Imported] = []
    defined: list[MemoryType] = []
    for section in module_sections(data, module.start, module.end):
        budget.charge_section()
        reader = Reader(data, section.start, section.end)
        if section.id == ModuleSection.IMPORT:
            imported = _memory_imports(reader, budget)
        elif section.id == ModuleSection.MEMORY:
            defined = read_memories(reader, budget)
        elif section.id == ModuleSection.EXPORT:
            position = _export_index(reader, name, budget)
            if position is None:
                return None
            if position < len(imported):
                return imported[position]
            position -= len(imported)
            return _Defined(position, defined[position]) if position < len(defined) else None
    return None


def _memory_imports(reader: Reader, budget: Budget) -> list[_Imported]:
    number = reader.count("imports", 4)
    budget.charge_definitions(number)
    found: list[_Imported] = []
    for _ in range(number):
        item = _Imported(reader.name(), reader.name())
        if skip_import_type(reader):
            found.append(item)
    return found


def _export_index(reader: Reader, name: str, budget: Budget) -> int | None:
    number = reader.count("exports", 3)
    budget.charge_definitions(number)
    for _ in range(number):
        found = reader.name()
        kind = reader.byte("the kind of a core export")
        position = reader.u32("the index of a core export")
        if found == name:
            return position if kind == 0x02 else None
    return None
