"""The capability `wasi:config`: settings and secrets by exact key."""

from __future__ import annotations

from cloche.capabilities.api import Capability


def capability() -> Capability:
    """The capability, as the entry-point group `cloche.capabilities` names it."""
    from cloche.capabilities.config.host import Config  # noqa: PLC0415 - listing packages must stay cheap

    return Config()
