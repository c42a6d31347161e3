"""What runs inside a worker: one plugin's instances, on the threads of its lanes, behind locked doors.

Started by `cloche.confine.launcher` with limits and without privileges. It takes one `Order`, loads the plugin's
native code, which the host has authenticated, and locks itself in before any of the plugin's code runs: Landlock for
the mounts, seccomp for everything else. The engine starts threads: Landlock comes before them, seccomp reaches all.
"""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import threading
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from cloche import lazy_numpy
from cloche.confine import landlock, seccomp
from cloche.engine.bounds import StoreBounds
from cloche.engine.codec.handles import GuestResource
from cloche.engine.codec.wire import WireError, WirePlan, Writing
from cloche.engine.engine import Engine
from cloche.engine.ffi import library
from cloche.engine.instance import Instance, Settings, Target
from cloche.engine.interrupts import Interrupts
from cloche.engine.linker import CodeFiles, Linker
from cloche.engine.mapping import hold_maps
from cloche.engine.slots import HostSlot
from cloche.engine.wasi import Mount
from cloche.errors import CapabilityError, ClocheError, GuestTrap
from cloche.model import Limits, Usage
from cloche.values import has_arrays
from cloche.wit.types import Export, ResourceType
from cloche.worker import selftest
from cloche.worker.channel import Channel, ChannelClosed, receive_whole, send_whole
from cloche.worker.messages import (
    CONTROL,
    OPEN_LANE,
    Answer,
    Call,
    Close,
    Closed,
    Condition,
    Cost,
    Done,
    Failed,
    HostCall,
    Made,
    Make,
    Order,
    Ready,
    Refused,
    cut,
    encode,
    from_host,
)
from cloche.worker.orders import exports_of, imports_of, profile_of
from cloche.worker.plain import ARGUMENTS_AT, MARK, MARK_AT, TARGET, TARGET_AT, PlainExport

GROUPS = (seccomp.Group.COMPUTE, seccomp.Group.THREADS, seccomp.Group.MESSAGES, seccomp.Group.EVENTS)
"""What every worker may do; with mounts also `OPEN_FILES`, with writable ones `WRITE_FILES` and `MOVE_FILES`."""

_STACK_BYTES = 8 << 20
_MOST_DESCRIPTORS = 250
_MOST_BYTES = 1 << 31


def prepare(arguments: list[str]) -> Callable[[], int]:
    """Everything is imported by now; the result serves the plugin that is named on the descriptors in `arguments`."""
    library()
    hold_maps()
    control, first = map(_adopted, map(int, arguments))
    return lambda: _Worker(control, first).run()


def _adopted(descriptor: int) -> socket.socket:
    """A socket that came from the host. Told what it is, because asking the kernel is among what is not allowed."""
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=descriptor)


class _HostFailedError(ClocheError):
    """A host function failed in the host, which keeps the reason."""

    default_code = "capability.backend"


class _HostObject:
    """A resource of the host's, which keeps the object itself."""

    __slots__ = ("dropped", "number", "resource")

    def __init__(self, number: int, resource: ResourceType, dropped: list[int]) -> None:
        self.number, self.resource, self.dropped = number, resource, dropped

    def close(self) -> None:
        """The guest let it go: the host is told with the next message."""
        self.dropped.append(self.number)


class _Handles:
    """What numbers of handles stand for in this process, for one instance."""

    def __init__(self, hosts: frozenset[ResourceType]) -> None:
        self.hosts = hosts
        self.dropped: list[int] = []
        self.guests: dict[int, GuestResource] = {}

    def give(self, value: object, resource: ResourceType, is_own: bool, call: Writing) -> int:  # noqa: ARG002
        """The number of what the guest hands to the host."""
        call.note(value, is_own)
        if isinstance(value, _HostObject):
            return value.number
        assert isinstance(value, GuestResource)
        self.guests[value._number] = value
        return value._number

    def take(self, number: int, resource: ResourceType, is_own: bool) -> Any:
        """What the host hands to the guest."""
        if resource in self.hosts:
            return _HostObject(number, resource, self.dropped)
        found = self.guests.get(number)
        if found is None:
            raise WireError("a handle that is gone")
        if is_own:
            del self.guests[number]
        return found

    def dispose(self, item: Any) -> None:
        """Close what was handed over in vain."""
        item.close()


