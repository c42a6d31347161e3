"""What a survey says about a component, and what it refuses."""

import hashlib

import pytest

from cloche.binary.bounds import Budget
from cloche.binary.core import MemoryType, TableType
from cloche.binary.leb import encode_name, encode_section, encode_u32, encode_vector
from cloche.binary.module import CustomSection
from cloche.binary.sections import COMPONENT_PREAMBLE, MODULE_PREAMBLE, component_sections
from cloche.binary.survey import Survey, survey
from cloche.errors import ContractError
from support.binary_wat import (
    NESTED,
    ONE_MEMORY,
    STRINGS_WIT,
    TWO_MEMORIES,
    composed,
    parse,
    run_wasm_tools,
    wit_component,
)


def component(*sections: bytes) -> bytes:
    """A component of the given sections."""
    return COMPONENT_PREAMBLE + b"".join(sections)


def core_module(*sections: bytes) -> bytes:
    """A core-module section of a component, around the given sections of the module."""
    return encode_section(1, MODULE_PREAMBLE + b"".join(sections))


def functions(*bodies: bytes) -> tuple[bytes, bytes]:
    """Function and code sections of a core module with these bodies."""
    code = [encode_u32(len(body)) + body for body in bodies]
    return encode_section(3, encode_vector([b"\0"] * len(bodies))), encode_section(10, encode_vector(code))


def refused(data: bytes) -> tuple[str, str]:
    """Code and message with which `survey` refuses `data`."""
    with pytest.raises(ContractError) as caught:
        survey(data)
    return caught.value.code, str(caught.value)


def test_one_module_is_measured() -> None:
    """Sizes, digest, functions, largest body and memory of a small component are exact."""
    data = parse(ONE_MEMORY)
    found = survey(data)
    span = next(s for s in component_sections(data) if s.id == 1)
    [module] = found.modules
    assert (len(data), 1, 1, 0) == (found.size_bytes, found.exports, found.core_instances, found.components)
    assert ((MemoryType(3), 1),) == found.memories
    assert hashlib.sha256(data[span.start : span.end]).hexdigest() == module.sha256
    assert (span.start, span.size_bytes, 1, 6) == (
        module.offset,
        module.size_bytes,
        module.functions,
        module.largest_body_bytes,
    )


def test_memories_are_counted_by_instantiation() -> None:
    """A module that is instantiated twice makes its memory twice, an importing module makes none."""
    found = survey(parse(TWO_MEMORIES))
    assert (((MemoryType(2), 2),), 3, True) == (found.memories, found.core_instances, found.is_exact)


def test_nested_components_are_multiplied_out() -> None:
    """Outer aliases are followed, and each instance of a nested component counts."""
    found = survey(parse(NESTED))
    assert (((MemoryType(4), 3),), ((TableType(7, 9), 3),)) == (found.memories, found.tables)
    assert (
        found.core_instances,
        found.component_instances,
        found.components,
        found.depth,
        found.is_exact,
    ) == (3, 4, 2, 1, True)


def test_a_wit_component_is_exact() -> None:
    """Shim and fix-up modules, shim components, imports and producers are all understood."""
    found = survey(wit_component(STRINGS_WIT, "both"))
    assert (len(found.modules), found.memory_count, found.imports, found.is_exact) == (3, 1, 1, True)
    assert any(tool.startswith("processed-by: wit-component") for tool in found.producers)


def test_composed_components_may_cross_memories() -> None:
    """Only a component with several memories and inner instances can make the engine copy between memories."""
    parts = {
        "composed": composed(),
        "one component": wit_component(STRINGS_WIT, "both"),
        "two memories, one component": parse(TWO_MEMORIES),
    }
    crossing = {text: survey(data).may_cross_memories for text, data in parts.items()}
    assert crossing == {"composed": True, "one component": False, "two memories, one component": False}


def test_imported_modules_make_a_lower_bound() -> None:
    """A core module that comes from outside cannot be counted, and the survey says so."""
    found = survey(parse('(component (import "m" (core module $m)) (core instance (instantiate $m)))'))
    assert (found.core_instances, found.is_exact, found.memory_count) == (1, False, 0)


@pytest.mark.parametrize(
    ("memory", "expected"),
    [
        ("(memory 1)", MemoryType(1)),
        ("(memory 1 5)", MemoryType(1, 5)),
        ("(memory 1 5 shared)", MemoryType(1, 5, shared=True)),
        ("(memory i64 1 5)", MemoryType(1, 5, is_64=True)),
        ("(memory 7 (pagesize 1))", MemoryType(7, page_bytes=1)),
    ],
)
def test_kinds_of_memory(memory: str, expected: MemoryType) -> None:
    """Every flag of a memory's limits is read, also those that the engine will refuse."""
    [module] = survey(parse(f"(component (core module {memory}))")).modules
    assert (expected,) == module.memories


