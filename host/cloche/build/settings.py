"""How one plugin is built: what its manifest says in `[component]`, with the sources' language decided."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Protocol

from cloche.build.failure import build_error
from cloche.errors import ManifestError


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


class ComponentSection(Protocol):
    """What this room needs of a manifest's `[component]`; the manifest room has checked every value."""

    @property
    def source(self) -> str | None:
        """The main source file, relative to the plugin's directory."""

    @property
    def language(self) -> str | None:
        """One of `Language`, or None: by the source's suffix."""

    @property
    def wit(self) -> str | None:
        """The directory with the world."""

    @property
    def world(self) -> str | None:
        """The world's name."""

    @property
    def requirements(self) -> tuple[str, ...]:
        """Python packages to bundle."""

    @property
    def wasi(self) -> bool | None:
        """Whether WASI may be imported."""


@dataclass(frozen=True, slots=True)
class BuildSettings:
    """How to build one plugin.

    `name` is the plugin's id, for messages. `source` and `wit` are relative to its directory. `world` None means the
    only world of the WIT package. `requirements` are Python packages to put into the component, in pip's notation.
    `wasi` False leaves the component without any WASI import.
    """

    name: str
    source: str
    language: Language
    world: str | None = None
    wit: str = "wit"
    requirements: tuple[str, ...] = ()
    wasi: bool = True


def build_settings(directory: Path, name: str, component: ComponentSection) -> BuildSettings:
    """How to build the plugin `name` in `directory`, as its manifest says; looks whether the source is there.

    Raises: ContractError (`component.build`) when there is no source to build; ManifestError (`manifest.value`) when
        nothing says what language it is in.
    """
    source = component.source
    if source is None:
        raise build_error(
            name, "its manifest names no source in [component]", advice='Add source = "app.py" to [component]'
        )
    if not (directory / source).is_file():
        raise build_error(name, f"its source {source!r} does not exist", advice="Mend `source` in [component]")
    language = _language(component.language, source)
    return BuildSettings(
        name=name,
        source=source,
        language=language,
        world=component.world,
        wit=component.wit or "wit",
        requirements=component.requirements,
        wasi=language is Language.PYTHON if component.wasi is None else component.wasi,
    )


def _language(named: str | None, source: str) -> Language:
    found = _BY_SUFFIX.get(PurePosixPath(source).suffix) if named is None else Language(named)
    if found is None:
        raise ManifestError(
            f"component.source {source!r:.120} ends in none of {', '.join(_BY_SUFFIX)}; say in component.language what "
            "it is written in"
        )
    return found
