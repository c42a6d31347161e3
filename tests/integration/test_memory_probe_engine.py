"""The memory probe and the memory plan on the real engine."""

import ctypes
import struct
from collections.abc import Iterator

import pytest

from cloche.binary.plan import MemoryPlan, memory_plan
from cloche.binary.probe import PROBE_EXPORT, add_probe
from cloche.binary.survey import survey
from cloche.engine import ffi, profile
from cloche.engine.profile import Profile, new_engine
from cloche.model import MIB
from support.binary_wat import NESTED, ONE_MEMORY, STRINGS_WIT, TWO_MEMORIES, composed, parse, wit_component
from support.guests import GUESTS, built

LIB = ffi.library()
U32, S32 = 6, 5
"""Kinds of component values in the C API."""


class RawInstance:
    """A component in a store of its own, through the C API alone; imports trap."""

    def __init__(self, engine: int, data: bytes, plan: MemoryPlan) -> None:
        component = ctypes.c_void_p()
        error = LIB.wasmtime_component_new(engine, data, len(data), ctypes.addressof(component))
        assert not error, ffi.take_error(LIB, error)
        self.component = component.value
        self.linker = LIB.wasmtime_component_linker_new(engine)
        error = LIB.wasmtime_component_linker_add_wasip2(self.linker)
        assert not error, ffi.take_error(LIB, error)
        self.store = LIB.wasmtime_store_new(engine, None, None)
        self.context = LIB.wasmtime_store_context(self.store)
        LIB.wasmtime_store_limiter(
            self.store, plan.memory_size, plan.table_elements, plan.instances, plan.tables, plan.memories
        )
        LIB.wasmtime_context_set_wasi(self.context, LIB.wasi_config_new())
        LIB.wasmtime_context_set_fuel(self.context, 10**9)
        LIB.wasmtime_context_set_epoch_deadline(self.context, 10**6)
        self.instance = ffi.ComponentInstance()
        error = LIB.wasmtime_component_linker_instantiate(
            self.linker, self.context, self.component, ctypes.addressof(self.instance)
        )
        self.refusal = ffi.take_error(LIB, error) if error else ""

    def call(self, name: str, *arguments: int) -> int:
        """Call a root function of u32 parameters with one 32-bit result."""
        export = LIB.wasmtime_component_get_export_index(self.component, None, name.encode(), len(name))
        assert export
        found = ffi.ComponentFunc()
        assert LIB.wasmtime_component_instance_get_func(
            ctypes.addressof(self.instance), self.context, export, ctypes.addressof(found)
        )
        LIB.wasmtime_component_export_index_delete(export)
        values = bytearray(ffi.VAL_BYTES * max(1, len(arguments)))
        for position, value in enumerate(arguments):
            struct.pack_into("<B7xI", values, position * ffi.VAL_BYTES, U32, value)
        raw = (ctypes.c_uint8 * len(values)).from_buffer(values)
        result = ctypes.create_string_buffer(ffi.VAL_BYTES)
        error = LIB.wasmtime_component_func_call(
            ctypes.addressof(found),
            self.context,
            ctypes.addressof(raw),
            len(arguments),
            ctypes.addressof(result),
            1,
        )
        assert not error, ffi.take_error(LIB, error)
        kind, value = struct.unpack_from("<B7xI", result.raw)
        assert kind in (U32, S32)
        return int(value)

    def close(self) -> None:
        """Free everything."""
        LIB.wasmtime_store_delete(self.store)
        LIB.wasmtime_component_linker_delete(self.linker)
        LIB.wasmtime_component_delete(self.component)


@pytest.fixture(scope="module")
def engine() -> Iterator[int]:
    """A hardened engine, as the host makes it."""
    pointer = new_engine(LIB, Profile())
    yield pointer
    LIB.wasm_engine_delete(pointer)


def start(engine: int, data: bytes, memory_bytes: int = 16 * MIB) -> RawInstance:
    """The probed component under the plan for `memory_bytes`."""
    probed = add_probe(data)
    assert probed is not None
    made = RawInstance(engine, probed.bytes, memory_plan(survey(data), memory_bytes))
    assert made.refusal == ""
    return made


