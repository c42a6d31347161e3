"""Definitions of one component: what its instance, alias, canon, import and export sections say, entry by entry.

Types are not read here (their section only says how many there are), and neither are core modules or nested
components: they are spans. So nothing recurses, and a reader of types can be added without touching this file.
Whatever this host does not know is malformed to it. Source: component-model `design/mvp/Binary.md`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from cloche.binary.reader import Reader, malformed


class Sort(StrEnum):
    """The index spaces of a component."""

    CORE_FUNC = "core func"
    CORE_TABLE = "core table"
    CORE_MEMORY = "core memory"
    CORE_GLOBAL = "core global"
    CORE_TAG = "core tag"
    CORE_TYPE = "core type"
    CORE_MODULE = "core module"
    CORE_INSTANCE = "core instance"
    FUNC = "func"
    VALUE = "value"
    TYPE = "type"
    COMPONENT = "component"
    INSTANCE = "instance"


_CORE_SORTS: dict[int, Sort] = {
    0x00: Sort.CORE_FUNC,
    0x01: Sort.CORE_TABLE,
    0x02: Sort.CORE_MEMORY,
    0x03: Sort.CORE_GLOBAL,
    0x04: Sort.CORE_TAG,
    0x10: Sort.CORE_TYPE,
    0x11: Sort.CORE_MODULE,
    0x12: Sort.CORE_INSTANCE,
}
_SORTS: dict[int, Sort] = {
    0x01: Sort.FUNC,
    0x02: Sort.VALUE,
    0x03: Sort.TYPE,
    0x04: Sort.COMPONENT,
    0x05: Sort.INSTANCE,
}


@dataclass(frozen=True, slots=True)
class Ref:
    """One item of an index space."""

    sort: Sort
    index: int


@dataclass(frozen=True, slots=True)
class Instantiate:
    """An instance made of a core module or component (`of` says which) with named arguments."""

    of: Ref
    arguments: dict[str, Ref]


@dataclass(frozen=True, slots=True)
class Bag:
    """An instance put together from existing items under names of its own."""

    exports: dict[str, Ref]


@dataclass(frozen=True, slots=True)
class ExportAlias:
    """An item that an instance (`instance` says which, core or not) exports as `name`."""

    sort: Sort
    instance: Ref
    name: str


@dataclass(frozen=True, slots=True)
class OuterAlias:
    """An item of the component that lies `depth` levels further out (0 is this one)."""

    sort: Sort
    depth: int
    index: int


@dataclass(frozen=True, slots=True)
class CanonOptions:
    """Options of a `canon lift` or `canon lower`: indices of a core memory and core functions. None: not given."""

    memory: int | None = None
    realloc: int | None = None
    post_return: int | None = None


@dataclass(frozen=True, slots=True)
class Lift:
    """A component function made of core function `core_func`; `type` is an index into the component's types."""

    core_func: int
    options: CanonOptions
    type: int


@dataclass(frozen=True, slots=True)
class Lower:
    """A core function made of component function `func`."""

    func: int
    options: CanonOptions


@dataclass(frozen=True, slots=True)
class ResourceFunc:
    """A core function that makes (2), drops (3) or looks up (4) a handle of resource type `type`."""

    kind: int
    type: int


@dataclass(frozen=True, slots=True)
class Import:
    """An import; `type` is an index into the types (core types for a core module), None for a fresh resource."""

    name: str
    sort: Sort
    type: int | None


@dataclass(frozen=True, slots=True)
class Export:
    """An export, which also adds a new index for the same item to the space of its sort."""

    name: str
    of: Ref


Instance = Instantiate | Bag
Alias = ExportAlias | OuterAlias
Canon = Lift | Lower | ResourceFunc


def read_core_instances(reader: Reader) -> Iterator[Instance]:
    """Entries of a core-instance section."""
    for _ in range(reader.count("core instances", 2)):
        kind = reader.byte("a core instance")
        if kind == 0:
            of = Ref(Sort.CORE_MODULE, reader.u32("a core module's index"))
            arguments: dict[str, Ref] = {}
            for _ in range(reader.count("arguments", 3)):
                name = reader.name()
                if reader.byte("a core instance argument") != 0x12:
                    malformed(reader.pos - 1, "a core instance argument (0x12)", "another byte")
                arguments[name] = Ref(Sort.CORE_INSTANCE, reader.u32("a core instance's index"))
            yield Instantiate(of, arguments)
        elif kind == 1:
            yield Bag({reader.name(): _core_ref(reader) for _ in range(reader.count("exports", 3))})
        else:
            malformed(reader.pos - 1, "a core instance (0 or 1)", f"byte 0x{kind:02x}")
    reader.ensure_at_end("the core-instance section")


def read_instances(reader: Reader) -> Iterator[Instance]:
    """Entries of an instance section."""
    for _ in range(reader.count("instances", 2)):
        kind = reader.byte("an instance")
        if kind == 0:
            of = Ref(Sort.COMPONENT, reader.u32("a component's index"))
            yield Instantiate(of, {reader.name(): _ref(reader) for _ in range(reader.count("arguments", 3))})
        elif kind == 1:
            yield Bag({_extern_name(reader): _ref(reader) for _ in range(reader.count("exports", 4))})
        else:
            malformed(reader.pos - 1, "an instance (0 or 1)", f"byte 0x{kind:02x}")
    reader.ensure_at_end("the instance section")


