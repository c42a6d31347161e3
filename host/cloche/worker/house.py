"""Where the instances of one untrusted plugin live: its worker, taken when it is needed and again when it died."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cloche.engine.codec.wire import WirePlan
from cloche.engine.slots import HostSlot, host_slots
from cloche.errors import EngineError, LimitError, TrustError, UsageError
from cloche.frozen import replace
from cloche.model import Limits
from cloche.wit.types import ResourceType
from cloche.worker.instance import RemoteInstance, RemoteSettings
from cloche.worker.orders import Lodging, exported, order_of
from cloche.worker.plain import PlainExport
from cloche.worker.process import WorkerProcess
from cloche.worker.ready import ReadyWorkers

if TYPE_CHECKING:
    from cloche.engine.instance import Cancellation, Target

BACK_OFF_S = (0.0, 0.0, 0.05, 0.1, 0.2, 0.4, 0.8)
"""Waiting before a worker is started again, by the number of its crashes within the last minute."""


class House:
    """Makes instances of one plugin in its worker. Thread-safe. `close` it once no instance is alive.

    Raises: EngineError (`engine.worker-start`, `engine.cache`, `engine.instantiate`, `engine.resources`); TrustError
        (`trust.untrusted-unavailable`) when a worker is not confined as the policy demands. Added in 0.1.
    """

    def __init__(
        self,
        lodging: Lodging,
        tell: Callable[[str, Mapping[str, object]], None],
        ready: ReadyWorkers,
    ) -> None:
        self._lodging = lodging
        self._tell = tell
        self._ready = ready
        self._code = [os.dup(lodging.component), *(os.dup(descriptor) for _, descriptor in lodging.modules)]
        self._lock = threading.Lock()
        self._worker: WorkerProcess | None = None
        self._crashes: deque[float] = deque()
        self._quarantined = self._is_closed = False
        self._last_reason = ""
        self._live: dict[int, RemoteInstance] = {}
        functions = exported(lodging.exports)
        self._order = order_of(lodging)
        slots = tuple(host_slots(lodging.imports))
        self.settings = RemoteSettings(
            plugin=lodging.plugin,
            limits=lodging.limits,
            slots=slots,
            slot_plans=tuple(WirePlan(slot.function) for slot in slots),
            hosts=frozenset(kind for item in lodging.imports for _, kind in item.resources),
            exports={
                (export, function.name): (number, plan, PlainExport.of(plan, number))
                for number, (export, function) in enumerate(functions)
                for plan in [WirePlan(function)]
            },
            memory_bytes=self._order.data_bytes,
        )
        try:
            self._serving_worker()
        except BaseException:
            self.close()
            raise

    @property
    def slots(self) -> tuple[HostSlot, ...]:
        """The host functions that the plugin imports, by position."""
        return self.settings.slots

    def make(
        self,
        targets: Callable[[Any], Sequence[Target]],
        classes: Mapping[ResourceType, Callable[[Any, ResourceType, int], object]],
        control: Cancellation | None,
        limits: Limits,
    ) -> RemoteInstance:
        """A new instance. Raises: what a call raises; LimitError (`limit.restarts`) in quarantine."""
        settings = replace(self.settings, guest_classes=classes)
        worker = self._serving_worker()
        try:
            instance = RemoteInstance(worker, settings, targets, control, limits)
        except EngineError as error:
            # Nothing of the caller's has happened yet, so one that ended while nobody looked is no matter.
            if error.code != "engine.worker-lost":
                raise
            instance = RemoteInstance(self._serving_worker(), settings, targets, control, limits)
        self._live[instance.context] = instance
        return instance

    def end(self, instance: RemoteInstance) -> None:
        """Forget an instance that is closed."""
        self._live.pop(instance.context, None)

    def instances(self) -> list[RemoteInstance]:
        """Those that are alive."""
        return list(self._live.values())

    def reset(self) -> None:
        """End a quarantine."""
        with self._lock:
            self._crashes.clear()
            self._quarantined = False

    def abandon(self) -> None:
        """End the worker without waiting for it, when nobody closed the host."""
        worker = self._worker
        if worker is not None:
            worker.kill("nobody needs it any more")

    def close(self) -> None:
        """End the worker. Idempotent."""
        with self._lock:
            self._is_closed = True
            worker, self._worker = self._worker, None
            code, self._code = self._code, []
        for descriptor in code:
            os.close(descriptor)
        if worker is not None:
            worker.close()

    def _serving_worker(self) -> WorkerProcess:
        with self._lock:
            if self._is_closed:
                raise UsageError(f"plugin {self._lodging.plugin} is closed", code="usage.closed")
            worker = self._worker
            if worker is not None and worker.is_usable:
                return worker
            self._worker = None
            if worker is not None:
                worker.close()
                self._tell("worker-ended", {"reason": worker.reason})
                if worker.is_crashed:
                    self._crashes.append(time.monotonic())
                    self._last_reason = worker.reason
            self._ensure_may_start()
            self._worker = worker = self._started()
            return worker

    def _ensure_may_start(self) -> None:
        """Wait after crashes, longer after more. Raises: LimitError (`limit.restarts`) after too many."""
        now = time.monotonic()
        while self._crashes and now - self._crashes[0] > 60 and not self._quarantined:
            self._crashes.popleft()
        most = self._lodging.limits.restarts_per_minute
        if len(self._crashes) > most:
            self._quarantined = True
            raise LimitError(
                f"the worker of {self._lodging.plugin} ended {len(self._crashes)} times within a minute (last: "
                f"{self._last_reason}) and the plugin is quarantined; mend it, then reset it (`plugin.reset()`) or "
                "load it again",
                code="limit.restarts",
                plugin=self._lodging.plugin,
            )
        time.sleep(BACK_OFF_S[min(len(self._crashes), len(BACK_OFF_S) - 1)])

    def _started(self) -> WorkerProcess:
        mounts = [os.open(mount.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for mount in self._lodging.mounts]
        try:
            worker, level = self._ready.start(self._order, [*self._code, *mounts])
        finally:
            for descriptor in mounts:
                os.close(descriptor)
        if not level.meets(self._lodging.lockdown):
            worker.close()
            raise TrustError(
                f"a worker is confined by {level.word} here, and the policy demands {self._lodging.lockdown}; "
                "`cloche doctor` says what this system lacks",
                code="trust.untrusted-unavailable",
                plugin=self._lodging.plugin,
            )
        self._tell("worker-started", {"pid": worker.pid, "level": level.word})
        return worker
