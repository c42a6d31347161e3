"""A sandbox that keeps its state from script to script."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Unpack

from cloche.engine.instance import Control
from cloche.errors import ClocheError, UsageError
from cloche.script.kit import WORKSPACE
from cloche.script.options import CallOptions, Request, ensure_known, script, wishes
from cloche.script.result import ScriptResult
from cloche.script.workspace import Workspace, watched

if TYPE_CHECKING:
    from cloche.engine.wasi import Mount
    from cloche.script.box import Box


class ScriptSession:
    """Scripts that see what earlier ones left: names, imports, files. A context manager; `close()` ends it.

    It has a worker of its own. Each script has the limits of a call, and memory counts for all together. After a script
    that was stopped at a limit or trapped the state is gone, and the session ended (`is_alive`): open another. One
    script at a time; further ones wait. Made by `ScriptRunner.session`. Added in 0.1.
    """

    def __init__(
        self,
        request: Request,
        box: Callable[[tuple[Mount, ...]], Box],
        note: Callable[[ScriptResult | ClocheError], None],
        forget: Callable[[ScriptSession], None],
    ) -> None:
        self._request, self._note, self._forget = request, note, forget
        self._lock = threading.Lock()
        with ExitStack() as held:
            self._space: Workspace | None = None
            mounts = request.mounts
            if request.files is not None:
                self._space = held.enter_context(Workspace(request.files, request.limits, request.plugin))
                mounts = (*mounts, self._space.mount)
            self._box = box(mounts)
            held.callback(self._box.close)
            self._instance = self._box.open(request.call, request.limits)
            held.callback(self._box.end, self._instance)
            self._held = held.pop_all()
        self._directory = None if self._space is None else f"/{WORKSPACE}"

    @property
    def is_alive(self) -> bool:
        """Whether it takes another script."""
        return self._instance.is_sound and not self._instance.finished

    def run(self, code: str, **options: Unpack[CallOptions]) -> ScriptResult:
        """Run a script where the last one left off. Blocks. `files` of the result are those that are new or changed.

        Raises: as `run_python`; UsageError (`usage.closed`) when the session has ended.
        """
        ensure_known(options, CallOptions)
        request, space, control = self._request, self._space, Control()
        limits = request.kit.limits(wishes({**options, "memory": request.limits.memory_bytes}))
        with self._lock:
            if not self.is_alive:
                raise UsageError("the session has ended, and its state is gone; open another", code="usage.closed")
            ready = script(code, options, request.names, self._directory)
            self._directory = None
            request.failures.clear()
            try:
                with watched(space, control.cancel):
                    result = self._box.run(self._instance, ready, limits, keep=True, control=control)
            except ClocheError as error:
                self._note(error)
                raise
            self._note(result)
            files = {} if space is None else space.changed()
            return replace(result, failures=tuple(request.failures), files=files)

    def close(self) -> None:
        """End its worker and remove its files. Waits for a running script. Idempotent."""
        with self._lock:
            self._held.close()
        self._forget(self)

    def __enter__(self) -> ScriptSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
