"""An order: what a worker is told of its plugin, made from a `Lodging` and read back where it arrives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cloche.engine.bounds import StoreBounds
from cloche.engine.codec.wire import WirePlan
from cloche.engine.profile import Profile
from cloche.engine.slots import Import
from cloche.engine.wasi import Mount
from cloche.frozen import as_dict, dataclass
from cloche.model import GIB, MIB, Limits, Metering
from cloche.wit.plain import from_plain, function_from_plain, function_to_plain, to_plain
from cloche.wit.types import Function, Interface
from cloche.worker.messages import Order

BASE_BYTES = 320 * MIB
"""Memory of a worker before any guest runs, with room for code: interpreter, engine, native code, stacks."""
CALL_BYTES = 256 * MIB
"""Beside its guest's memory, what one call may take in the worker: values on their way in and out (H7)."""
_MOST_ANSWER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Lodging:
    """What a worker has to know of a plugin; the descriptors stay the caller's. `lockdown` is what it must reach."""

    plugin: str
    profile: Profile
    component: int
    modules: tuple[tuple[str, int], ...]
    imports: tuple[Import, ...]
    exports: tuple[tuple[str | None, Interface], ...]
    limits: Limits
    bounds: StoreBounds
    probe: str | None
    mounts: tuple[Mount, ...]
    concurrency: int
    lockdown: str


def exported(exports: Sequence[tuple[str | None, Interface]]) -> list[tuple[str | None, Function]]:
    """Every exported function with the name of its interface; the position is the number that calls name."""
    return [(name, function) for name, interface in exports for function in interface.functions]


def order_of(lodging: Lodging) -> Order:
    """The order that tells it all, but for the descriptors, which travel beside it."""
    limits = lodging.limits
    return Order(
        plugin=lodging.plugin,
        profile={**as_dict(lodging.profile), "metering": lodging.profile.metering.value},
        modules=[name for name, _ in lodging.modules],
        imports=[_import_to_plain(item) for item in lodging.imports],
        exports=[[name, function_to_plain(function)] for name, function in exported(lodging.exports)],
        limits=as_dict(limits),
        bounds=as_dict(lodging.bounds),
        probe=lodging.probe,
        mounts=[(mount.name, mount.writable) for mount in lodging.mounts],
        data_bytes=min(BASE_BYTES + lodging.concurrency * (limits.memory_bytes + CALL_BYTES), 1024 * GIB),
    )


def profile_of(order: Order) -> Profile:
    """The engine profile."""
    return Profile(**{**order.profile, "metering": Metering(order.profile["metering"])})


def imports_of(order: Order) -> list[Import]:
    """What the host provides or denies."""
    return [_import_from_plain(plain) for plain in order.imports]


def exports_of(order: Order) -> list[tuple[str | None, Function]]:
    """The exported functions, as `exported` lists them."""
    return [(name, function_from_plain(plain)) for name, plain in order.exports]


def lodging_of(order: Order, component: int, concurrency: int, lockdown: str) -> Lodging:
    """The lodging that `order_of` would make this order of: one component, without modules and mounts of its own."""
    interfaces: dict[str | None, list[Function]] = {}
    for name, function in exports_of(order):
        interfaces.setdefault(name, []).append(function)
    return Lodging(
        plugin=order.plugin,
        profile=profile_of(order),
        component=component,
        modules=(),
        imports=tuple(imports_of(order)),
        exports=tuple((name, Interface(name or "", tuple(functions))) for name, functions in interfaces.items()),
        limits=Limits(**order.limits),
        bounds=StoreBounds(**order.bounds),
        probe=order.probe,
        mounts=(),
        concurrency=concurrency,
        lockdown=lockdown,
    )


def _import_to_plain(item: Import) -> list[Any]:
    by_name = {function.name: function for function in item.functions}
    answers = {
        name: b"".join(WirePlan(by_name[name]).write_result(value, None, _MOST_ANSWER_BYTES, by_host=True).segments)
        for name, value in item.answers.items()
        if name in by_name
    }
    return [
        item.name,
        item.capability,
        [function_to_plain(function) for function in item.functions],
        [[name, to_plain(kind)] for name, kind in item.resources],
        item.closed,
        answers,
    ]


def _import_from_plain(plain: Any) -> Import:
    name, capability, functions, resources, closed, answers = plain
    found = tuple(map(function_from_plain, functions))
    by_name = {function.name: function for function in found}
    return Import(
        name,
        capability,
        found,
        tuple((word, from_plain(kind)) for word, kind in resources),
        closed,
        {
            word: WirePlan(by_name[word]).read_result(memoryview(data), None, _MOST_ANSWER_BYTES)[0]
            for word, data in answers.items()
        },
    )
