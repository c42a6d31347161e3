"""Calls of `cloche:plugin/lifecycle` on one instance. Source: wit/plugin/lifecycle.wit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from cloche.engine.instance import Cancellation, Instance
from cloche.errors import GuestError
from cloche.model import Err, Limits, Ok
from cloche.runtime.functions import shown
from cloche.wit.types import Export, Interface

LIFECYCLE = "cloche:plugin/lifecycle"

HOOK_DEADLINE_MS = 10_000
"""Longest time for initialize, start, stop and health, each."""


class Hooks:
    """The lifecycle functions that a plugin exports, if any. Bounded in time; raises what a call raises."""

    def __init__(self, export: str | None, interface: Interface | None, limits: Limits) -> None:
        functions = () if interface is None else interface.functions
        self._functions = {function.name: Export(export, function) for function in functions}
        self._limits = replace(limits, deadline_ms=min(limits.deadline_ms, HOOK_DEADLINE_MS))

    def initialize(self, instance: Instance, config: Mapping[str, str], control: Cancellation | None) -> None:
        """Tell a new instance its configuration, sorted by key. Raises: GuestError when it refuses."""
        self._call(instance, "initialize", (sorted(config.items()),), control)

    def start(self, instance: Instance, control: Cancellation | None) -> None:
        """Before the first call of a `single` plugin. Raises: GuestError when it refuses."""
        self._call(instance, "start", (), control)

    def stop(self, instance: Instance) -> None:
        """After the last call of a `single` plugin."""
        self._call(instance, "stop", (), None)

    def health(self, instance: Instance) -> object:
        """What the plugin says about itself; None when it does not export lifecycle."""
        return self._call(instance, "health", (), None)

    def _call(self, instance: Instance, name: str, args: tuple[object, ...], control: Cancellation | None) -> object:
        function = self._functions.get(name)
        if function is None:
            return None
        value, usage = instance.call(function, args, self._limits, control)
        if isinstance(value, Err):
            raise GuestError(f"{name} refused: {shown(value.value, usage)}", value.value, usage=usage)
        return value.value if isinstance(value, Ok) else value
