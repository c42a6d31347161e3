"""How `wasi:logging` is asked for and allowed. Granted by default: it is bounded, and only the operator reads it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import BeforeValidator

from cloche.capabilities.params import CapabilityParams, Count, lower
from cloche.grants.schema import GrantSchema, Params, Verdict

INTERFACE = "wasi:logging/logging@0.1.0-draft"


class Level(StrEnum):
    """The levels of `wasi:logging`, from least to most."""

    TRACE = "trace"
    DEBUG = "debug"
    INFO = "info"
    WARN = "warn"
    ERROR = "error"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """0 for trace, 5 for critical."""
        return list(Level).index(self)


def _as_level(value: object) -> object:
    return Level(value) if isinstance(value, str) and value in list(Level) else value


LevelName = Annotated[Level, BeforeValidator(_as_level)]


class LoggingParams(CapabilityParams):
    """What a plugin may log: messages of `level` and above, `lines-per-second` of them (None: the plugin's limit)."""

    level: LevelName = Level.TRACE
    lines_per_second: Count | None = None


def intersect(request: Params, allowance: Params) -> Verdict:
    """The stricter level and the lower rate of both."""
    assert isinstance(request, LoggingParams)
    assert isinstance(allowance, LoggingParams)
    granted = LoggingParams(
        level=max(request.level, allowance.level, key=lambda level: level.rank),
        lines_per_second=lower(request.lines_per_second, allowance.lines_per_second),
    )
    rate = "" if granted.lines_per_second is None else f", at most {granted.lines_per_second} lines per second"
    return Verdict(granted, f"messages of level {granted.level} and above{rate}")


SCHEMA = GrantSchema(
    id="wasi:logging",
    version="0.1.0-draft",
    summary="Write log messages",
    interfaces=(INTERFACE,),
    request=LoggingParams,
    allowance=LoggingParams,
    intersect=intersect,
    default=True,
    without_grant={"log": None},  # a message may always be left out
)
