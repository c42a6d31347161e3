"""What this host knows by name: its capabilities, the interfaces they serve, and the extension points it calls."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cloche.capabilities.api import Capability
from cloche.errors import CapabilityError, ClocheError
from cloche.grants.schema import GrantSchema
from cloche.grants.wasi import WASI_SCHEMAS
from cloche.wit.resolve import Package
from cloche.wit.store import TypeStore
from cloche.wit.types import Interface, InterfaceId

ENTRY_POINTS = "cloche.capabilities"

Provided = tuple[str, Interface]
"""A capability's id and one interface that it serves."""


@dataclass(frozen=True)
class Catalog:
    """Capabilities by id, what they serve, and the extension points. Built whole or not at all."""

    capabilities: Mapping[str, Capability]
    provided: tuple[Provided, ...]
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
            found.append(loaded() if not hasattr(loaded, "schema") else loaded)
        except ClocheError:
            raise
        except Exception as error:
            raise CapabilityError(
                f"capability package {entry.name} ({entry.value}) does not load: {error}", code="capability.invalid"
            ) from error
    return found


def build_catalog(
    capabilities: Iterable[Capability], own: Sequence[Path], given: Sequence[Path], packages: TypeStore
) -> Catalog:
    """Read the WIT of all capabilities and extension points. `given` capabilities of the embedder win over installed
    ones of the same id; two that claim the same interface are an error.

    Blocks for a child process per WIT package that was never read before. Raises: CapabilityError
    (`capability.invalid`), ContractError (`contract.wit`).
    """
    by_id: dict[str, Capability] = {}
    for capability in capabilities:
        by_id[capability.schema.id] = capability
    provided: list[Provided] = []
    claimed: dict[str, str] = {}
    for name, capability in by_id.items():
        declared = {item.id: item for item in _all(packages.package(capability.wit()))}
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
    points: dict[str, Interface] = {}
    for directory in (*own, *given):
        for path in wit_packages(directory):
            package = packages.package(path)
            points.update({item.id: item for item in package.interfaces if item.id not in claimed})
    return Catalog(by_id, tuple(provided), tuple(points.values()))


def wit_packages(directory: Path) -> list[Path]:
    """The WIT packages in `directory`: itself when it holds `.wit` files, else each folder in it but `deps`."""
    if any(directory.glob("*.wit")):
        return [directory]
    return sorted(
        path for path in directory.iterdir() if path.is_dir() and path.name != "deps" and any(path.glob("*.wit"))
    )


def interface_named(interfaces: Iterable[Interface], wanted: str) -> Interface | None:
    """The interface with this id; without a version in `wanted`, the newest of that name."""
    exact = [item for item in interfaces if item.id == wanted]
    if exact:
        return exact[0]
    parsed = InterfaceId.parse(wanted)
    if parsed is None or parsed.version is not None:
        return None
    matching = [item for item in interfaces if item.id.partition("@")[0] == wanted]
    return max(matching, key=lambda item: item.id, default=None)


def _all(package: Package) -> tuple[Interface, ...]:
    return (*package.interfaces, *package.dependencies)
