"""The limits of one plugin: the policy's ceiling, or less where the manifest asks for less. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from cloche.grants.change import Change, lines_of
from cloche.grants.policy import COMMAND_LINE, Policy, Rules
from cloche.manifest.limits import KEY_OF_LIMIT, LIMIT_KEYS, format_limit, limit_value
from cloche.manifest.value import Manifest
from cloche.model import BOUNDS, Limits

_CONCURRENCY = "concurrency"  # the one limit whose 0 is not the lowest value: it means one call for each core


class LimitSource(StrEnum):
    """Who set the number that holds."""

    BUILT_IN = "built-in"
    MANIFEST = "manifest"
    POLICY_DEFAULTS = "policy-defaults"
    POLICY_PLUGIN = "policy-plugin"
    COMMAND_LINE = "command-line"


@dataclass(frozen=True, slots=True)
class LimitGrant:
    """One effective limit. `name` and `value` as in `model.Limits`, `key` as in files; `asked` is the wish of the
    command line, else of the manifest. `changes` of the policy would grant a wish that was cut.
    """

    name: str
    key: str
    value: int
    asked: int | None
    ceiling: int
    source: LimitSource
    reason: str
    changes: tuple[Change, ...] = ()

    @property
    def remedy(self) -> tuple[str, ...]:
        """The changes as lines of policy.toml."""
        return lines_of(self.changes)


def decide_limits(
    manifest: Manifest, policy: Policy, rules: Rules, cores: int | None
) -> tuple[Limits, tuple[LimitGrant, ...]]:
    """For every limit: the lower of the wish and the ceiling; the ceiling where nobody wishes for anything.

    The ceiling is the number of the narrowest policy entry that has one, else of [defaults], else built in. A wish is
    the manifest's, or the command line's in its place: that is the operator's own, and the built-in number none of the
    operator's ceilings.
    """
    grants = tuple(_decide_limit(limit.name, manifest, policy, rules, cores) for limit in LIMIT_KEYS.values())
    return Limits(**{grant.name: grant.value for grant in grants}), grants


def _decide_limit(name: str, manifest: Manifest, policy: Policy, rules: Rules, cores: int | None) -> LimitGrant:
    key = KEY_OF_LIMIT[name]
    wish, stated = rules.wishes.get(name), rules.limits.get(name)
    if stated is None:
        ceiling, source, where = BOUNDS[name].default, LimitSource.BUILT_IN, "the built-in default"
    else:
        ceiling, where = stated.value, stated.said_in(policy.file)
        source = LimitSource.POLICY_DEFAULTS if stated.pattern is None else LimitSource.POLICY_PLUGIN
    asked = manifest.limits.get(name) if wish is None else wish
    who = "the manifest" if wish is None else COMMAND_LINE
    changes: tuple[Change, ...] = ()
    if asked is None:
        value, reason = ceiling, where
    elif is_at_most(name, asked, ceiling, cores) or (wish is not None and stated is None):
        value, reason = asked, f"asked for by {who}; {where} would give {format_limit(name, ceiling)}"
        source = LimitSource.MANIFEST if wish is None else LimitSource.COMMAND_LINE
    else:
        value, reason = ceiling, f"{where}; {who} asks for {format_limit(name, asked)}"
        changes = (Change(f'plugins."{manifest.id}"', f"limits.{key}", limit_value(name, asked)),)
    return LimitGrant(name, key, value, asked, ceiling, source, reason, changes)


def is_at_most(name: str, asked: int, ceiling: int, cores: int | None = None) -> bool:
    """Is the wish within the ceiling?"""
    if name != _CONCURRENCY or (asked and ceiling):
        return asked <= ceiling
    if ceiling:
        return False
    # The ceiling is one call for each core. Where nobody counted them, only one call is certainly within it.
    return asked <= (cores or 1)
