"""What would change an answer about one plugin. Each allowance is tried out before it is offered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cloche.grants.change import Change
from cloche.grants.params import read_params
from cloche.grants.policy import MountMode, Policy, Rules
from cloche.grants.schema import GrantSchema, Params, Verdict
from cloche.grants.wasi import FILESYSTEM_ID, FilesystemRequest
from cloche.manifest.value import Manifest

Intersect = Callable[[GrantSchema, Params, Params], Verdict]
Changes = tuple[Change, ...]


class Remedies:
    """What the operator could write for one plugin under one policy."""

    __slots__ = ("_manifest", "_policy", "_rules")

    def __init__(self, manifest: Manifest, policy: Policy, rules: Rules) -> None:
        self._manifest = manifest
        self._policy = policy
        self._rules = rules

    def without_denial(self, capability: str) -> Changes:
        """The denials of every entry that denies the capability, without it."""
        return tuple(
            Change(f'plugins."{entry.pattern}"', "deny", [item for item in entry.deny if item != capability])
            for entry in self._policy.entries_for(self._manifest.id)
            if capability in entry.deny
        )

    def to_allow(self, schema: GrantSchema, request: Params, intersect: Intersect) -> tuple[Changes, Verdict | None]:
        """Changes that would grant the capability, and the verdict that they lead to.

        Without any, the verdict says why nothing that the policy could write would help (None: no allowance of the
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
                    return (self._own(f'allow."{schema.id}"', table or True),), last
        return (), last

    def for_more(self, schema: GrantSchema, request: Params, verdict: Verdict, intersect: Intersect) -> Changes:
        """Changes that would grant more of what is asked than `verdict` does; empty when nothing would."""
        if schema.id == FILESYSTEM_ID:
            assert isinstance(request, FilesystemRequest)
            return self._to_bind(request)
        changes, better = self.to_allow(schema, request, intersect)
        if better is None or better.granted is None or better.granted == verdict.granted:
            return ()
        # `true` may stand for less than an allowance that the policy spells out: only all that is asked is surely more.
        return changes if verdict.granted is None or better.granted == request else ()

    def _candidates(self, schema: GrantSchema) -> list[Mapping[str, Any]]:
        """What the manifest asks for, in its own words, and `true`."""
        asked = self._manifest.capabilities.get(schema.id)
        return [asked.params, {}] if asked is not None and asked.params else [{}]

    def _to_bind(self, request: FilesystemRequest) -> Changes:
        changes: list[Change] = []
        for name in dict.fromkeys((*request.read, *request.write)):
            wanted = MountMode.READ_WRITE if name in request.write else MountMode.READ_ONLY
            bound = self._rules.mounts.get(name)
            path = f"/path/to/{name}" if bound is None else bound.value.path
            if bound is None or (wanted is MountMode.READ_WRITE and bound.value.mode is MountMode.READ_ONLY):
                changes.append(self._own(f"mounts.{name}", {"path": path, "mode": wanted.value}))
        return tuple(changes)

    def _own(self, key: str, value: Any) -> Change:
        """A change of the plugin's own entry."""
        return Change(f'plugins."{self._manifest.id}"', key, value)
