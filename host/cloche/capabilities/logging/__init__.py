"""The capability `wasi:logging`: log messages as events, bounded in length and rate."""

from __future__ import annotations

from cloche.capabilities.api import Capability


def capability() -> Capability:
    """The capability, as the entry-point group `cloche.capabilities` names it."""
    from cloche.capabilities.logging.host import Logging  # noqa: PLC0415 - listing packages must stay cheap

    return Logging()
