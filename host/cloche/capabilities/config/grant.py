"""How `wasi:config` is asked for and allowed.

Settings are the operator's own words for this plugin, so the keys that a manifest names are granted by default. Secrets
need a word of their own: the policy must name each one.
"""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from cloche.capabilities.params import CapabilityParams, Names, common, named
from cloche.grants.schema import GrantSchema, Params, Verdict
from cloche.model import Ok

INTERFACE = "wasi:config/store@0.2.0-rc.1"


class ConfigRequest(CapabilityParams):
    """What a plugin may read: settings by exact key, and secrets by exact key. Default: none. Also the grant."""

    keys: Names = ()
    secrets: Names = ()

    @model_validator(mode="after")
    def _ensure_distinct(self) -> Self:
        if both := set(self.keys) & set(self.secrets):
            raise ValueError(f"{named(sorted(both))} in keys or in secrets, and not in both")
        return self


class ConfigAllowance(CapabilityParams):
    """What the operator allows: settings (None: all that are asked for) and secrets (default: none), by exact key."""

    keys: Names | None = None
    secrets: Names = ()


def intersect(request: Params, allowance: Params) -> Verdict:
    """The keys that are asked for and allowed; never None, because an empty set of keys reads nothing."""
    assert isinstance(request, ConfigRequest)
    assert isinstance(allowance, ConfigAllowance)
    keys, refused_keys = common(request.keys, allowance.keys)
    secrets, refused_secrets = common(request.secrets, allowance.secrets)
    parts = [f"keys {named(keys)}" if keys else "no keys"]
    if secrets:
        parts.append(f"secrets {named(secrets)}")
    if refused := refused_keys + refused_secrets:
        parts.append(f"not allowed: {named(refused)}")
    return Verdict(ConfigRequest(keys=keys, secrets=secrets), "; ".join(parts))


SCHEMA = GrantSchema(
    id="wasi:config",
    version="0.2.0-rc.1",
    summary="Read settings and secrets that the operator set for this plugin",
    interfaces=(INTERFACE,),
    request=ConfigRequest,
    allowance=ConfigAllowance,
    intersect=intersect,
    default=True,
    without_grant={"get": Ok(None), "get-all": Ok(())},  # a key that is not granted looks like one without a value
)
