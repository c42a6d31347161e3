"""Bytes of a plugin.toml to a `Manifest`, or every reason why not; and whether this system meets its [requires]."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from pydantic import ValidationError

from cloche.manifest.document import read_document, tree_problems
from cloche.manifest.explain import Path, Problem, ensure_no_problems, missing_key, problems_of, refuse, wrong_value
from cloche.manifest.migrate import Migration, migrate
from cloche.manifest.schema import ComponentTable, ManifestTable
from cloche.manifest.value import CapabilityRequest, ComponentRef, Kind, Manifest, Requires, freeze
from cloche.manifest.versions import Requirement, Version, VersionError
from cloche.model import Instances, PluginId

MANIFEST_FILE = "plugin.toml"

_OS_NAMES: Mapping[str, str] = MappingProxyType({"darwin": "macos", "win32": "windows"})
_ARCH_NAMES: Mapping[str, str] = MappingProxyType({"amd64": "x86_64", "arm64": "aarch64"})


def parse_manifest(data: bytes, file: str = MANIFEST_FILE) -> Manifest:
    """Read a manifest; `file` is the name that messages use. Opens nothing and never blocks.

    Raises: DocumentError, a ManifestError that lists every problem at once (`manifest.syntax`, `manifest.too-large`,
        `manifest.version`, `manifest.unknown-key`, `manifest.value`). Added in 0.1.
    """
    migration = migrate(read_document(data, file, "manifest"))
    ensure_no_problems(file, "manifest", migration.problems)
    table: ManifestTable | None = None
    problems: list[Problem] = []
    try:
        table = ManifestTable.model_validate(migration.document)
    except ValidationError as error:
        problems = problems_of(error, ManifestTable)
    else:
        problems = _cross_problems(table)
    covered = {problem.path for problem in problems}
    problems += [problem for problem in tree_problems(migration.document) if problem.path not in covered]
    if problems or table is None:
        refuse(file, "manifest", [_in_old_words(problem, migration) for problem in problems])
    return _to_value(table, migration, file)


def unmet_requirements(
    manifest: Manifest, host_version: str, os: str, arch: str, *, lacks_gpu: Callable[[], str]
) -> tuple[str, ...]:
    """What of `[requires]` this system does not meet, one text each; empty when it meets everything.

    `os` and `arch` as Python's `sys.platform` and `platform.machine()` or as the manifest spells them. `lacks_gpu` says
    why no GPU can be used, with an empty text where one can; it is asked only for a plugin that requires one.
    """
    wanted = manifest.requires
    system, machine = _OS_NAMES.get(os, os), _ARCH_NAMES.get(arch.lower(), arch.lower())
    unmet = []
    # A development version of the host counts as the release that it leads to.
    if not wanted.host.admits_release(_host_version(host_version)):
        unmet.append(f'host = "{wanted.host}", this is Cloche {host_version}')
    if wanted.os and system not in wanted.os:
        unmet.append(f"os = {list(wanted.os)}, this is {system}")
    if wanted.arch and machine not in wanted.arch:
        unmet.append(f"arch = {list(wanted.arch)}, this is {machine}")
    if wanted.gpu and (reason := lacks_gpu()):
        unmet.append(f"gpu = true, and no usable GPU was found ({reason})")
    return tuple(unmet)


def _host_version(text: str) -> Version:
    try:
        return Version.parse(text)
    except VersionError:
        # Python writes pre-releases as 0.2.0.dev1 or 0.2.0rc1: keep the leading three numbers.
        numbers = []
        for part in text.split(".")[:3]:
            digits = part[: len(part) - len(part.lstrip("0123456789"))]
            numbers.append(int(digits or "0"))
        major, minor, patch = (*numbers, 0, 0)[:3]
        return Version(major, minor, patch)


def _cross_problems(table: ManifestTable) -> list[Problem]:
    problems = []
    component = table.component
    if table.kind == "skill":
        if component is not None:
            problems.append(wrong_value(("component",), {}, 'no component for kind = "skill"; use "composite"'))
        if table.extension_points:
            problems.append(wrong_value(("extension-points",), {}, 'none for kind = "skill": it has no component'))
    elif component is None or (component.path is None and component.source is None):
        problems.append(missing_key(("component",), 'write [component] with path = "NAME.wasm" or source = "app.py"'))
    return problems


def _in_old_words(problem: Problem, migration: Migration) -> Problem:
    path: Path = problem.path
    for length in range(len(path), 0, -1):
        origin = migration.origins.get(path[:length])
        if origin is not None:
            return Problem(problem.kind, (*origin, *path[length:]), problem.text)
    return problem


def _component(table: ComponentTable) -> ComponentRef:
    return ComponentRef(
        path=table.path,
        source=table.source,
        language=table.language,
        wit=table.wit,
        world=table.world,
        requirements=tuple(table.requirements),
        wasi=table.wasi,
    )


def _to_value(table: ManifestTable, migration: Migration, file: str) -> Manifest:
    requires = table.requires
    component = table.component
    return Manifest(
        id=PluginId(table.id),
        name=table.name,
        version=table.version,
        description=table.description,
        authors=tuple(table.authors),
        license=table.license,
        repository=table.repository,
        kind=Kind(table.kind),
        instances=Instances(table.instances),
        component=None if component is None else _component(component),
        extension_points=MappingProxyType(
            {key: Requirement.parse(text) for key, text in table.extension_points.items()}
        ),
        capabilities=MappingProxyType(
            {
                key: CapabilityRequest(Requirement.parse(item.version), item.required, freeze(item.params()))
                for key, item in table.capabilities.items()
            }
        ),
        limits=MappingProxyType(table.limits.by_name()),
        requires=Requires(Requirement.parse(requires.host), tuple(requires.os), tuple(requires.arch), requires.gpu),
        config=MappingProxyType(dict(table.config)),
        format_version=migration.written_version,
        migrated=tuple(migration.notes),
        file=file,
    )
