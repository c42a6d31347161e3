"""Grant schemas for capabilities of tests: no parameters, and granted to everybody."""

from __future__ import annotations

from cloche.grants.schema import GrantSchema, NoParams, Verdict


def open_schema(name: str, version: str, summary: str, interface: str) -> GrantSchema:
    """The schema of capability `name`, which has one interface."""
    return GrantSchema(
        id=name,
        version=version,
        summary=summary,
        interfaces=(interface,),
        request=NoParams,
        allowance=NoParams,
        intersect=lambda request, allowance: Verdict(NoParams(), ""),
        default=True,
    )
