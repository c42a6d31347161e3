"""The five store limits that keep all memories and tables inside one limit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.binary.core import PAGE_BYTES, MemoryType, TableType
from cloche.binary.plan import TABLE_HEADROOM_ELEMENTS, memory_plan
from cloche.binary.survey import Survey
from cloche.errors import LimitError
from cloche.model import MIB

Memories = list[tuple[MemoryType, int]]
Tables = tuple[tuple[TableType, int], ...]


def survey_of(
    *memories: tuple[MemoryType, int],
    tables: tuple[tuple[TableType, int], ...] = (),
    core_instances: int = 1,
    component_instances: int = 0,
) -> Survey:
    """A survey that has only what the plan looks at."""
    return Survey(
        size_bytes=0,
        modules=(),
        components=0,
        depth=0,
        core_instances=core_instances,
        component_instances=component_instances,
        memories=memories,
        tables=tables,
        is_exact=True,
        imports=0,
        exports=0,
        custom=(),
        producers=(),
    )


@pytest.mark.parametrize(
    ("memories", "limit", "size", "worst"),
    [
        ([(MemoryType(1), 1)], 10 * MIB, 10 * MIB, 10 * MIB),
        ([(MemoryType(1), 2)], 10 * MIB, 5 * MIB, 10 * MIB),
        ([(MemoryType(1), 3)], 10 * MIB, 53 * PAGE_BYTES, 159 * PAGE_BYTES),
        ([(MemoryType(1, 16), 1), (MemoryType(1), 1)], 10 * MIB, 9 * MIB, 10 * MIB),
        ([(MemoryType(1, 16), 9), (MemoryType(1), 1)], 10 * MIB, 1 * MIB, 10 * MIB),
        ([(MemoryType(1, 16), 1)], 10 * MIB, 10 * MIB, 1 * MIB),
        ([(MemoryType(70_000, page_bytes=1), 1)], 10 * MIB, 10 * MIB, 10 * MIB),
        ([], 10 * MIB, 10 * MIB, 0),
    ],
)
def test_memory_is_shared_out(memories: Memories, limit: int, size: int, worst: int) -> None:
    """Small declared maxima count with themselves, the other memories share what is left, whole pages each."""
    plan = memory_plan(survey_of(*memories), limit)
    assert (size, worst) == (plan.memory_size, plan.worst_case_bytes)


@pytest.mark.parametrize(
    ("memories", "tables", "limit", "least"),
    [
        ([(MemoryType(17), 1)], (), MIB, 17 * PAGE_BYTES),
        ([(MemoryType(8), 3)], (), MIB, 24 * PAGE_BYTES),
        # The engine's bound is one for all: what lets the first memory begin lets the second grow as far.
        ([(MemoryType(10), 1), (MemoryType(1), 1)], (), MIB, 20 * PAGE_BYTES),
        ([(MemoryType(1), 1)], ((TableType(200_000), 1),), MIB, PAGE_BYTES + 1_600_000),
    ],
)
def test_what_cannot_begin_is_refused(memories: Memories, tables: Tables, limit: int, least: int) -> None:
    """Too little memory is `limit.memory`, names the least that would do, and exactly that does."""
    survey = survey_of(*memories, tables=tables)
    with pytest.raises(LimitError, match=f"at least {least} bytes") as caught:
        memory_plan(survey, limit)
    assert caught.value.code == "limit.memory"
    assert least == memory_plan(survey, least).worst_case_bytes


@pytest.mark.parametrize(
    ("tables", "limit", "elements"),
    [
        ((), 64 * MIB, TABLE_HEADROOM_ELEMENTS),
        (((TableType(5_670), 1), (TableType(87, 87), 1)), 64 * MIB, TABLE_HEADROOM_ELEMENTS),
        (((TableType(100_000), 1),), 64 * MIB, 100_000),
        (((TableType(10), 1),), MIB, 10 + MIB // 16 // 8),
        (((TableType(10), 4),), MIB, 10 + MIB // 16 // 8 // 4),
    ],
)
def test_tables_get_headroom_only_while_there_is_room(tables: Tables, limit: int, elements: int) -> None:
    """Tables without a maximum may grow, but to no more than a small part of the limit."""
    plan = memory_plan(survey_of((MemoryType(1), 1), tables=tables), limit)
    assert (elements, sum(number for _, number in tables)) == (plan.table_elements, plan.tables)


def test_counts_leave_room_for_probe_and_adapters() -> None:
    """Each memory's probe is an instance; nested components make the engine add adapters."""
    flat = memory_plan(survey_of((MemoryType(1), 2), core_instances=5), MIB)
    nested = memory_plan(survey_of((MemoryType(1), 2), core_instances=5, component_instances=3), MIB)
    assert (flat.instances, flat.memories, nested.instances) == (7, 2, 16)


pages = st.integers(0, 300)
memory_types = st.builds(
    lambda low, more: MemoryType(low, None if more is None else low + more), pages, st.none() | pages
)
table_types = st.builds(
    lambda low, more: TableType(low, None if more is None else low + more), pages, st.none() | pages
)
counts = st.integers(1, 5)


@given(
    st.lists(st.tuples(memory_types, counts), max_size=5),
    st.lists(st.tuples(table_types, counts), max_size=4),
    st.integers(PAGE_BYTES, 256 * MIB),
)
def test_the_worst_case_never_exceeds_the_limit(
    memories: Memories, tables: list[tuple[TableType, int]], limit: int
) -> None:
    """Whatever grows as far as the engine lets it, the sum stays inside, and everything can begin."""
    try:
        plan = memory_plan(survey_of(*memories, tables=tuple(tables)), limit)
    except LimitError:
        return
    grown = sum(n * min(plan.memory_size, m.max_bytes or plan.memory_size) for m, n in memories if m.max_pages != 0)
    grown += 8 * sum(
        n * (plan.table_elements if t.max_elements is None else min(plan.table_elements, t.max_elements))
        for t, n in tables
    )
    assert grown <= limit
    assert all(m.min_bytes <= plan.memory_size for m, _ in memories)
    assert all(t.min_elements <= plan.table_elements for t, _ in tables)
