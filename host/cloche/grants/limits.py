"""The limits of one plugin: the policy's ceiling, or less where the manifest asks for less. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from cloche.grants.policy import Policy, Rules
from cloche.manifest.limits import KEY_OF_LIMIT, LIMIT_KEYS, format_limit, limit_toml
from cloche.manifest.value import Manifest
from cloche.model import BOUNDS, Limits

_CONCURRENCY = "concurrency"  # the one limit whose 0 is not the lowest value: it means one call for each core


class LimitSource(StrEnum):
    """Who set the number that holds."""

    BUILT_IN = "built-in"
    MANIFEST = "manifest"
    POLICY_DEFAULTS = "policy-defaults"
    POLICY_PLUGIN = "policy-plugin"


@dataclass(frozen=True, slots=True)
class LimitGrant:
    """One effective limit. `name` and `value` as in `model.Limits`, `key` as in files; `asked` is the manifest's wish.

    `remedy` holds the policy lines that would grant a wish that was cut.
    """

    name: str
    key: str
    value: int
    asked: int | None
    ceiling: int
    source: LimitSource
    reason: str
    remedy: tuple[str, ...] = ()


def decide_limits(
    manifest: Manifest, policy: Policy, rules: Rules, cores: int | None
) -> tuple[Limits, tuple[LimitGrant, ...]]:
    """For every limit: the lower of the manifest's wish and the ceiling; the ceiling where the manifest says nothing.

    The ceiling is the number of the narrowest policy entry that has one, else of [defaults], else built in.
    """
    grants = tuple(_decide_limit(limit.name, manifest, policy, rules, cores) for limit in LIMIT_KEYS.values())
    return Limits(**{grant.name: grant.value for grant in grants}), grants


def _decide_limit(name: str, manifest: Manifest, policy: Policy, rules: Rules, cores: int | None) -> LimitGrant:
    key = KEY_OF_LIMIT[name]
    asked = manifest.limits.get(name)
    stated = rules.limits.get(name)
    if stated is None:
        ceiling, source, where = BOUNDS[name].default, LimitSource.BUILT_IN, "the built-in default"
    elif stated.pattern is None:
        ceiling, source, where = stated.value, LimitSource.POLICY_DEFAULTS, f"[defaults] of {policy.file}"
    else:
        source, where = LimitSource.POLICY_PLUGIN, f'[plugins."{stated.pattern}"] of {policy.file}'
        ceiling = stated.value
    remedy: tuple[str, ...] = ()
    if asked is None:
        value, reason = ceiling, where
    elif _at_most(name, asked, ceiling, cores):
        value, reason, source = (
            asked,
            f"asked for by the manifest; {where} would give {format_limit(name, ceiling)}",
            (LimitSource.MANIFEST),
        )
    else:
        value, reason = ceiling, f"{where}; the manifest asks for {format_limit(name, asked)}"
        remedy = (f'[plugins."{manifest.id}"]', f"limits.{key} = {limit_toml(name, asked)}")
    return LimitGrant(name, key, value, asked, ceiling, source, reason, remedy)


def _at_most(name: str, asked: int, ceiling: int, cores: int | None) -> bool:
    """Is the wish within the ceiling?"""
    if name != _CONCURRENCY or (asked and ceiling):
        return asked <= ceiling
    if ceiling:
        return False
    # The ceiling is one call for each core. Where nobody counted them, only one call is certainly within it.
    return asked <= (cores or 1)
