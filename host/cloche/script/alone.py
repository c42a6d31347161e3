"""One script in a worker of its own, started and ended for it: what `cloche exec` runs.

A second run of an image finds all that was decided and compiled on disk (`script.record`), authenticated, and loads
no room of the host that it does not need. The worker starts first; while it does, the code is verified on one thread
and what serves the worker is imported on another.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from cloche.config import Settings, ensure_private_directory
from cloche.worker.process import WorkerProcess
from cloche.worker.ready import ReadyWorkers

if TYPE_CHECKING:
    from cloche.engine.compile import ProgressSink
    from cloche.script.kit import Kit
    from cloche.script.result import ScriptResult


def run_alone(
    image: str,
    code: str,
    options: dict[str, Any],
    *,
    policy: str | None,
    progress: Callable[[], AbstractContextManager[ProgressSink]],
) -> ScriptResult:
    """Run one script. Blocks; when it returns or raises, its worker is gone.

    `image` is as for `run_python`, `policy` a file in place of the operator's; `progress` opens a display for when the
    image is built and compiled. Raises: as `run_python`.
    """
    with ExitStack() as held:
        ready = ReadyWorkers(0)
        held.callback(ready.close)
        ready.adopt(WorkerProcess())
        search = _Search(image, policy)
        search.start()
        from cloche.script.box import Box  # noqa: PLC0415 - while the worker starts and the search reads
        from cloche.script.options import Request  # noqa: PLC0415 - likewise

        kit = search.found(progress)
        held.callback(kit.close)
        request = Request(kit, code, options)  # type: ignore[arg-type]
        box = Box(kit, request.limits, request.mounts, lambda *_: None, ready)
        held.callback(box.close)
        instance = box.open(request.call, request.limits)
        held.callback(box.end, instance)
        held.callback(box.abandon)  # first of all: a worker that is gone has no instance to close
        return box.run(instance, request.script, request.limits)


class _Search(Thread):
    """Looks for the image's record, and verifies the code that it names."""

    def __init__(self, image: str, policy: str | None) -> None:
        super().__init__(name="cloche-record", daemon=True)
        self._image, self._policy = image, policy
        self._kit: Kit | None = None
        self._error: BaseException | None = None

    def run(self) -> None:
        """On its own thread."""
        try:
            from cloche.script.image import image_of  # noqa: PLC0415 - beside what the other thread imports
            from cloche.script.record import Records  # noqa: PLC0415 - likewise

            self._settings = settings = Settings.from_environment()
            policy = Path(self._policy) if self._policy else settings.policy_file()
            self._records = Records(ensure_private_directory(settings.home), image_of(self._image), policy)
            self._kit = self._records.load()
        except BaseException as error:  # raised where it can be told
            self._error = error

    def found(self, progress: Callable[[], AbstractContextManager[ProgressSink]]) -> Kit:
        """The kit; built, decided and compiled where there is none. Raises: as `prepare`."""
        self.join()
        if self._error is not None:
            raise self._error
        if self._kit is not None:
            return self._kit
        from cloche.script.prepare import prepare  # noqa: PLC0415 - the whole host, for the first time only

        with progress() as sink:
            kit = prepare(self._records.image, policy=self._policy, settings=self._settings, progress=sink)
        self._records.save(kit)
        return kit
