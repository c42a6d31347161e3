"""A worker that is none: what `RemoteInstance` uses of one, and a socket on which a test has said everything before.

Nothing runs behind it, so a conversation with it takes no time but the host's. `FUNCTIONS` are what its plugin exports,
with an answer of each type, and `IMPORTS` what the host offers it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from fcntl import F_SETPIPE_SZ
from types import SimpleNamespace
from typing import Any

import numpy as np

from cloche.engine.codec.wire import WirePlan, Writing
from cloche.engine.slots import Import, host_slots
from cloche.model import Err, Limits, Ok
from cloche.values import Case
from cloche.wit.types import (
    BorrowType,
    EnumType,
    Export,
    Field,
    FlagsType,
    Function,
    FunctionKind,
    ListType,
    MapType,
    OptionType,
    OwnType,
    Param,
    Prim,
    RecordType,
    ResourceType,
    ResultType,
    TupleType,
    Type,
    TypeName,
    VariantType,
)
from cloche.wit.types import Case as CaseType
from cloche.worker.channel import Channel, ChannelClosed, lane
from cloche.worker.instance import RemoteSettings
from cloche.worker.messages import Condition, Cost
from cloche.worker.plain import PlainExport
from cloche.worker.watch import Watch

PLUGIN = "acme/stand-in"
LIMITS = Limits(
    deadline_ms=50, payload_bytes=64 << 10, host_call_bytes=64 << 10, output_bytes=4096, host_calls=40, handles=20
)
COST = Cost(1, 1, 0.1, 0.1, None, 0, 1, 1, 1)
WELL = Condition(True, False, False, {}, [], 0, 0, 0, 0)

THING = ResourceType(TypeName("test:stand/in", "thing"))
"""A resource of the host's."""
CELL = ResourceType(TypeName(None, "cell"))
"""A resource of the guest's."""


def _named(name: str) -> TypeName:
    return TypeName(None, name)


COLOR = EnumType(_named("color"), ("red", "green", "blue"))
MANY = EnumType(_named("many"), tuple(f"c{number}" for number in range(300)))
MARKS = FlagsType(_named("marks"), tuple(f"f{number}" for number in range(9)))
POINT = RecordType(_named("point"), (Field("x", Prim.S32), Field("is-far", Prim.BOOL), Field("weight", Prim.F64)))
SHAPE = VariantType(
    _named("shape"), (CaseType("dot", None), CaseType("line", Prim.U32), CaseType("words", ListType(Prim.STRING)))
)
HOLDER = RecordType(_named("holder"), (Field("name", Prim.STRING), Field("thing", OptionType(OwnType(THING)))))

HANDLE = object()
"""Whatever `Numbers` gives a number for."""
_OF_MUCH: tuple[tuple[Type | None, object], ...] = (
    (None, None),
    (Prim.BOOL, True),
    (Prim.U64, 7),
    (Prim.F64, -0.5),
    (Prim.CHAR, "é"),
    (Prim.STRING, "hello, world"),
    (ListType(Prim.U8), bytes(range(40))),
    (ListType(Prim.F32), np.arange(9, dtype="<f4")),
    (ListType(POINT), [{"x": 1, "is_far": True, "weight": 0.5}] * 5),
    (ListType(Prim.STRING), ["a", "bc", ""]),
    (ListType(TupleType((Prim.CHAR, OptionType(Prim.S8)))), [("x", 3), ("y", None)]),
    (MapType(Prim.STRING, ListType(Prim.U16)), {"a": [1, 2], "b": []}),
    (MapType(Prim.U8, OwnType(CELL)), {1: HANDLE, 2: HANDLE}),
    (COLOR, "green"),
    (MANY, "c299"),
    (MARKS, {"f0", "f8"}),
    (SHAPE, Case("words", ["x", "y"])),
    (OptionType(OptionType(Prim.U32)), None),
    (ResultType(ListType(Prim.U8), SHAPE), Err(Case("line", 4))),
    (ResultType(None, Prim.STRING), Ok(None)),
    (POINT, {"x": -1, "is_far": False, "weight": 1.0}),
    (OwnType(THING), HANDLE),
    (ListType(OwnType(THING)), [HANDLE, HANDLE]),
    (OwnType(CELL), HANDLE),
    (TupleType((OwnType(CELL), OptionType(OwnType(THING)), Prim.STRING)), (HANDLE, None, "x")),
    (ListType(HOLDER), [{"name": "a", "thing": HANDLE}, {"name": "", "thing": None}]),
)
_OF_SCALARS: tuple[tuple[Type | None, object], ...] = (
    (None, None),
    (Prim.BOOL, False),
    (Prim.S64, -7),
    (Prim.F32, 1.5),
)
ANSWERS = (*_OF_MUCH, *_OF_SCALARS)
"""Result types of the exports, each with a value. The last few take scalars only, the others `PARAMS`."""

