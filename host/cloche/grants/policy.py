"""The operator's policy as a frozen value, and what it says about one plugin.

Deny by default: a policy that does not mention a capability does not grant it. Entries for plugins are layered from the
widest to the narrowest pattern: `*`, then `acme/*`, then `acme/thumbnailer`. For allow, mounts, limits, config and
secrets the narrower entry replaces the same key of the wider one; denials add up and win over every allow; the lowest
tier wins. What a command line says for one plugin is laid over all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from cloche.model import Digest, Tier

_EMPTY: Mapping[str, Any] = MappingProxyType({})

COMMAND_LINE = "the command line"
"""The pattern of what a command line adds; no entry of a file can have it."""

LOCKDOWN_PARTS = frozenset({"landlock", "seccomp"})


class MountMode(StrEnum):
    """May a plugin write into a mount?"""

    READ_ONLY = "ro"
    READ_WRITE = "rw"


@dataclass(frozen=True, slots=True)
class Mount:
    """A directory of the host, by absolute path, that the operator binds to a name."""

    path: str
    mode: MountMode = MountMode.READ_ONLY


class SecretSource(StrEnum):
    """Where the text of a secret is."""

    ENV = "env"
    FILE = "file"
    VALUE = "value"


@dataclass(frozen=True, slots=True, repr=False)
class SecretRef:
    """Where a secret comes from: an environment variable, a file, or the policy itself. It is not read here.

    `text` is the variable's name, the file's path or the secret; a secret written in the policy never shows in a repr.
    """

    source: SecretSource
    text: str

    def __repr__(self) -> str:
        return f"SecretRef({self.source}={self.shown()!r})"

    def shown(self) -> str:
        """What may be shown of it."""
        return "(hidden)" if self.source is SecretSource.VALUE else self.text


@dataclass(frozen=True, slots=True)
class Publisher:
    """A publisher whom the policy names: keys as `ed25519:BASE64`, the ids it may sign for, and the tier that gives."""

    name: str
    keys: tuple[str, ...]
    namespaces: tuple[str, ...]
    tier: Tier = Tier.UNTRUSTED

    def owns(self, plugin: str) -> bool:
        """May this publisher sign for `plugin`?"""
        return plugin in self.namespaces or f"{plugin.partition('/')[0]}/*" in self.namespaces


@dataclass(frozen=True, slots=True)
class PluginPolicy:
    """One `[plugins."PATTERN"]` entry. `allow` maps capability ids to parameters (empty for `true`)."""

    pattern: str
    allow: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: _EMPTY)
    deny: tuple[str, ...] = ()
    mounts: Mapping[str, Mount] = field(default_factory=lambda: _EMPTY)
    limits: Mapping[str, int] = field(default_factory=lambda: _EMPTY)
    config: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    secrets: Mapping[str, SecretRef] = field(default_factory=lambda: _EMPTY)
    tier: Tier | None = None


@dataclass(frozen=True, slots=True)
class Sourced:
    """A value and the pattern of the policy entry that it came from (None: `[defaults]`)."""

    value: Any
    pattern: str | None

    def said_in(self, policy: str) -> str:
        """Where it stands, for messages; `policy` is what the policy is called there."""
        if self.pattern == COMMAND_LINE:
            return COMMAND_LINE
        entry = "[defaults]" if self.pattern is None else f'[plugins."{self.pattern}"]'
        return f"{entry} of {policy}"


@dataclass(frozen=True, slots=True)
class Rules:
    """What the whole policy says about one plugin, each key with its source.

    `allow` holds parameters, `deny` True, `mounts` a Mount. `limits` are ceilings, `wishes` what the command line wants
    in place of the manifest's limits. `tier` is the highest tier that the entries leave, with its source; None when
    they say nothing.
    """

    allow: Mapping[str, Sourced]
    deny: Mapping[str, Sourced]
    mounts: Mapping[str, Sourced]
    limits: Mapping[str, Sourced]
    wishes: Mapping[str, int]
    config: Mapping[str, str]
    secrets: Mapping[str, SecretRef]
    tier: Sourced | None


@dataclass(frozen=True, slots=True)
class Policy:
    """The operator's word. `limits` are the ceilings for plugins without their own, by the names of `model.BOUNDS`.

    `lockdown` is what a worker must achieve before it may run a guest (parts of `LOCKDOWN_PARTS`). `digests` maps the
    sha256 of artifacts to tiers. `file` is the name for messages, `tables` the tables that the file holds (None: there
    is no file yet). `options` holds what a command line says, by plugin id; its limits are wishes and no ceilings. Made
    by `policy_file.parse_policy` or `empty`. Added in 0.1.
    """

    tier: Tier = Tier.UNTRUSTED
    lockdown: frozenset[str] = LOCKDOWN_PARTS
    limits: Mapping[str, int] = field(default_factory=lambda: _EMPTY)
    allow_in_code: bool = True
    allow_digests: bool = True
    digests: Mapping[Digest, Tier] = field(default_factory=lambda: MappingProxyType({}))
    publishers: Mapping[str, Publisher] = field(default_factory=lambda: _EMPTY)
    plugins: Mapping[str, PluginPolicy] = field(default_factory=lambda: _EMPTY)
    file: str = "policy.toml"
    tables: frozenset[str] | None = field(default=None, compare=False)
    options: Mapping[str, PluginPolicy] = field(default_factory=lambda: _EMPTY)

    @classmethod
    def empty(cls) -> Policy:
        """The default: nothing is allowed but the default grants, and an embedder may trust a plugin in code."""
        return cls()

    def entries_for(self, plugin: str) -> list[PluginPolicy]:
        """The entries of the file that fit `plugin`, from the widest to the narrowest."""
        patterns = ("*", f"{plugin.partition('/')[0]}/*", plugin)
        return [self.plugins[pattern] for pattern in patterns if pattern in self.plugins]

    def owner_of(self, plugin: str) -> Publisher | None:
        """The publisher to whom the policy gives the id `plugin`, if to any."""
        return next((publisher for publisher in self.publishers.values() if publisher.owns(plugin)), None)

    def rules_for(self, plugin: str) -> Rules:
        """Everything that concerns `plugin`, layered from the widest to the narrowest pattern, options last."""
        entries = self.entries_for(plugin)
        options = self.options.get(plugin)
        allow: dict[str, Sourced] = {}
        deny: dict[str, Sourced] = {}
        mounts: dict[str, Sourced] = {}
        limits = {name: Sourced(number, None) for name, number in self.limits.items()}
        config: dict[str, str] = {}
        secrets: dict[str, SecretRef] = {}
        tier: Sourced | None = None
        for entry in (*entries, options) if options is not None else entries:
            allow |= {key: Sourced(params, entry.pattern) for key, params in entry.allow.items()}
            deny |= {key: Sourced(True, entry.pattern) for key in entry.deny}
            mounts |= {key: Sourced(mount, entry.pattern) for key, mount in entry.mounts.items()}
            if entry is not options:
                limits |= {key: Sourced(number, entry.pattern) for key, number in entry.limits.items()}
            config |= entry.config
            secrets |= entry.secrets
            if entry.tier is not None and (tier is None or entry.tier is Tier.UNTRUSTED):
                tier = Sourced(entry.tier, entry.pattern)
        return Rules(
            MappingProxyType(allow),
            MappingProxyType(deny),
            MappingProxyType(mounts),
            MappingProxyType(limits),
            _EMPTY if options is None else options.limits,
            MappingProxyType(config),
            MappingProxyType(secrets),
            tier,
        )
