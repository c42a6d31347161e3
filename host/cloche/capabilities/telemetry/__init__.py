"""The capability `cloche:host/telemetry`: declared instruments and free-form events, bounded in number and rate."""

from __future__ import annotations

from cloche.capabilities.api import Capability


def capability() -> Capability:
    """The capability, as the entry-point group `cloche.capabilities` names it."""
    from cloche.capabilities.telemetry.host import Telemetry  # noqa: PLC0415 - listing packages must stay cheap

    return Telemetry()