class _Guest:
    """One instance, its handles, and the lane on which its call is, or was last, being served."""

    def __init__(self, hosts: frozenset[ResourceType]) -> None:
        self.handles = _Handles(hosts)
        self.lane: Channel | None = None
        self.instance: Instance | None = None
        self.failed_by_host = False
        self.plain_targets: list[bytes] = []
        """Keys of what serves its calls in their short form."""

    def take_dropped(self) -> list[int]:
        """Numbers of host objects that the guest let go since this was last asked."""
        dropped, self.handles.dropped[:] = list(self.handles.dropped), []
        return dropped

    def condition(self) -> tuple[Condition, list[bytes]]:
        """How the instance is, and what it wrote."""
        instance = self.instance
        if instance is None:
            return Condition(False, True, False, {}, self.take_dropped(), 0, 0, 0, 0), []
        (out, err), (out_lost, err_lost) = instance.output.taken()
        denied = dict(instance.denied)
        instance.denied.clear()
        condition = Condition(
            instance.is_sound,
            instance.finished,
            instance.has_filled_up,
            denied,
            self.take_dropped(),
            len(out),
            len(err),
            out_lost,
            err_lost,
        )
        return condition, [out, err]


class _Worker:
    """The plugin that this process serves."""

    def __init__(self, control: socket.socket, first: socket.socket) -> None:
        self._control, self._first = control, first
        self._guests: dict[int, _Guest] = {}
        self._plain_targets: dict[bytes, Callable[[Channel, bytes], bytes | None]] = {}

    def run(self) -> int:
        """Serve until the host is gone."""
        with self._first as first:
            data, descriptors = receive_whole(first, _MOST_BYTES, _MOST_DESCRIPTORS)
            if not data:
                return 0
            order = from_host(data)
            assert isinstance(order, Order)
            try:
                ready = self._take(order, descriptors)
            except ClocheError as error:
                send_whole(first, encode(Refused(error.code, cut(error.message))))
                return 1
            except OSError as error:
                send_whole(first, encode(Refused("engine.unsupported", cut(str(error)))))
                return 1
            send_whole(first, encode(ready))
        threading.stack_size(_STACK_BYTES)
        self._listen()
        os._exit(0)  # whatever a guest is doing

    # -- the beginning ---------------------------------------------------------------------------------------------

    def _take(self, order: Order, descriptors: list[int]) -> Ready:
        """Load the plugin, then lock this process in."""
        code, descriptors = descriptors[: 1 + len(order.modules)], descriptors[1 + len(order.modules) :]
        mounts = tuple(
            Mount(name, Path(f"/proc/self/fd/{descriptor}"), writable)
            for (name, writable), descriptor in zip(order.mounts, descriptors, strict=True)
        )
        imports = imports_of(order)
        self._exports = [Export(interface, function) for interface, function in exports_of(order)]
        functions = [function for item in imports for function in item.functions]
        functions += (export.function for export in self._exports)
        if any(has_arrays(used) for function in functions for used in function.types):
            import_module("numpy")  # now, while files can be opened
        lazy_numpy.forgo()
        abi = _close_files(mounts)  # the engine starts threads, and each thread has the files of who started it
        self._engine = Engine(profile_of(order), Interrupts())
        self._limits = Limits(**order.limits)
        files = CodeFiles(code[0], tuple(zip(order.modules, code[1:], strict=True)))
        self._linker = Linker(self._engine, files, imports, wasi=True)
        for descriptor in code:
            os.close(descriptor)
        self._hosts = frozenset(self._linker.type_ids)
        self._plans = [WirePlan(slot.function) for slot in self._linker.slots]
        self._export_plans = [WirePlan(export.function) for export in self._exports]
        self._plain = [PlainExport.of(plan, position) for position, plan in enumerate(self._export_plans)]
        self._settings = Settings(
            plugin=order.plugin,
            limits=self._limits,
            bounds=StoreBounds(**order.bounds),
            probe=order.probe,
            mounts=mounts,
        )
        resource.setrlimit(resource.RLIMIT_DATA, (order.data_bytes, order.data_bytes))
        is_filtered = _close_the_rest(mounts)
        return Ready(abi, is_filtered, selftest.leaks(has_files=bool(mounts)) if is_filtered else [])

    # -- the rest --------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        while True:
            data, descriptors, _, _ = socket.recv_fds(self._control, CONTROL.size, 2)
            if not data:
                return
            number = CONTROL.unpack(data)[0]
            if number == OPEN_LANE:
                self._open(Channel(*descriptors))
                continue
            guest = self._guests.get(number)
            if guest is not None and guest.instance is not None:
                guest.instance.interrupt()

    def _open(self, lane: Channel) -> None:
        threading.Thread(target=self._serve, args=(lane,), daemon=True).start()

    def _serve(self, lane: Channel) -> None:
        targets = self._plain_targets
        with contextlib.suppress(ChannelClosed):
            first = lane.read()
            while True:
                if first[MARK_AT] == MARK:
                    target = first[TARGET_AT:ARGUMENTS_AT]
                    done = (targets.get(target) or self._plain_target(target))(lane, first)
                    first = lane.read() if done is None else lane.ask(done)
                    continue
                data, body = lane.receive(_MOST_BYTES, first)
                message = from_host(data)
                if isinstance(message, Call):
                    self._call(lane, message, body)
                elif isinstance(message, Make):
                    self._make(lane, message)
                elif isinstance(message, Close):
                    self._close(message.instance)
                    lane.send(encode(Closed()))
                first = lane.read()
        lane.close()

    def _close(self, number: int) -> None:
        guest = self._guests.pop(number, None)
        if guest is not None and guest.instance is not None:
            for target in guest.plain_targets:
                del self._plain_targets[target]
            guest.instance.close()

    def _make(self, lane: Channel, message: Make) -> None:
        guest = _Guest(self._hosts)
        guest.lane = lane

        def targets(instance: Instance) -> Sequence[Target]:
            guest.instance = instance
            return [self._target(guest, slot) for slot in self._linker.slots]

        limits = self._limits if message.limits is None else Limits(**message.limits)
        self._guests[message.instance] = guest
        try:
            instance = Instance(self._linker, self._settings, targets, None, limits)
        except ClocheError as error:
            self._fail(lane, guest, error)
            return
        condition, output = guest.condition()
        lane.send(encode(Made(_cost(instance.made), condition)), output)

    def _plain_target(self, target: bytes) -> Callable[[Channel, bytes], bytes | None]:
        """What serves calls in their short form, as `_call` does others, made once, with all that each call needs.

        It gives the frame of the answer, or None where it has sent that itself.
        """
        number, position = TARGET.unpack(target)
        guest = self._guests[number]
        instance, export, plain = guest.instance, self._exports[position], self._plain[position]
        assert instance is not None
        assert plain is not None
        call, limits, unpack = instance.call, self._limits, plain.arguments.unpack_from
        done_frame: Callable[[Usage, object], bytes | None] = plain.done
        output, dropped = instance.output, guest.handles.dropped

        def serve(lane: Channel, frame: bytes) -> bytes | None:
            guest.lane = lane
            try:
                value, usage = call(export, unpack(frame, ARGUMENTS_AT), limits)
            except ClocheError as error:
                self._fail(lane, guest, error)
                return None
            except Exception as error:
                self._fail_badly(lane, guest, error)
                return None
            if not (instance.finished or instance.has_filled_up or output.is_used or instance.denied or dropped):
                done = done_frame(usage, value)
                if done is not None:
                    return done
            written = self._export_plans[position].write_result(value, None, _MOST_BYTES, by_host=False)
            condition, out = guest.condition()
            lane.send(encode(Done(_cost(usage), condition)), [*written.segments, *out])
            return None

        guest.plain_targets.append(target)
        self._plain_targets[target] = serve
        return serve

    def _call(self, lane: Channel, message: Call, body: memoryview) -> None:
        guest = self._guests[message.instance]
        instance = guest.instance
        assert instance is not None
        for number in message.drops:
            handle = guest.handles.guests.pop(number, None)
            if handle is not None:
                handle.close()
        limits = self._limits if message.limits is None else Limits(**message.limits)
        export, plan = self._exports[message.export], self._export_plans[message.export]
        guest.lane = lane
        try:
            if message.spent_fuel or message.spent_ms:
                instance.charge_next_call(Usage(guest_fuel=message.spent_fuel, wall_ms=message.spent_ms))
            args, _ = plan.read_arguments(body, guest.handles, limits.payload_bytes)
            value, usage = instance.call(export, args, limits)
            written = plan.write_result(value, guest.handles, limits.payload_bytes, by_host=False)
        except ClocheError as error:
            self._fail(lane, guest, error)
            return
        except Exception as error:
            self._fail_badly(lane, guest, error)
            return
        finally:
            instance.charge_next_call(None)
        condition, output = guest.condition()
        lane.send(encode(Done(_cost(usage), condition)), [*written.segments, *output])
        written.settle(True)

    def _fail_badly(self, lane: Channel, guest: _Guest, error: Exception) -> None:
        self._fail(lane, guest, GuestTrap(f"the worker failed: {type(error).__name__}"))
        assert guest.instance is not None
        guest.instance.close()

    def _fail(self, lane: Channel, guest: _Guest, error: ClocheError) -> None:
        condition, output = guest.condition()
        by_host, guest.failed_by_host = guest.failed_by_host, False
        trap = error if isinstance(error, GuestTrap) else None
        failed = Failed(
            error.code,
            cut(error.message),
            by_host,
            cut(trap.kind) if trap is not None else None,
            trap.traceback and cut(trap.traceback) if trap is not None else None,
            trap.backtrace and cut(trap.backtrace) if trap is not None else None,
            trap.exit_status_of_guest if trap is not None else None,
            None if error.usage is None else _cost(error.usage),
            condition,
        )
        lane.send(encode(failed), output)

    def _target(self, guest: _Guest, slot: HostSlot) -> Target:
        plan, position = self._plans[slot.position], slot.position

        def call(*values: object) -> object:
            lane = guest.lane
            assert lane is not None
            written = plan.write_arguments(values, guest.handles, _MOST_BYTES)
            lane.send(encode(HostCall(position, guest.take_dropped())), written.segments)
            written.settle(True)
            data, body = lane.receive(_MOST_BYTES)
            message = from_host(data)
            assert isinstance(message, Answer)
            if not message.is_ok:
                guest.failed_by_host = True
                raise _HostFailedError("a host function failed")
            try:
                return plan.read_result(body, guest.handles, _MOST_BYTES)[0]
            except WireError as error:
                raise CapabilityError("the host's answer cannot be read", code="capability.invalid") from error

        return call


def _close_files(mounts: Sequence[Mount]) -> int:
    """From here on no file but those of the mounts can be opened, by this thread and all that it starts."""
    return landlock.restrict(
        readable=[str(mount.path) for mount in mounts if not mount.writable],
        writable=[str(mount.path) for mount in mounts if mount.writable],
    )


def _close_the_rest(mounts: Sequence[Mount]) -> bool:
    """From here on no thread of this process makes a system call that is not in `GROUPS`."""
    groups = [*GROUPS]
    if mounts:
        groups.append(seccomp.Group.OPEN_FILES)
    if any(mount.writable for mount in mounts):
        groups += [seccomp.Group.WRITE_FILES, seccomp.Group.MOVE_FILES]
    return seccomp.restrict(groups, all_threads=True)


def _cost(usage: Usage) -> Cost:
    return Cost(
        usage.guest_fuel,
        usage.host_fuel,
        usage.wall_ms,
        max(0.0, usage.cpu_ms),
        usage.peak_memory,
        usage.host_calls,
        usage.bytes_in,
        usage.bytes_out,
        usage.instance_calls,
    )
