"""The lines of policy.toml that would change an answer. Each allow line is tried out before it is offered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cloche.grants.params import read_params, toml_table, toml_value
from cloche.grants.policy import MountMode, Policy, Rules
from cloche.grants.schema import GrantSchema, Params, Verdict
from cloche.grants.wasi import FILESYSTEM_ID, FilesystemRequest
from cloche.manifest.value import Manifest

Intersect = Callable[[GrantSchema, Params, Params], Verdict]


def grouped(lines: tuple[str, ...]) -> tuple[str, ...]:
    """The same lines with every table named once, because TOML refuses to open a table twice."""
    tables: dict[str, list[str]] = {}
    table: list[str] = []
    for line in lines:
        if line.startswith("["):
            table = tables.setdefault(line, [])
        else:
            table.append(line)
    return tuple(line for header, body in tables.items() for line in (header, *body))


class Remedies:
    """What the operator could write for one plugin under one policy."""

    __slots__ = ("_manifest", "_policy", "_rules")

    def __init__(self, manifest: Manifest, policy: Policy, rules: Rules) -> None:
        self._manifest = manifest
        self._policy = policy
        self._rules = rules

    def without_denial(self, capability: str) -> tuple[str, ...]:
        """Every entry that denies the capability, with the deny line that it would need."""
        lines: list[str] = []
        publisher = self._manifest.id.partition("/")[0]
        for pattern in ("*", f"{publisher}/*", self._manifest.id):
            entry = self._policy.plugins.get(pattern)
            if entry is not None and capability in entry.deny:
                left = [item for item in entry.deny if item != capability]
                lines += [f'[plugins."{pattern}"]', f"deny = {toml_value(left)}"]
        return tuple(lines)

    def to_allow(
        self, schema: GrantSchema, request: Params, intersect: Intersect
    ) -> tuple[tuple[str, ...], Verdict | None]:
        """Lines that would grant the capability, and the verdict that they lead to.

        Without lines, the verdict says why nothing that the policy could write would help (None: no allowance of the
        schema could be guessed).
        """
        if schema.id == FILESYSTEM_ID:
            assert isinstance(request, FilesystemRequest)
            return self._to_bind(request), Verdict(None, "it names no mount in read or write")
        last: Verdict | None = None
        for table in self._candidates(schema):
            allowance = read_params(schema.allowance, table, ())
            if isinstance(allowance, Params):
                last = intersect(schema, request, allowance)
                if last.granted is not None:
                    return self._lines(f'allow."{schema.id}" = {toml_table(table)}'), last
        return (), last

    def for_more(self, schema: GrantSchema, request: Params, verdict: Verdict, intersect: Intersect) -> tuple[str, ...]:
        """Lines that would grant more of what is asked than `verdict` does; empty when nothing would."""
        if schema.id == FILESYSTEM_ID:
            assert isinstance(request, FilesystemRequest)
            return self._to_bind(request)
        lines, better = self.to_allow(schema, request, intersect)
        if better is None or better.granted is None or better.granted == verdict.granted:
            return ()
        # `true` may stand for less than an allowance that the policy spells out: only all that is asked is surely more.
        return lines if verdict.granted is None or better.granted == request else ()

    def _candidates(self, schema: GrantSchema) -> list[Mapping[str, Any]]:
        """What the manifest asks for, in its own words, and `true`."""
        asked = self._manifest.capabilities.get(schema.id)
        return [asked.params, {}] if asked is not None and asked.params else [{}]

    def _to_bind(self, request: FilesystemRequest) -> tuple[str, ...]:
        lines: list[str] = []
        for name in dict.fromkeys((*request.read, *request.write)):
            wanted = MountMode.READ_WRITE if name in request.write else MountMode.READ_ONLY
            bound = self._rules.mounts.get(name)
            if bound is None:
                lines.append(f'mounts.{name} = {{ path = "/path/to/{name}", mode = "{wanted}" }}')
            elif wanted is MountMode.READ_WRITE and bound.value.mode is MountMode.READ_ONLY:
                lines.append(f'mounts.{name} = {{ path = {toml_value(bound.value.path)}, mode = "rw" }}')
        return self._lines(*lines) if lines else ()

    def _lines(self, *lines: str) -> tuple[str, ...]:
        return (f'[plugins."{self._manifest.id}"]', *lines)
