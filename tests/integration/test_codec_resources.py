"""Resources in both directions through a WAT guest: owned, lent, moved, dropped, closed after a trap."""

from __future__ import annotations

import copy
import ctypes
import gc
import pickle
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import pytest

from cloche.engine.codec.function import HostPlan
from cloche.engine.codec.handles import GuestResource, ResourceBridge
from cloche.engine.ffi import VAL_BYTES
from cloche.errors import CapabilityError, ClocheError, LimitError, UsageError
from cloche.handles import Handles
from cloche.model import Err, Ok
from cloche.values import Case as VariantCase
from cloche.wit.types import (
    Case,
    Field,
    Function,
    FunctionKind,
    ListType,
    MapType,
    OptionType,
    OwnType,
    Prim,
    RecordType,
    ResourceType,
    ResultType,
    TupleType,
    Type,
    TypeName,
    VariantType,
)
from support.echo_component import HOST_INTERFACE, assemble, echo_function, echo_wat
from support.engine_rig import Rig
from support.resource_component import (
    BORROW_OWN,
    BUCKET,
    CONSUME,
    COUNTER,
    CRASH,
    DROP,
    DROPPED,
    FETCH,
    GIVE,
    HOST_ADD,
    HOST_LOOK,
    HOST_MAKE,
    HOST_TAKE,
    INTERFACE,
    KEEP,
    LEND,
    MANY,
    NEW,
    OWN_AND_LENT,
    OWN_BORROW,
    OWN_SUM,
    PAIR,
    SUM,
    TWO_OWNS,
    TYPE_ID,
    VALUE,
    WAT,
)


@dataclass
class Bucket:
    """A host resource that counts how often it was closed."""

    n: int
    closed: int = 0

    def close(self) -> None:
        self.closed += 1


@dataclass
class HostSide:
    """What the guest imports."""

    made: list[Bucket] = field(default_factory=list)
    taken: list[Bucket] = field(default_factory=list)
    answer: Any = None

    def make(self, n: int) -> Any:
        if self.answer is not None:
            return self.answer
        self.made.append(Bucket(n))
        return self.made[-1]

    def take(self, bucket: Bucket) -> int:
        self.taken.append(bucket)
        return bucket.n


@lru_cache(maxsize=1)
def binary() -> bytes:
    return assemble(WAT)


def rig_for(host: HostSide, max_handles: int = 1000) -> Rig:
    functions: list[tuple[Function, Callable[..., Any]]] = [
        (HOST_MAKE, host.make),
        (HOST_TAKE, host.take),
        (HOST_LOOK, lambda bucket: bucket.n),
        (HOST_ADD, lambda left, right: left.n + right.n),
    ]
    return Rig(binary(), {INTERFACE: functions}, {BUCKET: (INTERFACE, "bucket", TYPE_ID)}, max_handles)


@pytest.fixture
def host() -> HostSide:
    return HostSide()


@pytest.fixture
def rig(host: HostSide) -> Iterator[Rig]:
    with rig_for(host) as made:
        yield made


def test_an_owned_host_object_comes_back_to_the_caller(rig: Rig, host: HostSide) -> None:
    """`own` from the host through the guest to the caller is the very object, and leaves the table."""
    assert rig.call(FETCH, 5) is host.made[0]
    assert rig.bridge.live == 0
    assert host.made[0].closed == 0


def test_an_owned_host_object_moves_to_the_host(rig: Rig, host: HostSide) -> None:
    """`own` from the caller through the guest to the host belongs to the host function."""
    bucket = Bucket(6)
    assert rig.call(GIVE, bucket) == 6
    assert host.taken == [bucket]
    assert host.taken[0] is bucket
    assert rig.bridge.live == bucket.closed == 0