@pytest.mark.parametrize(
    ("text", "at_first", "grown"), [(ONE_MEMORY, 3, 10), (TWO_MEMORIES, 4, 11)], ids=["one memory", "two memories"]
)
def test_the_probe_follows_growth(engine: int, text: str, at_first: int, grown: int) -> None:
    """The probe gives the pages of all memories, before and after one of them has grown by seven."""
    made = start(engine, parse(text))
    pages = [made.call(PROBE_EXPORT)]
    made.call("grow", 7)
    pages.append(made.call(PROBE_EXPORT))
    made.close()
    assert pages == [at_first, grown]


def test_two_memories_stay_inside_one_limit(engine: int) -> None:
    """With 1 MiB for both, either memory may grow to eight pages and not to nine."""
    made = start(engine, parse(TWO_MEMORIES), MIB)
    answers = [made.call("grow", 6), made.call("grow", 1), made.call(PROBE_EXPORT)]
    made.close()
    assert answers == [2, 0xFFFF_FFFF, 10]


@pytest.mark.parametrize("field", ["instances", "memories", "tables"])
def test_the_counts_of_the_plan_are_enough_and_not_idle(engine: int, field: str) -> None:
    """Nested components begin under the planned counts; with none of one kind the engine refuses."""
    data = parse(NESTED)
    plan = memory_plan(survey(data), 16 * MIB)
    values = {name: getattr(plan, name) for name in MemoryPlan.__slots__}
    enough = RawInstance(engine, data, plan)
    too_few = RawInstance(engine, data, MemoryPlan(**{**values, field: 0}))
    refusals = enough.refusal, too_few.refusal
    enough.close()
    too_few.close()
    assert refusals[0] == ""
    assert "resource limit exceeded" in refusals[1]


def test_the_tables_and_memories_are_counted_exactly(engine: int) -> None:
    """One memory or one table fewer than the survey counted does not suffice."""
    data = parse(NESTED)
    plan = memory_plan(survey(data), 16 * MIB)
    values = {name: getattr(plan, name) for name in MemoryPlan.__slots__}
    for field in ("memories", "tables"):
        made = RawInstance(engine, data, MemoryPlan(**{**values, field: values[field] - 1}))
        made.close()
        assert "resource limit exceeded" in made.refusal


def test_a_probed_wit_component_compiles(engine: int) -> None:
    """Shim and fix-up modules do not disturb the probe; the engine compiles the result."""
    probed = add_probe(wit_component(STRINGS_WIT, "both"))
    assert probed is not None
    component = ctypes.c_void_p()
    error = LIB.wasmtime_component_new(engine, probed.bytes, len(probed.bytes), ctypes.addressof(component))
    assert not error, ffi.take_error(LIB, error)
    LIB.wasmtime_component_delete(component.value)


def test_a_composed_component_begins_under_its_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine's own adapter instances between two components fit the planned count; there is nothing to probe.

    Multi-memory is on here: without it the engine aborts the process at the first adapter with two memories.
    """
    features = tuple(name for name in profile.DISABLED_FEATURES if name != "wasm_multi_memory")
    monkeypatch.setattr(profile, "DISABLED_FEATURES", features)
    engine = new_engine(LIB, Profile())
    data = composed()
    found = survey(data)
    made = RawInstance(engine, data, memory_plan(found, 16 * MIB))
    made.close()
    LIB.wasm_engine_delete(engine)
    assert (made.refusal, found.may_cross_memories, add_probe(data)) == ("", True, None)


@pytest.mark.slow
@pytest.mark.parametrize("name", GUESTS)
def test_built_guests_are_surveyed_and_probed(name: str) -> None:
    """Real guests of every toolchain stay within the bounds, and their memory can be probed."""
    data = built(name).read_bytes()
    found = survey(data)
    probed = add_probe(data)
    assert found.is_exact
    assert memory_plan(found, 256 * MIB).worst_case_bytes <= 256 * MIB
    if found.memory_count:
        assert probed is not None
        assert probed.memories == found.memory_count
