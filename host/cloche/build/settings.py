"""What a plugin's directory says about building: the `[component]` table of its manifest, and its sources' language.

Only that table is looked at; the manifest's whole schema is the manifest room's.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Any

from cloche.build.failure import build_error
from cloche.errors import ManifestError
from cloche.text import show

MANIFEST = "plugin.toml"
MAX_MANIFEST_BYTES = 256 << 10
MAX_REQUIREMENTS = 64
MAX_DOTS_PER_LINE = 100  # tomllib's work for a dotted key grows with the square of its parts

_KEBAB = r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*"
_DOTTED = re.compile(rb"""[\w"'-][ \t]*\.[ \t]*(?=[\w"'-])""")  # as the manifest room has it
_WORLD = re.compile(rf"(?:{_KEBAB}:{_KEBAB}/)?{_KEBAB}(?:@[0-9A-Za-z.+-]+)?")


class Language(StrEnum):
    """What a component's source is written in."""

    PYTHON = "python"
    JAVASCRIPT = "javascript"
    C = "c"
    WAT = "wat"


_BY_SUFFIX = {
    ".py": Language.PYTHON,
    ".js": Language.JAVASCRIPT,
    ".mjs": Language.JAVASCRIPT,
    ".c": Language.C,
    ".wat": Language.WAT,
}
_USUAL_SOURCES = ("app.py", "app.js", "app.c", "app.wat")


@dataclass(frozen=True, slots=True)
class BuildSettings:
    """How to build one plugin.

    `source` and `wit` are relative to the plugin's directory; `path` is where the manifest expects the component, if it
    says so. `world` None means the only world of the WIT package. `requirements` are Python packages to put into the
    component, in pip's notation. `wasi` False leaves the component without any WASI import.
    """

    name: str
    source: str
    language: Language
    path: str | None = None
    world: str | None = None
    wit: str = "wit"
    requirements: tuple[str, ...] = ()
    wasi: bool = True


def read_settings(directory: Path) -> BuildSettings:
    """Read how to build the plugin in `directory`; reads one small file and looks for a few names.

    Without a `source` key the usual names are tried: app.py, app.js, app.c, app.wat.
    Raises: ManifestError (`manifest.missing`, `manifest.syntax`, `manifest.too-large`, `manifest.value`);
        ContractError (`component.build`) when there is no source to build.
    """
    document = _read(directory / MANIFEST)
    table = document.get("component", {})
    if not isinstance(table, dict):
        raise _wrong("component", "a table", table)
    name = document.get("id") if isinstance(document.get("id"), str) else directory.resolve().name
    source = _inner_path(table, "source")
    if source is None:
        source = next((usual for usual in _USUAL_SOURCES if (directory / usual).is_file()), None)
    if source is None:
        raise build_error(
            str(name),
            f"{MANIFEST} names no source in [component], and none of {', '.join(_USUAL_SOURCES)} exists",
            advice='Add source = "app.py" to [component]',
        )
    if not (directory / source).is_file():
        raise build_error(str(name), f"its source {source!r} does not exist", advice="Mend `source` in [component]")
    language = _language(table, source)
    wasi = table.get("wasi", language is Language.PYTHON)
    if not isinstance(wasi, bool):
        raise _wrong("component.wasi", "true or false", wasi)
    return BuildSettings(
        name=str(name),
        source=source,
        language=language,
        path=_inner_path(table, "path"),
        world=_world(table),
        wit=_inner_path(table, "wit") or "wit",
        requirements=_requirements(table),
        wasi=wasi,
    )


def _read(path: Path) -> dict[str, Any]:
    if path.exists() and not path.is_file():  # opening a pipe would wait for its other end
        raise ManifestError(f"{path} is not a regular file", code="manifest.missing")
    try:
        with path.open("rb") as file:
            data = file.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise ManifestError(
            f"{path.parent} has no readable {MANIFEST} ({error.strerror}); `cloche new` makes a plugin with one",
            code="manifest.missing",
        ) from error
    if len(data) > MAX_MANIFEST_BYTES:
        raise ManifestError(f"{path} is larger than {MAX_MANIFEST_BYTES} bytes", code="manifest.too-large")
    if any(len(_DOTTED.findall(line)) > MAX_DOTS_PER_LINE for line in data.split(b"\n")):
        raise ManifestError(f"{path} has a line of more than {MAX_DOTS_PER_LINE} dotted names", code="manifest.syntax")
    try:
        return tomllib.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{path} is not valid TOML: {error!s:.200}", code="manifest.syntax") from error


def _inner_path(table: dict[str, Any], key: str) -> str | None:
    value = table.get(key)
    if value is None:
        return None
    expected = "a relative path with '/' inside the plugin's directory"
    if not isinstance(value, str) or not value or "\0" in value or "\\" in value:
        raise _wrong(f"component.{key}", expected, value)
    path = PurePosixPath(value)
    if path.is_absolute() or ".." in path.parts:
        raise _wrong(f"component.{key}", expected, value)
    return str(path)


def _language(table: dict[str, Any], source: str) -> Language:
    value = table.get("language")
    if value is None:
        found = _BY_SUFFIX.get(PurePosixPath(source).suffix)
        if found is None:
            raise _wrong("component.source", f"a file that ends in {', '.join(_BY_SUFFIX)}", source)
        return found
    if value not in [language.value for language in Language]:
        raise _wrong("component.language", "one of " + ", ".join(Language), value)
    return Language(value)


def _world(table: dict[str, Any]) -> str | None:
    value = table.get("world")
    if value is not None and (not isinstance(value, str) or len(value) > 128 or not _WORLD.fullmatch(value)):
        raise _wrong("component.world", "the name of a world, such as plugin", value)
    return value


def _requirements(table: dict[str, Any]) -> tuple[str, ...]:
    value = table.get("requirements", [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise _wrong("component.requirements", 'a list of texts such as "markdown-it-py>=3"', value)
    if len(value) > MAX_REQUIREMENTS:
        raise _wrong("component.requirements", f"at most {MAX_REQUIREMENTS} entries", f"{len(value)} entries")
    return tuple(value)


def _wrong(key: str, expected: str, found: object) -> ManifestError:
    return ManifestError(f"{MANIFEST}: {key} must be {expected}, not {show(found)}")
