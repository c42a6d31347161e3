"""How large a component may be before anything compiles it, and the account that a survey charges against.

The compiler runs in a limited child process in any case; these bounds refuse at once, and cheaply, what could only
waste that child's time (H22). Measured against real guests, a CPython guest has 13 thousand functions.
"""

from __future__ import annotations

from typing import ClassVar, NoReturn

from cloche.errors import ContractError
from cloche.model import MIB


class Budget:
    """What one component may hold in all. Each method raises ContractError (`component.too-large`). Added in 0.1."""

    MAX_COMPONENT_BYTES: ClassVar[int] = 64 * MIB
    """A Python guest with a large library (sympy) has 54 MB, one without 18 MB."""
    MAX_FUNCTIONS: ClassVar[int] = 250_000
    """100 thousand tiny functions took 13 s and 0.6 GB to compile; a CPython guest has 13 thousand."""
    MAX_BODY_BYTES: ClassVar[int] = 2 * MIB
    """One function of 6 MB took 11 s and 1.3 GB; the largest of a CPython guest has 0.43 MB."""
    MAX_LOCALS: ClassVar[int] = 20_000
    """50 thousand locals in one function of 0.5 MB took 22 s and 1.6 GB."""
    MAX_LOCAL_GROUPS: ClassVar[int] = 500_000
    """Runs of locals of one type in all functions together: the survey reads each; a CPython guest has 13 thousand."""
    MAX_MODULES: ClassVar[int] = 1_000
    """The engine's own bound on core modules of one component."""
    MAX_COMPONENTS: ClassVar[int] = 1_000
    """The engine's own bound on nested components of one component."""
    MAX_DEPTH: ClassVar[int] = 32
    """Components inside components. Composition tools nest two or three deep."""
    MAX_SECTIONS: ClassVar[int] = 100_000
    """All sections at all depths; a CPython guest has 600."""
    MAX_DEFINITIONS: ClassVar[int] = 200_000
    """Entries that define or import something, in components and core modules; a CPython guest has 4 thousand."""
    MAX_DEFINITION_BYTES: ClassVar[int] = 1 * MIB
    """Instance, alias, canon, import and export sections of all components together; a CPython guest has 70 kB. Looking
    for memories, the import and export sections of the core modules on the way; a CPython guest has 180 kB."""
    MAX_INSTANCES: ClassVar[int] = 10_000
    """Instances of core modules and nested components that instantiating a component makes, multiplied out."""
    MAX_MEMORIES: ClassVar[int] = 100
    """Linear memories that instantiating it makes. Each takes a reservation of its own."""
    MAX_TABLES: ClassVar[int] = 1_000
    """Tables that instantiating it makes."""
    MAX_CUSTOM_SECTIONS: ClassVar[int] = 200
    """Custom sections that a survey lists; more are passed over."""
    MAX_NAME_CHARS: ClassVar[int] = 128
    """Characters of a custom section's or a tool's name that are kept."""
    MAX_PRODUCER_FIELDS: ClassVar[int] = 16
    """Fields of one `producers` section that are read; the convention knows three."""
    MAX_PRODUCERS: ClassVar[int] = 64
    """Tools named by one `producers` section that are kept."""

    __slots__ = ("components", "definition_bytes", "definitions", "functions", "local_groups", "modules", "sections")

    def __init__(self) -> None:
        self.components = self.definitions = self.definition_bytes = self.functions = self.local_groups = (
            self.modules
        ) = self.sections = 0

    def ensure_size(self, size_bytes: int) -> None:
        """Refuse a file that is larger than a component may be."""
        if size_bytes > self.MAX_COMPONENT_BYTES:
            _too_large("size", f"{size_bytes} bytes", f"{self.MAX_COMPONENT_BYTES} bytes", "Ship less data inside it")

    def charge_section(self) -> None:
        """Count one section."""
        self.sections += 1
        if self.sections > self.MAX_SECTIONS:
            _too_large("number of sections", f"more than {self.MAX_SECTIONS}", str(self.MAX_SECTIONS), _STRIP)

    def charge_module(self) -> None:
        """Count one core module."""
        self.modules += 1
        if self.modules > self.MAX_MODULES:
            _too_large("number of core modules", f"more than {self.MAX_MODULES}", str(self.MAX_MODULES), _SPLIT)

    def charge_component(self, depth: int) -> None:
        """Count one nested component that lies `depth` components deep."""
        self.components += 1
        if self.components > self.MAX_COMPONENTS:
            _too_large(
                "number of nested components", f"more than {self.MAX_COMPONENTS}", str(self.MAX_COMPONENTS), _SPLIT
            )
        if depth > self.MAX_DEPTH:
            _too_large("nesting of components", f"more than {self.MAX_DEPTH} deep", str(self.MAX_DEPTH), _SPLIT)

    def charge_definitions(self, number: int) -> None:
        """Count entries of a section that defines items by index."""
        self.definitions += number
        if self.definitions > self.MAX_DEFINITIONS:
            _too_large("number of definitions", str(self.definitions), str(self.MAX_DEFINITIONS), _SPLIT)

    def charge_definition_bytes(self, size_bytes: int) -> None:
        """Count the bytes of a section whose entries are read one by one, names included."""
        self.definition_bytes += size_bytes
        if self.definition_bytes > self.MAX_DEFINITION_BYTES:
            found, bound = f"{self.definition_bytes} bytes", f"{self.MAX_DEFINITION_BYTES} bytes"
            _too_large("size of definitions", found, bound, _SPLIT)

    def charge_functions(self, number: int) -> None:
        """Count the functions that a core module defines."""
        self.functions += number
        if self.functions > self.MAX_FUNCTIONS:
            _too_large("number of functions", str(self.functions), str(self.MAX_FUNCTIONS), _SPLIT)

    def ensure_body(self, size_bytes: int, offset: int) -> None:
        """Refuse a function body that is too large to compile in bounded memory."""
        if size_bytes > self.MAX_BODY_BYTES:
            _too_large(f"function at byte {offset}", f"{size_bytes} bytes", f"{self.MAX_BODY_BYTES} bytes", _SMALLER)

    def charge_local_groups(self, number: int, offset: int) -> None:
        """Count the declarations of locals in one function."""
        self.local_groups += number
        if self.local_groups > self.MAX_LOCAL_GROUPS:
            found = f"more than {self.MAX_LOCAL_GROUPS} up to byte {offset}"
            _too_large("number of declarations of locals", found, str(self.MAX_LOCAL_GROUPS), _SMALLER)

    def ensure_locals(self, number: int, offset: int) -> None:
        """Refuse a function with too many locals."""
        if number > self.MAX_LOCALS:
            _too_large(
                f"number of locals of the function at byte {offset}", str(number), str(self.MAX_LOCALS), _SMALLER
            )

    def ensure_instantiated(self, instances: int, memories: int, tables: int) -> None:
        """Refuse what would make too many instances, memories or tables at run time."""
        for what, number, most in (
            ("number of instances", instances, self.MAX_INSTANCES),
            ("number of memories", memories, self.MAX_MEMORIES),
            ("number of tables", tables, self.MAX_TABLES),
        ):
            if number > most:
                _too_large(what, str(number), str(most), _SPLIT)


_STRIP = "Remove custom sections with `wasm-tools strip`"
_SPLIT = "Make several plugins of it"
_SMALLER = "Compile it with optimisation, or divide the function"


def _too_large(what: str, found: str, bound: str, remedy: str) -> NoReturn:
    raise ContractError(
        f"The component's {what} is {found}; the bound is {bound}. {remedy}.", code="component.too-large"
    )
