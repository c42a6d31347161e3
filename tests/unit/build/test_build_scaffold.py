"""New projects: whole, valid, and never over something that exists."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloche.build.scaffold import LANGUAGES, create_project
from cloche.build.settings import Language
from cloche.build.witfiles import only_world, resolve
from cloche.errors import UsageError
from cloche.manifest.parse import parse_manifest
from cloche.resources import wit_dir
from support.guests import settings_of


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_new_project_is_valid(tmp_path: Path, language: Language) -> None:
    """Its manifest parses, its settings name an existing source, its world resolves, and no hole is left."""
    project = create_project("acme/two-words", language, parent=tmp_path)
    assert project == tmp_path / "two-words"
    manifest = parse_manifest((project / "plugin.toml").read_bytes())
    assert (manifest.id, manifest.name) == ("acme/two-words", "Two words")
    settings = settings_of(project)
    assert (settings.language, (project / settings.source).is_file()) == (language, True)
    assert only_world(resolve(project / "wit", wit_dir(), "x"), "x") == "plugin"
    files = {path.relative_to(project).as_posix(): path.read_text() for path in project.rglob("*") if path.is_file()}
    assert {"README.md", ".gitignore", "tests/test_plugin.py", "wit/world.wit"} <= files.keys()
    assert [name for name, text in files.items() if "@@" in text or name.endswith(".tmpl")] == []
    compile(files["tests/test_plugin.py"], "test_plugin.py", "exec")


def test_a_name_alone_gets_a_publisher(tmp_path: Path) -> None:
    """`cloche new thing` works without a publisher."""
    assert 'id = "local/thing"' in (create_project("thing", parent=tmp_path) / "plugin.toml").read_text()


@pytest.mark.parametrize(
    "name", ["", "Thing", "a/b/c", "../x", "x/", "/x", "-x", "a_b", "world", "list/x", "x" * 65, "a b", "x\n"]
)
def test_bad_names_are_refused(tmp_path: Path, name: str) -> None:
    """Nothing is written for a name that cannot be an id, a directory and a WIT package."""
    with pytest.raises(UsageError, match="lower-case kebab") as caught:
        create_project(name, parent=tmp_path)
    assert (caught.value.code, list(tmp_path.iterdir())) == ("usage.argument", [])


def test_existing_work_is_kept(tmp_path: Path) -> None:
    """A directory with something in it, a file and a link are left alone; an empty directory is used."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "app.py").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    for name in ("full", "file", "link"):
        with pytest.raises(UsageError, match="already exists"):
            create_project(name, parent=tmp_path)
    assert (tmp_path / "full" / "app.py").read_text() == (tmp_path / "file").read_text() == "mine"
    assert (create_project("empty", parent=tmp_path) / "app.py").is_file()


def test_a_language_without_template_is_refused(tmp_path: Path) -> None:
    """The message lists the languages that have one."""
    with pytest.raises(UsageError, match="python, javascript, c, not for wat"):
        create_project("x", Language.WAT, parent=tmp_path)
