"""Python to component, with componentize-py. The plugin's code runs while it builds, inside a component itself."""

from __future__ import annotations

import re

from cloche.build.failure import build_error
from cloche.build.job import Job
from cloche.build.sources import collect, native_files
from cloche.build.tool import package_version, python_command, run_tool

_CHILD = "import componentize_py; sys.exit(componentize_py.script())"
TOOL = "componentize-py"

# What componentize-py says, and what its author should do. First match wins; tried with 0.25.1.
_ADVICE: tuple[tuple[str, str], ...] = (
    (
        r"cannot import name '(?P<what>[^']+)' from 'wit_world|No module named 'wit_world[.\w]*\.(?P<module>\w+)'",
        "The world does not import or export it: compare the import with wit/world.wit",
    ),
    (
        r"ModuleNotFoundError: No module named '_",
        "This part of the standard library needs what components do not have, such as native libraries; do without it",
    ),
    (
        r"ModuleNotFoundError: No module named '(?P<what>[\w.]+)'",
        "Put the package of {what} into `requirements` of [component], or its source beside the plugin's",
    ),
    (
        r"module '(?P<where>[\w.]+)' has no attribute '(?P<what>\w+)'",
        "Define or import {what} in {where}: an exported interface is a class with the interface's name in PascalCase,"
        " functions of the world itself are methods of a class WitWorld",
    ),
    (
        r"Can't instantiate abstract class (?P<where>\w+) (?:without an implementation for|with)"
        r" abstract methods? (?P<what>[^\n]+)",
        "Implement {what} in {where}",
    ),
    (r"can't start new thread", "Components have no threads; do the work in the call"),
    (r"SyntaxError|IndentationError|TabError", "Mend the syntax error; components run Python 3.14"),
    (
        r"interface not found in package|world .*not found|no world named",
        "Compare the names in wit/world.wit, and `world` in [component], with the packages they come from",
    ),
    (
        r"error while executing at wasm backtrace",
        "Module level runs while the component is built: it can neither call the host nor exit. Do that inside a call,"
        " or in a function given to cloche_guest.at_start",
    ),
)
_RUNTIME_FRAMES = re.compile(r"\n(?:Caused by:\s*\n)?\s*(?:0: )?error while executing at wasm backtrace")


def versions() -> tuple[str, ...]:
    """What this recipe's result depends on, besides the sources."""
    return (f"{TOOL} {package_version(TOOL)}",)


def compile_python(job: Job) -> bytes:
    """Build the component; 9 to 40 seconds of one core.

    Raises: ContractError (`component.build`) with the tool's words and advice.
    """
    command = python_command("componentize_py", _CHILD, "--quiet", "--wit-path", str(job.wit))
    if command is None:
        raise build_error(job.name, f"{TOOL} is not installed", advice=f"Install the package {TOOL}")
    if not job.source.stem.isidentifier():  # also keeps `-` from being an option of the tool
        raise build_error(job.name, f"its source {job.settings.source!r} has no module's name", advice="Rename it")
    native = native_files(collect(job.app, job.name))
    if native:
        raise build_error(
            job.name, f"{native[0]} is native code", advice="A component runs pure Python only; remove it"
        )
    info, empty, out = job.work / "info", job.work / "environment", job.work / "out.wasm"
    info.mkdir()
    # Tells the SDK whether asking for entropy would trap.
    (info / "cloche_build_info.py").write_text(f"WASI = {job.settings.wasi}\n")
    # With no environment named, the tool would offer the packages of whatever Python it finds, unpinned and unhashed.
    (empty / "lib" / "site-packages").mkdir(parents=True)
    if job.settings.world is not None:
        command += ["--world", job.settings.world]
    command += ["componentize", job.source.stem, "--output", str(out)]
    for directory in (job.source.parent, job.sdk, info, job.packages):
        if directory.is_dir():
            command += ["--python-path", str(directory)]
    if not job.settings.wasi:
        command.append("--stub-wasi")
    result = run_tool(command, tool=TOOL, name=job.name, work=job.work, environment={"VIRTUAL_ENV": str(empty)})
    if result.status != 0:
        raise build_error(job.name, f"{TOOL} refused it", advice=advice(result.output), output=shortened(result.output))
    return job.result(out)


def advice(output: str) -> str:
    """What the author should do about the tool's `output`; empty when it is not known."""
    for pattern, text in _ADVICE:
        match = re.search(pattern, output)
        if match:
            return text.format(**match.groupdict())
    return ""


def shortened(output: str) -> str:
    """The plugin's own traceback out of the tool's words, with paths relative to the plugin's directory."""
    words = _RUNTIME_FRAMES.split(output)[0]
    words = re.split(r"\nCaused by:\s*\n\s*[\w.]+(?:Error|Exception)\b", words)[0]
    words = re.sub(r'^Traceback[^\n]*\n  File "<string>"[^\n]*\n(?:[^\n]*\n){0,2}?AssertionError: ?', "", words)
    return words.replace("/0/", "").strip()
