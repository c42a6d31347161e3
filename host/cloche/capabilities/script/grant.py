"""How `cloche:script` is asked for and allowed: functions of an application need the operator's word."""

from __future__ import annotations

from cloche.capabilities.params import CapabilityParams, Names, common, named
from cloche.grants.schema import GrantSchema, Params, Verdict
from cloche.model import Err

INTERFACE = "cloche:script/functions@1.0.0"


class ScriptParams(CapabilityParams):
    """Which functions may be called, by exact name. None: every one that the application hands over."""

    functions: Names | None = None


def intersect(request: Params, allowance: Params) -> Verdict:
    """The functions that are asked for and allowed."""
    assert isinstance(request, ScriptParams)
    assert isinstance(allowance, ScriptParams)
    refused: tuple[str, ...] = ()
    granted = allowance.functions
    if request.functions is not None:
        granted, refused = common(request.functions, allowance.functions)
    reason = "all functions" if granted is None else f"functions {named(granted) or 'none'}"
    return Verdict(ScriptParams(functions=granted), reason + (f"; not allowed: {named(refused)}" if refused else ""))


SCHEMA = GrantSchema(
    id="cloche:script",
    version="1.0.0",
    summary="Call functions of the application from scripts",
    interfaces=(INTERFACE,),
    request=ScriptParams,
    allowance=ScriptParams,
    intersect=intersect,
    without_grant={"call": Err("scripts are granted no functions of the application")},
)
