"""The capability `cloche:script`: functions of the application that scripts may call."""

from __future__ import annotations

from cloche.capabilities.api import Capability


def capability() -> Capability:
    """The capability, as the entry-point group `cloche.capabilities` names it: it has no function."""
    from cloche.capabilities.script.host import ScriptFunctions  # noqa: PLC0415 - listing packages must stay cheap

    return ScriptFunctions()
