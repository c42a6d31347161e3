"""One script in a worker of its own, started and ended for it: what `cloche exec` runs.

A second run of an image finds all that was decided and compiled on disk (`script.record`), authenticated, and loads
no room of the host that it does not need.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloche.config import Settings, ensure_private_directory
from cloche.script.box import Box
from cloche.script.image import Image
from cloche.script.options import Request
from cloche.script.record import Records
from cloche.script.result import ScriptResult

if TYPE_CHECKING:
    from cloche.engine.compile import ProgressSink
    from cloche.script.kit import Kit


def run_alone(
    image: Image,
    code: str,
    options: dict[str, Any],
    *,
    policy: str | None,
    progress: Callable[[], AbstractContextManager[ProgressSink]],
) -> ScriptResult:
    """Run one script. Blocks; when it returns or raises, its worker is gone.

    `policy` is a file in place of the operator's; `progress` opens a display for when the image is built and compiled.
    Raises: as `run_python`.
    """
    settings = Settings.from_environment()
    records = Records(
        ensure_private_directory(settings.home), image, Path(policy) if policy else settings.policy_file()
    )
    kit = records.load() or _prepared(records, settings, policy, progress)
    try:
        return _run(kit, code, options)
    finally:
        kit.close()


def _prepared(
    records: Records,
    settings: Settings,
    policy: str | None,
    progress: Callable[[], AbstractContextManager[ProgressSink]],
) -> Kit:
    from cloche.script.prepare import prepare  # noqa: PLC0415 - the whole host, for the first time only

    with progress() as sink:
        kit = prepare(records.image, policy=policy, settings=settings, progress=sink)
    records.save(kit)
    return kit


def _run(kit: Kit, code: str, options: dict[str, Any]) -> ScriptResult:
    request = Request(kit, code, options)  # type: ignore[arg-type]
    box = Box(kit, request.limits, request.mounts, lambda *_: None)
    try:
        instance = box.open(request.call, request.limits)
        try:
            return box.run(instance, request.script, request.limits)
        finally:
            box.end(instance)
    finally:
        box.close()