def test_lent_host_objects_stay_the_callers(rig: Rig) -> None:
    """`borrow` lends one object, or two in one call, as often as wanted; nothing is closed or kept."""
    left, right = Bucket(1), Bucket(2)
    for _ in range(3):
        assert rig.call(LEND, left) == 1
        assert rig.call(SUM, left, right) == 3
        assert rig.call(SUM, left, left) == 2
    assert rig.bridge.live == left.closed == right.closed == 0


def test_two_borrows_of_handles_that_the_guest_owns(rig: Rig, host: HostSide) -> None:
    """A host function with two borrow parameters works on every tested engine (H44); both are then dropped."""
    assert rig.call(OWN_SUM, 4) == 8
    assert [bucket.closed for bucket in host.made] == [1, 1]
    assert rig.bridge.live == 0


def test_a_dropped_host_object_is_closed_once(rig: Rig) -> None:
    """The guest's drop closes the object."""
    bucket = Bucket(1)
    rig.call(DROP, bucket)
    assert bucket.closed == 1
    assert rig.close() == []
    assert bucket.closed == 1


def test_what_the_guest_keeps_is_closed_with_the_bridge(host: HostSide) -> None:
    """The engine runs no destructor at the end of a store: the bridge closes what is left, newest first, once."""
    rig = rig_for(host)
    rig.call(KEEP, 5)
    assert rig.bridge.live == 5
    assert rig.close() == []
    assert [bucket.closed for bucket in host.made] == [1] * 5


def test_a_trap_leaves_nothing_open(host: HostSide) -> None:
    """After a trap everything that the guest held, the moved argument included, is closed."""
    rig = rig_for(host)
    rig.call(KEEP, 3)
    bucket = Bucket(9)
    with pytest.raises(RuntimeError, match="unreachable"):
        rig.call(CRASH, bucket)
    rig.close()
    assert [item.closed for item in (*host.made, bucket)] == [1] * 4


def test_a_failing_close_is_reported_and_stops_nothing(host: HostSide) -> None:
    """One object whose close raises does not keep the others open."""

    class Broken(Bucket):
        def close(self) -> None:
            raise OSError("disk gone")

    rig = rig_for(host)
    rig.call(KEEP, 1)
    host.answer = Broken(1)
    rig.call(KEEP, 1)
    rig.call(DROP, Broken(2))
    failures = rig.close()
    assert [str(failure) for failure in failures] == ["disk gone", "disk gone"]
    assert host.made[0].closed == 1


def test_too_many_host_handles_trap_and_close_the_last(host: HostSide) -> None:
    """The handle limit stops a guest that keeps asking, and closes all when it ends."""
    rig = rig_for(host, max_handles=10)
    with pytest.raises(LimitError, match="more than 10 live resources") as caught:
        rig.call(KEEP, 50)
    assert caught.value.code == "limit.handles"
    assert len(host.made) == 11
    rig.close()
    assert [bucket.closed for bucket in host.made] == [1] * 11


def test_what_a_caller_passes_beyond_the_limit_stays_his(host: HostSide) -> None:
    """An object that the table has no room for is refused, and not closed for its owner."""
    with rig_for(host, max_handles=10) as rig:
        rig.call(KEEP, 10)
        for function in (DROP, LEND):
            with pytest.raises(LimitError, match="more than 10 live resources"):
                rig.call(function, bucket := Bucket(1))
            assert bucket.closed == 0
        assert rig.bridge.live == 10


def test_a_table_of_handles_is_bounded() -> None:
    """One more than it holds is closed and refused; a place that was given up serves again."""
    closed: list[str] = []
    table = Handles[str](2, closed.append)
    first = table.push("a")
    table.push("b")
    with pytest.raises(LimitError) as caught:
        table.push("c")
    assert (caught.value.code, closed, len(table)) == ("limit.handles", ["c"], 2)
    table.release(first)
    assert (table.push("d"), closed) == (first, ["c", "a"])