def test_every_kind_of_core_import_and_table() -> None:
    """Imports of all kinds are passed over, imported memories counted, tables with initial values read."""
    text = """(component (core module
        (import "a" "f" (func (param i32)))
        (import "a" "t" (table 1 2 externref))
        (import "a" "m" (memory 1))
        (import "a" "g" (global (mut i64)))
        (import "a" "r" (global (ref null func)))
        (import "a" "e" (tag (param i32)))
        (type $sig (func))
        (table 3 (ref null $sig) (ref.null $sig))
        (table i64 4 funcref)
        (memory 2)
        (data "12345")))"""
    [module] = survey(parse(text)).modules
    assert (module.imports, module.imported_memories) == (6, 1)
    assert (TableType(3), TableType(4, is_64=True)) == module.tables


def test_custom_sections_are_listed_and_cut() -> None:
    """Long names are cut, broken UTF-8 and a broken `producers` section do no harm."""
    long = encode_section(0, encode_name("n" * 1000) + b"12")
    bad = encode_section(0, b"\x02\xff\xfe123")
    producers = encode_section(0, encode_name("producers") + b"\x05")
    found = survey(component(long, bad, producers))
    assert (
        CustomSection("n" * 128, 2),
        CustomSection("\ufffd\ufffd", 3),
        CustomSection("producers", 1),
    ) == found.custom
    assert found.producers == ()


def test_many_custom_sections_are_not_all_kept() -> None:
    """The list of custom sections is bounded."""
    found = survey(component(encode_section(0, b"\x01a") * 1000))
    assert len(found.custom) == Budget.MAX_CUSTOM_SECTIONS


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("MAX_COMPONENT_BYTES", parse(ONE_MEMORY), "size is"),
        ("MAX_FUNCTIONS", component(core_module(*functions(*[b"\x00\x0b"] * 40))), "number of functions is 40"),
        ("MAX_BODY_BYTES", component(core_module(*functions(b"\x00" + b"\x01" * 40 + b"\x0b"))), "42 bytes"),
        ("MAX_LOCALS", component(core_module(*functions(b"\x02\x10\x7f\x10\x7e\x0b"))), "number of locals"),
        ("MAX_LOCAL_GROUPS", component(core_module(*functions(b"\x15" + b"\x01\x7f" * 21 + b"\x0b"))), "declarations"),
        ("MAX_MODULES", component(core_module() * 21), "core modules"),
        ("MAX_COMPONENTS", component(encode_section(4, component()) * 21), "nested components"),
        ("MAX_SECTIONS", component(encode_section(0, b"\x00") * 21), "sections"),
        ("MAX_DEFINITIONS", component(encode_section(7, b"\x15" + b"\x7f" * 21)), "definitions is 21"),
        (
            "MAX_DEFINITIONS",
            component(core_module(encode_section(2, b"\x15" + b"\x00\x00\x00\x00" * 21))),
            "definitions is 21",
        ),
        (
            "MAX_DEFINITION_BYTES",
            component(encode_section(10, b"\x01\x00\x10" + b"a" * 16 + b"\x01\x00")),
            "size of def",
        ),
        (
            "MAX_INSTANCES",
            component(core_module(), encode_section(2, b"\x15" + b"\x00\x00\x00" * 21)),
            "instances is 21",
        ),
        ("MAX_MEMORIES", parse(TWO_MEMORIES), "memories is 2"),
        ("MAX_TABLES", parse(NESTED), "tables is 3"),
    ],
)
def test_each_bound_refuses(monkeypatch: pytest.MonkeyPatch, name: str, data: bytes, words: str) -> None:
    """Above each bound there is `component.too-large` with the bound in the message; at it there is none."""
    bound = {"MAX_COMPONENT_BYTES": len(data), "MAX_MEMORIES": 2, "MAX_TABLES": 3}.get(name)
    if bound is not None:
        monkeypatch.setattr(Budget, name, bound)
        survey(data)
    monkeypatch.setattr(Budget, name, (bound or 21) - 1)
    code, message = refused(data)
    assert (code, words in message, str((bound or 21) - 1) in message) == ("component.too-large", True, True)


def test_deep_nesting_is_refused_without_recursion() -> None:
    """Components nested deeper than the bound are refused, however deep they are."""
    data = component()
    for _ in range(5000):
        data = component(encode_section(4, data))
    code, message = refused(data)
    assert (code, f"more than {Budget.MAX_DEPTH} deep" in message) == ("component.too-large", True)


