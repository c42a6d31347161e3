"""The wheel, in an environment that has nothing but it and what it declares.

Dependencies are taken from the environment that runs the tests, so that no network is needed: exactly those that the
wheel's metadata names, and theirs.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from support.binary_wat import parse
from support.cli_plugins import SINGLE, TOOLS

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


def run(*words: str | Path, **variables: str) -> str:
    """Standard output of a command that must succeed, run far from the working tree."""
    environment = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **variables}
    done = subprocess.run(words, cwd="/", env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the working tree."""
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT)
    (made,) = out.glob("*.whl")
    return made


def test_the_source_distribution_holds_what_is_tracked(tmp_path: Path) -> None:
    """Nothing that tools, tests and editors left in the working tree goes out, and nothing is missing."""
    (ROOT / ".hypothesis").mkdir(exist_ok=True)
    run(sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", tmp_path, ROOT)
    (made,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(made) as archive:
        found = {name.partition("/")[2].split("/")[0] for name in archive.getnames()}
    assert {name for name in found if name.startswith(".")} <= {".gitignore"}
    assert {"dev", "justfile", "constraints.txt", "guests", "host", "native-accel", "tests", "wit"} <= found


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel and its declared dependencies, in a path with a space."""
    root = tmp_path_factory.mktemp("empty") / "an environment"
    venv.create(root, with_pip=False, symlinks=True)
    pip = (sys.executable, "-m", "pip", "--python", root / "bin" / "python", "install", "--no-index", "--no-deps")
    run(*pip, wheel, PIP_USER="0")
    (site,) = root.glob("lib/python*/site-packages")
    seen = {"cloche"}
    pending = wanted(importlib.metadata.Distribution.at(next(site.glob("cloche-*.dist-info"))))
    while pending:
        name = pending.pop()
        if name not in seen:
            seen.add(name)
            found = importlib.metadata.distribution(name)
            install_copy(found, site)
            pending += wanted(found)
    return root


def wanted(distribution: importlib.metadata.Distribution) -> list[str]:
    """Names of what a distribution needs here, without its extras."""
    requirements = [Requirement(text) for text in distribution.requires or ()]
    return [item.name for item in requirements if item.marker is None or item.marker.evaluate({"extra": ""})]


def install_copy(distribution: importlib.metadata.Distribution, site: Path) -> None:
    """Put a distribution's files into another environment; its scripts are left behind."""
    for file in distribution.files or ():
        source = Path(str(distribution.locate_file(file)))
        if file.parts[0] != ".." and source.is_file() and source.suffix != ".pyc":
            target = site.joinpath(*file.parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(source, target)
            except OSError:
                shutil.copy2(source, target)


def test_the_wheel_carries_sources_and_nothing_that_was_built(wheel: Path) -> None:
    """WIT, guests' sources, the SDK and the templates are inside; components, bindings and caches are not."""
    names = set(zipfile.ZipFile(wheel).namelist())
    tracked = subprocess.run(
        ["git", "ls-files", "wit", "guests"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    expected = {f"cloche/_data/{name}" for name in tracked.stdout.splitlines() if not name.endswith(".wasm")}
    expected |= {"cloche/py.typed", "cloche_guest/__init__.py", "cloche_accel/__init__.py"}
    expected |= {"cloche/_data/wit/plugin/lifecycle.wit", "cloche/_data/guests/hello/app.py"}
    expected |= {"cloche/_data/guests/sdk/cloche_guest/__init__.py", "cloche/build/templates/python/app.py.tmpl"}
    assert expected - names == set()
    unwanted = (".wasm", ".pyc", ".native")
    assert [name for name in names if name.endswith(unwanted) or "wit_world" in name or "tests/" in name[:6]] == []


def test_only_three_packages_are_installed(wheel: Path) -> None:
    """The wheel's import packages are cloche, cloche_accel and cloche_guest."""
    tops = {name.partition("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {name for name in tops if not name.endswith(".dist-info")} == {"cloche", "cloche_accel", "cloche_guest"}


def test_the_environment_is_not_the_working_tree(environment: Path) -> None:
    """What is tested below is the installed copy."""
    program = "import cloche, cloche_accel, cloche_guest; print(cloche.__file__)"
    assert run(environment / "bin" / "python", "-I", "-c", program).startswith(str(environment))
    assert Path(sysconfig.get_path("purelib")) not in environment.parents


def test_the_installed_command_works(environment: Path, tmp_path: Path) -> None:
    """Version, doctor, inspect and a call of a component, with nothing but the wheel."""
    cloche, home = environment / "bin" / "cloche", str(tmp_path / "home")
    version = importlib.metadata.version("cloche")
    assert run(cloche, "--version") == f"cloche {version}\n"
    assert json.loads(run(cloche, "doctor", "--json", CLOCHE_HOME=home))["ok"] is True
    (tmp_path / "tools.wasm").write_bytes(parse(TOOLS))
    tools = str(tmp_path / "tools.wasm")
    assert run(cloche, "call", "--trust", tools, "echo", "Ada", CLOCHE_HOME=home) == "Ada\n"
    inspected = json.loads(run(cloche, "inspect", "--json", tools, CLOCHE_HOME=home))
    assert inspected["contract"]["exports"][0]["id"] == "test:cli/tools@1.2.0"


def test_a_plugin_is_built_and_run_from_the_installed_wheel(environment: Path, tmp_path: Path) -> None:
    """Building finds its tools without the working tree and without scripts on the path."""
    (tmp_path / "app.wat").write_text(SINGLE)
    manifest = (
        'format-version = 1\nid = "test/single"\nname = "Single"\nversion = "1.0.0"\n[component]\nsource = "app.wat"\n'
    )
    (tmp_path / "plugin.toml").write_text(manifest)
    out = run(environment / "bin" / "cloche", "run", "--trust", tmp_path, CLOCHE_HOME=str(tmp_path / "home"))
    assert out == "42\n"


def test_the_declared_version_is_the_programs_own() -> None:
    """pyproject.toml and `cloche.version` agree."""
    import tomllib

    from cloche.version import VERSION

    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == VERSION
