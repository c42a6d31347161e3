"""Workers that were started before anybody needs one: a start costs many calls, and nothing in it depends on a plugin.

One that waits was told nothing: it has no code, no types and no descriptor of any plugin, and serves whoever takes it.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable, Sequence
from time import monotonic

from cloche.confine.level import Level
from cloche.confine.shortage import starting_threads
from cloche.engine.forks import after_fork
from cloche.errors import EngineError
from cloche.worker.messages import Order
from cloche.worker.process import WorkerProcess

LEAST_LIFE_S = 1.0
"""A waiting worker that ends sooner is not replaced before somebody needs one: else a system that kills each new
process would be kept busy with that."""


class ReadyWorkers:
    """Keeps up to `most` workers waiting, once it was told to. Thread-safe. `close` it when done."""

    def __init__(self, most: int) -> None:
        self.spawned = 0
        """Workers that were started ahead."""
        self.handed_out = 0
        """Those of them that serve, or served, a plugin."""
        self._most = most
        self._lock = threading.Lock()
        self._waiting: dict[WorkerProcess, float] = {}
        self._filling: threading.Thread | None = None
        self._has_begun = self._is_closed = False
        after_fork(self, ReadyWorkers._begin_anew)

    @property
    def waiting(self) -> list[int]:
        """The process ids of those that wait now."""
        with self._lock:
            return [worker.pid for worker in self._waiting]

    def begin(self) -> None:
        """Keep workers waiting from now on. Does not block."""
        self._has_begun = True
        self._fill()

    def adopt(self, worker: WorkerProcess) -> None:
        """Have a worker that the caller started wait for the next order; it is closed with the others."""
        with self._lock:
            self._waiting[worker] = monotonic()

    def start(self, order: Order, descriptors: Sequence[int]) -> tuple[WorkerProcess, Level]:
        """A worker that serves `order`, one that waited or a new one, and the level that it reached.

        Blocks until it has loaded the code and is locked in; afterwards the next one is started in the background. The
        caller closes the worker. Raises: as `WorkerProcess` and its `take`.
        """
        try:
            waiting = self._taken()
            if waiting is not None:
                try:
                    return waiting, _told(waiting, order, descriptors)
                except EngineError as error:
                    if error.code != "engine.worker-start":
                        raise
                    # Perhaps it ended while nobody looked; a new one says whether it was that.
            worker = WorkerProcess()
            return worker, _told(worker, order, descriptors)
        finally:
            self._fill()

    def close(self) -> None:
        """End those that wait, and keep none from now on. Blocks until they are gone. Idempotent."""
        with self._lock:
            self._is_closed, filling = True, self._filling
        if filling is not None:
            filling.join()
        while (worker := self._any()) is not None:
            worker.close()
            self._drop(worker)

    def abandon(self) -> None:
        """End those that wait without waiting for it, when nobody closed this."""
        self._is_closed = True
        for worker in list(self._waiting):
            worker.kill("nobody closed what kept it ready")

    def __del__(self) -> None:
        self.abandon()

    def _taken(self) -> WorkerProcess | None:
        with self._lock:
            for worker in list(self._waiting):
                del self._waiting[worker]
                if worker.is_usable:
                    self.handed_out += 1
                    return worker
        return None

    def _any(self) -> WorkerProcess | None:
        with self._lock:
            return next(iter(self._waiting), None)

    def _drop(self, worker: WorkerProcess) -> float | None:
        """Forget one that waits; when it was started, None if it does not wait."""
        with self._lock:
            return self._waiting.pop(worker, None)

    def _fill(self) -> None:
        """Have workers started in the background, as many as are missing."""
        with self._lock:
            missing = self._most - len(self._waiting)
            if missing <= 0 or not self._has_begun or self._is_closed or self._filling is not None:
                return
            thread = threading.Thread(target=self._start_some, args=(missing,), name="cloche-ready", daemon=True)
            with contextlib.suppress(EngineError), starting_threads():  # then the next who needs one starts it
                thread.start()
                self._filling = thread

    def _start_some(self, count: int) -> None:
        ended = _when_ended(self)
        try:
            for _ in range(count):
                if self._is_closed:
                    return
                worker = WorkerProcess(ended)
                with self._lock:  # `close` waits for this thread
                    self._waiting[worker] = monotonic()
                    self.spawned += 1
                if not worker.is_usable:  # it ended before it was among those that wait
                    ended(worker)
        except EngineError:
            pass  # who needs one is told
        finally:
            with self._lock:
                self._filling = None

    def _ended(self, worker: WorkerProcess) -> None:
        started = self._drop(worker)
        if started is not None and monotonic() - started >= LEAST_LIFE_S:
            self._fill()

    def _begin_anew(self) -> None:
        """In a forked child: those that wait are the parent's."""
        self._lock, self._waiting, self._filling = threading.Lock(), {}, None


def _when_ended(ready: ReadyWorkers) -> Callable[[WorkerProcess], None]:
    """What a worker tells its end; it does not keep `ready` alive."""
    kept = weakref.ref(ready)

    def ended(worker: WorkerProcess) -> None:
        found = kept()
        if found is not None:
            found._ended(worker)

    return ended


def _told(worker: WorkerProcess, order: Order, descriptors: Sequence[int]) -> Level:
    try:
        return worker.take(order, descriptors)
    except BaseException:
        worker.close()
        raise
