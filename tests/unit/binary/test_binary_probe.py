"""The memory probe: what it is appended to, what it leaves alone, and that the result is a component."""

from pathlib import Path

import pytest

from cloche.binary.bounds import Budget
from cloche.binary.index import MemoryPlaces, index_root
from cloche.binary.leb import encode_name, encode_section, encode_u32, encode_vector
from cloche.binary.probe import MAX_PROBED_MEMORIES, PROBE_EXPORT, add_probe
from cloche.binary.root import Sort
from cloche.binary.sections import COMPONENT_PREAMBLE, MODULE_PREAMBLE
from support.binary_wat import (
    NESTED,
    ONE_MEMORY,
    STRINGS_WIT,
    TWO_MEMORIES,
    parse,
    run_wasm_tools,
    validate,
    wit_component,
)

STRINGS = "strings"

MANY_TYPES = f"""
(component
  {" ".join(f'(type $t{i} (record (field "a{i}" u32)))' for i in range(70))}
  (core module $m (memory (export "memory") 1) {" ".join(f'(func (export "f{i}"))' for i in range(200))})
  (core instance $i (instantiate $m))
  (alias core export $i "memory" (core memory))
  {" ".join(f'(alias core export $i "f{i}" (core func))' for i in range(200))})
"""
"""More types than an index of one byte can name without meaning a built-in type."""


def component_of(name: str) -> bytes:
    """A component by WAT text, or the one that wit-component makes."""
    return wit_component(STRINGS_WIT, "both") if name == STRINGS else parse(name)


def export_of_memory(declaration: str) -> str:
    """A component whose root aliases one memory of the given declaration."""
    return f"""(component (core module $m {declaration})
        (core instance $i (instantiate $m)) (alias core export $i "memory" (core memory)))"""


@pytest.mark.parametrize(
    ("name", "memories"), [(ONE_MEMORY, 1), (TWO_MEMORIES, 2), (STRINGS, 1), (MANY_TYPES, 1)], ids=range(4)
)
def test_the_derived_component_is_valid(name: str, memories: int) -> None:
    """The original bytes stand unchanged in front, the whole validates, and the export is there."""
    data = component_of(name)
    probed = add_probe(data)
    assert probed is not None
    validate(probed.bytes)
    assert (memories, data) == (probed.memories, probed.bytes[: len(data)])
    assert f'(export (;{index_root(data).counts[Sort.FUNC] + 1};) "{PROBE_EXPORT}"'.encode() in run_wasm_tools(
        "print", "-", data=probed.bytes
    )


def test_a_probed_component_is_not_probed_again() -> None:
    """The name is taken then."""
    probed = add_probe(parse(ONE_MEMORY))
    assert probed is not None
    assert add_probe(probed.bytes) is None


@pytest.mark.parametrize("name", [ONE_MEMORY, TWO_MEMORIES, STRINGS], ids=range(3))
def test_unbundling_works_after_the_probe(tmp_path: Path, name: str) -> None:
    """Core modules can be moved out of the derived component, and what remains validates and keeps the probe."""
    probed = add_probe(component_of(name))
    assert probed is not None
    source, out, folder = tmp_path / "in.wasm", tmp_path / "out.wasm", tmp_path / "modules"
    folder.mkdir()
    source.write_bytes(probed.bytes)
    run_wasm_tools(
        "component", "unbundle", str(source), "-o", str(out), "--module-dir", str(folder), "--threshold", "0"
    )
    validate(out.read_bytes())
    assert PROBE_EXPORT.encode() in out.read_bytes()
    assert len(list(folder.iterdir())) >= 2


@pytest.mark.parametrize(
    "text",
    [
        "(component)",
        NESTED,
        export_of_memory('(memory (export "memory") i64 1)'),
        export_of_memory('(memory (export "memory") 1 2 shared)'),
        export_of_memory('(memory (export "memory") 1 (pagesize 1))'),
        f'(component (import "{PROBE_EXPORT}" (func $f)) {ONE_MEMORY.strip()[len("(component") : -1]}'
        f' (export "{PROBE_EXPORT}" (func $f)))',
        f'(component (import "f" (func $f)) {ONE_MEMORY.strip()[len("(component") : -1]}'
        f' (export "{PROBE_EXPORT.upper()}" (func $f)))',
        ONE_MEMORY.replace('(canon lift (core func $i "grow"))', '(canon lift (core func $i "grow") async)'),
        """(component
            (import "m" (core module $m (export "memory" (memory 1))))
            (core instance $i (instantiate $m)) (alias core export $i "memory" (core memory)))""",
    ],
    ids=range(9),
)
def test_what_cannot_be_probed_is_declined(text: str) -> None:
    """No memory at the root, odd memories, the name taken, asynchronous functions, modules from outside: None."""
    assert add_probe(parse(text)) is None


