"""Calls of `cloche:plugin/lifecycle` on one instance. Source: wit/plugin/lifecycle.wit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from cloche.engine.instance import Cancellation, Instance
from cloche.errors import GuestError
from cloche.model import Err, Limits, Ok, Usage
from cloche.runtime.functions import shown
from cloche.wit.types import Export, Interface

LIFECYCLE = "cloche:plugin/lifecycle"

HOOK_DEADLINE_MS = 10_000
"""Longest time for initialize, start, stop and health, each."""


class Hooks:
    """The lifecycle functions that a plugin exports, if any. Bounded in time; raises what a call raises.

    They are no calls of the plugin: `Usage.instance_calls` does not count them.
    """

    def __init__(self, export: str | None, interface: Interface | None, limits: Limits) -> None:
        functions = () if interface is None else interface.functions
        self._functions = {function.name: Export(export, function) for function in functions}
        self._limits = _bounded(limits)

    def initialize(
        self, instance: Instance, config: Mapping[str, str], limits: Limits, control: Cancellation | None
    ) -> Usage:
        """Tell a new instance its configuration, sorted by key; what that cost. Raises: GuestError when it refuses."""
        return self._call(instance, "initialize", (sorted(config.items()),), _bounded(limits), control)[1]

    def start(self, instance: Instance, control: Cancellation | None) -> Usage:
        """Before the first call of a `single` plugin; what that cost. Raises: GuestError when it refuses."""
        return self._call(instance, "start", (), self._limits, control)[1]

    def stop(self, instance: Instance, control: Cancellation | None) -> None:
        """After the last call of a `single` plugin."""
        self._call(instance, "stop", (), self._limits, control)

    def health(self, instance: Instance, control: Cancellation | None) -> object:
        """What the plugin says about itself; None when it does not export lifecycle."""
        return self._call(instance, "health", (), self._limits, control)[0]

    def _call(
        self,
        instance: Instance,
        name: str,
        args: tuple[object, ...],
        limits: Limits,
        control: Cancellation | None,
    ) -> tuple[object, Usage]:
        function = self._functions.get(name)
        if function is None:
            return None, Usage()
        value, usage = instance.call(function, args, limits, control)
        instance.calls -= 1
        if isinstance(value, Err):
            raise GuestError(f"{name} refused: {shown(value.value, usage)}", value.value, usage=usage)
        return value.value if isinstance(value, Ok) else value, usage


def _bounded(limits: Limits) -> Limits:
    return replace(limits, deadline_ms=min(limits.deadline_ms, HOOK_DEADLINE_MS))