PARAMS = (
    Param("text", Prim.STRING),
    Param("lent", BorrowType(THING)),
    Param("given", OptionType(OwnType(THING))),
    Param("numbers", ListType(Prim.U32)),
)
SCALARS = (Param("count", Prim.U32), Param("is-far", Prim.BOOL), Param("weight", Prim.F64))
FUNCTIONS = tuple(
    Function(f"f{index}", FunctionKind.FREE, PARAMS if index < len(_OF_MUCH) else SCALARS, result)
    for index, (result, _) in enumerate(ANSWERS)
)
EXPORTS = tuple(Export(None, function) for function in FUNCTIONS)


def _free(name: str, result: Type | None, *params: Type) -> Function:
    return Function(name, FunctionKind.FREE, tuple(Param(f"p{at}", kind) for at, kind in enumerate(params)), result)


HOST_FUNCTIONS = (
    _free("add", Prim.U32, Prim.U32, Prim.U32),
    _free("say", Prim.STRING, Prim.STRING),
    _free("make", OwnType(THING)),
    _free("take", None, OwnType(THING)),
    _free("look", Prim.U32, BorrowType(THING)),
    _free("swap", ListType(OwnType(THING)), ListType(OwnType(THING))),
    _free("mix", ResultType(HOLDER, COLOR), SHAPE, ListType(POINT), MARKS, OptionType(Prim.CHAR)),
    _free("fail", None),
)
IMPORTS = (
    Import("test:stand/in", "test:stand", HOST_FUNCTIONS, (("thing", THING),)),
    Import("test:stand/closed", "test:closed", (_free("never", None),), closed=True),
)


class Numbers:
    """Stands for handles in frames: each is a number that may or may not mean something to the host."""

    def __init__(self, next_number: Callable[[ResourceType, bool], int]) -> None:
        self._next = next_number
        self.given: list[object] = []
        """What stood where a handle goes."""

    def give(self, value: object, resource: ResourceType, is_own: bool, call: Writing) -> int:
        """A number for `value`."""
        self.given.append(value)
        return self._next(resource, is_own)

    def take(self, number: int, resource: ResourceType, is_own: bool) -> Any:
        """Never asked: nothing is read with these."""
        raise NotImplementedError

    def dispose(self, item: Any) -> None:
        """Nothing is held."""


@dataclass(eq=False)
class Thing:
    """An object of the host's that counts how often it was closed."""

    closed: int = 0

    def close(self) -> None:
        self.closed += 1


@dataclass
class Offers:
    """The host's side of `IMPORTS`: counts its calls, and keeps what it made and what it was given back."""

    on_make: Callable[[], None] = lambda: None
    calls: int = 0
    made: list[Thing] = field(default_factory=list)
    returned: list[Thing] = field(default_factory=list)

    def add(self, first: int, second: int) -> int:
        self.calls += 1
        return (first + second) & 0xFFFFFFFF

    def say(self, text: str) -> str:
        self.calls += 1
        return text[:100]

    def make(self) -> Thing:
        self.calls += 1
        self.made.append(Thing())
        self.on_make()
        return self.made[-1]

    def take(self, thing: Thing) -> None:
        self.calls += 1
        self.returned.append(thing)

    def look(self, thing: Thing) -> int:
        self.calls += 1
        assert isinstance(thing, Thing)
        return thing.closed

    def swap(self, things: list[Thing]) -> list[Thing]:
        self.calls += 1
        self.returned += things
        return [self.make() for _ in things]

    def mix(self, shape: object, points: object, marks: object, char: str | None) -> object:
        self.calls += 1
        return Err("red") if char is None else Ok({"name": char, "thing": self.make()})

    def fail(self) -> None:
        self.calls += 1
        raise ValueError("a mistake of the host")

    def never(self) -> None:
        raise AssertionError("a closed function was called")

    @property
    def targets(self) -> list[Callable[..., object]]:
        """The functions by their position."""
        return [getattr(self, slot.function.name) for slot in SLOTS]


