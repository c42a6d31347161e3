"""From a plugin's directory to its component: read everything once, look it up, and build it where it is new."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Final

from cloche.build import javascript, native, python, witfiles
from cloche.build.cache import BuildCache, CacheEntry, write_whole
from cloche.build.job import Job
from cloche.build.settings import BuildSettings, Language
from cloche.build.sources import collect, place
from cloche.build.vendor import vendor
from cloche.resources import sdk_dir, wit_dir

KEY_FORMAT = "cloche build 1"
"""Changes with the recipes below, so that components of an older program are not taken for today's."""


@dataclass(frozen=True, slots=True)
class BuiltComponent:
    """A component made from source. `path` holds exactly the bytes of `digest`, at the time of building.

    `wall_ms` is what building cost when it was done; `cached` says that this time it cost nothing. `notes` tell what
    went in. Added in 0.1.
    """

    path: Path
    digest: str
    language: Language
    size: int
    cached: bool
    wall_ms: float
    notes: tuple[str, ...]
    key: str


@dataclass(frozen=True, slots=True)
class Inputs:
    """Everything that a component is made from, in memory."""

    settings: BuildSettings
    groups: Mapping[str, Mapping[PurePosixPath, bytes]]
    versions: tuple[str, ...]
    notes: tuple[str, ...]

    def key(self) -> str:
        """The sha256 of all of it. The plugin's name and where its directory lies are not part."""
        settings = self.settings
        chosen = (settings.source, settings.language.value, settings.world or "", str(settings.wasi))
        digest = hashlib.sha256()
        for part in _framed([KEY_FORMAT, *chosen, *self.versions]):
            digest.update(part)
        for group in sorted(self.groups):
            for path, data in sorted(self.groups[group].items()):
                for part in _framed([group, str(path), hashlib.sha256(data).hexdigest()]):
                    digest.update(part)
        return digest.hexdigest()


def build_plugin(
    directory: Path,
    settings: BuildSettings,
    *,
    out: Path | None = None,
    cache: Path,
    progress: Callable[[str], None] | None = None,
) -> BuiltComponent:
    """Build the component of the plugin in `directory`; blocks from milliseconds (cached) to a minute.

    `cache` is the directory of built components and fetched tools. With `out` the component is also written there, in
    one step; otherwise the result's path is inside the cache, where it stays until it is pruned. `progress` gets one
    line of text whenever something starts that takes more than a second. Safe to call from many processes at once:
    each component is built by one of them. Added in 0.1.

    Raises: ContractError (`component.build`) with the tool's words and advice; RegistryError (`registry.io`) when the
        disk refuses.
    """
    tell = progress or _nothing
    store = BuildCache(cache)
    inputs = read_inputs(directory, settings, store, tell)
    key = inputs.key()
    entry, cached = store.find(key), True
    if entry is None:
        with store.lock(f"build-{key}", tell):
            entry = store.find(key)  # another process may have made it while this one waited
            if entry is None:
                entry, cached = _build(inputs, key, store, tell), False
    path = entry.path
    if out is not None:
        path = out
        write_whole(out, entry.path.read_bytes())
    return BuiltComponent(path, entry.digest, settings.language, entry.size, cached, entry.wall_ms, entry.notes, key)


def read_inputs(directory: Path, settings: BuildSettings, store: BuildCache, progress: Callable[[str], None]) -> Inputs:
    """Read everything that the component of `directory` is made from; fetches packages when they are not here."""
    groups: dict[str, Mapping[PurePosixPath, bytes]] = {"app": collect(directory, settings.name)}
    notes: tuple[str, ...] = ()
    wit = directory / settings.wit
    if settings.language is not Language.WAT or wit.is_dir():
        groups["wit"] = witfiles.resolve(wit, wit_dir(), settings.name)
        if settings.world is None:
            settings = replace(settings, world=witfiles.only_world(groups["wit"], settings.name))
        # The world is given to the tools once, in the form above.
        groups["app"] = {
            path: data
            for path, data in groups["app"].items()
            if path.suffix != ".wit" or not path.is_relative_to(settings.wit)
        }
    if settings.language in _WITH_SDK:
        groups["sdk"] = collect(sdk_dir(), settings.name)
    if settings.language is Language.PYTHON:
        vendored = vendor(settings.requirements, settings.name, store, progress)
        groups["packages"], notes = vendored.files, vendored.notes
    return Inputs(settings, groups, _VERSIONS[settings.language](), notes)


_WITH_SDK: Final = frozenset({Language.PYTHON, Language.C})
_VERSIONS: Final[Mapping[Language, Callable[[], tuple[str, ...]]]] = {
    Language.PYTHON: python.versions,
    Language.JAVASCRIPT: javascript.versions,
    Language.C: native.c_versions,
    Language.WAT: native.wat_versions,
}
_RECIPES: Final[Mapping[Language, Callable[[Job], bytes]]] = {
    Language.PYTHON: python.compile_python,
    Language.JAVASCRIPT: javascript.compile_javascript,
    Language.C: native.compile_c,
    Language.WAT: native.compile_wat,
}


def _build(inputs: Inputs, key: str, store: BuildCache, progress: Callable[[str], None]) -> CacheEntry:
    settings = inputs.settings
    began = time.monotonic()
    with store.workspace() as work:
        for group, files in inputs.groups.items():
            place(files, work / group)
        progress(f"building {settings.name} from {settings.source}")
        component = _RECIPES[settings.language](Job(settings, work, store, progress))
    wall_ms = (time.monotonic() - began) * 1000
    return store.store(
        key, component, name=settings.name, language=settings.language.value, wall_ms=wall_ms, notes=inputs.notes
    )


def _framed(parts: Iterable[str]) -> Iterable[bytes]:
    """Each part with its length before it, so that no two lists of parts run together to the same bytes."""
    for part in parts:
        data = part.encode("utf-8", "surrogateescape")
        yield len(data).to_bytes(8, "little") + data


def _nothing(_line: str) -> None:
    """Progress that nobody watches."""
