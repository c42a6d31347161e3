"""Runs untrusted Python scripts: the runner behind `run_python`, with a worker that they share one after the other."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Unpack, cast

from cloche.engine.instance import Control
from cloche.engine.wasi import Mount, outward_links
from cloche.errors import ClocheError, EngineError, LimitError, UsageError
from cloche.model import Limits, Tier
from cloche.observe.events import Event, EventKind
from cloche.observe.stream import EventStream
from cloche.script.box import Box
from cloche.script.image import Image, image_of
from cloche.script.kit import Kit
from cloche.script.options import Request, ScriptOptions, SessionOptions, ensure_known
from cloche.script.prepare import prepare
from cloche.script.result import ScriptResult
from cloche.script.session import ScriptSession
from cloche.script.workspace import Workspace, watched
from cloche.worker.ready import ReadyWorkers

if TYPE_CHECKING:
    from cloche.config import Settings
    from cloche.engine.compile import ProgressSink
    from cloche.grants.policy import Policy
    from cloche.observe.events import Sink

MOST_SCRIPTS = 100
"""Scripts that one worker runs before another takes its place."""


class ScriptRunner:
    """Runs scripts of one image under one policy. A context manager; `close()` ends its workers. Thread-safe.

    `image` is `"python"`, a path or an `Image`; `policy`, `home`, `settings` and `sinks` are as for `Host`. Scripts are
    always untrusted. Each has a fresh instance, in a worker process that is locked in and runs nothing but this
    runner's scripts; another takes its place after `MOST_SCRIPTS`, and when it had to be killed. Scripts with `mounts`
    or `files`, and sessions, have a worker of their own. `progress` is told about anything over a second while the
    image is built and compiled, with the first script. Added in 0.1.

    Raises: UsageError (`usage.not-found`) for an image that there is none.
    """

    def __init__(
        self,
        *,
        image: str | Path | Image = "python",
        policy: Policy | Path | str | None = None,
        home: Path | str | None = None,
        settings: Settings | None = None,
        sinks: Sequence[Sink] = (),
        progress: ProgressSink | None = None,
    ) -> None:
        self.image = image_of(image)
        self.events = EventStream(sinks)

        def prepared(anew: bool) -> Kit:
            return prepare(
                self.image,
                policy=policy,
                home=home,
                settings=settings,
                sinks=[self.events],
                progress=progress,
                anew=anew,
            )

        self._prepare = prepared
        self._lock = threading.RLock()
        self._workers = ReadyWorkers(1)
        self._kit: Kit | None = None
        self._shared: _Shared | None = None
        self._sessions: set[ScriptSession] = set()
        self._threads: ThreadPoolExecutor | None = None
        self._room = threading.BoundedSemaphore(os.cpu_count() or 1)
        self._is_closed = False

    def start(self) -> None:
        """Have a worker ready for the first script. Blocks as the first script would. Raises: as `run_python`."""
        kit = self._ready()
        self._enter(kit, kit.limits({})).leave()

    def run(self, code: str, **options: Unpack[ScriptOptions]) -> ScriptResult:
        """Run one script in a fresh sandbox. Options and errors as of `run_python`. Blocks until it has ended."""
        return self._run(code, options, Control())

    async def run_async(self, code: str, **options: Unpack[ScriptOptions]) -> ScriptResult:
        """The same without blocking the event loop. Cancelling stops the script and raises after clean-up."""
        control = Control()
        with self._lock:
            self._ensure_open()
            if self._threads is None:
                self._threads = ThreadPoolExecutor(os.cpu_count() or 1, "cloche-script")
            future = self._threads.submit(self._run, code, options, control)
        answer = asyncio.wrap_future(future)
        try:
            return await asyncio.shield(answer)
        except asyncio.CancelledError:
            control.cancel()
            future.cancel()
            await asyncio.wait([answer])
            if not answer.cancelled():
                answer.exception()
            raise

    def session(self, **options: Unpack[SessionOptions]) -> ScriptSession:
        """A sandbox that keeps its state between scripts, for notebooks and agents. Close it when done.

        `functions`, `mounts`, `files` and `memory` are as for `run_python`. Raises: as `run_python`.
        """
        kit = self._ready()
        ensure_known(options, SessionOptions)
        request = Request(kit, "", cast(ScriptOptions, options))
        with self._lock:
            self._ensure_open()
            session = ScriptSession(request, lambda mounts: self._box(request, mounts), self._note, self._forget)
            self._sessions.add(session)
        return session

    def close(self) -> None:
        """End every worker and session. Blocks for running scripts. Idempotent."""
        with self._lock:
            self._is_closed = True
            threads, shared, kit, sessions = self._threads, self._shared, self._kit, list(self._sessions)
            self._threads = self._shared = self._kit = None
        if threads is not None:
            threads.shutdown()
        for session in sessions:
            session.close()
        if shared is not None:
            shared.retire()
        self._workers.close()
        if kit is not None:
            kit.close()

    def __enter__(self) -> ScriptRunner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- one script ------------------------------------------------------------------------------------------------

    def _run(self, code: str, options: ScriptOptions, control: Control) -> ScriptResult:
        ensure_known(options, ScriptOptions)
        request = Request(self._ready(), code, options)
        if request.files is None:
            return self._run_in(request, None, control)
        with Workspace(request.files, request.limits, request.plugin) as space:
            result = self._run_in(request, space, control)
            return replace(result, files=space.changed())

    def _run_in(self, request: Request, space: Workspace | None, control: Control) -> ScriptResult:
        mounts = request.mounts if space is None else (*request.mounts, space.mount)
        with self._placed(request, mounts) as box, watched(space, control.cancel):
            try:
                instance = box.open(request.call, request.limits, control)
                try:
                    result = box.run(instance, request.script, request.limits, control=control)
                finally:
                    box.end(instance)
            except ClocheError as error:
                self._note(error)
                raise
        self._note(result)
        return replace(result, failures=tuple(request.failures))

    @contextmanager
    def _placed(self, request: Request, mounts: tuple[Mount, ...]) -> Iterator[Box]:
        """A box for one script: the shared one where it needs nothing of its own."""
        if not self._room.acquire(timeout=request.limits.deadline_ms / 1000):
            raise LimitError(
                f"too many scripts at once: none ended within this one's deadline of {request.limits.deadline_ms} ms",
                code="limit.queue",
                plugin=request.plugin,
            )
        try:
            if mounts:
                box = self._box(request, mounts)
                try:
                    yield box
                finally:
                    box.close()
                    self._note_links(request)
            else:
                shared = self._enter(request.kit, request.limits)
                try:
                    yield shared.box
                finally:
                    shared.leave()
        finally:
            self._room.release()

    def _enter(self, kit: Kit, limits: Limits) -> _Shared:
        with self._lock:
            self._ensure_open()
            shared = self._shared
            if shared is None or not shared.enter(limits):
                if shared is not None:
                    shared.retire()
                shared = self._shared = _Shared(self._new_box(kit, limits, ()), limits)
            return shared

    def _box(self, request: Request, mounts: tuple[Mount, ...]) -> Box:
        return self._new_box(request.kit, request.limits, mounts)

    def _new_box(self, kit: Kit, limits: Limits, mounts: tuple[Mount, ...]) -> Box:
        """A box. Code that the engine refuses is compiled anew, once."""
        self._workers.begin()
        try:
            return Box(kit, limits, mounts, self._tell, self._workers)
        except EngineError as error:
            if error.code != "engine.cache":
                raise
        with self._lock:
            self._ensure_open()
            if self._kit is kit:
                self._kit = self._prepare(True)
                kit.close()
            kit = self._ready()
        return Box(kit, limits, mounts, self._tell, self._workers)

    def _ready(self) -> Kit:
        """The kit, made for the first script."""
        with self._lock:
            self._ensure_open()
            if self._kit is None:
                self._kit = self._prepare(False)
            return self._kit

    def _ensure_open(self) -> None:
        if self._is_closed:
            raise UsageError("the script runner is closed", code="usage.closed")

    def _forget(self, session: ScriptSession) -> None:
        with self._lock:
            self._sessions.discard(session)

    # -- events ----------------------------------------------------------------------------------------------------

    def _tell(self, what: str, data: Mapping[str, object]) -> None:
        self._emit(EventKind.WORKER, {"event": what, **data})

    def _note(self, ended: ScriptResult | ClocheError) -> None:
        """An event for a script that ended, one way or the other."""
        if isinstance(ended, ScriptResult):
            self._emit(EventKind.CALL, {"function": "execute", "usage": ended.usage.to_json()})
            return
        usage = None if ended.usage is None else ended.usage.to_json()
        kind = EventKind.LIMIT if ended.code.startswith("limit.") else EventKind.TRAP
        self._emit(kind, {"code": ended.code, "message": ended.message, "function": "execute", "usage": usage})

    def _note_links(self, request: Request) -> None:
        """Tell of links that a script may have left in a mount, and that others would follow (H27)."""
        for mount in request.mounts:
            for link in outward_links(mount) if mount.writable else ():
                data = {"text": "a link in a writable mount leads out of it", "untrusted": {"path": link}}
                self._emit(EventKind.WARNING, data)

    def _emit(self, kind: EventKind, data: Mapping[str, object]) -> None:
        kit = self._kit
        name = None if kit is None else kit.lodging.plugin
        self.events(Event(kind, time(), name, None, Tier.UNTRUSTED, None, None, None, data))


class _Shared:
    """A box for many scripts with the same memory limit, closed when it is retired and its last one has left."""

    def __init__(self, box: Box, limits: Limits) -> None:
        self.box = box
        self._memory_bytes, self._served, self._inside = limits.memory_bytes, 1, 1
        self._is_retired = False
        self._lock = threading.Lock()

    def enter(self, limits: Limits) -> bool:
        """Whether it takes one more script, which then must `leave`."""
        with self._lock:
            if self._is_retired or self._served >= MOST_SCRIPTS or limits.memory_bytes != self._memory_bytes:
                return False
            self._served += 1
            self._inside += 1
            return True

    def leave(self) -> None:
        """A script has ended."""
        with self._lock:
            self._inside -= 1
            is_over = self._is_retired and not self._inside
        if is_over:
            self.box.close()

    def retire(self) -> None:
        """Take no more; close once nobody is inside. Idempotent."""
        with self._lock:
            is_over = not self._is_retired and not self._inside
            self._is_retired = True
        if is_over:
            self.box.close()
