"""From a survey to the engine's five store limits, so that everything together stays inside one memory limit (H6).

The engine bounds *each* memory and *each* table, never their sum. So the plan is the largest bound for which the sum
cannot exceed the limit, whatever the guest grows.
"""

from __future__ import annotations

from dataclasses import dataclass

from cloche.binary.core import PAGE_BYTES, MemoryType, TableType
from cloche.binary.survey import Survey
from cloche.errors import LimitError

TABLE_ELEMENT_BYTES = 8
TABLE_HEADROOM_ELEMENTS = 65_536
"""How far a table without a maximum may grow when there is room: guests that load code at run time need some."""
TABLE_SHARE = 16
"""Tables that can grow get at most one part in this many of the limit beyond what they begin with."""


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """The five store limits: bytes of each memory, elements of each table, and three counts.

    `worst_case_bytes` is what all memories and tables together can reach under them. Added in 0.1.
    """

    memory_size: int
    memories: int
    tables: int
    table_elements: int
    instances: int
    worst_case_bytes: int


def memory_plan(survey: Survey, memory_bytes: int) -> MemoryPlan:
    """The largest limits under which memories and tables of one instance never exceed `memory_bytes` together.

    A memory or table that declares a small maximum counts with that; the others share what is left. Pure.

    Raises: LimitError (`limit.memory`) naming the least limit that would do, when `memory_bytes` is below it.
        Added in 0.1.
    """
    memories, tables = survey.memories, survey.tables
    least_memory = _round_up(max((memory.min_bytes for memory, _ in memories), default=0))
    least_elements = max((table.min_elements for table, _ in tables), default=0)
    least = _memory_total(memories, least_memory) + _table_total(tables, least_elements)
    if least > memory_bytes:
        raise LimitError(
            f"The memory limit is {memory_bytes} bytes, but the component needs at least {least} bytes for "
            f"{survey.memory_count} memories and {survey.table_count} tables as they begin. Raise the memory limit.",
            code="limit.memory",
        )
    elements = _largest_elements(tables, least_elements, min(memory_bytes - least, memory_bytes // TABLE_SHARE))
    table_bytes = _table_total(tables, elements)
    size = _largest_memory(memories, least_memory, memory_bytes - table_bytes)
    return MemoryPlan(
        memory_size=size,
        memories=survey.memory_count,
        tables=survey.table_count,
        table_elements=elements,
        instances=_instances(survey),
        worst_case_bytes=_memory_total(memories, size) + table_bytes,
    )


def _instances(survey: Survey) -> int:
    number = survey.core_instances + survey.memory_count  # a memory probe adds one for each memory
    if survey.component_instances:
        # Calls between nested components make the engine add adapter instances of its own: at most one before each
        # core instance and one for each component.
        number += survey.core_instances + survey.component_instances + 1
    return number


def _round_up(size_bytes: int) -> int:
    return -(-size_bytes // PAGE_BYTES) * PAGE_BYTES


def _memory_total(memories: tuple[tuple[MemoryType, int], ...], each: int) -> int:
    return sum(number * (each if (most := m.max_bytes) is None else min(each, most)) for m, number in memories)


def _table_total(tables: tuple[tuple[TableType, int], ...], each: int) -> int:
    elements = sum(n * (each if (most := t.max_elements) is None else min(each, most)) for t, n in tables)
    return elements * TABLE_ELEMENT_BYTES


def _largest_memory(memories: tuple[tuple[MemoryType, int], ...], least: int, room: int) -> int:
    """The largest multiple of a page, from `least` up, whose total fits `room`. The total grows with it, so bisect."""
    low, high = least // PAGE_BYTES, max(room, least) // PAGE_BYTES
    while low < high:
        middle = (low + high + 1) // 2
        if _memory_total(memories, middle * PAGE_BYTES) <= room:
            low = middle
        else:
            high = middle - 1
    return low * PAGE_BYTES


def _largest_elements(tables: tuple[tuple[TableType, int], ...], least: int, spare: int) -> int:
    room = _table_total(tables, least) + spare
    low, high = least, max(least, TABLE_HEADROOM_ELEMENTS)
    while low < high:
        middle = (low + high + 1) // 2
        if _table_total(tables, middle) <= room:
            low = middle
        else:
            high = middle - 1
    return low
