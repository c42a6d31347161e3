"""A plugin's granted capabilities, opened for each instance on first use and closed with it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cloche.capabilities.api import Capability, HostInterface, Session
from cloche.engine.instance import Instance, Target
from cloche.engine.slots import HostSlot
from cloche.errors import CapabilityError
from cloche.grants.schema import Params
from cloche.model import Limits, Tier
from cloche.observe.events import Event, EventKind, Sink
from cloche.wit.names import snake
from cloche.wit.types import Function, FunctionKind


@dataclass(frozen=True, slots=True)
class Granted:
    """A capability and the parameters that this plugin was granted."""

    capability: Capability
    params: Params


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a plugin is, for sessions and events."""

    plugin: str
    version: str
    tier: Tier


class Services:
    """Opens sessions of one plugin's capabilities. Shared by its instances; thread-safe because it only reads.

    `provided` maps an interface as the component imports it to the provider's interface id. Without `is_heard` what the
    plugin prints goes nowhere.
    """

    def __init__(
        self,
        identity: Identity,
        limits: Limits,
        granted: Mapping[str, Granted],
        provided: Mapping[str, str],
        storage: Path,
        config: Mapping[str, str],
        secrets: Mapping[str, str],
        sink: Sink,
        *,
        is_heard: bool = True,
    ) -> None:
        self.identity, self.limits, self.is_heard = identity, limits, is_heard
        self._granted, self._provided = granted, provided
        self._storage, self._config, self._secrets = storage, config, secrets
        self._sink = sink

    def targets(self, slots: Sequence[HostSlot]) -> Callable[[Instance], Sequence[Target]]:
        """What `Instance` wants: a function that gives an instance its table of host functions."""

        def make(instance: Instance) -> Sequence[Target]:
            return InstanceServices(self, slots, instance)

        return make

    def emit(self, kind: EventKind, data: Mapping[str, object], *, capability: str | None, call_id: int | None) -> None:
        """Add an event of this plugin to the stream."""
        who = self.identity
        self._sink(Event(kind, time.time(), who.plugin, who.version, who.tier, None, capability, call_id, dict(data)))

    def open(self, capability_id: str, instance: Instance) -> Mapping[str, HostInterface]:
        """Host objects of one capability for one instance."""
        granted = self._granted[capability_id]
        who = self.identity
        session = Session(
            plugin=who.plugin,
            version=who.version,
            tier=who.tier,
            limits=self.limits,
            storage=self._storage,
            config=self._config,
            secrets=self._secrets,
            emit=lambda kind, data: self.emit(kind, data, capability=capability_id, call_id=instance.call_id),
            call_id=lambda: instance.call_id,
        )
        return granted.capability.open(granted.params, session)

    def provider(self, interface: str) -> str:
        """The provider's interface id of an import that is provided."""
        return self._provided[interface]


class InstanceServices(Sequence[Target]):
    """One instance's host functions by position, bound when first called."""

    def __init__(self, services: Services, slots: Sequence[HostSlot], instance: Instance) -> None:
        self._services, self._slots, self._instance = services, slots, instance
        self._bound: dict[int, Target] = {}
        self._open: dict[str, Mapping[str, HostInterface]] = {}

    def __len__(self) -> int:
        return len(self._slots)

    def __getitem__(self, position: int) -> Target:  # type: ignore[override]  # never sliced
        found = self._bound.get(position)
        if found is None:
            found = self._bound[position] = self._bind(self._slots[position])
        return found

    def _bind(self, slot: HostSlot) -> Target:
        capability_id, interface_id = slot.capability, self._services.provider(slot.interface)
        opened = self._open.get(capability_id)
        if opened is None:
            opened = self._open[capability_id] = self._services.open(capability_id, self._instance)
            distinct = {id(host): host for host in opened.values()}  # one object may serve several interfaces
            self._instance.closers.extend(host.close for host in distinct.values())
        return host_function(opened[interface_id], slot.function, capability_id)


def host_function(host: object, function: Function, capability: str, name: str = "") -> Target:
    """The Python callable behind a WIT function, by the naming rules of `HostInterface` or under another `name`.

    Raises: CapabilityError (`capability.invalid`) when the host object lacks it.
    """
    word = snake(function.item_name)
    if function.kind is FunctionKind.METHOD:

        def method(subject: object, *args: object) -> object:
            return getattr(subject, word)(*args)

        return method
    if function.kind is FunctionKind.STATIC and function.resource is not None:
        word = f"{snake(function.resource.name.name)}_{word}"
    name = name or word
    found = getattr(host, name, None)
    if not callable(found):
        raise CapabilityError(
            f"capability {capability}: {type(host).__name__} has no method {name} for {function.name}",
            code="capability.invalid",
        )
    return found  # type: ignore[no-any-return]
