"""policy.toml, format-version 1: bytes to a `Policy`, or every reason why not. No message ever shows a secret."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

from cloche.grants.policy import (
    LOCKDOWN_PARTS,
    Mount,
    MountMode,
    PluginPolicy,
    Policy,
    Publisher,
    SecretRef,
    SecretSource,
)
from cloche.manifest.document import read_document, tree_problems
from cloche.manifest.explain import Path, Problem, problems_of, refuse, show, wrong_value
from cloche.manifest.schema import MAX_ENTRIES, CapabilityId, ConfigKey, LimitsTable, MountName, Table
from cloche.manifest.value import freeze
from cloche.model import PLUGIN_ID, Digest, Tier

FORMAT_VERSION = 1

_PUBLISHER = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,255}")


def parse_policy(data: bytes, file: str = "policy.toml") -> Policy:
    """Read a policy; `file` is the name that messages use. Opens nothing and never blocks.

    Raises: DocumentError, a ManifestError that lists every problem at once (`policy.syntax`, `policy.version`,
        `policy.unknown-key`, `policy.value`). Added in 0.1.
    """
    document = read_document(data, file, "policy")
    version = document.get("format-version")
    if type(version) is not int or version != FORMAT_VERSION:
        found = " is missing" if version is None else f" = {show(version)}"
        text = f"{found}: this host reads format-version = {FORMAT_VERSION}"
        refuse(file, "policy", [Problem("version", ("format-version",), text)])
    table: _PolicyTable | None = None
    try:
        table = _PolicyTable.model_validate(document)
    except ValidationError as error:
        problems = problems_of(error, _PolicyTable, hidden=_is_secret)
    else:
        problems = _cross_problems(table)
    covered = {problem.path for problem in problems}
    problems += [problem for problem in tree_problems(document, hidden=True) if problem.path not in covered]
    if problems or table is None:
        refuse(file, "policy", problems)
    return _to_value(table, file, _tables_of(document))


def check_pattern(text: str) -> str:
    """A pattern of plugin ids: `acme/thumbnailer`, `acme/*` or `*`. Raises: ValueError with what is expected."""
    publisher, slash, name = text.partition("/")
    is_wild = text == "*" or (slash == "/" and name == "*" and _PUBLISHER.fullmatch(publisher) is not None)
    if not is_wild and (len(text) > 128 or not PLUGIN_ID.fullmatch(text)):
        raise ValueError('a plugin id, "publisher/*" or "*"')
    return text


def _check_namespace(text: str) -> str:
    if check_pattern(text) == "*" or text.startswith("local/"):
        raise ValueError('"publisher/*" or a plugin id; nobody owns "*" or "local/*"')
    return text


def _check_publisher(text: str) -> str:
    if len(text) > 64 or not _PUBLISHER.fullmatch(text):
        raise ValueError("a publisher's name in lower-case kebab")
    return text


def _check_digest(text: str) -> str:
    if not _DIGEST.fullmatch(text):
        raise ValueError('"sha256:" and 64 lower-case hexadecimal digits')
    return text


def _check_key(text: str) -> str:
    kind, _, encoded = text.partition(":")
    try:
        raw = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    # Re-encoding refuses a second spelling of the same key: base64 ignores the low bits of its last digit.
    if kind != "ed25519" or len(raw) != 32 or base64.b64encode(raw).decode() != encoded:
        raise ValueError('"ed25519:" and the base64 of 32 bytes')
    return text


def _check_host_path(text: str) -> str:
    parts = text.split("/")
    if not text.startswith("/") or len(text) > 4096 or not text.isprintable() or ".." in parts:
        raise ValueError("an absolute path without '..'")
    return text


def _check_env_name(text: str) -> str:
    if not _ENV_NAME.fullmatch(text):
        raise ValueError("the name of an environment variable")
    return text


def _allow_params(value: object) -> object:
    if value is True:
        return {}
    if value is False:
        raise ValueError("true or a table of parameters; to refuse a capability, put its id into deny")
    if not isinstance(value, dict):
        raise ValueError("true or a table of parameters")
    return value


_TierName = Literal["trusted", "untrusted"]
_Pattern = Annotated[str, AfterValidator(check_pattern)]
_HostPath = Annotated[str, AfterValidator(_check_host_path)]


class _DefaultsTable(Table):
    # "trusted" is not a default: trust is given to a publisher, a digest, or in code.
    tier: Literal["untrusted"] = "untrusted"
    require_lockdown: Literal["landlock+seccomp", "landlock", "seccomp", "none"] = "landlock+seccomp"
    limits: LimitsTable = LimitsTable()


class _TrustTable(Table):
    allow_in_code: bool = True
    allow_digests: bool = True
    digests: Annotated[dict[Annotated[str, AfterValidator(_check_digest)], _TierName], Field(max_length=4096)] = {}


class _PublisherTable(Table):
    keys: Annotated[list[Annotated[str, AfterValidator(_check_key)]], Field(min_length=1, max_length=16)]
    namespaces: Annotated[list[Annotated[str, AfterValidator(_check_namespace)]], Field(max_length=MAX_ENTRIES)] = []
    tier: _TierName = "untrusted"


class _MountTable(Table):
    path: _HostPath
    mode: Literal["ro", "rw"] = "ro"


class _SecretTable(Table):
    env: Annotated[str, AfterValidator(_check_env_name)] | None = None
    file: _HostPath | None = None
    value: Annotated[str, Field(min_length=1)] | None = None

    def refs(self) -> list[SecretRef]:
        texts = {SecretSource.ENV: self.env, SecretSource.FILE: self.file, SecretSource.VALUE: self.value}
        return [SecretRef(source, text) for source, text in texts.items() if text is not None]


class _PluginTable(Table):
    allow: Annotated[
        dict[CapabilityId, Annotated[dict[str, Any], BeforeValidator(_allow_params)]], Field(max_length=MAX_ENTRIES)
    ] = {}
    deny: Annotated[list[CapabilityId], Field(max_length=MAX_ENTRIES)] = []
    mounts: Annotated[dict[MountName, _MountTable], Field(max_length=MAX_ENTRIES)] = {}
    limits: LimitsTable = LimitsTable()
    config: Annotated[dict[ConfigKey, str], Field(max_length=MAX_ENTRIES)] = {}
    secrets: Annotated[dict[ConfigKey, _SecretTable], Field(max_length=MAX_ENTRIES)] = {}
    tier: _TierName | None = None


class _PolicyTable(Table):
    format_version: int
    defaults: _DefaultsTable = _DefaultsTable()
    trust: _TrustTable = _TrustTable()
    publishers: dict[Annotated[str, AfterValidator(_check_publisher)], _PublisherTable] = {}
    plugins: dict[_Pattern, _PluginTable] = {}


def _is_secret(path: Path) -> bool:
    """Everything below `plugins.X.secrets`, also where a secret stands in the wrong place."""
    return "secrets" in path or "secret" in path


def _cross_problems(table: _PolicyTable) -> list[Problem]:
    problems: list[Problem] = []
    key_owners: dict[str, str] = {}
    spaces: dict[str, dict[str, str]] = {}  # by the part before the slash: each namespace and its owner
    for name, publisher in table.publishers.items():
        for index, key in enumerate(publisher.keys):
            if (owner := key_owners.setdefault(key, name)) != name:
                path: Path = ("publishers", name, "keys", index)
                problems.append(wrong_value(path, key, f"a key of its own; {owner} has the same"))
        for index, space in enumerate(publisher.namespaces):
            beside = spaces.setdefault(space.partition("/")[0], {})
            shared = beside if space.endswith("/*") else (space, f"{space.partition('/')[0]}/*")
            other = next((item for item in shared if beside.get(item, name) != name), None)
            if other is not None:
                path = ("publishers", name, "namespaces", index)
                expected = f"ids that are nobody else's; {beside[other]} has {other!r}"
                problems.append(wrong_value(path, space, expected))
            beside.setdefault(space, name)
    for pattern, plugin in table.plugins.items():
        for key, secret in plugin.secrets.items():
            if len(secret.refs()) != 1:
                path = ("plugins", pattern, "secrets", key)
                problems.append(wrong_value(path, {}, "exactly one of env, file and value", hidden=True))
        for key in sorted(set(plugin.config) & set(plugin.secrets)):
            path = ("plugins", pattern, "secrets", key)
            problems.append(wrong_value(path, {}, "a name that config does not have", hidden=True))
    return problems


def _tables_of(document: Mapping[str, Any]) -> frozenset[str]:
    """The tables of the file that a remedy may name: `trust`, `trust.digests`, `plugins."PATTERN"`."""
    found = {f'plugins."{pattern}"' for pattern in document.get("plugins", {})}
    trust = document.get("trust")
    if trust is not None and "digests" in trust:
        found.add("trust.digests")
    if trust is not None and trust.keys() != {"digests"}:  # else [trust.digests] may stand alone
        found.add("trust")
    return frozenset(found)


def _to_value(table: _PolicyTable, file: str, tables: frozenset[str]) -> Policy:
    lockdown = table.defaults.require_lockdown
    return Policy(
        tier=Tier(table.defaults.tier),
        lockdown=frozenset(lockdown.split("+")) & LOCKDOWN_PARTS,
        limits=_read_only(table.defaults.limits.by_name()),
        allow_in_code=table.trust.allow_in_code,
        allow_digests=table.trust.allow_digests,
        digests=MappingProxyType(
            {Digest(key.removeprefix("sha256:")): Tier(tier) for key, tier in table.trust.digests.items()}
        ),
        publishers=_read_only(
            {
                name: Publisher(name, tuple(item.keys), tuple(item.namespaces), Tier(item.tier))
                for name, item in table.publishers.items()
            }
        ),
        plugins=_read_only({pattern: _plugin(pattern, item) for pattern, item in table.plugins.items()}),
        file=file,
        tables=tables,
    )


def _plugin(pattern: str, table: _PluginTable) -> PluginPolicy:
    return PluginPolicy(
        pattern,
        allow=freeze(table.allow),
        deny=tuple(dict.fromkeys(table.deny)),
        mounts=_read_only({name: Mount(item.path, MountMode(item.mode)) for name, item in table.mounts.items()}),
        limits=_read_only(table.limits.by_name()),
        config=_read_only(table.config),
        secrets=_read_only({name: item.refs()[0] for name, item in table.secrets.items()}),
        tier=None if table.tier is None else Tier(table.tier),
    )


def _read_only(table: Mapping[str, Any]) -> Mapping[str, Any]:
    return MappingProxyType(dict(table))
