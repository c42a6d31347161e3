"""Building the project's guests from source, with the real tools."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cloche.build.scaffold import create_project
from cloche.build.settings import Language
from cloche.build.tool import wasm_tools
from cloche.errors import ContractError
from support.guests import GUESTS, ROOT, build_cache, build_directory, built, guest_dir

WAT_GUESTS = ("fixtures-wat/greeter", "fixtures-wat/stranger")
SLOW = pytest.mark.slow
GREETER = "cloche:example/greeter@1.0.0"
BUILT = (*GUESTS, "script")
EXPORTS = {
    "hello": {GREETER},
    "hello-js": {GREETER},
    "hello-c": {GREETER},
    "fixtures-wat/greeter": {GREETER},
    "fixtures-wat/stranger": {"stranger:land/odd@0.3.0"},
    "markdown": {"cloche:example/text-transform@1.0.0"},
    "script": {"cloche:script/executor@1.0.0"},
    "noop": {
        GREETER,
        "cloche:plugin/lifecycle@1.0.0",
        "cloche:noop/scalar@1.0.0",
        "cloche:noop/values@1.0.0",
        "cloche:noop/counters@1.0.0",
        "cloche:noop/services@1.0.0",
        "cloche:noop/misbehave@1.0.0",
    },
}
PURE = {"hello-js", "hello-c", *WAT_GUESTS}


def interfaces(component: Path, direction: str) -> set[str]:
    """The names of the interfaces that `component` imports or exports."""
    command = [str(wasm_tools("test")), "component", "wit", "--json", str(component)]
    document: Any = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    packages = document["packages"]

    def name_of(interface: int) -> str:
        entry = document["interfaces"][interface]
        package, _, version = packages[entry["package"]]["name"].partition("@")
        return f"{package}/{entry['name']}" + (f"@{version}" if version else "")

    items = document["worlds"][0][direction].values()
    named = [item["interface"]["id"] for item in items if "interface" in item]
    return {name_of(each) for each in named if document["interfaces"][each]["name"] is not None}


def test_every_guest_is_tested() -> None:
    """No directory with a manifest is missing from the tables of this file."""
    found = {path.parent.relative_to(guest_dir("")).as_posix() for path in guest_dir("").rglob("plugin.toml")}
    assert found == set(EXPORTS) == {*BUILT, *WAT_GUESTS}


@pytest.mark.parametrize(
    "name", ["hello-c", *WAT_GUESTS, *(pytest.param(each, marks=SLOW) for each in BUILT if each != "hello-c")]
)
def test_a_guest_builds_and_exports_what_it_says(name: str) -> None:
    """Each builds to a valid component with its interfaces; those without WASI import nothing at all."""
    component = built(name)
    subprocess.run([wasm_tools("test"), "validate", component], check=True)
    assert interfaces(component, "exports") == EXPORTS[name]
    assert (interfaces(component, "imports") == set()) == (name in PURE)


def test_the_second_build_is_the_first_one(tmp_path: Path) -> None:
    """A cached component has the same bytes and says so; `out` gets a copy."""
    first = build_directory(guest_dir("hello-c"), cache=tmp_path / "cache")
    told: list[str] = []
    out = tmp_path / "deep" / "hello.wasm"
    again = build_directory(guest_dir("hello-c"), out=out, cache=tmp_path / "cache", progress=told.append)
    assert (first.cached, again.cached, told) == (False, True, [])
    assert (again.digest, again.size) == (first.digest, out.stat().st_size)
    assert out.read_bytes() == first.path.read_bytes()


def test_damage_in_the_cache_is_mended(tmp_path: Path) -> None:
    """A changed component is built again instead of being handed out, and building is deterministic."""
    first = build_directory(guest_dir("hello-c"), cache=tmp_path)
    first.path.write_bytes(first.path.read_bytes()[:-1] + b"\xff")
    again = build_directory(guest_dir("hello-c"), cache=tmp_path)
    assert (again.cached, again.digest) == (False, first.digest)


def test_many_processes_build_once(tmp_path: Path) -> None:
    """Four processes ask for one component at once; one builds it."""
    code = (
        "import sys; from pathlib import Path; from support.guests import build_directory;"
        "print(build_directory(Path(sys.argv[1]), cache=Path(sys.argv[2])).cached)"
    )
    command = [sys.executable, "-c", code, str(guest_dir("hello-c")), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(4)]
    answers = sorted(process.communicate()[0].strip() for process in running)
    assert answers == ["False", "True", "True", "True"]
    assert list(tmp_path.glob("work-*")) == []


@pytest.mark.parametrize("language", [Language.C, pytest.param(Language.PYTHON, marks=SLOW)])
def test_a_new_project_builds(tmp_path: Path, language: Language) -> None:
    """What `cloche new` writes becomes a greeter as it is."""
    project = create_project("acme/fresh", language, parent=tmp_path)
    made = build_directory(project, cache=build_cache())
    assert interfaces(made.path, "exports") == {GREETER}


@pytest.mark.parametrize(
    ("language", "file", "text", "words"),
    [
        (Language.C, "app.c", "int x = ;\n", "expected expression"),
        (Language.C, "app.c", "#include <stdio.h>\nint x;\n", "only the compiler's own headers"),
        (Language.C, "app.c", '#include "cloche_guest.h"\n', 'Export "cloche:example/greeter@1.0.0#greet"'),
        (Language.C, "wit/world.wit", "package a:b;\nworld p { exprt x; }\n", "world.wit:2"),
        pytest.param(Language.PYTHON, "app.py", "import numpy\n", "Put the package of numpy", marks=SLOW),
        pytest.param(Language.JAVASCRIPT, "app.js", "export const = 3", "Unexpected token", marks=SLOW),
    ],
)
def test_mistakes_are_explained(tmp_path: Path, language: Language, file: str, text: str, words: str) -> None:
    """The error has its code, what to do, and no path of the build; nothing is left in the cache."""
    project = create_project("acme/wrong", language, parent=tmp_path / "work")
    (project / file).write_text(text)
    cache = tmp_path / "cache"
    with pytest.raises(ContractError) as caught:
        build_directory(project, cache=cache)
    assert (caught.value.code, words in str(caught.value)) == ("component.build", True)
    assert str(tmp_path) not in str(caught.value)
    assert list(cache.glob("components/*")) + list(cache.glob("work-*")) == []


def test_javascript_without_a_network_fails_soon_and_clearly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """npm gives up instead of trying for minutes, leaves nothing half fetched, and keeps out of the user's home."""
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:1")  # where nobody listens
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    project = create_project("acme/shout", Language.JAVASCRIPT, parent=tmp_path)
    told: list[str] = []
    with pytest.raises(ContractError, match="The first JavaScript build needs the network") as caught:
        build_directory(project, cache=tmp_path / "cache", progress=told.append)
    assert caught.value.code == "component.build"
    assert told == ["building acme/shout from app.js", "fetching componentize-js from npm, once"]
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []
    assert not (tmp_path / "home").exists()


@SLOW
def test_javascript_is_built_where_the_path_has_spaces(tmp_path: Path) -> None:
    """The tool hands paths on in one line of words; what it built tells nobody where."""
    built("hello-js")  # fetches the tool, which the other cache then shares
    cache = tmp_path / "a cache"
    cache.mkdir()
    (cache / "npm").symlink_to(build_cache() / "npm")
    component = build_directory(guest_dir("hello-js"), cache=cache, out=tmp_path / "the plugin.wasm")
    assert (component.cached, interfaces(component.path, "exports")) == (False, {GREETER})
    assert not re.search(rb"work-[0-9a-f]{16}|" + re.escape(os.fsencode(tmp_path)), component.path.read_bytes())
