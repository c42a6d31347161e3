"""The index spaces of a component's root, and which linear memory each core memory index really is.

Two indices may name one memory (an alias of an alias, a re-export through a bag or another module). `MemoryPlaces`
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


class MemoryPlaces:
    """Where the linear memories of a component's root are made, told from the bytes alone.

    Follows aliases, bags and imports of core modules. What was found out about a name of an instance, and about a core
    module, is kept, so that all memories together cost one step for each such name and one reading of each module,
    however often bytes made for it refer to them. Steps and what is read are charged to `budget`. Added in 0.1.
    """

    def __init__(self, data: Buffer, index: RootIndex, budget: Budget) -> None:
        self._data, self._index, self._budget = data, index, budget
        self._places: dict[_Target, MemoryPlace | None] = {}
        self._modules: dict[int, _Memories] = {}

    def find(self, memory: int) -> MemoryPlace | None:
        """The place of core memory `memory`, or None when it cannot be told. Each step leads to an earlier instance.

        Raises: ContractError: `component.malformed`, `component.too-large`.
        """
        passed: list[_Target] = []
        found: MemoryPlace | None = None
        before, target = len(self._index.core_instances), _alias_target(self._index, memory)
        while target is not None and target[0] < before:
            if target in self._places:
                found = self._places[target]
                break
            self._budget.charge_definitions(1)
            passed.append(target)
            step = self._step(*target)
            if isinstance(step, MemoryPlace):
                found = step
                break
            before, target = target[0], step
        self._places.update(dict.fromkeys(passed, found))
        return found

    def _step(self, number: int, name: str) -> MemoryPlace | _Target | None:
        """Where the memory `name` of a core instance is made, or one step closer to it."""
        instance = self._index.core_instances[number]
        if isinstance(instance, Bag):
            item = instance.exports.get(name)
            return _alias_target(self._index, item.index) if item and item.sort == Sort.CORE_MEMORY else None
        module = self._memories(instance.of.index)
        position = None if module is None else module.exported.get(name)
        if module is None or position is None:
            return None
        if position < len(module.imported):
            inner, item_name = module.imported[position]
            argument = instance.arguments.get(inner)
            return None if argument is None else (argument.index, item_name)
        position -= len(module.imported)
        return MemoryPlace(number, position, module.defined[position]) if position < len(module.defined) else None

    def _memories(self, number: int) -> _Memories | None:
        section = self._index.core_modules[number] if number < len(self._index.core_modules) else None
        if section is not None and number not in self._modules:
            self._modules[number] = _read_module(self._data, section, self._budget)
        return self._modules.get(number)


_Target = tuple[int, str]
"""A core instance, and the name of a memory among its exports."""


@dataclass(slots=True)
class _Memories:
    """The memories of one core module: imports as (module, name), then its own, and the exports that name them."""

    imported: list[tuple[str, str]] = field(default_factory=list)
    defined: list[MemoryType] = field(default_factory=list)
    exported: dict[str, int] = field(default_factory=dict)


def _alias_target(index: RootIndex, memory: int) -> _Target | None:
    alias = index.core_memories[memory] if memory < len(index.core_memories) else None
    if isinstance(alias, ExportAlias) and alias.instance.sort == Sort.CORE_INSTANCE:
        return alias.instance.index, alias.name
    return None


def _read_module(data: Buffer, module: Section, budget: Budget) -> _Memories:
    found = _Memories()
    for section in module_sections(data, module.start, module.end):
        budget.charge_section()
        reader = Reader(data, section.start, section.end)
        if section.id in (ModuleSection.IMPORT, ModuleSection.EXPORT):
            budget.charge_definition_bytes(section.size_bytes)
        match section.id:
            case ModuleSection.IMPORT:
                found.imported = _memory_imports(reader, budget)
            case ModuleSection.MEMORY:
                found.defined = read_memories(reader, budget)
            case ModuleSection.EXPORT:
                found.exported = _memory_exports(reader, budget)
                break
            case _:
                pass
    return found


def _memory_imports(reader: Reader, budget: Budget) -> list[tuple[str, str]]:
    number = reader.count("imports", 4)
    budget.charge_definitions(number)
    found: list[tuple[str, str]] = []
    for _ in range(number):
        item = reader.name(), reader.name()
        if skip_import_type(reader):
            found.append(item)
    return found


def _memory_exports(reader: Reader, budget: Budget) -> dict[str, int]:
    number = reader.count("exports", 3)
    budget.charge_definitions(number)
    found: dict[str, int] = {}
    for _ in range(number):
        name = reader.name()
        kind = reader.byte("the kind of a core export")
        position = reader.u32("the index of a core export")
        if kind == 0x02:
            found[name] = position
    return found
