"""An instance that lives in a worker, as the host sees it: what `cloche.engine.instance.Instance` is in this process.

The worker is taken to be hostile. It is told nothing but arguments and results; each host call that it asks for is
checked against the plugin's grants, counted and bounded here again; everything that it says is checked before it is
used; and whatever it does or leaves undone, a call ends soon after its deadline.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from struct import error as StructError  # noqa: N812
from time import monotonic
from typing import TYPE_CHECKING, Any

import msgspec

from cloche.engine import endings
from cloche.engine.codec.handles import GuestResource, close_item, ensure_object
from cloche.engine.codec.problem import ValueProblem, expected
from cloche.engine.codec.wire import WireError, WirePlan, Writing
from cloche.engine.endings import UnreachedError
from cloche.engine.stacks import ThisThread, this_thread
from cloche.engine.stdio import Output
from cloche.errors import ClocheError, EngineError, GrantError, GuestTrap, LimitError, UsageError
from cloche.frozen import as_dict, dataclass, field
from cloche.handles import Handles, too_many
from cloche.model import Limits, Usage
from cloche.text import clean
from cloche.wit.types import Export, ResourceType
from cloche.worker.channel import ChannelClosed, FrameError
from cloche.worker.messages import (
    Answer,
    Call,
    Close,
    Closed,
    Condition,
    Cost,
    Done,
    Failed,
    FromWorker,
    HostCall,
    Made,
    Make,
    encode,
    from_worker,
)
from cloche.worker.plain import PlainExport
from cloche.worker.process import WorkerProcess

if TYPE_CHECKING:
    from cloche.engine.instance import Cancellation, Target
    from cloche.engine.slots import HostSlot

IDLE = math.inf
GRACE_S = 0.25
"""How long after its deadline, or after it was told to stop, a call may go on until its worker is killed."""

CLOSE_S = 1.25
"""How long a worker may take to close an instance."""

_FAILURES: Mapping[str, type[ClocheError]] = {
    **dict.fromkeys(
        (
            "limit.fuel",
            "limit.deadline",
            "limit.memory",
            "limit.stack",
            "limit.payload",
            "limit.host-calls",
            "limit.handles",
        ),
        LimitError,
    ),
    **dict.fromkeys(("guest.trap", "guest.exit", "guest.invalid-value"), GuestTrap),
    **dict.fromkeys(("usage.interrupted", "usage.closed"), UsageError),
    "grant.denied": GrantError,
    "engine.instantiate": EngineError,
}
"""What a worker may say of a call that failed. Anything else is no answer."""

_numbers = count(1)


class ProtocolError(Exception):
    """A worker said what no worker of ours says."""


@dataclass(frozen=True, slots=True)
class _Held:
    item: Any
    resource: ResourceType
    is_own: bool


def _close_held(held: _Held) -> None:
    if held.is_own:
        close_item(held.item)


class RemoteBridge:
    """What one instance's handles stand for in this process. As `ResourceBridge`, with numbers instead of addresses."""

    def __init__(
        self,
        context: int,
        hosts: frozenset[ResourceType],
        most: int,
        classes: Mapping[ResourceType, Callable[[Any, ResourceType, int], object]],
    ) -> None:
        self.context = context
        self.guests: dict[int, ResourceType] = {}
        """The guest's own resources that were handed out and not given up."""
        self.drops: deque[int] = deque()
        self.is_closed = False
        self._hosts, self._most, self._classes = hosts, most, classes
        self._table: Handles[_Held] = Handles(most, _close_held)
        self.failures: list[BaseException] = []

    @property
    def held(self) -> int:
        """Guest handles that somebody outside still holds open."""
        return len(self.guests) - len(self.drops)

    def give(self, value: object, resource: ResourceType, is_own: bool, call: Writing) -> int:
        """The number by which the worker knows `value`. Raises: ValueProblem; LimitError (`limit.handles`)."""
        if resource not in self._hosts:
            return self._give_guest(value, resource, is_own, call)
        ensure_object(value, resource)
        if not call.note(value, is_own):
            raise ValueProblem(f"the object for resource {resource.name} is handed over twice in one call")
        is_argument = call.is_argument
        if len(self._table) + len(self.guests) >= self._most:
            if not is_argument:
                self.dispose(value)
            raise too_many(self._most)
        number = self._table.push(_Held(value, resource, is_own))

        def settle(done: bool) -> None:
            if not (done and is_own):
                try:
                    held = self._table.get(number)
                except KeyError:
                    return
                if held.item is value:
                    self._table.take(number)
                    if not is_argument:
                        self.dispose(value)

        call.undo.append(settle)
        return number

    def _give_guest(self, value: object, resource: ResourceType, is_own: bool, call: Writing) -> int:
        if not isinstance(value, GuestResource) or value.resource != resource:
            raise expected(f"a handle of resource {resource.name}", value)
        bridge: object = value._bridge
        if bridge is not self:
            raise ValueProblem(f"the handle of resource {resource.name} belongs to another instance")
        number = value._number
        if number not in self.guests or self.is_closed:
            raise ValueProblem(f"the handle of resource {resource.name} is closed or was moved", "usage.closed")
        if not call.note(value, is_own):
            raise ValueProblem(f"the handle of resource {resource.name} is lent in the same call, so it cannot move")
        if is_own:
            value._number = 0

            def settle(done: bool) -> None:
                if not done:
                    value._number = number
                else:
                    self.guests.pop(number, None)

            call.undo.append(settle)
        return number

    def take(self, number: int, resource: ResourceType, is_own: bool) -> Any:
        """What stands behind a number that the worker sent. Raises: WireError; LimitError (`limit.handles`)."""
        if resource in self._hosts:
            try:
                held = self._table.get(number)
            except KeyError:
                raise WireError(f"a handle of resource {resource.name} is not alive") from None
            if held.resource != resource or (is_own and not held.is_own):
                raise WireError(f"a handle is no {'own' if is_own else 'borrow'} of resource {resource.name}")
            return self._table.take(number).item if is_own else held.item
        if not is_own or number == 0 or number in self.guests:
            raise WireError(f"a handle of the guest's own resource {resource.name} that cannot be")
        if len(self._table) + len(self.guests) >= self._most:
            raise too_many(self._most)
        self.guests[number] = resource
        make = self._classes.get(resource)
        return GuestResource(self, resource, number) if make is None else make(self, resource, number)  # type: ignore[arg-type]

    def dispose(self, item: Any) -> None:
        """Close what was handed over in vain."""
        try:
            close_item(item)
        except Exception as error:
            self.failures.append(error)

    def dropped(self, numbers: Sequence[int]) -> None:
        """The guest let these host objects go: close them. Raises: ProtocolError for one that is not there."""
        for number in numbers:
            try:
                self._table.get(number)
                self._table.release(number)
            except KeyError:
                raise ProtocolError("a host object was dropped that is not there") from None
            except Exception as error:
                self.failures.append(error)

    def take_drops(self) -> list[int]:
        """Guest handles that were given up since this was last asked."""
        found = []
        while self.drops:
            number = self.drops.popleft()
            if self.guests.pop(number, None) is not None:
                found.append(number)
        return found

    def close(self) -> list[BaseException]:
        """Close every host object and forget every guest handle; returns what failed."""
        self.is_closed = True
        self.drops.clear()
        self.guests = {}
        failures, self.failures = [*self.failures, *self._table.close()], []
        return failures


