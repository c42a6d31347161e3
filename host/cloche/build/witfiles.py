"""The WIT that a plugin's world needs: its own package, and the packages that it refers to, directly and indirectly.

Only what is needed is handed to the tools: a plugin's build does not depend on packages that it does not use.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cloche.build.failure import build_error
from cloche.build.sources import read_inside

MAX_WIT_FILES = 500
MAX_WIT_BYTES = 4 << 20

_VERSION = r"@(\d+\.\d+\.\d+(?:-[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?)"
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_PACKAGE = re.compile(rf"^\s*package\s+([a-z0-9-]+:[a-z0-9-]+)(?:{_VERSION})?\s*[;{{]", re.MULTILINE)
_WORLD = re.compile(r"\bworld\s+(%?[a-zA-Z][a-zA-Z0-9-]*)\s*\{")
_REFERENCE = re.compile(rf"\b([a-z][a-z0-9-]*:[a-z][a-z0-9-]*)/%?[a-z][a-z0-9-]*(?:{_VERSION})?")

PackageId = tuple[str, str]
"""Name and version; an empty version where there is none."""


@dataclass(frozen=True, slots=True)
class WitPackage:
    """One package: its id and its files, by name."""

    id: PackageId
    files: tuple[tuple[str, bytes], ...]

    def references(self) -> set[PackageId]:
        """The packages that this one refers to."""
        text = "\n".join(_plain(data) for _, data in self.files)
        return {(match[1], match[2] or "") for match in _REFERENCE.finditer(text)} - {self.id}


def resolve(directory: Path, library: Path, name: str) -> dict[PurePosixPath, bytes]:
    """The files to hand to a tool: the package in `directory` at the top, what it needs below `deps/`.

    Packages are looked for in the plugin's own `deps/` first, then in `library`.
    Raises: ContractError (`component.build`) when a package is missing, with the ones that exist.
    """
    if not directory.is_dir():
        raise build_error(name, f"it has no directory {directory.name!r} with its world", advice="Write wit/world.wit")
    own = _package(sorted(directory.glob("*.wit")), name)
    if own is None:
        raise build_error(
            name, f"{directory.name!r} holds no WIT package", advice="Start world.wit with `package a:b;`"
        )
    known = {package.id: package for package in [*_packages(library, name), *_packages(directory / "deps", name)]}
    found: dict[PackageId, WitPackage] = {}
    wanted = sorted(own.references())
    while wanted:
        asked = wanted.pop()
        package = known.get(asked) or _any_version(known, asked)
        if package is None:
            raise build_error(
                name,
                f"its world refers to the WIT package {_shown(asked)}, which is not here",
                advice=f"Known are {', '.join(sorted(map(_shown, known)))}; put others into {directory.name}/deps",
            )
        if package.id not in found and package.id != own.id:
            found[package.id] = package
            wanted.extend(sorted(package.references() - found.keys()))
    files = {PurePosixPath(file): data for file, data in own.files}
    for package in sorted(found.values(), key=lambda each: each.id):
        folder = PurePosixPath("deps", re.sub(r"[^a-z0-9.]+", "-", "-".join(package.id)).strip("-"))
        files.update({folder / file: data for file, data in package.files})
    return files


def only_world(files: Mapping[PurePosixPath, bytes], name: str) -> str:
    """The world of the package at the top of `files`, for a manifest that names none.

    Raises: ContractError (`component.build`) when there is none, or more than one to choose from.
    """
    worlds = [
        match[1]
        for path, data in sorted(files.items())
        if len(path.parts) == 1
        for match in _WORLD.finditer(_plain(data))
    ]
    if len(worlds) != 1:
        found = ", ".join(worlds) or "none"
        raise build_error(
            name, f"its WIT package must have one world, and has {found}", advice="Name one with `world` in [component]"
        )
    return worlds[0].lstrip("%")


def _any_version(known: dict[PackageId, WitPackage], asked: PackageId) -> WitPackage | None:
    return next((package for id_, package in known.items() if id_[0] == asked[0]), None) if not asked[1] else None


def _packages(root: Path, name: str) -> Iterator[WitPackage]:
    """Every package below `root`: a folder is one, and so is each file that lies directly in a `deps`."""
    if not root.is_dir():
        return
    if root.name == "deps":
        for file in sorted(root.glob("*.wit")):
            package = _package([file], name)
            if package is not None:
                yield package
    # Nested `deps` repeat what lies beside them; frozen copies of old versions are not for new builds.
    for folder in sorted(root.iterdir()):
        if not folder.is_dir() or folder.name == "released":
            continue
        if folder.name == "deps":
            yield from _packages(folder, name)
            continue
        package = _package(sorted(folder.glob("*.wit")), name)
        if package is not None:
            yield package


def _package(paths: list[Path], name: str) -> WitPackage | None:
    if len(paths) > MAX_WIT_FILES:
        raise build_error(name, f"a WIT package has more than {MAX_WIT_FILES} files")
    files: list[tuple[str, bytes]] = []
    left = MAX_WIT_BYTES
    for path in paths:
        files.append((path.name, read_inside(path.parent, path.name, left + 1, name)))
        left -= len(files[-1][1])
        if left < 0:
            raise build_error(name, f"a WIT package has more than {MAX_WIT_BYTES >> 20} MiB")
    for _, data in files:
        match = _PACKAGE.search(_plain(data))
        if match:
            return WitPackage((match[1], match[2] or ""), tuple(files))
    return None


def _plain(data: bytes) -> str:
    return _COMMENT.sub("", data.decode("utf-8", "replace"))


def _shown(package: PackageId) -> str:
    return "@".join(part for part in package if part)
