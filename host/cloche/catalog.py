"""What this host knows by name: its capabilities, the interfaces they serve, and the extension points it calls."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cloche.capabilities.api import Capability
from cloche.contract.versions import newest
from cloche.errors import CapabilityError, ClocheError, UsageError, hides_ctrl_c
from cloche.grants.schema import GrantSchema
from cloche.grants.wasi import WASI_SCHEMAS
from cloche.resources import wit_dir
from cloche.wit.resolve import Package
from cloche.wit.store import TypeStore
from cloche.wit.types import Interface, InterfaceId

ENTRY_POINTS = "cloche.capabilities"
_EXPECTED = "hand over a directory that is a WIT package (with .wit files), or that holds one in each folder"

Provided = tuple[str, Interface]
"""A capability's id and one interface that it serves."""


@dataclass(frozen=True)
class Catalog:
    """Capabilities by id, what they serve, what the engine's WASI serves, and the extension points.

    Built whole or not at all.
    """

    capabilities: Mapping[str, Capability]
    provided: tuple[Provided, ...]
    engine: tuple[Interface, ...]
    extension_points: tuple[Interface, ...]

    @property
    def schemas(self) -> Mapping[str, GrantSchema]:
        """Grant schemas by id, those of the engine's own WASI included."""
        ours = {schema.id: schema for schema in WASI_SCHEMAS}
        return {**ours, **{name: item.schema for name, item in self.capabilities.items()}}


def installed_capabilities() -> list[Capability]:
    """Every capability that an installed package offers through the entry-point group, in order of their ids.

    Raises: CapabilityError (`capability.invalid`) naming the package that does not load.
    """
    found: list[Capability] = []
    for entry in sorted(importlib.metadata.entry_points(group=ENTRY_POINTS), key=lambda item: item.name):
        try:
            loaded = entry.load()
            found.append(loaded() if isinstance(loaded, type) or not hasattr(loaded, "schema") else loaded)
        except ClocheError:
            raise
        except Exception as error:
            if hides_ctrl_c(error):
                raise KeyboardInterrupt from error
            raise CapabilityError(
                f"capability package {entry.name} ({entry.value}) does not load: {error}", code="capability.invalid"
            ) from error
    return found


def build_catalog(
    installed: Iterable[Capability],
    in_code: Iterable[Capability],
    points: Sequence[Path],
    packages: TypeStore,
) -> Catalog:
    """Read the WIT of all capabilities, of the engine, and of the extension points: ours, and those in `points`.

    A capability that the embedder handed over `in_code` replaces an installed one of its id. No installed one replaces
    another, no two claim the same interface, and no directory of `points` declares an interface otherwise than another
    one or than we do: all are errors. Blocks for a child process per WIT package that was never read before.
    Raises: CapabilityError (`capability.invalid`), ContractError (`contract.wit`), UsageError (`usage.argument`,
        `usage.not-found`) naming the directory in `points` that is no good.
    """
    by_id: dict[str, Capability] = {}
    for capability in installed:
        name = _id_of(capability)
        if name in by_id:
            raise CapabilityError(
                f"two installed packages offer the capability {name} ({_type_name(by_id[name])} and "
                f"{_type_name(capability)}); uninstall one of them",
                code="capability.invalid",
            )
        by_id[name] = capability
    by_id.update({_id_of(capability): capability for capability in in_code})
    provided: list[Provided] = []
    claimed: dict[str, str] = {}
    for name, capability in by_id.items():
        declared = {item.id: item for item in _all(packages.package(_wit_of(capability)))}
        for interface_id in capability.schema.interfaces:
            interface = declared.get(interface_id)
            if interface is None:
                raise CapabilityError(
                    f"capability {name} promises {interface_id}, which its WIT does not declare; "
                    f"declared: {', '.join(sorted(declared)) or 'nothing'}",
                    code="capability.invalid",
                )
            if interface_id in claimed:
                raise CapabilityError(
                    f"both {claimed[interface_id]} and {name} claim {interface_id}; install one of them",
                    code="capability.invalid",
                )
            claimed[interface_id] = name
            provided.append((name, interface))
    called = _extension_points(points, claimed, packages)
    return Catalog(by_id, tuple(provided), engine_interfaces(packages), called)


