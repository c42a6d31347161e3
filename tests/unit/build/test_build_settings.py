"""What a plugin's directory says about building."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloche.build.settings import BuildSettings, Language, read_settings
from cloche.errors import ContractError, ManifestError

HEAD = 'format-version = 1\nid = "acme/x"\n'


def plugin(tmp_path: Path, component: str, *files: str) -> Path:
    (tmp_path / "plugin.toml").write_text(HEAD + component)
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("x")
    return tmp_path


@pytest.mark.parametrize(
    ("file", "language", "wasi"),
    [
        ("app.py", Language.PYTHON, True),
        ("app.js", Language.JAVASCRIPT, False),
        ("src/main.mjs", Language.JAVASCRIPT, False),
        ("a.c", Language.C, False),
        ("a.wat", Language.WAT, False),
    ],
)
def test_language_comes_from_the_suffix(tmp_path: Path, file: str, language: Language, wasi: bool) -> None:
    """The source's suffix decides, and with it whether WASI is there."""
    settings = read_settings(plugin(tmp_path, f'[component]\nsource = "{file}"\n', file))
    assert settings == BuildSettings("acme/x", file, language, wasi=wasi)


def test_every_key_is_read(tmp_path: Path) -> None:
    """All keys of [component] arrive."""
    text = """[component]
path = "out/x.wasm"
source = "main.txt"
language = "python"
wit = "interfaces"
world = "acme:x/small@1.0.0"
requirements = ["markdown-it-py>=3"]
wasi = false
"""
    assert read_settings(plugin(tmp_path, text, "main.txt")) == BuildSettings(
        "acme/x",
        "main.txt",
        Language.PYTHON,
        "out/x.wasm",
        "acme:x/small@1.0.0",
        "interfaces",
        ("markdown-it-py>=3",),
        False,
    )


def test_usual_source_names_are_found(tmp_path: Path) -> None:
    """A manifest without [component] builds app.py."""
    assert read_settings(plugin(tmp_path, "", "app.py")).source == "app.py"


@pytest.mark.parametrize(
    ("component", "code", "words"),
    [
        ("", "component.build", "names no source"),
        ('[component]\nsource = "gone.py"\n', "component.build", "'gone.py' does not exist"),
        ('[component]\nsource = "../x.py"\n', "manifest.value", "component.source"),
        ('[component]\nsource = "/x.py"\n', "manifest.value", "component.source"),
        ("[component]\nsource = 1\n", "manifest.value", "component.source"),
        ('[component]\nsource = "a.rs"\n', "manifest.value", ".py, .js"),
        ('[component]\nsource = "a.py"\nlanguage = "perl"\n', "manifest.value", "component.language"),
        ('[component]\nsource = "a.py"\nworld = "--help"\n', "manifest.value", "component.world"),
        ('[component]\nsource = "a.py"\nwit = "../wit"\n', "manifest.value", "component.wit"),
        ('[component]\nsource = "a.py"\nrequirements = "x"\n', "manifest.value", "component.requirements"),
        ('[component]\nsource = "a.py"\nwasi = "no"\n', "manifest.value", "component.wasi"),
        ("component = 3\n", "manifest.value", "component"),
        ("[component\n", "manifest.syntax", "TOML"),
    ],
)
def test_bad_settings_are_refused_by_name(tmp_path: Path, component: str, code: str, words: str) -> None:
    """Each mistake has its code and names the key."""
    with pytest.raises((ManifestError, ContractError)) as caught:
        read_settings(plugin(tmp_path, component, "a.py", "a.rs"))
    assert (caught.value.code, words in str(caught.value)) == (code, True)


def test_a_directory_without_manifest_is_refused(tmp_path: Path) -> None:
    """The message leads to `cloche new`."""
    with pytest.raises(ManifestError, match="cloche new") as caught:
        read_settings(tmp_path)
    assert caught.value.code == "manifest.missing"
