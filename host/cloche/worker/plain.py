"""The short form of the commonest exchange: scalars go in, a scalar or nothing comes out, and there is nothing to add.

One frame of fixed size each way, packed and unpacked at one stroke. A pipe passes so few bytes as a whole. The message
in it begins with a byte that begins no other, so what is not exactly such a frame is read, and refused, like any other.

It says of a call that it went well: the instance is as sound as before, the guest wrote nothing, called no host
function and dropped no host object; fuel was counted, and the call was so short that its processor time is its wall
time.
"""

from __future__ import annotations

from struct import Struct
from struct import error as StructError  # noqa: N812
from typing import Any

from cloche.engine.codec.wire import WirePlan
from cloche.engine.pricing import BYTE_FUEL
from cloche.model import Usage
from cloche.worker.channel import HEAD
from cloche.worker.messages import MAX_MS

MARK = 0xC1
"""The byte that MessagePack never uses."""
MARK_AT = HEAD.size

_CALL = Struct("<BII")
_DONE = Struct("<Bqqd")
TARGET = Struct("<II")
TARGET_AT = MARK_AT + 1
"""Where the numbers of instance and export stand in a call's frame."""
ARGUMENTS_AT = TARGET_AT + TARGET.size


_new = tuple.__new__


class PlainExport:
    """The short frames of one exported function. Immutable; shared by threads."""

    __slots__ = (
        "_done_head", "_export", "_has_bool", "_has_result", "_host_fuel", "_pack_done", "_size_in",
        "_unpack", "arguments", "bytes_in", "bytes_out", "exact", "pack",
    )  # fmt: skip

    def __init__(self, plan: WirePlan, export: int) -> None:
        form = plan.plain()
        assert form is not None
        self._export = export
        self.exact = form.exact
        self.arguments = Struct("<" + form.arguments)
        self.pack = self.arguments.pack
        self._size_in = self.arguments.size
        self._has_bool = form.result == "?"
        size_out = Struct("<" + form.result).size
        self._done_head = HEAD.pack(_DONE.size, size_out) + bytes([MARK])
        self._has_result = bool(form.result)
        done = Struct(f"<{len(self._done_head)}sqqd" + ("B" if self._has_bool else form.result))
        self._pack_done, self._unpack = done.pack, done.unpack
        self.bytes_in, self.bytes_out = form.bytes_in, form.bytes_out
        self._host_fuel = (form.bytes_in + form.bytes_out) * BYTE_FUEL

    @classmethod
    def of(cls, plan: WirePlan, export: int) -> PlainExport | None:
        """Those of a function of scalars; None for any other."""
        return None if plan.plain() is None else cls(plan, export)

    def call_head(self, instance: int) -> bytes:
        """The frame of a call without its arguments, which `pack` makes."""
        return HEAD.pack(_CALL.size, self._size_in) + _CALL.pack(MARK, instance, self._export)

    def done(self, usage: Usage, value: object) -> bytes | None:
        """The frame that says so; None where there is more to say than it holds."""
        guest_fuel, host_fuel, wall_ms, cpu_ms, memory, host_calls = usage[:6]
        if guest_fuel is None or host_fuel != self._host_fuel or cpu_ms != wall_ms or host_calls:
            return None
        if memory is None:
            memory = -1
        if self._has_result:
            frame: bytes = self._pack_done(self._done_head, guest_fuel, memory, wall_ms, value)
            return frame
        return self._pack_done(self._done_head, guest_fuel, memory, wall_ms)

    def read_done(self, data: bytes, calls: int) -> tuple[Any, Usage] | None:
        """Value and usage; None for bytes that are anything else. `calls` is how many the instance has served."""
        value: Any = None
        try:
            if self._has_result:
                head, guest_fuel, memory, wall_ms, value = self._unpack(data)
            else:
                head, guest_fuel, memory, wall_ms = self._unpack(data)
        except StructError:
            return None
        if head != self._done_head or guest_fuel < 0 or memory < -1 or not 0.0 <= wall_ms <= MAX_MS:
            return None
        if self._has_bool:
            if value > 1:
                return None
            value = value == 1
        fields = (
            guest_fuel, self._host_fuel, wall_ms, wall_ms, None if memory < 0 else memory, 0, self.bytes_in,
            self.bytes_out, 0, 0, calls,
        )  # fmt: skip
        return value, _new(Usage, fields)
