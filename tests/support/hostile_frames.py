"""Frames that a worker may send: good ones of every kind, and what a hostile one makes of them."""

from __future__ import annotations

import math
import random
import struct
from collections.abc import Iterator
from itertools import count
from typing import Any

import msgspec

from cloche.wit.types import Prim, ResourceType
from cloche.worker.messages import Closed, Condition, Done, Failed, HostCall, Made, Ready, Refused, encode
from cloche.worker.plain import MARK
from support.stand_in import ANSWERS, CELL, COST, HANDLE, PLANS, SLOT_PLANS, WELL, Numbers

DEEPEST = 200
"""Most levels of nesting in a message."""
_HUGE = (0, 1, 2, 127, 128, 255, 256, 4096, 65535, 65536, 2**20, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
_CODES = (
    "guest.trap",
    "guest.exit",
    "limit.fuel",
    "limit.memory",
    "grant.denied",
    "engine.instantiate",
    "engine.lock",
    "x",
)
_HARMLESS = tuple(
    at for at, plan in enumerate(SLOT_PLANS) if plan.function.name in {"add", "say", "make", "look", "mix"}
)
_ODD: tuple[object, ...] = (
    None, True, False, -1, 0, 1, 255, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1, -(2**63), 0.5, -0.5,
    math.nan, "", "x", "\0\x1b[31m\u202e", "a" * 30_000, b"", b"\xff" * 40, [], [[]], {}, {0: 1}, {"a": []}, [0] * 70,
    [1] * 20_000, msgspec.msgpack.Ext(5, b"ext"),
)  # fmt: skip


def framed(message: bytes, body: bytes = b"") -> bytes:
    """A whole frame."""
    return len(message).to_bytes(4, "little") + len(body).to_bytes(4, "little") + message + body


class Script:
    """Writes the frames of one conversation, good and hostile ones. The same for the same `chance`."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._numbers = Numbers(self._number)
        self._cells = count(100)
        self.is_good = False
        """Whether handles are those that a good worker would name, as far as one can tell beforehand."""

    def _number(self, resource: ResourceType, is_own: bool) -> int:
        if not self.is_good:
            return self._chance.choice((1, 1, 2, 3, 4, 5, 20, 100, 101, 0, 2**31, 2**32 - 1))
        if resource == CELL:
            return next(self._cells)
        return self._chance.choice((2, 3)) if is_own else 1

    def condition(self) -> Condition:
        """How the worker says that the instance is."""
        chance = self._chance
        if self.is_good or chance.random() < 0.7:
            return WELL
        dropped = chance.choice(([], [1], [2, 1], [1, 1], [99]))
        return Condition(chance.random() < 0.9, chance.random() < 0.1, False, {}, dropped, 3, 2, 0, 1)

    def made(self) -> tuple[bytes, bytes]:
        return encode(Made(COST, WELL)), b""

    def host_call(self) -> tuple[bytes, bytes]:
        """A call of a host function, with arguments that fit."""
        slot = self._chance.choice(_HARMLESS) if self.is_good else self._chance.randrange(len(SLOT_PLANS) - 1)
        values = {
            "add": (1, 2),
            "say": ("hello",),
            "take": (HANDLE,),
            "look": (HANDLE,),
            "swap": ([HANDLE] * self._chance.randrange(3),),
            "mix": ("dot", [{"x": 1, "is_far": False, "weight": 0.0}] * 3, {"f1"}, self._chance.choice((None, "x"))),
        }.get(SLOT_PLANS[slot].function.name, ())
        body = SLOT_PLANS[slot].write_arguments(values, self._numbers, 1 << 20)
        dropped = [1] if self._chance.random() < 0.05 and not self.is_good else []
        return encode(HostCall(slot, dropped)), b"".join(body.segments)

    def done(self, index: int) -> tuple[bytes, bytes]:
        """The result of export `index`."""
        condition = self.condition()
        value: Any = ANSWERS[index][1]
        if ANSWERS[index][0] is Prim.STRING and self._chance.random() < 0.2:
            value *= self._chance.choice((100, 4000, 7000))
        written = PLANS[index].write_result(value, self._numbers, 1 << 20, by_host=True)
        output = b"o" * condition.stdout_bytes + b"e" * condition.stderr_bytes
        return encode(Done(COST, condition)), b"".join((*written.segments, output))

    def plain(self, index: int) -> tuple[bytes, bytes]:
        """A result of scalars in its short form, with what it may say of its cost."""
        fuel, memory = (self._chance.choice((-(2**63), -1, 0, 1, 2**63 - 1)) for _ in range(2))
        wall_ms = self._chance.choice((0.1, 0.1, -1.0, math.nan))
        value, letter = self._chance.choice(((7, "Q"), (1, "?"), (1.5, "f"), (None, "")))
        body = b"" if value is None else struct.pack(f"<{letter}", value)
        return struct.pack("<Bqqd", MARK, fuel, memory, wall_ms), body

    def failed(self) -> tuple[bytes, bytes]:
        """A failure of a call."""
        chance, condition = self._chance, self.condition()
        by_host, kind = chance.random() < 0.2, chance.choice((None, "unreachable"))
        said = Failed(chance.choice(_CODES), "it failed", by_host, kind, None, "at 0x0", None, COST, condition)
        return encode(said), b"o" * condition.stdout_bytes + b"e" * condition.stderr_bytes

    def answer(self, index: int) -> Iterator[tuple[bytes, bytes]]:
        """What a good worker says to one call."""
        self.is_good = True
        for _ in range(self._chance.choice((0, 0, 1, 2, 4))):
            yield self.host_call()
        yield self.done(index)
        self.is_good = False

    def _any(self) -> tuple[bytes, bytes]:
        """A whole frame of any kind, where it fits and where it does not."""
        chance = self._chance
        match chance.randrange(11):
            case 9 | 10:
                return self.plain(chance.randrange(len(ANSWERS)))
            case 0:
                return self.made()
            case 1:
                return encode(Closed()), b""
            case 2:
                return encode(Ready(5, True, [])), b""
            case 3:
                return encode(Refused("engine.lock", "no")), b""
            case 4 | 5:
                return self.done(chance.randrange(len(ANSWERS)))
            case 6:
                return self.failed()
            case _:
                return self.host_call()

    def hostile(self, index: int) -> bytes:
        """A frame that a call of export `index` should not get."""
        chance = self._chance
        message, body = self.done(index) if chance.random() < 0.4 else self._any()
        match chance.randrange(13):
            case 0:
                return chance.randbytes(chance.randrange(1, 300))
            case 1:
                return framed(chance.randbytes(chance.randrange(100)), chance.randbytes(chance.randrange(100)))
            case 2:  # lengths that are not those of what follows
                sizes = [len(message), len(body)]
                at = chance.randrange(2)
                sizes[at] = chance.choice((*_HUGE, sizes[at] + 1, max(0, sizes[at] - 1)))
                return b"".join(size.to_bytes(4, "little") for size in sizes) + message + body
            case 3 | 4 | 5:
                return framed(self._odd(message), body)
            case 6 | 7:
                return framed(message, self._edited(body))
            case 8:
                return framed(self._edited(message), body)
            case 9:
                return self._edited(framed(message, body))
            case 10:  # a message with the body of another
                return framed(message, self._any()[1])
            case 11:
                return framed(deepened(message, chance.randrange(DEEPEST)), body)
            case _:
                return framed(*self._any())

    def _edited(self, data: bytes) -> bytes:
        """Some bytes changed, cut out, put in, doubled, or replaced by a number that promises much."""
        chance, out = self._chance, bytearray(data or b"\0")
        for _ in range(chance.choice((1, 1, 1, 2, 4))):
            at = chance.randrange(len(out) + 1)
            match chance.randrange(7):
                case 0 | 1 if at < len(out):
                    out[at] ^= 1 << chance.randrange(8)
                case 2 if at < len(out):
                    out[at] = chance.choice((0, 1, 0x7F, 0x80, 0xC0, 0xDD, 0xFF))
                case 3:
                    out[at : at + 4] = chance.choice(_HUGE).to_bytes(4, "little")
                case 4:
                    del out[at : at + chance.choice((1, 4, len(out)))]
                case 5:
                    out[at:at] = chance.randbytes(chance.randrange(1, 9))
                case _:
                    out[at:at] = out[: chance.randrange(len(out) + 1)]
        return bytes(out[:100_000])

    def _odd(self, message: bytes) -> bytes:
        """A message with a part of another type, sign, size or depth; or one part too many or too few."""
        chance = self._chance
        if message[0] == MARK:
            return self._edited(message)
        whole = msgspec.msgpack.decode(message)
        parts = [whole]
        while isinstance(inner := parts[-1][at := chance.randrange(len(parts[-1]))], list) and inner and len(parts) < 4:
            parts.append(inner)
        odd = chance.choice(_ODD)
        match chance.randrange(6):
            case 0:
                del parts[-1][at:]
            case 1:
                parts[-1].insert(chance.choice((at, len(parts[-1]))), odd)
            case _:
                parts[-1][at] = odd
        return bytes(encode(whole))


def deepened(message: bytes, levels: int) -> bytes:
    """A message with one part more than it should have, nested that deep."""
    return bytes((message[0] + 1,)) + message[1:] + b"\x91" * levels + b"\xc0"