def test_too_many_guest_handles_are_refused(host: HostSide) -> None:
    """A guest cannot flood the host with handles of its own: those that came first are given up again."""
    with rig_for(host, max_handles=10) as rig:
        with pytest.raises(LimitError, match="more than 10 live resources"):
            rig.call(MANY, 50)
        assert len(rig.bridge.drops) == 10
        assert rig.bridge.drop_pending() == []
        assert rig.bridge.live == 0


@pytest.mark.parametrize("answer", [None, 5, "x"])
def test_a_host_function_must_return_an_object(host: HostSide, answer: Any) -> None:
    """A plain value (or nothing) is no resource."""
    host.answer = answer
    with rig_for(host) as rig:
        if answer is None:
            rig.call(FETCH, 1)
            return
        with pytest.raises(CapabilityError, match="expected a host object for resource"):
            rig.call(FETCH, 1)


def test_guest_handles_are_used_moved_and_dropped(rig: Rig) -> None:
    """A guest's resource is lent by handle, moves when passed as own, and its destructor runs once."""
    counter = rig.call(NEW, 7)
    assert isinstance(counter, GuestResource)
    assert [rig.call(VALUE, counter), rig.call(VALUE, counter)] == [7, 7]
    assert rig.call(CONSUME, counter) == 7
    assert not counter.is_open
    for function in (VALUE, CONSUME):
        with pytest.raises(UsageError, match="is closed or was moved") as caught:
            rig.call(function, counter)
        assert caught.value.code == "usage.closed"
    assert rig.call(DROPPED) == 1
    assert rig.bridge.live == 0


def test_a_refused_call_moves_nothing(rig: Rig) -> None:
    """When a later argument does not fit, a handle and a host object passed before it stay where they were."""
    counter = rig.call(NEW, 1)
    with pytest.raises(UsageError, match=r"argument 2 \(n\)"):
        rig.call(PAIR, counter, -1)
    assert counter.is_open
    assert rig.call(PAIR, counter, 41) == 42


def test_what_is_lent_cannot_move_in_the_same_call(rig: Rig) -> None:
    """A handle that is lent and handed over in one call is refused before it, either way; nothing has moved then."""
    counter, other = rig.call(NEW, 5), rig.call(NEW, 2)
    with pytest.raises(UsageError, match=r"argument 2 \(b\): .* is lent in the same call") as caught:
        rig.call(BORROW_OWN, counter, counter)
    assert caught.value.code == "usage.value"
    with pytest.raises(UsageError, match=r"argument 2 \(b\): .* was moved") as moved:
        rig.call(OWN_BORROW, counter, counter)
    assert moved.value.code == "usage.closed"
    assert counter.is_open
    assert rig.call(BORROW_OWN, counter, other) == 7
    assert rig.call(OWN_BORROW, counter, rig.call(NEW, 1)) == 6
    assert not counter.is_open
    assert rig.call(DROPPED) == 2


def test_a_host_object_is_handed_over_once(rig: Rig) -> None:
    """One object as two owns, or lent and owned, in one call would be closed twice or too early: it is refused."""
    bucket = Bucket(1)
    for function in (TWO_OWNS, OWN_AND_LENT):
        with pytest.raises(
            UsageError, match=r"argument 2 \(b\): the object .* handed over twice in one call"
        ) as caught:
            rig.call(function, bucket, bucket)
        assert caught.value.code == "usage.value"
        assert rig.bridge.live == bucket.closed == 0
    assert rig.call(TWO_OWNS, bucket, Bucket(2)) == 3
    assert rig.call(OWN_AND_LENT, Bucket(3), Bucket(4)) == 7


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_handle_cannot_be_copied(rig: Rig, copied: Callable[[Any], Any]) -> None:
    """Two objects for one handle would drop it twice; the handle itself is not harmed."""
    counter = rig.call(NEW, 5)
    with pytest.raises(TypeError, match="a handle cannot be copied or pickled"):
        copied(counter)
    gc.collect()
    assert rig.call(VALUE, counter) == 5


