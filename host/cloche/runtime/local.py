"""Where the instances of a trusted plugin live: in this process, made from a linker."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from cloche.engine.engine import Engine
from cloche.engine.instance import Cancellation, Instance, Settings, Target
from cloche.engine.linker import Linker
from cloche.engine.slots import HostSlot
from cloche.model import Limits
from cloche.wit.types import ResourceType


class LocalHouse:
    """Makes instances of one plugin in this process. Thread-safe. `close` it once no instance is alive."""

    def __init__(self, engine: Engine, linker: Linker, settings: Settings, newer: Callable[[], Linker | None]) -> None:
        self._engine, self._linker, self._settings, self._newer = engine, linker, settings, newer
        self.slots: Sequence[HostSlot] = linker.slots
        self._uses: dict[Linker, int] = {linker: 0}
        """Instances of each linker that is not closed; all but the newest are closed with their last one."""
        self._lock = threading.Lock()

    def make(
        self,
        targets: Callable[[Any], Sequence[Target]],
        classes: Mapping[ResourceType, Callable[[Any, ResourceType, int], object]],
        control: Cancellation | None,
        limits: Limits,
    ) -> Instance:
        """A new instance. Raises: what a call raises."""
        linker = self._borrow()
        try:
            return Instance(linker, replace(self._settings, guest_classes=classes), targets, control, limits)
        except BaseException:
            self._give_back(linker)
            raise

    def end(self, instance: Instance) -> None:
        """Forget an instance that is closed."""
        self._give_back(instance.linker)

    def instances(self) -> list[Instance]:
        """Those that are alive."""
        linkers = self._uses  # an instance lives on over the linker that it was made with
        return [instance for instance in list(self._engine.instances.values()) if instance.linker in linkers]

    def reset(self) -> None:
        """Nothing to reset: this process does not crash and go on."""

    def close(self) -> None:
        """Close every linker. Idempotent."""
        with self._lock:
            linkers, self._uses = list(self._uses), {}
        for linker in linkers:
            linker.close()

    def _borrow(self) -> Linker:
        """The linker for a new instance; the one over code compiled as a whole takes over once that is there."""
        with self._lock:  # two threads that change it at once would lose one of the new ones
            newer = self._newer()
            if newer is not None:
                older, self._linker, self.slots = self._linker, newer, newer.slots
                self._uses[newer] = 0
                self._close_unused(older)
            self._uses[self._linker] += 1
            return self._linker

    def _give_back(self, linker: Linker) -> None:
        """One instance fewer was made from it."""
        with self._lock:
            self._uses[linker] -= 1
            if linker is not self._linker:
                self._close_unused(linker)

    def _close_unused(self, linker: Linker) -> None:
        if not self._uses[linker]:
            del self._uses[linker]
            linker.close()
