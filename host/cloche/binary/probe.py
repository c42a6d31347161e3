"""A derived component that can be asked how much memory its guest has.

The engine offers no way to look at the memories of a component. So a function is appended that adds up `memory.size`
of the root's linear memories. Nothing existing is renumbered or changed: every addition stands at the end, refers
backwards, and takes the next free indices. What this host does not fully understand is left alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cloche.binary.bounds import Budget
from cloche.binary.core import PAGE_BYTES
from cloche.binary.header import is_component
from cloche.binary.index import MemoryPlace, MemoryPlaces, RootIndex, index_root
from cloche.binary.leb import encode_index, encode_name, encode_section, encode_u32, encode_vector
from cloche.binary.reader import Buffer
from cloche.binary.root import Sort
from cloche.binary.sections import MODULE_PREAMBLE, ComponentSection, ModuleSection
from cloche.errors import ContractError

PROBE_EXPORT = "cloche-memory-probe"
"""Export name of the added function, `func() -> u32`: pages of 65 536 bytes in all probed memories together."""
MAX_PROBED_MEMORIES = 16
"""Linear memories of one root that a probe adds up; toolchains make one."""

_MEMORY, _PREVIOUS, _SIZE = "m", "p", "s"


@dataclass(frozen=True, slots=True)
class Probed:
    """A derived component and how many distinct linear memories its probe adds up.

    Fewer than `Survey.memory_count` when nested components, or core modules that export none, have memories of their
    own. Added in 0.1.
    """

    bytes: bytes
    memories: int


def add_probe(data: Buffer) -> Probed | None:
    """`data` with `PROBE_EXPORT` appended, or None when it has no memory at its root or cannot be extended surely.

    None, never an error: for bytes that are not a component, for asynchronous functions and other constructs unknown
    to this host, for 64-bit, shared or imported memories, for more than `MAX_PROBED_MEMORIES`, and for a component
    that exports such a name itself. The cost is one copy of `data`; no function body is read. Pure.

    The result is to be validated and compiled like any component; when it does not validate, `data` itself still may:
    the engine bounds the number of modules, instances and more. Added in 0.1.
    """
    if not is_component(data):
        return None
    try:
        index = index_root(data)
        memories = _distinct_memories(data, index)
    except ContractError:
        return None
    if not memories or any(_clashes(name) for name in index.export_names):
        return None
    return Probed(b"".join((data, *_additions(index, memories))), len(memories))


def _clashes(name: str) -> bool:
    # Names of exports must differ in more than case and annotations such as `[constructor]`.
    return PROBE_EXPORT in name.lower()


def _distinct_memories(data: Buffer, index: RootIndex) -> list[int]:
    """One core memory index for each memory that can be counted; empty when one of them cannot."""
    all_places = MemoryPlaces(data, index, Budget())
    places: dict[tuple[int, int], int] = {}
    for memory in range(len(index.core_memories)):
        place = all_places.find(memory)
        if place is None or not _is_countable(place):
            return []
        places.setdefault((place.instance, place.index), memory)
        if len(places) > MAX_PROBED_MEMORIES:
            return []
    return list(places.values())


def _is_countable(place: MemoryPlace) -> bool:
    return not place.type.is_64 and not place.type.shared and place.type.page_bytes == PAGE_BYTES


def _additions(index: RootIndex, memories: Sequence[int]) -> list[bytes]:
    module = index.counts[Sort.CORE_MODULE]
    instance = index.counts[Sort.CORE_INSTANCE]
    sections = [encode_section(ComponentSection.CORE_MODULE, _size_module(is_first=True))]
    if len(memories) > 1:
        sections.append(encode_section(ComponentSection.CORE_MODULE, _size_module(is_first=False)))
    instances: list[bytes] = []
    for position, memory in enumerate(memories):
        # A bag that holds the memory, then the module on it: two new core instances for each memory.
        bag = instance + 2 * position
        arguments = [encode_name(_MEMORY) + b"\x12" + encode_u32(bag)]
        if position:
            arguments.append(encode_name(_PREVIOUS) + b"\x12" + encode_u32(bag - 1))
        instances.append(b"\x01" + encode_vector([encode_name(_MEMORY) + b"\x02" + encode_u32(memory)]))
        instances.append(b"\x00" + encode_u32(module + (position > 0)) + encode_vector(arguments))
    last = instance + len(instances) - 1
    alias = b"\x00\x00\x01" + encode_u32(last) + encode_name(_SIZE)
    func_type = b"\x40\x00\x00\x79"  # no parameters, one result: u32
    lift = b"\x00\x00" + encode_u32(index.counts[Sort.CORE_FUNC]) + b"\x00" + encode_index(index.counts[Sort.TYPE])
    export = b"\x00" + encode_name(PROBE_EXPORT) + b"\x01" + encode_u32(index.counts[Sort.FUNC]) + b"\x00"
    return [
        *sections,
        encode_section(ComponentSection.CORE_INSTANCE, encode_vector(instances)),
        encode_section(ComponentSection.ALIAS, encode_vector([alias])),
        encode_section(ComponentSection.TYPE, encode_vector([func_type])),
        encode_section(ComponentSection.CANON, encode_vector([lift])),
        encode_section(ComponentSection.EXPORT, encode_vector([export])),
    ]


def _size_module(*, is_first: bool) -> bytes:
    """A core module that imports one memory and exports its size in pages, plus what the one before it says.

    One memory each, because the engine runs without the multi-memory proposal (H8).
    """
    imports = [encode_name(_MEMORY) + encode_name(_MEMORY) + b"\x02\x00\x00"]
    code = b"\x00\x3f\x00"  # no locals; memory.size
    if not is_first:
        imports.append(encode_name(_PREVIOUS) + encode_name(_SIZE) + b"\x00\x00")
        code += b"\x10\x00\x6a"  # call the imported function; i32.add
    code += b"\x0b"
    func = 0 if is_first else 1
    return b"".join(
        (
            MODULE_PREAMBLE,
            encode_section(ModuleSection.TYPE, encode_vector([b"\x60\x00\x01\x7f"])),
            encode_section(ModuleSection.IMPORT, encode_vector(imports)),
            encode_section(ModuleSection.FUNCTION, encode_vector([b"\x00"])),
            encode_section(ModuleSection.EXPORT, encode_vector([encode_name(_SIZE) + b"\x00" + encode_u32(func)])),
            encode_section(ModuleSection.CODE, encode_vector([encode_u32(len(code)) + code])),
        )
    )