# -- what a host function hands over in vain ---------------------------------------------------------------------------

THING = ResourceType(TypeName(HOST_INTERFACE, "t0"))
OWN = OwnType(THING)
RECORD = RecordType(
    TypeName(HOST_INTERFACE, "rec"), (Field("first", OWN), Field("text", Prim.STRING), Field("last", OWN))
)
VARIANT = VariantType(TypeName(HOST_INTERFACE, "var"), (Case("one", OWN), Case("none", None), Case("bad", Prim.U8)))


@pytest.mark.parametrize(
    ("type_", "make", "code"),
    [
        (TupleType((Prim.U8, OWN)), lambda a, b, c: (-1, a), "capability.invalid"),
        (TupleType((OWN, Prim.U8, OWN)), lambda a, b, c: (a, -1, b), "capability.invalid"),
        (ListType(OWN), lambda a, b, c: [a, None, b, c], "capability.invalid"),
        (ListType(OWN), lambda a, b, c: [a, b, a, c], "capability.invalid"),
        (TupleType((Prim.STRING, ListType(OWN))), lambda a, b, c: ("x" * 200, [a, b, c]), "limit.host-calls"),
        (ListType(OWN), lambda a, b, c: deque([a, b, c] * 30), "limit.host-calls"),
        (RECORD, lambda a, b, c: {"first": a, "text": 5, "last": b}, "capability.invalid"),
        (ListType(RECORD), lambda a, b, c: [{"first": 5}, {"first": a, "text": "", "last": b}], "capability.invalid"),
        (TupleType((Prim.BOOL, OptionType(OWN))), lambda a, b, c: (0, a), "capability.invalid"),
        (ListType(ResultType(OWN, OWN)), lambda a, b, c: [Ok(a), 5, Err(b)], "capability.invalid"),
        (ListType(VARIANT), lambda a, b, c: [VariantCase("bad", -1), VariantCase("one", a)], "capability.invalid"),
        (MapType(Prim.STRING, OWN), lambda a, b, c: {"a": a, 5: b, "c": c}, "capability.invalid"),
        (ListType(OWN), lambda a, b, c: [a, b, c], "limit.handles"),
    ],
)
def test_what_a_refused_result_hands_over_is_closed(rig: Rig, type_: Type, make: Callable[..., Any], code: str) -> None:
    """Each object in a refused result is closed once: those before the fault, and those that were not reached."""
    buckets = [Bucket(0), Bucket(1), Bucket(2)]
    value = make(*buckets)
    plan = HostPlan(Function("f", FunctionKind.FREE, (), type_))
    memory = ctypes.create_string_buffer(VAL_BYTES)
    bridge = ResourceBridge(rig.context, {THING: TYPE_ID}, 2 if code == "limit.handles" else 50)
    with pytest.raises(ClocheError) as caught:
        plan.lower(value, ctypes.addressof(memory), bridge, 100)
    assert caught.value.code == code
    assert bridge.live == 0
    assert [bucket.closed for bucket in buckets] == [int(id(bucket) in _objects(value)) for bucket in buckets]


def _objects(value: Any) -> set[int]:
    """The identities of the buckets that a result hands over where its type says so."""
    if isinstance(value, Bucket):
        return {id(value)}
    if isinstance(value, dict):
        value = list(value.values())
    elif isinstance(value, Ok | Err):
        value = [value.value]
    elif isinstance(value, VariantCase):
        value = [value.payload]
    found: set[int] = set()
    for item in value if isinstance(value, list | tuple | deque) else ():
        found |= _objects(item)
    return found


class Repeating(dict[str, Any]):
    """A mapping with a key twice."""

    def __init__(self, *values: Any) -> None:
        super().__init__(k=None)
        self.given = values

    def items(self) -> Any:
        return [("k", value) for value in self.given]


