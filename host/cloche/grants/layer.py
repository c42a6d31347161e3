"""Lays what a command line says for one plugin over the operator's policy. Pure; denials and ceilings still hold."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from cloche.errors import LimitError, UsageError
from cloche.grants.limits import is_at_most
from cloche.grants.policy import COMMAND_LINE, Mount, PluginPolicy, Policy
from cloche.manifest.document import MAX_DEPTH, nesting, tree_problems
from cloche.manifest.explain import show
from cloche.manifest.limits import KEY_OF_LIMIT, format_limit
from cloche.manifest.schema import check_capability_id, check_config_key
from cloche.manifest.value import freeze
from cloche.model import ensure_limit

MAX_OPTION_CHARACTERS = 64 * 1024

_NO_MOUNTS: Mapping[str, Mount] = MappingProxyType({})
_NO_LIMITS: Mapping[str, int] = MappingProxyType({})


def layer_policy(
    policy: Policy,
    plugin: str,
    *,
    allow: Iterable[str] = (),
    config: Iterable[str] = (),
    mounts: Mapping[str, Mount] = _NO_MOUNTS,
    limits: Mapping[str, int] = _NO_LIMITS,
) -> Policy:
    """A policy with these options for exactly `plugin`, in place of earlier ones.

    `allow` holds `CAPABILITY` or `CAPABILITY=PARAMS` with PARAMS a TOML inline table or a JSON object; `config` holds
    `KEY=VALUE`; `limits` are by the names of `model.BOUNDS` and stand in place of the manifest's. A capability that the
    policy denies stays denied, and no limit passes a ceiling that the policy sets.

    Raises: UsageError (`usage.argument`); LimitError (`limit.range`). Added in 0.1.
    """
    _ensure_below(policy, plugin, limits)
    options = PluginPolicy(
        COMMAND_LINE,
        allow=MappingProxyType(dict(map(_read_allow, allow))),
        config=MappingProxyType(dict(map(_read_config, config))),
        mounts=MappingProxyType(dict(mounts)),
        limits=MappingProxyType(dict(limits)),
    )
    return replace(policy, options=MappingProxyType({**policy.options, plugin: options}))


def _ensure_below(policy: Policy, plugin: str, limits: Mapping[str, int]) -> None:
    """Raises: LimitError (`limit.range`) for a limit that is out of its range, or above what the policy allows."""
    ceilings = policy.rules_for(plugin).limits
    for name, number in limits.items():
        ensure_limit(name, number)
        ceiling = ceilings.get(name)
        if ceiling is not None and not is_at_most(name, number, ceiling.value):
            raise LimitError(
                f"--{KEY_OF_LIMIT[name]} {format_limit(name, number)} is more than the "
                f"{format_limit(name, ceiling.value)} that {ceiling.said_in(policy.file)} allows",
                code="limit.range",
                plugin=plugin,
            )


def _read_allow(text: str) -> tuple[str, Mapping[str, Any]]:
    name, equals, params = text.partition("=")
    name = name.strip()
    try:
        check_capability_id(name)
    except ValueError as error:
        raise UsageError(f"--allow {show(text)}: expected {error}") from None
    if not equals or params.strip() == "true":
        return name, MappingProxyType({})
    table = _read_table(params) if len(params) <= MAX_OPTION_CHARACTERS else None
    if table is None or tree_problems(table):
        raise UsageError(
            f'--allow {name}={show(params)}: expected a TOML table such as {{ read = ["input"] }} or a JSON object'
        )
    return name, freeze(table)


def _read_table(text: str) -> dict[str, Any] | None:
    try:
        document = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        document = {}
    # More than one key means that the text held a line end and went on.
    value = document.get("value") if len(document) == 1 else None
    if not isinstance(value, dict):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, dict) and nesting(value) <= MAX_DEPTH else None


def _read_config(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    try:
        check_config_key(key)
    except ValueError as error:
        raise UsageError(f"--config {show(key)}: expected a key of {error}") from None
    if not equals:
        raise UsageError(f"--config {key}: expected KEY=VALUE")
    return key, value
