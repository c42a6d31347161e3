"""Python packages to put into a component: pure Python, from this environment where it has them, else from pip."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path, PurePosixPath

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from cloche.build.cache import BuildCache
from cloche.build.failure import build_error
from cloche.build.sources import collect, native_files, place
from cloche.build.tool import FETCH_LIMITS, python_command, run_tool

GUEST_PYTHON = "3.14"
"""The Python inside components of componentize-py 0.25."""
_GUEST = {
    "python_version": GUEST_PYTHON,
    "python_full_version": f"{GUEST_PYTHON}.0",
    "sys_platform": "wasi",
    "os_name": "posix",
    "platform_system": "wasi",
}
MAX_PACKAGES = 200
_PIP = "import runpy; runpy.run_module('pip', run_name='__main__', alter_sys=True)"


@dataclass(frozen=True, slots=True)
class Vendored:
    """Files of packages, as they lie below a `site-packages`, and which packages they are."""

    files: dict[PurePosixPath, bytes]
    notes: tuple[str, ...]


def vendor(requirements: tuple[str, ...], name: str, cache: BuildCache, progress: Callable[[str], None]) -> Vendored:
    """Collect the packages that `requirements` ask for, with what those need.

    Installed packages that fit are copied: a build then needs no network and has the versions that were tried. When one
    is missing, all come from pip, which fetches wheels only and runs none of their code.
    Raises: ContractError (`component.build`) for a requirement that is no name with versions, a package that cannot be
        found, and native code, which no component can run.
    """
    if not requirements:
        return Vendored({}, ())
    parsed = [_parse(text, name) for text in requirements]
    installed = _installed(parsed)
    if installed is None:
        return _fetched(requirements, name, cache, progress)
    files: dict[PurePosixPath, bytes] = {}
    for each in installed:
        for relative in each.files or ():
            if ".." not in relative.parts and "__pycache__" not in relative.parts:
                files[PurePosixPath(relative)] = Path(str(each.locate_file(relative))).read_bytes()
    _refuse_native(files, name)
    return Vendored(files, tuple(f"bundled {each.name} {each.version}" for each in installed))


def _parse(text: str, name: str) -> Requirement:
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        raise build_error(
            name, f"{text!r:.120} in `requirements` is not a package with versions: {error!s:.120}"
        ) from error
    if requirement.url:
        raise build_error(
            name, f"{text!r:.120} in `requirements` is an address", advice="Name a package and its versions"
        )
    return requirement


def _installed(wanted: list[Requirement]) -> list[Distribution] | None:
    """The installed distributions that satisfy `wanted` and what they need in turn, or None when one does not fit."""
    found: dict[str, Distribution] = {}
    queue = list(wanted)
    while queue:
        requirement = queue.pop(0)
        key = canonicalize_name(requirement.name)
        try:
            each = found.get(key) or distribution(key)
        except PackageNotFoundError:
            return None
        if not requirement.specifier.contains(each.version, prereleases=True) or not _is_pure(each):
            return None
        if key in found and not requirement.extras:
            continue
        found[key] = each
        if len(found) > MAX_PACKAGES:
            return None
        queue.extend(_needs(each, requirement.extras or {""}))
    return [found[key] for key in sorted(found)]


def _needs(each: Distribution, extras: Iterable[str]) -> list[Requirement]:
    needs = [Requirement(text) for text in each.requires or ()]
    return [
        need
        for need in needs
        if need.marker is None or any(need.marker.evaluate({**_GUEST, "extra": extra}) for extra in extras)
    ]


def _is_pure(each: Distribution) -> bool:
    # An editable installation lists only a pointer to its files, and tells so in direct_url.json.
    return "Root-Is-Purelib: true" in (each.read_text("WHEEL") or "") and not each.read_text("direct_url.json")


def _fetched(requirements: tuple[str, ...], name: str, cache: BuildCache, progress: Callable[[str], None]) -> Vendored:
    key = hashlib.sha256("\n".join([GUEST_PYTHON, *sorted(requirements)]).encode()).hexdigest()

    def fetch(home: Path) -> None:
        progress(f"fetching {', '.join(requirements)}")
        with cache.workspace() as work:
            _pip(requirements, name, work)
            files = collect(work / "site", name, everything=True)
        _refuse_native(files, name)
        place(files, home)

    with cache.fetched("vendor", key, fetch, progress) as home:
        files = collect(home, name, everything=True)
    bundled = sorted(
        path.parts[0].removesuffix(".dist-info").replace("-", " ") for path in files if path.name == "METADATA"
    )
    return Vendored(files, tuple(f"bundled {each}" for each in bundled))


def _pip(requirements: tuple[str, ...], name: str, work: Path) -> None:
    # Pure wheels only: `any` and `none` leave no native one to choose, and nothing is ever built from source.
    choose = ["--only-binary", ":all:", "--platform", "any", "--implementation", "py", "--abi", "none"]
    target = ["--python-version", GUEST_PYTHON, "--target", str(work / "site")]
    quiet = ["--no-compile", "--no-input", "--quiet", "--disable-pip-version-check"]
    command = python_command("pip", _PIP, "install", *quiet, *choose, *target, *requirements)
    if command is None:
        advice = "This environment has no pip: install the packages named in `requirements` into it"
        raise build_error(name, "its requirements cannot be fetched", advice=advice)
    result = run_tool(command, tool="pip", name=name, work=work, keep_environment=True, limits=FETCH_LIMITS)
    if result.status == 0:
        return
    if "No matching distribution" in result.output:
        advice = (
            "A component runs pure Python only: choose a package or version whose wheel ends in -none-any.whl, and"
            " check the name's spelling"
        )
    else:
        advice = "pip's own words follow"
    raise build_error(name, "its requirements cannot be fetched", advice=advice, output=result.output)


def _refuse_native(files: dict[PurePosixPath, bytes], name: str) -> None:
    native = native_files(files)
    if native:
        raise build_error(
            name,
            f"its requirements hold compiled libraries, such as {native[0]}",
            advice="A component cannot load native code: use pure Python, or ask the host for a capability",
        )
