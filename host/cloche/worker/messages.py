"""What host and worker say to each other: small messages with a schema, each with a body of bytes beside it.

The host believes nothing of what a worker says: `from_worker` checks types and bounds while it decodes, whoever acts on
a message checks the rest. Values travel in bodies, by `cloche.engine.codec.wire`.
"""

from __future__ import annotations

import struct
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

MAX_MESSAGE_BYTES = 256 * 1024
"""Longest message without its body. Texts inside are far shorter; the lists inside are bounded by it."""

MAX_TEXT = 20_000
"""Longest text inside a message, in characters: an error's message, a traceback."""

Count = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Small = Annotated[int, Meta(ge=0, le=(1 << 31) - 1)]
Text = Annotated[str, Meta(max_length=MAX_TEXT)]
MAX_MS = 1e12
Milliseconds = Annotated[float, Meta(ge=0, le=MAX_MS)]


class Cost(Struct, frozen=True, array_like=True):
    """A `Usage`, as the worker measured it."""

    guest_fuel: Count | None
    host_fuel: Count | None
    wall_ms: Milliseconds
    cpu_ms: Milliseconds
    peak_memory: Count | None
    host_calls: Count
    bytes_in: Count
    bytes_out: Count
    instance_calls: Count


class Condition(Struct, frozen=True, array_like=True):
    """How an instance is after it was at work, and what it left: closed calls, dropped host objects, output's sizes."""

    is_sound: bool
    is_finished: bool
    has_filled_up: bool
    denied: dict[Small, Small]
    dropped: list[Small]
    stdout_bytes: Small
    stderr_bytes: Small
    stdout_lost: Count
    stderr_lost: Count


# -- from the host -------------------------------------------------------------------------------------------------


class Make(Struct, frozen=True, array_like=True, tag=1):
    """Make an instance of this number, within these limits (None: the plugin's own)."""

    instance: Small
    limits: dict[str, int] | None


class Call(Struct, frozen=True, array_like=True, tag=2):
    """Call an export; the body has its arguments. `drops` are guest handles given up; `spent_*` was used before."""

    instance: Small
    export: Small
    limits: dict[str, int] | None
    drops: list[Small]
    spent_fuel: Count
    spent_ms: Milliseconds


class Answer(Struct, frozen=True, array_like=True, tag=3):
    """The result of a host function is the body; or it failed, and the guest must be stopped."""

    is_ok: bool


class Close(Struct, frozen=True, array_like=True, tag=4):
    """Close an instance. Answered by `Closed`."""

    instance: Small


class Order(Struct, frozen=True, array_like=True, tag=7):
    """Which plugin to serve; descriptors of its code and mounts come along, in the order in which they are named."""

    plugin: str
    profile: dict[str, Any]
    modules: list[str]
    imports: list[Any]
    exports: list[Any]
    limits: dict[str, int]
    bounds: dict[str, int]
    probe: str | None
    mounts: list[tuple[str, bool]]
    data_bytes: int


# -- from the worker -----------------------------------------------------------------------------------------------


class Ready(Struct, frozen=True, array_like=True, tag=11):
    """The plugin's code is loaded and the worker locked in; what was tried afterwards and still worked (nothing)."""

    landlock_abi: Small
    seccomp: bool
    leaks: Annotated[list[Text], Meta(max_length=64)]


class Refused(Struct, frozen=True, array_like=True, tag=12):
    """The order cannot be carried out."""

    code: Text
    text: Text


class Made(Struct, frozen=True, array_like=True, tag=13):
    """The instance lives."""

    cost: Cost
    condition: Condition


class HostCall(Struct, frozen=True, array_like=True, tag=14):
    """The guest calls a host function; the arguments are the body. `dropped` are host objects that it let go before."""

    slot: Small
    dropped: list[Small]


class Done(Struct, frozen=True, array_like=True, tag=15):
    """The call returned: body = result, stdout, stderr."""

    cost: Cost
    condition: Condition


class Failed(Struct, frozen=True, array_like=True, tag=16):
    """What was wanted failed: body = stdout, stderr. `by_host`: because a host function did."""

    code: Text
    text: Text
    by_host: bool
    kind: Text | None
    traceback: Text | None
    backtrace: Text | None
    exit_status: int | None
    cost: Cost | None
    condition: Condition


class Closed(Struct, frozen=True, array_like=True, tag=17):
    """An instance is gone."""


FromHost = Make | Call | Answer | Close | Order
FromWorker = Ready | Refused | Made | HostCall | Done | Failed | Closed

CONTROL = struct.Struct("<I")
"""What is said on the control socket: the number of the instance to stop, or `OPEN_LANE`. Always of one size, so that
two that come at once are told apart."""
OPEN_LANE = 0
"""The descriptors of a further lane come along."""

encode = msgspec.msgpack.Encoder().encode
from_host = msgspec.msgpack.Decoder(FromHost).decode
"""Raises: msgspec.ValidationError, msgspec.DecodeError."""
_from_worker = msgspec.msgpack.Decoder(FromWorker).decode


def from_worker(data: bytes) -> FromWorker:
    """What a worker said. Raises: msgspec.DecodeError for whatever is no message."""
    try:
        said: FromWorker = _from_worker(data)
        return said
    except UnicodeDecodeError as error:  # msgspec lets this one through
        raise msgspec.DecodeError("a text that is not UTF-8") from error
    except RecursionError as error:  # and this one
        raise msgspec.DecodeError("a message that is nested too deeply") from error


def cut(text: str | None) -> str:
    """A text that fits a message."""
    return (text or "")[:MAX_TEXT]
