"""What a capability tells the grant decision about itself: its id, version and the shapes of asking and allowing.

The decision is a pure function of values, so this room knows no engine, file, clock or network, and not how a
capability works.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict


class Params(BaseModel):
    """Base of all grant parameters: frozen, strict, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class NoParams(Params):
    """For capabilities that are either granted or not."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer of one capability's schema: the parameters granted (never more than asked), or None, and why."""

    granted: Params | None
    reason: str


@dataclass(frozen=True, slots=True)
class GrantSchema:
    """How one capability is asked for and allowed.

    `id` is the key in manifests and policies (`wasi:logging`, `cloche:host/data`). `request` is the shape of the
    manifest's parameters, `allowance` of the policy's. `intersect(request, allowance)` is pure: what both sides agree
    on. `allowance` is None when the policy does not mention the capability: then only a `default` capability may be
    granted. `interfaces` are the WIT interface ids (`ns:pkg/name@version`) that the grant opens.
    `without_grant` gives, by the name of a function, what it answers to a plugin that imports it and was not granted
    it, where the interface has a way to say that there is nothing; the other functions deny with an error of theirs,
    or trap.
    """

    id: str
    version: str
    summary: str
    interfaces: tuple[str, ...]
    request: type[Params]
    allowance: type[Params]
    intersect: Callable[[Params, Params], Verdict]
    default: bool = False
    without_grant: Mapping[str, object] = field(default_factory=dict)