SLOTS = tuple(host_slots(IMPORTS))
SLOT_PLANS = tuple(WirePlan(slot.function) for slot in SLOTS)
PLANS = tuple(map(WirePlan, FUNCTIONS))
SETTINGS = RemoteSettings(
    plugin=PLUGIN,
    limits=LIMITS,
    slots=SLOTS,
    slot_plans=SLOT_PLANS,
    hosts=frozenset({THING}),
    exports={
        (None, function.name): (at, plan, PlainExport.of(plan, at))
        for at, (function, plan) in enumerate(zip(FUNCTIONS, PLANS, strict=True))
    },
    memory_bytes=1 << 30,
)


class StandIn:
    """A worker without a process. `say` what it answers before it is asked; one lane, one thread."""

    watch = Watch(SimpleNamespace(memory_bytes=lambda: 0))
    """One for all of them: each of its looks is over whoever waits."""

    def __init__(self) -> None:
        self.is_usable = True
        self.ran_out_of_memory = False
        self.reason = "it never was"
        self.killed: list[str] = []
        self.received = 0
        """How many frames the host began to read."""
        self._next: deque[bytes] = deque()
        self._ends = False
        self._lane, (self._inward, self._outward) = lane()
        for descriptor in (self._inward, self._outward):
            os.set_blocking(descriptor, False)
            fcntl.fcntl(descriptor, F_SETPIPE_SZ, 1 << 20)
        receive, ask = self._lane.receive, self._lane.ask

        def counted(most: int, data: bytes = b"") -> tuple[bytes, memoryview]:
            self.received += 1
            self._speak()
            return receive(most, data)

        def asked(frame: bytes) -> bytes:
            self.received += 1
            self._speak()
            return ask(frame)

        self._lane.receive, self._lane.ask = counted, asked  # type: ignore[method-assign]

    def say(self, *frames: bytes, is_last: bool = False) -> None:
        """What the host reads next, one of these each time; after the last the end of the stream where it `is_last`."""
        self._next += frames
        self._ends |= is_last

    def _speak(self) -> None:
        """Answer, when the host has spoken and reads. Never blocks."""
        with contextlib.suppress(OSError):
            while os.read(self._inward, 1 << 18):  # what the host said
                pass
        if self._next and self._outward >= 0:
            with contextlib.suppress(OSError):  # what does not fit is cut
                os.write(self._outward, self._next.popleft())
        if self._ends and not self._next:
            self._hang_up()

    def _hang_up(self) -> None:
        outward, self._outward = self._outward, -1
        if outward >= 0:
            os.close(outward)

    def borrow_lane(self) -> Channel:
        if not self.is_usable:
            raise ChannelClosed
        return self._lane

    def return_lane(self, lane: Channel) -> None:
        assert lane is self._lane

    def interrupt(self, instance: int) -> None:
        pass

    def kill(self, why: str, *, is_crash: bool = False, over_memory: bool = False) -> None:
        self.is_usable, self.ran_out_of_memory = False, over_memory
        self.killed.append(why)
        self._hang_up()

    def wait(self, timeout_s: float) -> bool:
        return True

    def memory_bytes(self) -> int:
        return 0

    def end(self) -> None:
        """Close both ends. Idempotent."""
        self._hang_up()
        self._lane.close()
        if self._inward >= 0:
            os.close(self._inward)
            self._inward = -1