def engine_interfaces(packages: TypeStore) -> tuple[Interface, ...]:
    """What the engine's own WASI offers to components: the imports of a command, without HTTP (H26)."""
    package = packages.package(wit_dir() / "deps" / "wasi-cli")
    return next(world.imports for world in package.worlds if world.name == "imports")


def _extension_points(points: Sequence[Path], claimed: Container[str], packages: TypeStore) -> tuple[Interface, ...]:
    """The interfaces that the host calls: all that are declared, but for what capabilities serve, or could serve.

    The latter are those of ours that plugins only import.
    """
    own = [packages.package(path) for path in wit_packages(wit_dir())]
    names = {_unversioned(package) for package in own}
    called = {item.id: item for package in own for item in package.interfaces if item.id not in claimed}
    worlds = [world for package in own for world in package.worlds]
    wanted = {item.id for world in worlds for item in world.imports}
    wanted -= {item.id for world in worlds for item in world.exports}
    for directory in points:
        given = [packages.package(path) for path in _given_packages(directory)]
        if not any(package.interfaces for package in given):
            raise UsageError(f"extension point directory {directory} declares no interface; {_EXPECTED}")
        for package in given:
            is_ours = _unversioned(package) in names
            for item in package.interfaces:
                if item.id in claimed:
                    continue
                known = called.get(item.id)
                if known is None and not is_ours:
                    called[item.id] = item
                elif known != item:
                    raise UsageError(
                        f"extension point directory {directory} declares {item.id} otherwise than "
                        f"{'Cloche itself' if is_ours else 'an earlier one'} does; give the package another name"
                    )
    return tuple(item for item in called.values() if item.id not in wanted)


def _given_packages(directory: Path) -> list[Path]:
    """The packages in a directory that the embedder named. Raises: UsageError (`usage.argument`, `usage.not-found`)."""
    try:
        found = wit_packages(directory)
    except OSError as error:
        message = f"extension point directory {directory} cannot be read ({error.strerror}); {_EXPECTED}"
        raise UsageError(message, code="usage.not-found") from error
    if not found:
        raise UsageError(f"extension point directory {directory} holds no WIT; {_EXPECTED}")
    return found


def wit_packages(directory: Path) -> list[Path]:
    """The WIT packages in `directory`: itself when it holds `.wit` files, else each folder in it but `deps`."""
    if any(directory.glob("*.wit")):
        return [directory]
    return sorted(
        path for path in directory.iterdir() if path.is_dir() and path.name != "deps" and any(path.glob("*.wit"))
    )


def interface_named(interfaces: Iterable[Interface], wanted: str) -> Interface | None:
    """The interface with this id; without a version in `wanted`, the newest of that name."""
    by_id = {item.id: item for item in interfaces}
    if wanted in by_id:
        return by_id[wanted]
    parsed = InterfaceId.parse(wanted)
    if parsed is None or parsed.version is not None:
        return None
    found = newest(name for name in by_id if name.partition("@")[0] == wanted)
    return None if found is None else by_id[found]


def _unversioned(package: Package) -> str:
    return package.name.partition("@")[0]


def _id_of(capability: Capability) -> str:
    """The id of a capability. Raises: CapabilityError (`capability.invalid`) for an object that is none."""
    schema: object = getattr(capability, "schema", None)
    lacking = [name for name in ("wit", "open") if not callable(getattr(capability, name, None))]
    if isinstance(capability, type) or lacking or not isinstance(schema, GrantSchema):
        shown = capability.__qualname__ if isinstance(capability, type) else _type_name(capability)
        raise CapabilityError(
            f"{shown} is no capability: hand over an object with `schema` (a GrantSchema), `wit()` and `open()`",
            code="capability.invalid",
        )
    return schema.id


def _wit_of(capability: Capability) -> Path:
    try:
        return Path(capability.wit())
    except Exception as error:
        raise CapabilityError(
            f"capability {capability.schema.id}: {_type_name(capability)}.wit() failed with {type(error).__name__}",
            code="capability.invalid",
        ) from error


def _type_name(capability: object) -> str:
    return f"{type(capability).__module__}.{type(capability).__qualname__}"


def _all(package: Package) -> tuple[Interface, ...]:
    return (*package.interfaces, *package.dependencies)