@dataclass(frozen=True, slots=True)
class RemoteSettings:
    """What every instance of a plugin in a worker has in common. `memory_bytes` bounds the worker as a whole."""

    plugin: str
    limits: Limits
    slots: tuple[HostSlot, ...]
    slot_plans: tuple[WirePlan, ...]
    hosts: frozenset[ResourceType]
    exports: Mapping[tuple[str | None, str], tuple[int, WirePlan, PlainExport | None]]
    memory_bytes: int
    guest_classes: Mapping[ResourceType, Callable[[Any, ResourceType, int], object]] = field(default_factory=dict)


class _Callee:
    """An exported function as one instance calls it. `plain` is None where it has no short form."""

    __slots__ = ("export", "head", "plain", "plan")

    def __init__(self, export: int, plan: WirePlan, plain: PlainExport | None, instance: int) -> None:
        self.export, self.plan, self.plain = export, plan, plain
        self.head = b"" if plain is None else plain.call_head(instance)


class RemoteInstance:
    """A live instance in a worker. One call at a time, from any thread. Raises what a call raises. Added in 0.1."""

    def __init__(
        self,
        worker: WorkerProcess,
        settings: RemoteSettings,
        targets: Callable[[Any], Sequence[Target]],
        control: Cancellation | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.worker, self.settings = worker, settings
        self.context = self._number = next(_numbers)
        self.bridge = RemoteBridge(self.context, settings.hosts, settings.limits.handles, settings.guest_classes)
        self.calls = self.bytes_returned = 0
        self.denied: dict[int, int] = {}
        self.closers: list[Callable[[], None]] = []
        self.unclosed: list[BaseException] = []
        self.call_id: int | None = None
        self.serving: ThisThread | None = None
        self.first_cost: Usage | None = None
        self.is_sound = True
        """False from when a call is sent until it has returned well."""
        self.has_filled_up = False
        self._finished = self._is_closed = self._close_wanted = False
        self._lock = threading.Lock()
        self._limits = limits or settings.limits
        self._span_s = self._limits.deadline_ms / 1000 + GRACE_S
        self.output = Output(self._limits.output_bytes)
        self._stop: str | None = None
        self._failure: BaseException | None = None
        self._failed: HostSlot | None = None
        self._end = IDLE
        """When the call in progress has to be over; `IDLE` while there is none."""
        self._stop_end = IDLE
        self._is_late = False
        self._host_calls = self._host_bytes = 0
        self._callees: dict[Export, _Callee] = {}
        try:
            self._lane = worker.borrow_lane()
        except ChannelClosed:
            raise self._unreached() from None
        self.targets: Sequence[Target] = targets(self)
        worker.watch.watched[self] = None
        try:
            with self._lock:
                self._watch_for(self._span_s)
                make = encode(Make(self._number, self._wire_limits(self._limits)))
                reply, body = self._exchange(make, (), control)
                if isinstance(reply, Failed):
                    self._finished = True
                    raise self._explain(reply, body)
                if not isinstance(reply, Made):
                    raise self._broken("no answer about a new instance")
                self._settle(reply.condition, body)
                self._end = IDLE
        except BaseException:
            self._delete()
            raise
        self.made = _usage(reply.cost)

    @property
    def finished(self) -> bool:
        """Whether it serves no more calls: it trapped or was closed, or its worker is gone."""
        return self._finished or not self.worker.is_usable

    def call(
        self, export: Export, args: Sequence[object], limits: Limits, control: Cancellation | None = None
    ) -> tuple[object, Usage]:
        """Call the guest. Blocks until it returns, traps or is stopped, or the worker is gone. As `Instance.call`.

        Raises: as `Instance.call`; EngineError `engine.worker-lost` when the worker ended in the middle (whether the
            call took effect is not known), `engine.worker-protocol` when it said what it must not.
        """
        # Helpers that a call of scalars would pay for are written out.
        if not self._lock.acquire(False):  # by name it takes twice as long
            raise UsageError(
                "this instance already serves a call; an instance cannot be entered again", code="usage.re-entry"
            )
        try:
            if self._finished or not self.is_sound or not self.worker.is_usable:
                raise UsageError("this instance is finished", code="usage.closed")
            callee = self._callees.get(export) or self._callee(export)
            if limits is not self._limits or self.output.is_used:
                self.output.begin(limits.output_bytes)
                self._limits, self._span_s = limits, limits.deadline_ms / 1000 + GRACE_S
            self._stop = self._failure = self._failed = None
            self._host_calls = self._host_bytes = 0
            self._end = monotonic() + self._span_s
            watch = self.worker.watch
            if watch.is_parked:
                watch.wake()
            plain = callee.plain
            if (
                plain is not None
                and tuple(map(type, args)) == plain.exact
                and limits is self.settings.limits
                and self.first_cost is None
                and not self.bridge.drops
            ):
                try:
                    frame = callee.head + plain.pack(*args)
                except (StructError, OverflowError):
                    pass  # out of range: the long way says which
                else:
                    return self._call_plainly(callee, plain, frame, control)
            self.serving = this_thread()
            try:
                written = callee.plan.write_arguments(args, self.bridge, limits.payload_bytes)
            finally:
                self.serving = None
            spent = self.first_cost
            message = Call(
                self._number,
                callee.export,
                self._wire_limits(limits),
                self.bridge.take_drops() if self.bridge.drops else [],
                0 if spent is None else spent.fuel or 0,
                0.0 if spent is None else spent.wall_ms,
            )
            try:
                reply, body = self._exchange(encode(message), written.segments, control)
            except UnreachedError:
                written.settle(False)
                raise
            finally:
                written.settle(True)
            return self._returned(callee, reply, body)
        except ClocheError as error:
            error.plugin = error.plugin or self.settings.plugin
            raise
        finally:
            self._end = IDLE
            self._lock.release()
            if self._close_wanted or (self._finished and not self._is_closed):
                self.close()

    def charge_next_call(self, spent: Usage | None) -> None:
        """Count what making and initializing it cost against the limits of its next call."""
        self.first_cost = spent

    def interrupt(self) -> None:
        """Stop the call in progress: the guest is told, and the worker is killed when that does not help soon."""
        self._stop_end = monotonic() + GRACE_S
        self._stop = self._stop or "interrupted"
        self.worker.interrupt(self._number)

    def close(self) -> None:
        """Close everything that the instance holds, here and in the worker; after the call in progress, if any."""
        self._close_wanted = True
        if not self._lock.acquire(blocking=False):
            return
        try:
            self._delete()
        finally:
            self._lock.release()

    def _callee(self, export: Export) -> _Callee:
        number, plan, plain = self.settings.exports[export.interface, export.function.name]
        if plain is not None and max(plain.bytes_in, plain.bytes_out) > self.settings.limits.payload_bytes:
            plain = None  # the long way refuses it in the right words
        found = self._callees[export] = _Callee(number, plan, plain, self._number)
        return found

    # -- what the watch asks ---------------------------------------------------------------------------------------

    def _watch_for(self, seconds: float) -> None:
        """From now on the watch looks, until `_end` is `IDLE` again. `call` has this spelled out."""
        self._end = monotonic() + seconds
        if self.worker.watch.is_parked:
            self.worker.watch.wake()

    @property
    def is_busy(self) -> bool:
        """Whether somebody waits for the worker."""
        return self._end != IDLE

    def look(self, now: float, memory_bytes: int) -> None:
        """Kill the worker when it takes too much memory, or when the call in progress is still over time at a second
        look: a host function that took long may only just have answered.
        """
        if memory_bytes > self.settings.memory_bytes:
            self.worker.kill("it took more memory than it may", is_crash=True, over_memory=True)
        end = self._end if self._stop is None else min(self._end, self._stop_end)
        if now <= end or self.serving is not None:
            self._is_late = False
        elif not self._is_late:
            self._is_late = True
        else:
            stop = self._stop = self._stop or "deadline"
            self.worker.kill(f"a call did not stop at its {stop}")

    # -- one exchange ----------------------------------------------------------------------------------------------

    def _call_plainly(
        self, callee: _Callee, plain: PlainExport, frame: bytes, control: Cancellation | None
    ) -> tuple[object, Usage]:
        """A call whose arguments are one small frame, as may be its answer."""
        outer, found = None, None
        try:
            if control is not None:
                outer = control.attach(self)  # type: ignore[arg-type]
                if control.cancelled:
                    raise self._never_begun()
            self.is_sound = False
            data = self._lane.ask(frame)
            self.calls = calls = self.calls + 1
            found = plain.read_done(data, calls)
            if found is None:
                self.calls = calls - 1
                reply, body = self._answer(data)
        except BaseException as error:
            self._cut_off(error)
            raise
        finally:
            if control is not None:
                control.attach(outer)
        if found is None:
            return self._returned(callee, reply, body)
        self.is_sound = True
        self.bytes_returned += plain.bytes_out
        return found

    def _exchange(
        self, message: bytes, segments: Sequence[bytes | memoryview], control: Cancellation | None
    ) -> tuple[FromWorker, memoryview]:
        """Send, serve the host calls that come of it, and return the last word. Raises what the call fails with."""
        outer = None
        try:
            if control is not None:
                outer = control.attach(self)  # type: ignore[arg-type]
                if control.cancelled:
                    raise self._never_begun()
            self.is_sound = False
            self._lane.sent_bytes = 0
            self._lane.send(message, segments)
            return self._answer()
        except BaseException as error:
            self._cut_off(error)
            raise
        finally:
            if control is not None:
                control.attach(outer)

    def _never_begun(self) -> ClocheError:
        """What a call fails with that was cancelled before it began."""
        return endings.stopped("interrupted", self._limits, self.settings.plugin)

    def _answer(self, data: bytes = b"") -> tuple[FromWorker, memoryview]:
        """The last word of an exchange, after the host calls before it; `data` was read already."""
        while True:
            message, body = self._lane.receive(self._most_bytes(), data)
            reply = from_worker(message)
            if not isinstance(reply, HostCall):
                if self._lane.has_more:
                    raise ProtocolError("more than an answer")
                return reply, body
            data = b""
            self._serve(reply, body)

    def _cut_off(self, error: BaseException) -> None:
        """Take note of an exchange that came to no end. Raises what `error` means; returns where it means itself."""
        if self.is_sound:  # it did not even begin
            return
        if isinstance(error, ChannelClosed):
            raise self._lost() from None
        if isinstance(error, FrameError | msgspec.DecodeError | ProtocolError):
            raise self._broken(str(error)) from None
        if not self._finished:  # in the middle of an exchange: nobody can go on with it
            self.worker.kill("a call was given up in the middle")
            self._finished = True

    def _returned(self, callee: _Callee, reply: FromWorker, body: memoryview) -> tuple[object, Usage]:
        """Value and usage of a call that was answered. Raises what it failed with."""
        if isinstance(reply, Failed):
            self._finished = True
            raise self._explain(reply, body)
        if not isinstance(reply, Done):
            raise self._broken("no answer to a call")
        condition = reply.condition
        output = condition.stdout_bytes + condition.stderr_bytes
        if output > len(body):
            raise self._broken("less output than it said")
        usage = _usage(reply.cost)._replace(host_calls=self._host_calls)
        # Before the value, which may hold what nobody would close if the rest were refused.
        self._settle(condition, body[len(body) - output :])
        is_sound, self.is_sound = self.is_sound, False
        try:
            value, bytes_out = callee.plan.read_result(
                body[: len(body) - output], self.bridge, self._limits.payload_bytes
            )
        except WireError as error:
            raise self._broken(str(error)) from None
        self.is_sound = is_sound
        self.calls += 1
        self.bytes_returned += bytes_out
        return value, usage

    def _most_bytes(self) -> int:
        limits = self._limits
        return 2 * (max(limits.payload_bytes, limits.host_call_bytes) + limits.output_bytes) + (1 << 20)

    def _serve(self, call: HostCall, body: memoryview) -> None:
        """One call of a host function, as far as the plugin's grants and limits go."""
        settings, limits = self.settings, self._limits
        if call.slot >= len(settings.slots):
            raise ProtocolError("a call of a host function that there is none")
        slot, plan = settings.slots[call.slot], settings.slot_plans[call.slot]
        if slot.closed:
            raise ProtocolError(f"a call of {slot.label}, for which the plugin has no grant")
        self._host_calls += 1
        if self._host_calls > limits.host_calls:
            raise ProtocolError("more host calls than the limit allows")
        self.bridge.dropped(call.dropped)
        room = limits.host_call_bytes - self._host_bytes
        outer, self.serving = self.serving, this_thread()
        try:
            try:
                if self._stop is not None:
                    raise endings.stopped(self._stop, limits, settings.plugin)
                values, size_in = plan.read_arguments(body, self.bridge, room)
                value = self.targets[slot.position](*values)
                written = plan.write_result(value, self.bridge, room - size_in, by_host=True)
            except WireError as error:
                raise ProtocolError(str(error)) from None
            except BaseException as error:
                if isinstance(error, LimitError) and error.code == "limit.host-calls":
                    error = endings.over_host_bytes(limits, settings.plugin)
                if self._failure is None:
                    self._failure, self._failed = error, slot
                self._lane.send(encode(Answer(False)))
                return
        finally:
            self.serving = outer
        self._host_bytes += size_in + written.canonical_bytes
        try:
            self._lane.send(encode(Answer(True)), written.segments)
        except BaseException:
            written.settle(False)
            raise
        written.settle(True)

    def _settle(self, condition: Condition, output: memoryview) -> None:
        """Take over what a reply says beside its value. Raises: EngineError (`engine.worker-protocol`)."""
        end = condition.stdout_bytes
        if end + condition.stderr_bytes != len(output) or len(output) > self._limits.output_bytes:
            raise self._broken("output of another length than it said, or more than allowed")
        self.output.add(0, bytes(output[:end]), condition.stdout_lost)
        self.output.add(1, bytes(output[end:]), condition.stderr_lost)
        for position, times in condition.denied.items():
            if position >= len(self.settings.slots) or not self.settings.slots[position].closed:
                raise self._broken("a denied function that there is none")
            self.denied[position] = self.denied.get(position, 0) + times
        try:
            self.bridge.dropped(condition.dropped)
        except ProtocolError as error:
            raise self._broken(str(error)) from None
        self.is_sound, self._finished = condition.is_sound, self._finished or condition.is_finished
        self.has_filled_up = condition.has_filled_up

    # -- ends ------------------------------------------------------------------------------------------------------

    def _explain(self, failed: Failed, body: memoryview) -> BaseException:
        usage = Usage() if failed.cost is None else _usage(failed.cost)
        usage = usage._replace(host_calls=self._host_calls)
        self._settle(failed.condition, body)
        error: BaseException
        if failed.by_host and self._failure is not None:
            slot = self._failed
            named = None if slot is None else (slot.capability, slot.label)
            error = endings.of_host(self._failure, named, self.settings.plugin)
        else:
            kind = _FAILURES.get(failed.code)
            if kind is None:
                return self._broken(f"a failure with the code {failed.code[:40]!r}")
            text = clean(failed.text)
            if kind is GuestTrap:
                error = GuestTrap(
                    text,
                    code=failed.code,
                    kind=clean(failed.kind or "unknown"),
                    traceback=None if failed.traceback is None else clean(failed.traceback),
                    backtrace=None if failed.backtrace is None else clean(failed.backtrace),
                    exit_status_of_guest=failed.exit_status,
                )
            else:
                error = kind(text, code=failed.code)
        if isinstance(error, ClocheError):
            error.plugin = error.plugin or self.settings.plugin
            error.usage = usage
        return error

    def _lost(self) -> BaseException:
        """The worker ended in the middle of a call, or before it had taken anything of it."""
        self._finished = True
        is_unreached = not self._lane.was_read()
        if not self.worker.wait(1.0):
            self.worker.kill("it closed a lane", is_crash=True)
        if self._stop is not None or monotonic() > self._end:
            error = endings.stopped(self._stop or "deadline", self._limits, self.settings.plugin)
            error.usage = Usage(wall_ms=float(self._limits.deadline_ms), host_calls=self._host_calls)
            return error
        if is_unreached:
            return self._unreached()
        if self.worker.ran_out_of_memory:
            return self._over_memory()
        return EngineError(
            f"the worker of {self.settings.plugin} ended during the call: {self.worker.reason or 'why is not known'}; "
            "whether the call took effect is not known",
            code="engine.worker-lost",
            plugin=self.settings.plugin,
            usage=Usage(host_calls=self._host_calls),
        )

    def _unreached(self) -> UnreachedError:
        """The worker was gone before it had taken anything of a call."""
        return UnreachedError(
            f"the worker of {self.settings.plugin} ended before the call reached it: "
            f"{self.worker.reason or 'why is not known'}; nothing took effect",
            plugin=self.settings.plugin,
            usage=Usage(),
        )

    def _broken(self, what: str) -> EngineError:
        """The worker is not what was started: kill it."""
        self._finished = True
        self.worker.kill("it broke the protocol", is_crash=True)
        return EngineError(
            f"the worker of {self.settings.plugin} was killed: it said what no worker says: {clean(what)[:300]}",
            code="engine.worker-protocol",
            plugin=self.settings.plugin,
            usage=Usage(host_calls=self._host_calls),
        )

    def _over_memory(self) -> LimitError:
        return LimitError(
            f"the worker of {self.settings.plugin} took more than the {self.settings.memory_bytes} bytes of memory "
            "that its instances and the values of their calls may take together; raise the limit `memory`",
            code="limit.memory",
            plugin=self.settings.plugin,
            usage=Usage(host_calls=self._host_calls),
        )

    def _delete(self) -> None:
        """Close the host's side, then the worker's. Never twice."""
        if self._is_closed:
            return
        self._is_closed = self._finished = True
        self.unclosed += self.bridge.close()
        outer, self.serving = self.serving, this_thread()
        try:
            for closer in self.closers:
                try:
                    closer()
                except BaseException as error:
                    self.unclosed.append(error)
        finally:
            self.serving = outer
        if self.worker.is_usable:
            self._close_there()
        self.worker.watch.watched.pop(self, None)
        self.worker.return_lane(self._lane)
        for failure in self.unclosed:
            if not isinstance(failure, Exception):
                raise failure

    def _close_there(self) -> None:
        """Close the instance in the worker, which is killed when it does not answer soon."""
        self._stop = None
        try:
            self._watch_for(CLOSE_S)
            self._lane.send(encode(Close(self._number)))
            data, _ = self._lane.receive(0)
            if not isinstance(from_worker(data), Closed):
                raise ProtocolError
        except (ChannelClosed, FrameError, msgspec.DecodeError, ProtocolError, ClocheError):
            self.worker.kill("it did not close an instance")
        finally:
            self._end = IDLE

    def _wire_limits(self, limits: Limits) -> dict[str, int] | None:
        if limits is self.settings.limits or limits == self.settings.limits:
            return None
        return as_dict(limits)


def _usage(cost: Cost) -> Usage:
    return Usage(
        cost.guest_fuel,
        cost.host_fuel,
        cost.wall_ms,
        cost.cpu_ms,
        cost.peak_memory,
        cost.host_calls,
        cost.bytes_in,
        cost.bytes_out,
        0,
        0,
        cost.instance_calls,
    )
