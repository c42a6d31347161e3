"""What a plugin says about itself and asks for: the manifest as a frozen value.

Mappings in it are read-only. Made by `parse.parse_manifest` and `bare.bare_manifest`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from cloche.manifest.versions import ANY_VERSION, Requirement
from cloche.model import Instances, PluginId

_EMPTY: Mapping[str, Any] = MappingProxyType({})


class Kind(StrEnum):
    """What a plugin consists of: a component, a SKILL.md that an agent reads, or both."""

    CODE = "code"
    SKILL = "skill"
    COMPOSITE = "composite"


@dataclass(frozen=True, slots=True)
class ComponentRef:
    """Where the component is: `path` of a built one, `source` to build it from, relative to the manifest, or both.

    With both, `path` is what building `source` writes. The rest is for building: the source's `language` (None: by its
    file name), the directory `wit`, the `world` in it, the Python packages to bundle, and whether the component may
    import WASI (None: what is usual for the language).
    """

    path: str | None = None
    source: str | None = None
    language: str | None = None
    wit: str | None = None
    world: str | None = None
    requirements: tuple[str, ...] = ()
    wasi: bool | None = None


@dataclass(frozen=True, slots=True)
class CapabilityRequest:
    """One capability that the plugin asks for. `params` are the remaining keys, checked by the capability's schema.

    `required`: the plugin is not loaded without it; otherwise its imports are closed.
    """

    version: Requirement = ANY_VERSION
    required: bool = False
    params: Mapping[str, Any] = field(default_factory=lambda: _EMPTY)


@dataclass(frozen=True, slots=True)
class Requires:
    """What the system must offer. Empty `os` and `arch` mean any."""

    host: Requirement = ANY_VERSION
    os: tuple[str, ...] = ()
    arch: tuple[str, ...] = ()
    gpu: bool = False


@dataclass(frozen=True, slots=True)
class Manifest:
    """A plugin's manifest, checked.

    `extension_points` maps interface ids without a version to the versions that it fits. `limits` holds only what the
    author wrote, by the names and in the units of `model.BOUNDS`. `config` holds the author's defaults, which the
    operator's win over. `migrated` says, one sentence each, what was changed while an older format was read;
    `format_version` is the one that was written (None for a bare component). `file` is the name for messages.
    Added in 0.1.
    """

    id: PluginId
    name: str
    version: str
    description: str = ""
    authors: tuple[str, ...] = ()
    license: str | None = None
    repository: str | None = None
    kind: Kind = Kind.CODE
    instances: Instances = Instances.PER_CALL
    component: ComponentRef | None = None
    extension_points: Mapping[str, Requirement] = field(default_factory=lambda: _EMPTY)
    capabilities: Mapping[str, CapabilityRequest] = field(default_factory=lambda: _EMPTY)
    limits: Mapping[str, int] = field(default_factory=lambda: _EMPTY)
    requires: Requires = Requires()
    config: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    format_version: int | None = None
    migrated: tuple[str, ...] = ()
    file: str = "plugin.toml"

    @property
    def is_bare(self) -> bool:
        """Was there no manifest, only a component?"""
        return self.format_version is None

    def to_json(self) -> dict[str, Any]:
        """The manifest as plain values."""
        plain = thaw(self)
        assert isinstance(plain, dict)
        return plain


def freeze(value: Any) -> Any:
    """Read-only copy of tables and arrays, all the way down: mappings and tuples."""
    if isinstance(value, Mapping):
        return MappingProxyType({key: freeze(item) for key, item in value.items()})
    if isinstance(value, list | tuple):
        return tuple(freeze(item) for item in value)
    return value


def thaw(value: Any) -> Any:
    """Plain dicts, lists, strings and numbers that `json.dumps` accepts; the inverse of `freeze`."""
    if isinstance(value, Requirement):
        return value.text
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: thaw(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Mapping):
        return {key: thaw(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [thaw(item) for item in value]
    return value.value if isinstance(value, StrEnum) else value