@pytest.mark.parametrize("data", [b"", b"\0asm", b"(component)", COMPONENT_PREAMBLE, COMPONENT_PREAMBLE + b"\x09\x00"])
def test_bytes_that_are_no_component_are_declined(data: bytes) -> None:
    """Whatever the bytes are, the answer is None and never an error."""
    assert add_probe(data) is None


def test_too_many_memories_are_declined() -> None:
    """The bound on probed memories holds, and at the bound the result is valid."""

    def with_memories(number: int) -> bytes:
        made = " ".join(
            f'(core instance $i{i} (instantiate $m)) (alias core export $i{i} "memory" (core memory))'
            for i in range(number)
        )
        return parse(f'(component (core module $m (memory (export "memory") 1)) {made})')

    probed = add_probe(with_memories(MAX_PROBED_MEMORIES))
    assert probed is not None
    validate(probed.bytes)
    assert probed.memories == MAX_PROBED_MEMORIES
    assert add_probe(with_memories(MAX_PROBED_MEMORIES + 1)) is None


def test_five_indices_of_two_memories_are_told_apart() -> None:
    """Aliases through a bag and through another module's export lead back to where the memory is made."""
    data = parse(TWO_MEMORIES)
    index = index_root(data)
    places = MemoryPlaces(data, index, Budget())
    found = [places.find(memory) for memory in range(5)]
    assert [(p.instance, p.index) for p in found if p is not None] == [(0, 0), (0, 0), (1, 0), (0, 0), (0, 0)]


def bags_in_a_row(bags: int, names: int, *, export: str = "m") -> bytes:
    """A memory under its `export`, handed on through `bags` bags, and `names` more aliases of the last bag's."""
    exports = encode_vector([encode_name(export) + b"\x02\x00"])
    module = MODULE_PREAMBLE + encode_section(5, b"\x01\x00\x01") + encode_section(7, exports)
    parts = [COMPONENT_PREAMBLE, encode_section(1, module), encode_section(2, b"\x01\x00\x00\x00")]

    def alias(instance: int, name: str) -> bytes:
        return b"\x00\x02\x01" + encode_u32(instance) + encode_name(name)

    for number in range(bags):
        parts.append(encode_section(6, encode_vector([alias(number, "m" if number else export)])))
        bag = b"\x01" + encode_vector([encode_name("m") + b"\x02" + encode_u32(number)])
        parts.append(encode_section(2, encode_vector([bag])))
    last = alias(bags, "m" if bags else export)
    return b"".join([*parts, encode_section(6, encode_vector([last] * names))])


@pytest.mark.parametrize(("bags", "names"), [(0, 1), (0, 5_000), (1, 1), (900, 1), (900, 5_000)])
def test_finding_memories_costs_one_step_for_each_bag(bags: int, names: int) -> None:
    """However many names lead to it: a step for each instance on the way, and the module is read once."""
    data, budget = bags_in_a_row(bags, names), Budget()
    places = MemoryPlaces(data, index_root(data), budget)
    found = {places.find(memory) for memory in range(bags + names)}
    assert [(place.instance, place.index) for place in found if place is not None] == [(0, 0)]
    assert budget.definitions == (bags + 1) + 2  # the steps; the module's memory and its export
    assert (budget.sections, budget.definition_bytes) == (2, len(b"\x01\x01m\x02\x00"))


def test_long_names_in_a_core_module_are_read_once_and_bounded() -> None:
    """What is read of a core module counts, so that a component of names is declined and not read again and again."""
    data, budget = bags_in_a_row(0, 2, export="m" * 300_000), Budget()
    places = MemoryPlaces(data, index_root(data), budget)
    assert places.find(0) == places.find(1) is not None
    assert 300_000 < budget.definition_bytes < 300_020
    module = bags_in_a_row(0, 1, export="m" * (Budget.MAX_DEFINITION_BYTES + 1))
    assert add_probe(module) is None


def test_index_spaces_are_counted() -> None:
    """Every kind of section adds to its own spaces; an export adds an index, too."""
    assert dict(index_root(parse(TWO_MEMORIES)).counts) == {
        Sort.CORE_MODULE: 2,
        Sort.CORE_INSTANCE: 4,
        Sort.CORE_MEMORY: 5,
        Sort.CORE_FUNC: 1,
        Sort.TYPE: 1,
        Sort.FUNC: 2,
    }


def test_a_loop_of_instances_ends() -> None:
    """Hostile bytes whose core instance refers to itself are declined."""
    # Core instance 0 is a bag with core memory 0; core memory 0 is an alias of core instance 0.
    bag = b"\x02\x07\x01\x01\x01\x01m\x02\x00"
    alias = b"\x06\x07\x01\x00\x02\x01\x00\x01m"
    assert add_probe(COMPONENT_PREAMBLE + bag + alias) is None
