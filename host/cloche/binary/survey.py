"""A cheap measure of a whole component, taken before anything validates or compiles it (H6, H22).

Nested components are walked with an explicit stack. What instantiating makes (core instances, memories, tables) is
multiplied out: a component that instantiates another one twice makes its memories twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from cloche.binary.bounds import Budget
from cloche.binary.core import MemoryType, TableType
from cloche.binary.header import ensure_component
from cloche.binary.module import CustomSection, ModuleSurvey, add_custom, survey_module
from cloche.binary.reader import Buffer, Reader
from cloche.binary.root import (
    Alias,
    ExportAlias,
    Instance,
    Instantiate,
    Sort,
    read_aliases,
    read_core_instances,
    read_exports,
    read_imports,
    read_instances,
)
from cloche.binary.sections import ComponentSection, Section, component_sections
from cloche.errors import ContractError

T = TypeVar("T")

_READ = (
    ComponentSection.CORE_INSTANCE,
    ComponentSection.INSTANCE,
    ComponentSection.ALIAS,
    ComponentSection.IMPORT,
    ComponentSection.EXPORT,
)


@dataclass(frozen=True, slots=True)
class Survey:
    """What a component holds and what instantiating it makes. Sizes in bytes.

    `modules` are the core modules in the file, at all depths. `components` counts nested components, `depth` their
    deepest nesting (0: none). `memories` and `tables` say how many of each declared type one instance makes, and
    `core_instances` and `component_instances` how many instances. `is_exact` is False when a nested component gets
    core modules or components from outside, so that these numbers are a lower bound; the engine's limits, which count
    for themselves, then end the instantiation. `imports` and `exports` are the root's. Added in 0.1.
    """

    size_bytes: int
    modules: tuple[ModuleSurvey, ...]
    components: int
    depth: int
    core_instances: int
    component_instances: int
    memories: tuple[tuple[MemoryType, int], ...]
    tables: tuple[tuple[TableType, int], ...]
    is_exact: bool
    imports: int
    exports: int
    custom: tuple[CustomSection, ...]
    producers: tuple[str, ...]

    @property
    def functions(self) -> int:
        """Functions defined by all core modules together."""
        return sum(module.functions for module in self.modules)

    @property
    def largest_body_bytes(self) -> int:
        """The largest function body of all core modules."""
        return max((module.largest_body_bytes for module in self.modules), default=0)

    @property
    def data_bytes(self) -> int:
        """Data segments of all core modules together."""
        return sum(module.data_bytes for module in self.modules)

    @property
    def memory_count(self) -> int:
        """Linear memories that one instance makes."""
        return sum(number for _, number in self.memories)

    @property
    def may_cross_memories(self) -> bool:
        """Whether calls inside the component may copy values from one linear memory to another.

        Composed components do. The engine then makes an adapter with two memories, and a compiler without the
        multi-memory proposal does not refuse that but aborts its process (verified on 49.0.0).
        """
        return self.component_instances > 0 and self.memory_count > 1

    @property
    def table_count(self) -> int:
        """Tables that one instance makes."""
        return sum(number for _, number in self.tables)


@dataclass(slots=True)
class _Made:
    """What instantiating one component makes."""

    core_instances: int = 0
    component_instances: int = 0
    memory_count: int = 0
    table_count: int = 0
    memories: Counter[MemoryType] = field(default_factory=Counter)
    tables: Counter[TableType] = field(default_factory=Counter)
    is_exact: bool = True

    def add_module(self, module: ModuleSurvey | None, budget: Budget) -> None:
        self.core_instances += 1
        if module is None:
            self.is_exact = False
        else:
            self.memory_count += len(module.memories)
            self.table_count += len(module.tables)
        # Checked before each addition, so that no component's account is longer than the bounds.
        budget.ensure_instantiated(self.core_instances + self.component_instances, self.memory_count, self.table_count)
        if module is not None:
            self.memories.update(module.memories)
            self.tables.update(module.tables)

    def add_component(self, made: _Made | None, budget: Budget) -> None:
        self.component_instances += 1
        if made is None:
            self.is_exact = False
        else:
            self.core_instances += made.core_instances
            self.component_instances += made.component_instances
            self.memory_count += made.memory_count
            self.table_count += made.table_count
            self.is_exact &= made.is_exact
        budget.ensure_instantiated(self.core_instances + self.component_instances, self.memory_count, self.table_count)
        if made is not None:
            self.memories.update(made.memories)
            self.tables.update(made.tables)


@dataclass(slots=True)
class _Frame:
    """A component whose sections are being walked. None in a space: known only at run time."""

    sections: Iterator[Section]
    modules: list[ModuleSurvey | None] = field(default_factory=list)
    components: list[_Made | None] = field(default_factory=list)
    made: _Made = field(default_factory=_Made)
    imports: int = 0
    exports: int = 0


def survey(data: Buffer) -> Survey:
    """Measure `data`. Linear in its size, without recursion; a CPython guest of 18 MB takes about 0.05 s.

    It does not validate: the engine still has to. Blocks for the time of hashing each core module once.

    Raises: ContractError: as `ensure_component` for a file that is no component, `component.malformed` naming the
        offset, `component.too-large` naming the bound (see `bounds.Budget`) and the remedy. Added in 0.1.
    """
    ensure_component(data)
    budget = Budget()
    budget.ensure_size(len(data))
    return _Walk(data, budget).run()


class _Walk:
    """One pass over a component and everything nested in it."""

    def __init__(self, data: Buffer, budget: Budget) -> None:
        self._data, self._budget = data, budget
        self._modules: list[ModuleSurvey] = []
        self._custom: list[CustomSection] = []
        self._producers: list[str] = []
        self._stack: list[_Frame] = [_Frame(component_sections(data))]
        self._depth = 0

    def run(self) -> Survey:
        root = self._stack[0]
        while self._stack:
            frame = self._stack[-1]
            section = next(frame.sections, None)
            if section is not None:
                self._visit(frame, section)
                continue
            self._stack.pop()
            if self._stack:
                self._stack[-1].components.append(frame.made)
        made = root.made
        return Survey(
            size_bytes=len(self._data),
            modules=tuple(self._modules),
            components=self._budget.components,
            depth=self._depth,
            core_instances=made.core_instances,
            component_instances=made.component_instances,
            memories=tuple(made.memories.items()),
            tables=tuple(made.tables.items()),
            is_exact=made.is_exact,
            imports=root.imports,
            exports=root.exports,
            custom=tuple(self._custom),
            producers=tuple(self._producers),
        )

    def _visit(self, frame: _Frame, section: Section) -> None:
        budget = self._budget
        budget.charge_section()
        if section.id == ComponentSection.CORE_MODULE:
            budget.charge_module()
            module = survey_module(self._data, section.start, section.end, budget)
            self._modules.append(module)
            frame.modules.append(module)
            return
        if section.id == ComponentSection.COMPONENT:
            budget.charge_component(len(self._stack))
            self._depth = max(self._depth, len(self._stack))
            self._stack.append(_Frame(component_sections(self._data, section.start, section.end)))
            return
        if section.id == ComponentSection.CUSTOM:
            producers = self._producers if len(self._stack) == 1 else []
            add_custom(self._data, section, self._custom, producers)
            return
        reader = Reader(self._data, section.start, section.end)
        budget.charge_definitions(reader.count("definitions"))
        reader.pos = section.start
        if section.id in _READ:
            budget.charge_definition_bytes(section.size_bytes)
        match section.id:
            case ComponentSection.CORE_INSTANCE:
                for instance in read_core_instances(reader):
                    _instantiate(frame, instance, budget)
            case ComponentSection.INSTANCE:
                for instance in read_instances(reader):
                    _instantiate(frame, instance, budget)
            case ComponentSection.ALIAS:
                for alias in read_aliases(reader):
                    self._alias(frame, alias)
            case ComponentSection.IMPORT:
                for item in read_imports(reader):
                    frame.imports += 1
                    _add_unknown(frame, item.sort)
            case ComponentSection.EXPORT:
                for export in read_exports(reader):
                    frame.exports += 1
                    _re_export(frame, export.of.sort, export.of.index)
            case _:
                pass  # types and canonical functions make no instances

    def _alias(self, frame: _Frame, alias: Alias) -> None:
        if isinstance(alias, ExportAlias):
            _add_unknown(frame, alias.sort)
            return
        if alias.sort not in (Sort.CORE_MODULE, Sort.COMPONENT):
            return
        if alias.depth >= len(self._stack):
            raise ContractError(
                f"The component is malformed: an alias goes {alias.depth} levels out, of {len(self._stack) - 1}.",
                code="component.malformed",
            )
        outer = self._stack[-1 - alias.depth]
        if alias.sort == Sort.CORE_MODULE:
            frame.modules.append(_at(outer.modules, alias.index, "core module"))
        else:
            frame.components.append(_at(outer.components, alias.index, "component"))


def _instantiate(frame: _Frame, instance: Instance, budget: Budget) -> None:
    if not isinstance(instance, Instantiate):
        return
    if instance.of.sort == Sort.CORE_MODULE:
        frame.made.add_module(_at(frame.modules, instance.of.index, "core module"), budget)
    else:
        frame.made.add_component(_at(frame.components, instance.of.index, "component"), budget)


def _add_unknown(frame: _Frame, sort: Sort) -> None:
    if sort == Sort.CORE_MODULE:
        frame.modules.append(None)
    elif sort == Sort.COMPONENT:
        frame.components.append(None)


def _re_export(frame: _Frame, sort: Sort, index: int) -> None:
    if sort == Sort.CORE_MODULE:
        frame.modules.append(_at(frame.modules, index, "core module"))
    elif sort == Sort.COMPONENT:
        frame.components.append(_at(frame.components, index, "component"))


def _at(space: list[T], index: int, what: str) -> T:
    if index >= len(space):
        raise ContractError(
            f"The component is malformed: it refers to {what} {index}, but only {len(space)} come before.",
            code="component.malformed",
        )
    return space[index]