def read_aliases(reader: Reader) -> Iterator[Alias]:
    """Entries of an alias section."""
    for _ in range(reader.count("aliases", 3)):
        sort = _sort(reader)
        target = reader.byte("the target of an alias")
        if target in (0, 1):
            space = Sort.CORE_INSTANCE if target else Sort.INSTANCE
            instance = Ref(space, reader.u32("an instance's index"))
            yield ExportAlias(sort, instance, reader.name())
        elif target == 2:
            yield OuterAlias(sort, reader.u32("a nesting level"), reader.u32("an index"))
        else:
            malformed(reader.pos - 1, "the target of an alias (0 to 2)", f"byte 0x{target:02x}")
    reader.ensure_at_end("the alias section")


def read_canons(reader: Reader) -> Iterator[Canon]:
    """Entries of a canon section; asynchronous ones and built-ins of later proposals are malformed to this host."""
    for _ in range(reader.count("canonical functions", 2)):
        kind = reader.byte("a canonical function")
        if kind in (0, 1):
            if reader.byte("a canonical function") != 0:
                malformed(reader.pos - 1, "a canonical function (0)", "another byte")
            func = reader.u32("a function's index")
            options = _canon_options(reader)
            yield Lift(func, options, reader.u32("a type's index")) if kind == 0 else Lower(func, options)
        elif kind in (2, 3, 4):
            yield ResourceFunc(kind, reader.u32("a resource type's index"))
        else:
            malformed(reader.pos - 1, "a synchronous canonical function (0 to 4)", f"byte 0x{kind:02x}")
    reader.ensure_at_end("the canon section")


def read_imports(reader: Reader) -> Iterator[Import]:
    """Entries of an import section."""
    for _ in range(reader.count("imports", 4)):
        name = _extern_name(reader)
        sort, index = _extern_type(reader)
        yield Import(name, sort, index)
    reader.ensure_at_end("the import section")


def read_exports(reader: Reader) -> Iterator[Export]:
    """Entries of an export section; the type that some state is passed over."""
    for _ in range(reader.count("exports", 5)):
        name = _extern_name(reader)
        of = _ref(reader)
        has_type = reader.byte("whether an export states its type")
        if has_type == 1:
            _extern_type(reader)
        elif has_type:
            malformed(reader.pos - 1, "0 or 1", f"byte 0x{has_type:02x}")
        yield Export(name, of)
    reader.ensure_at_end("the export section")


def _core_sort(reader: Reader) -> Sort:
    byte = reader.byte("a core sort")
    sort = _CORE_SORTS.get(byte)
    if sort is None:
        malformed(reader.pos - 1, "a core sort", f"byte 0x{byte:02x}")
    return sort


def _sort(reader: Reader) -> Sort:
    byte = reader.byte("a sort")
    if byte == 0:
        return _core_sort(reader)
    sort = _SORTS.get(byte)
    if sort is None:
        malformed(reader.pos - 1, "a sort", f"byte 0x{byte:02x}")
    return sort


def _core_ref(reader: Reader) -> Ref:
    return Ref(_core_sort(reader), reader.u32("an index"))


def _ref(reader: Reader) -> Ref:
    return Ref(_sort(reader), reader.u32("an index"))


def _extern_name(reader: Reader) -> str:
    kind = reader.byte("an import or export name")
    if kind not in (0, 1):
        malformed(reader.pos - 1, "an import or export name (0 or 1)", f"byte 0x{kind:02x}")
    return reader.name("an import or export name")


def _extern_type(reader: Reader) -> tuple[Sort, int | None]:
    kind = reader.byte("the type of an import or export")
    if kind == 0:
        if reader.byte("a core module's type") != 0x11:
            malformed(reader.pos - 1, "a core module's type (0x11)", "another byte")
        return Sort.CORE_MODULE, reader.u32("a core type's index")
    if kind == 3:
        bound = reader.byte("the bound of a type")
        if bound > 1:
            malformed(reader.pos - 1, "the bound of a type (0 or 1)", f"byte 0x{bound:02x}")
        return Sort.TYPE, None if bound else reader.u32("a type's index")
    if kind not in (1, 4, 5):
        malformed(reader.pos - 1, "the type of an import or export", f"byte 0x{kind:02x}")
    return _SORTS[kind], reader.u32("a type's index")


def _canon_options(reader: Reader) -> CanonOptions:
    memory = realloc = post_return = None
    for _ in range(reader.count("options")):
        option = reader.byte("an option of a canonical function")
        if option == 3:
            memory = reader.u32("a memory's index")
        elif option == 4:
            realloc = reader.u32("a function's index")
        elif option == 5:
            post_return = reader.u32("a function's index")
        elif option > 2:  # 0 to 2 name the encoding of strings
            malformed(reader.pos - 1, "an option of a synchronous function (0 to 5)", f"byte 0x{option:02x}")
    return CanonOptions(memory, realloc, post_return)
