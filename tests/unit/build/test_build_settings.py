"""How a plugin is built, by its manifest."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloche.build.settings import BuildSettings, Language
from cloche.errors import ContractError, ManifestError
from support.guests import settings_of

HEAD = 'format-version = 1\nid = "acme/x"\nname = "X"\nversion = "1.0.0"\n[component]\n'


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
    settings = settings_of(plugin(tmp_path, f'source = "{file}"\n', file))
    assert settings == BuildSettings("acme/x", file, language, wasi=wasi)


def test_every_key_is_read(tmp_path: Path) -> None:
    """All keys of [component] that tell how to build arrive."""
    text = """path = "out/x.wasm"
source = "main.txt"
language = "python"
wit = "interfaces"
world = "acme:x/small@1.0.0"
requirements = ["markdown-it-py>=3"]
wasi = false
"""
    assert settings_of(plugin(tmp_path, text, "main.txt")) == BuildSettings(
        "acme/x",
        "main.txt",
        Language.PYTHON,
        "acme:x/small@1.0.0",
        "interfaces",
        ("markdown-it-py>=3",),
        False,
    )


@pytest.mark.parametrize(
    ("component", "code", "words"),
    [
        ('path = "a.wasm"\n', "component.build", "names no source"),
        ('source = "gone.py"\n', "component.build", "'gone.py' does not exist"),
        ('source = "a.rs"\n', "manifest.value", ".py, .js"),
    ],
)
def test_what_cannot_be_built_is_refused_by_name(tmp_path: Path, component: str, code: str, words: str) -> None:
    """Each mistake has its code and names the key."""
    with pytest.raises((ManifestError, ContractError)) as caught:
        settings_of(plugin(tmp_path, component, "a.py", "a.rs", "app.py"))
    assert (caught.value.code, words in str(caught.value)) == (code, True)
