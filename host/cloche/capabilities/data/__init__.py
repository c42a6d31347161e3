"""The capability `cloche:host/data`: a plugin's own directory of files, with a quota."""

from __future__ import annotations

from cloche.capabilities.api import Capability


def capability() -> Capability:
    """The capability, as the entry-point group `cloche.capabilities` names it."""
    from cloche.capabilities.data.host import Data  # noqa: PLC0415 - listing packages must stay cheap

    return Data()
