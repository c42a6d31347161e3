"""What `cloche grants explain ID` says: each request, the answer, why, and the policy lines that would change it.

Gives plain values and lines of text; the command line decides how they look.
"""

from __future__ import annotations

from typing import Any

from cloche.grants.decide import Decision, GrantSet
from cloche.grants.limits import LimitGrant, LimitSource
from cloche.grants.schema import Params
from cloche.manifest.limits import format_limit

_INDENT = "  "


def to_json(grants: GrantSet, *, policy_file: str = "policy.toml") -> dict[str, Any]:
    """The whole decision as values that `json.dumps` accepts. Secrets appear as where they come from."""
    return {
        "plugin": grants.plugin,
        "tier": grants.tier.value,
        "instances": grants.instances.value,
        "policy": policy_file,
        "capabilities": [_decision_json(decision) for decision in grants.decisions],
        "limits": [_limit_json(limit) for limit in grants.limit_grants],
        "mounts": {name: {"path": mount.path, "mode": mount.mode.value} for name, mount in grants.mounts.items()},
        "config": dict(grants.config),
        "secrets": {name: {ref.source.value: ref.shown()} for name, ref in grants.secrets.items()},
        "notes": list(grants.notes),
    }


def to_lines(grants: GrantSet, *, policy_file: str = "policy.toml") -> list[str]:
    """The decision as text, one line each, indented by two spaces."""
    lines = [f"{grants.plugin} ({grants.tier}, instances {grants.instances})", "", "capabilities"]
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
    return lines


def _number(limit: LimitGrant) -> str:
    if limit.key == "concurrency" and limit.value == 0:
        return "cores"  # zero means one call at once for each core
    return format_limit(limit.name, limit.value)


def _decision_lines(decision: Decision, policy_file: str) -> list[str]:
    answer = "granted" if decision.granted else "REFUSED" if decision.required else "not granted"
    asked = ("required" if decision.required else "asked") if decision.asked else "default"
    lines = [f"{_INDENT}{decision.capability}  {answer} ({asked}): {decision.reason}"]
    return lines + _remedy_lines(decision.remedy, policy_file)


def _remedy_lines(remedy: tuple[str, ...], policy_file: str) -> list[str]:
    if not remedy:
        return []
    return [f"{_INDENT * 2}to change this, write in {policy_file}:", *(f"{_INDENT * 3}{line}" for line in remedy)]


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
