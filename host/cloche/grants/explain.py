"""What `cloche grants explain PLUGIN` says: each request, the answer, why, and the policy lines that would change it.

Gives plain values and lines of text; the command line decides how they look.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

from cloche.grants.change import Paste, lines_of, paste
from cloche.grants.decide import Decision, GrantSet
from cloche.grants.limits import LimitGrant, LimitSource
from cloche.grants.schema import Params
from cloche.grants.trust import TierDecision
from cloche.manifest.limits import format_limit

_INDENT = "  "


def to_json(grants: GrantSet, tier: TierDecision) -> dict[str, Any]:
    """The whole decision as values that `json.dumps` accepts. Secrets appear as where they come from."""
    return {
        "plugin": grants.plugin,
        "tier": tier.tier.value,
        "trust": _tier_json(tier),
        "instances": grants.instances.value,
        "policy": grants.policy.file,
        "capabilities": [_decision_json(decision) for decision in grants.decisions],
        "limits": [_limit_json(limit) for limit in grants.limit_grants],
        "mounts": {name: {"path": mount.path, "mode": mount.mode.value} for name, mount in grants.mounts.items()},
        "config": dict(grants.config),
        "secrets": {name: {ref.source.value: ref.shown()} for name, ref in grants.secrets.items()},
        "notes": list(grants.notes),
        "remedy": _everything(grants, tier).to_json(),
    }


def to_lines(grants: GrantSet, tier: TierDecision) -> list[str]:
    """The decision as text, one line each, indented by two spaces; last what would change all of it at once."""
    policy_file = grants.policy.file
    lines = [f"{grants.plugin} ({tier.tier}, instances {grants.instances})", "", "tier"]
    lines.append(f"{_INDENT}{tier.tier}: {told(tier)}")
    lines += _remedy_lines(lines_of(tier.changes), policy_file, tier.advice)
    lines += ["", "capabilities"]
    for decision in grants.decisions:
        lines += _decision_lines(decision, policy_file)
    if not grants.decisions:
        lines.append(f"{_INDENT}none")
    lines += ["", "limits"]
    width = max(len(limit.key) for limit in grants.limit_grants)
    shown = {limit.name: _number(limit) for limit in grants.limit_grants}
    number_width = max(map(len, shown.values()))
    for limit in grants.limit_grants:
        lines.append(f"{_INDENT}{limit.key:<{width}}  {shown[limit.name]:>{number_width}}  {limit.reason}")
        lines += _remedy_lines(limit.remedy, policy_file)
    for title, table in (
        ("mounts", {name: f"{mount.path} ({mount.mode})" for name, mount in grants.mounts.items()}),
        ("config", {name: repr(value) for name, value in grants.config.items()}),
        ("secrets", {name: f"{ref.source} {ref.shown()}" for name, ref in grants.secrets.items()}),
    ):
        if table:
            lines += ["", title, *(f"{_INDENT}{name} = {text}" for name, text in table.items())]
    if grants.notes:
        lines += ["", "notes", *(f"{_INDENT}{note}" for note in grants.notes)]
    everything = _everything(grants, tier).lines("to change all of this,", _INDENT)
    return lines + (["", *everything] if everything else [])


def told(tier: TierDecision) -> str:
    """Why a plugin has its tier, and whether it is loaded with it."""
    if tier.refusal is None:
        return tier.reason
    unless = "" if tier.refusal == "trust.refused" else ", and this system has no worker for untrusted plugins"
    return f"{tier.reason}{unless}: not loaded ({tier.refusal})"


def _everything(grants: GrantSet, tier: TierDecision) -> Paste:
    """Every change that stands in the explanation, put together."""
    every = [
        tier.changes,
        *(item.changes for item in grants.decisions),
        *(item.changes for item in grants.limit_grants),
    ]
    return paste(grants.policy, chain.from_iterable(every))


def _number(limit: LimitGrant) -> str:
    if limit.key == "concurrency" and limit.value == 0:
        return "cores"  # zero means one call at once for each core
    return format_limit(limit.name, limit.value)


def _decision_lines(decision: Decision, policy_file: str) -> list[str]:
    answer = "granted" if decision.granted else "REFUSED" if decision.required else "not granted"
    asked = ("required" if decision.required else "asked") if decision.asked else "default"
    lines = [f"{_INDENT}{decision.capability}  {answer} ({asked}): {decision.reason}"]
    return lines + _remedy_lines(decision.remedy, policy_file)


def _remedy_lines(remedy: tuple[str, ...], policy_file: str, advice: str = "") -> list[str]:
    ways = [advice] if advice else []
    ways += [f"write in {policy_file}:"] if remedy else []
    lead = [f"{_INDENT * 2}to change this, {' or '.join(ways)}"] if ways else []
    return lead + [f"{_INDENT * 3}{line}" for line in remedy]


def _decision_json(decision: Decision) -> dict[str, Any]:
    return {
        "capability": decision.capability,
        "asked": decision.asked,
        "required": decision.required,
        "granted": decision.granted,
        "params": _params_json(decision.params),
        "reason": decision.reason,
        "remedy": list(decision.remedy),
        "interfaces": list(decision.interfaces),
    }


def _tier_json(tier: TierDecision) -> dict[str, Any]:
    return {
        "form": tier.form.value,
        "reason": tier.reason,
        "refused": tier.refusal,
        "advice": tier.advice,
        "remedy": list(lines_of(tier.changes)),
    }


def _params_json(params: Params | None) -> dict[str, Any] | None:
    return None if params is None else params.model_dump(mode="json", by_alias=True)


def _limit_json(limit: LimitGrant) -> dict[str, Any]:
    source: LimitSource = limit.source
    return {
        "limit": limit.key,
        "name": limit.name,
        "value": limit.value,
        "asked": limit.asked,
        "ceiling": limit.ceiling,
        "source": source.value,
        "reason": limit.reason,
        "remedy": list(limit.remedy),
    }