def test_exponential_instantiation_is_refused() -> None:
    """Twenty components that each instantiate the one before twice would make a million instances."""
    parts = ["(component $c0 (core module $m) (core instance (instantiate $m)))"]
    parts += [
        f"(component $c{i} (alias outer 1 $c{i - 1} (component $x))"
        " (instance (instantiate $x)) (instance (instantiate $x)))"
        for i in range(1, 21)
    ]
    code, message = refused(parse(f"(component {' '.join(parts)} (instance (instantiate $c20)))"))
    assert (code, "number of instances" in message) == ("component.too-large", True)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (component(b"\x01\x50ab"), "80 bytes of section 1"),
        (component(encode_section(1, b"\0asm")), "core module"),
        (component(core_module(functions(b"\x00\x0b")[0])), "1 function bodies, as many as declared, found 0"),
        (
            component(core_module(encode_section(3, b"\x00"), encode_section(10, b"\x01\x09\x00\x0b"))),
            "9 bytes of a function body",
        ),
        (
            component(core_module(encode_section(3, b"\x01\x00"), encode_section(10, b"\x01\x03\x00\x0b\x0b\x00"))),
            "1 more bytes",
        ),
        (
            component(core_module(encode_section(3, b"\x01\x00"), encode_section(10, b"\x01\x02\x05\x7f"))),
            "found the end",
        ),
        (component(core_module(encode_section(5, b"\x01\x20\x00"))), "limits of a memory, found byte 0x20"),
        (component(core_module(encode_section(5, b"\x01\x01\x05\x04"))), "at least 5"),
        (component(core_module(encode_section(5, b"\x01\x08\x00\x05"))), "page size"),
        (component(core_module(encode_section(4, b"\x01\x11\x00\x00"))), "element type"),
        (component(core_module(encode_section(2, b"\x01\x00\x00\x07\x00"))), "kind of a core import, 0 to 4"),
        (component(encode_section(2, b"\x01\x02\x00\x00")), "core instance (0 or 1)"),
        (component(encode_section(2, b"\x01\x00\x00\x01\x00\x11\x00")), "0x12"),
        (component(encode_section(2, b"\x01\x00\x03\x00")), "refers to core module 3, but only 0"),
        (component(encode_section(5, b"\x01\x00\x01\x00")), "refers to component 1, but only 0"),
        (component(encode_section(5, b"\x01\x02\x00")), "an instance (0 or 1)"),
        (component(encode_section(6, b"\x01\x09\x00\x00\x00")), "a sort, found byte 0x09"),
        (component(encode_section(6, b"\x01\x00\x09\x00\x00\x00")), "a core sort"),
        (component(encode_section(6, b"\x01\x01\x03\x00\x00")), "target of an alias"),
        (component(encode_section(6, b"\x01\x04\x02\x01\x00")), "1 levels out, of 0"),
        (component(encode_section(10, b"\x01\x05\x00\x01\x00")), "name (0 or 1)"),
        (component(encode_section(10, b"\x01\x00\x01a\x07\x00")), "type of an import or export"),
        (component(encode_section(11, b"\x01\x00\x01a\x01\x00\x05")), "0 or 1, found byte 0x05"),
        (component(encode_section(11, b"\x01\x00\x01a\x01\x00\x00\x00")), "the end of the export section"),
        (component(encode_section(0, b"\x09ab")), "custom section's name"),
    ],
)
def test_malformed_components(data: bytes, words: str) -> None:
    """Each kind of wrong byte is `component.malformed` and says what was expected."""
    code, message = refused(data)
    assert (code, words in message) == ("component.malformed", True), message


@pytest.mark.parametrize("cut", range(0, 400, 7))
def test_every_truncation_is_refused_or_a_whole_component(cut: int) -> None:
    """A cut component is refused, unless the cut falls between two sections."""
    data = wit_component(STRINGS_WIT, "both")
    whole = {8} | {s.end for s in component_sections(data)}
    if cut in whole:
        assert isinstance(survey(data[:cut]), Survey)
    else:
        assert refused(data[:cut])[0] == "component.malformed"


def test_survey_reads_views() -> None:
    """A memoryview gives the same survey as the bytes."""
    data = parse(NESTED)
    assert survey(data) == survey(memoryview(data))


def test_survey_agrees_with_wasm_tools() -> None:
    """Section counts agree with an independent reader."""
    data = wit_component(STRINGS_WIT, "both")
    listing = run_wasm_tools("objdump", "-", data=data).decode()
    assert len(survey(data).modules) == listing.count("start module")
