"""Host side of `wasi:logging/logging`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from cloche.capabilities.api import EventKind, HostInterface, Session
from cloche.capabilities.logging.grant import INTERFACE, SCHEMA, Level, LoggingParams
from cloche.capabilities.rate import Clock, TokenBucket, TokenBuckets
from cloche.grants.schema import Params
from cloche.resources import wit_dir

MAX_MESSAGE_CHARACTERS = 8192
"""Longest message kept; a Python traceback of fifty frames fits."""
MAX_CONTEXT_CHARACTERS = 256
"""Longest context kept; it is a word or two that groups messages."""


class LoggingHost:
    """`wasi:logging/logging` for one instance. Source: wit/deps/wasi-logging/package.wit."""

    def __init__(self, grant: LoggingParams, session: Session, bucket: TokenBucket) -> None:
        self._grant, self._session, self._bucket = grant, session, bucket

    def log(self, level: str, context: str, message: str) -> None:
        """Emit one `log` event; never blocks and never fails.

        The guest's text stays exactly as it is, control characters included, under the key `untrusted`: whoever shows
        it must encode it. What is too long is cut and marked; what comes too fast is dropped, and the next message that
        gets through says how many were (`dropped_before`).
        """
        if Level(str(level)).rank < self._grant.level.rank or not self._bucket.take():
            return
        data: dict[str, object] = {
            "level": str(level),
            "untrusted": {"context": context[:MAX_CONTEXT_CHARACTERS], "message": message[:MAX_MESSAGE_CHARACTERS]},
        }
        if len(message) > MAX_MESSAGE_CHARACTERS or len(context) > MAX_CONTEXT_CHARACTERS:
            data["cut_characters"] = max(0, len(message) - MAX_MESSAGE_CHARACTERS) + max(
                0, len(context) - MAX_CONTEXT_CHARACTERS
            )
        if dropped := self._bucket.refused():
            data["dropped_before"] = dropped
        self._session.emit(EventKind.LOG, data)

    def close(self) -> None:
        """Report messages that were dropped and that no later message has reported."""
        if dropped := self._bucket.refused():
            self._session.emit(
                EventKind.LIMIT,
                {"code": "limit.output", "limit": "log_lines_per_second", "dropped": dropped},
            )


class Logging:
    """The capability `wasi:logging`. `clock` gives seconds that never go back."""

    schema = SCHEMA

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._buckets = TokenBuckets(clock)

    def wit(self) -> Path:
        """The directory of the WIT package."""
        return wit_dir() / "deps/wasi-logging"

    def open(self, grant: Params, session: Session) -> Mapping[str, HostInterface]:
        """The host object for one instance; all instances of a plugin share one rate."""
        assert isinstance(grant, LoggingParams)
        rate = session.limits.log_lines_per_second
        if grant.lines_per_second is not None:
            rate = min(rate, grant.lines_per_second)
        return {INTERFACE: LoggingHost(grant, session, self._buckets.get(str(session.storage), rate))}
