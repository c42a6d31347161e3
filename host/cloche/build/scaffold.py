"""New plugin projects for `cloche new`: a manifest, a world, code, a test and a README that work as they are."""

from __future__ import annotations

import re
from pathlib import Path

from cloche.build.cache import write_whole
from cloche.build.settings import Language
from cloche.errors import UsageError
from cloche.model import PLUGIN_ID

DEFAULT_PUBLISHER = "local"
LANGUAGES = (Language.PYTHON, Language.JAVASCRIPT, Language.C)
MAX_NAME_CHARACTERS = 64

_TEMPLATES = Path(__file__).parent / "templates"
_SOURCES = {Language.PYTHON: "app.py", Language.JAVASCRIPT: "app.js", Language.C: "app.c"}
_TITLES = {Language.PYTHON: "Python", Language.JAVASCRIPT: "JavaScript", Language.C: "C"}
_PYTHON_IMPORTS = "    import wasi:logging/logging@0.1.0-draft;\n    import wasi:config/store@0.2.0-rc.1;\n"
_PYTHON_CAPABILITIES = """
[capabilities."wasi:logging"]

[capabilities."wasi:config"]
keys = ["greeting"]
"""
# Words of the WIT language; a package or part of one cannot have them as its name.
_WIT_WORDS = re.compile(
    "as|async|bool|borrow|char|constructor|enum|export|f32|f64|flags|from|func|future|import|include|interface|list|map"
    "|option|own|package|record|resource|result|s16|s32|s64|s8|static|stream|string|tuple|type|u16|u32|u64|u8|use"
    "|variant|with|world"
)
_HOLE = re.compile(r"@@([a-z_]+)@@")


def create_project(name: str, language: Language = Language.PYTHON, *, parent: Path) -> Path:
    """Write a new plugin project into a new directory of `parent` and return that directory.

    `name` is `publisher/name` or only a name, in lower-case kebab; the directory has the last part. Added in 0.1.
    Raises: UsageError (`usage.argument`) for a name that does not fit, a language without a template, or a directory
        that already holds something; RegistryError (`registry.io`) when the disk refuses.
    """
    publisher, short = name.rsplit("/", 1) if "/" in name else (DEFAULT_PUBLISHER, name)
    plugin_id = f"{publisher}/{short}"
    if (
        not PLUGIN_ID.fullmatch(plugin_id)
        or len(short) > MAX_NAME_CHARACTERS
        or any(map(_WIT_WORDS.fullmatch, (publisher, short)))
    ):
        raise UsageError(
            f"the name of a plugin is lower-case kebab, such as thumbnailer or acme/thumbnailer, at most"
            f" {MAX_NAME_CHARACTERS} characters and no word of WIT; not {name!r:.100}"
        )
    if language not in LANGUAGES:
        raise UsageError(f"there are templates for {', '.join(LANGUAGES)}, not for {language}")
    directory = parent / short
    if directory.is_symlink() or (directory.exists() and (not directory.is_dir() or any(directory.iterdir()))):
        raise UsageError(f"{directory} already exists; choose another name or remove it")
    values = {
        "id": plugin_id,
        "title": short.replace("-", " ").capitalize(),
        "source": _SOURCES[language],
        "language": _TITLES[language],
        "wit_package": plugin_id.replace("/", ":"),
        "imports": _PYTHON_IMPORTS if language is Language.PYTHON else "",
        "manifest_end": _PYTHON_CAPABILITIES if language is Language.PYTHON else "",
    }
    for template in (_TEMPLATES / "common", _TEMPLATES / language.value):
        for path in sorted(template.rglob("*.tmpl")):
            target = directory / path.relative_to(template).with_suffix("")
            if target.name == "gitignore":
                target = target.with_name(".gitignore")
            text = _HOLE.sub(lambda match: values[match[1]], path.read_text(encoding="utf-8"))
            write_whole(target, (text.rstrip("\n") + "\n").encode())
    return directory
