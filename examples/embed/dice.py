"""A capability of this application: dice. Its grant bounds the sides that a plugin may ask for."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field

import cloche

INTERFACE = "acme:dice/dice@1.0.0"
HERE = Path(__file__).resolve().parent


class DiceParams(cloche.Params):
    """Most sides of a die: asked for in the manifest, allowed in the policy, and the grant. Default: 6."""

    sides: int = Field(default=6, ge=2, le=1000)


def intersect(request: cloche.Params, allowance: cloche.Params) -> cloche.Verdict:
    """The smaller number of both: a grant never exceeds what was asked."""
    assert isinstance(request, DiceParams)
    assert isinstance(allowance, DiceParams)
    sides = min(request.sides, allowance.sides)
    return cloche.Verdict(DiceParams(sides=sides), f"dice with up to {sides} sides")


class Dice:
    """`acme:dice/dice` for one plugin instance."""

    def __init__(self, most_sides: int, source: random.Random) -> None:
        self._most_sides, self._source = most_sides, source

    def roll(self, sides: int) -> cloche.Ok[int] | cloche.Err[str]:
        """A number from 1 to `sides`, or the error case `bad-sides`."""
        if not 2 <= sides <= self._most_sides:
            return cloche.Err("bad-sides")
        return cloche.Ok(self._source.randint(1, sides))

    def close(self) -> None:
        """Nothing to release."""


class DiceCapability:
    """The capability `acme:dice`."""

    schema = cloche.GrantSchema(
        id="acme:dice",
        version="1.0.0",
        summary="Roll dice",
        interfaces=(INTERFACE,),
        request=DiceParams,
        allowance=DiceParams,
        intersect=intersect,
    )

    def __init__(self, source: random.Random | None = None) -> None:
        self._source = source or random.Random()

    def wit(self) -> Path:
        """The directory of the WIT package that declares the interface."""
        return HERE / "wit/dice"

    def open(self, grant: cloche.Params, session: cloche.Session) -> Mapping[str, cloche.HostInterface]:
        """The host object for one instance. Cheap: a call per instance."""
        assert isinstance(grant, DiceParams)
        return {INTERFACE: Dice(grant.sides, self._source)}
