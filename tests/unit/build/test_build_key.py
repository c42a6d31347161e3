"""What a component's cache key depends on, and on what not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest

from cloche.build.builder import Inputs, read_inputs
from cloche.build.cache import BuildCache
from cloche.build.scaffold import create_project
from cloche.build.settings import BuildSettings, Language
from support.guests import settings_of

A, B = PurePosixPath("a"), PurePosixPath("b")


def silent(_line: str) -> None:
    """Nobody watches."""


def key_of(directory: Path, cache: Path) -> str:
    return read_inputs(directory, settings_of(directory), BuildCache(cache), silent).key()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return create_project("acme/x", parent=tmp_path)


def test_the_place_does_not_matter(project: Path, tmp_path: Path) -> None:
    """A copy elsewhere, with documentation, tests and a built component, has the same key."""
    first = key_of(project, tmp_path / "cache")
    copy = Path(shutil.copytree(project, tmp_path / "copy"))
    (copy / "README.md").write_text("other words")
    (copy / "x.wasm").write_bytes(b"built")
    (copy / "tests" / "test_more.py").write_text("more")
    (copy / "__pycache__").mkdir()
    (copy / "__pycache__" / "app.pyc").write_bytes(b"x")
    assert key_of(copy, tmp_path / "cache") == first


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "app.py").write_text("pass\n"),
        lambda root: (root / "more.py").write_text("pass\n"),
        lambda root: (root / "app.py").rename(root / "app2.py") and (root / "app.py").write_text(""),
        lambda root: (root / "wit" / "world.wit").write_text(
            (root / "wit" / "world.wit")
            .read_text()
            .replace("wasi:logging/logging@0.1.0-draft", "cloche:host/data@1.0.0")
        ),
        lambda root: (root / "plugin.toml").write_text(
            (root / "plugin.toml").read_text().replace('"app.py"', '"app.py"\nwasi = false')
        ),
    ],
)
def test_every_input_matters(project: Path, tmp_path: Path, change: Callable[[Path], object]) -> None:
    """Sources, names of sources, the world and the settings each change the key."""
    before = key_of(project, tmp_path / "cache")
    change(project)
    assert key_of(project, tmp_path / "cache") != before


def test_the_rest_of_the_manifest_does_not_matter(project: Path, tmp_path: Path) -> None:
    """Limits and descriptions do not make a new component."""
    before = key_of(project, tmp_path / "cache")
    manifest = project / "plugin.toml"
    manifest.write_text(manifest.read_text().replace("A greeter.", "Another text."))
    assert key_of(project, tmp_path / "cache") == before


def test_tools_and_groups_matter_and_parts_do_not_run_together() -> None:
    """Versions, groups and names are each part of the key, with their borders."""
    settings = BuildSettings("x", "app.py", Language.PYTHON)
    keys = {
        Inputs(settings, groups, versions, ()).key()
        for groups, versions in [
            ({"app": {A: b"1", B: b"2"}}, ("t 1",)),
            ({"app": {A: b"1", B: b"2"}}, ("t 2",)),
            ({"app": {A: b"1", B: b"2"}}, ("t", " 1")),
            ({"app": {A: b"12", B: b""}}, ("t 1",)),
            ({"app": {A: b"1"}, "sdk": {B: b"2"}}, ("t 1",)),
            ({"sdk": {A: b"1"}, "app": {B: b"2"}}, ("t 1",)),
        ]
    }
    assert len(keys) == 6