@pytest.mark.parametrize(
    ("type_", "wrap"),
    [(OWN, lambda bucket: bucket), (ListType(OWN), lambda bucket: [bucket]), (OptionType(OWN), lambda bucket: bucket)],
)
def test_a_repeated_key_loses_no_object(type_: Type, wrap: Callable[[Any], Any]) -> None:
    """Of the values under one key the last one counts; what the others owned is closed, once."""
    signature = echo_function(0, MapType(Prim.STRING, type_))
    seen: list[Any] = []

    def host(value: Any) -> Any:
        seen.append(value)
        return value

    buckets = [Bucket(n) for n in range(3)]
    resources = {THING: (HOST_INTERFACE, "t0", TYPE_ID)}
    with Rig(assemble(echo_wat([signature])), {HOST_INTERFACE: [(signature, host)]}, resources) as rig:
        back = rig.call(signature, Repeating(*map(wrap, buckets)))
        assert seen == [{"k": wrap(buckets[2])}] == [back]
        assert [bucket.closed for bucket in buckets] == [1, 1, 0]
        assert rig.bridge.live == 0
    assert [bucket.closed for bucket in buckets] == [1, 1, 0]


def test_a_closed_handle_is_dropped_by_the_owner(rig: Rig) -> None:
    """`close`, `with` and the last reference only queue the drop; `drop_pending` runs the destructors."""
    rig.call(NEW, 1).close()
    with rig.call(NEW, 2):
        pass
    handle = rig.call(NEW, 3)
    handle.close()
    handle.close()
    thread = threading.Thread(target=gc.collect)
    forgotten = rig.call(MANY, 4)
    del forgotten
    thread.start()
    thread.join()
    assert rig.call(DROPPED) == 0
    assert rig.bridge.drop_pending() == []
    assert rig.call(DROPPED) == 7
    assert rig.bridge.live == 0


def test_a_late_second_close_drops_no_other_handle(rig: Rig) -> None:
    """Two threads may close one handle at once; a handle that was made meanwhile keeps its resource."""
    first = rig.call(NEW, 1)
    number = first._number
    first.close()
    rig.bridge.drop_pending()
    second = rig.call(NEW, 2)
    rig.bridge.drops.append(number)
    assert rig.bridge.drop_pending() == []
    assert rig.call(VALUE, second) == 2
    assert rig.call(DROPPED) == 1


def test_a_handle_outlives_its_instance_harmlessly(host: HostSide) -> None:
    """After the bridge is closed a handle is closed, and losing it touches nothing."""
    with rig_for(host) as rig, rig_for(HostSide()) as other:
        counter = rig.call(NEW, 1)
        rig.bridge.close()
        assert not counter.is_open
        with pytest.raises(UsageError, match="belongs to another instance"):
            other.call(VALUE, counter)
    counter.close()
    del counter


@pytest.mark.parametrize("value", [None, 3, "counter", object()])
def test_a_wrong_value_for_a_handle_is_refused(rig: Rig, value: Any) -> None:
    """Only a handle of the resource is one."""
    with pytest.raises(UsageError, match="expected a handle of resource counter") as caught:
        rig.call(VALUE, value)
    assert caught.value.code == "usage.value"
    with pytest.raises(UsageError, match="expected a host object"):
        rig.call(GIVE, rig.call(NEW, 1))
    assert COUNTER.name.name == "counter"


def test_a_thousand_rounds_leave_nothing(rig: Rig, host: HostSide) -> None:
    """Handles are released as fast as they are made: the engine's own table of 100,000 is never reached."""
    bucket = Bucket(1)
    for _ in range(1000):
        rig.call(LEND, bucket)
        rig.call(SUM, bucket, bucket)
        rig.call(GIVE, rig.call(FETCH, 1))
        rig.call(CONSUME, rig.call(NEW, 1))
    assert rig.bridge.live == 0
    assert len(host.taken) == 1000
