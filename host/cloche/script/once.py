"""`run_python`: one script, one call, with a runner that this process keeps."""

from __future__ import annotations

import atexit
import os
import threading
from pathlib import Path
from typing import ClassVar, Unpack

from cloche.script.image import Image, image_of
from cloche.script.options import ScriptOptions
from cloche.script.result import ScriptResult
from cloche.script.runner import ScriptRunner


class _Kept:
    """The runners of this process."""

    lock = threading.Lock()
    runners: ClassVar[dict[Image, ScriptRunner]] = {}
    process = os.getpid()


def run_python(code: str, *, image: str | Path | Image = "python", **options: Unpack[ScriptOptions]) -> ScriptResult:
    """Run untrusted Python in a fresh sandbox and return what it did. Blocks until it has ended.

        result = cloche.run_python("import sys; print(sys.stdin.read().upper())", stdin="hello")
        assert (result.ok, result.stdout) == (True, "HELLO\\n")

    Options (all optional; see `script.options`): `name`, `arguments`, `stdin`, `environment`; `files` (relative path to
    bytes or text; the script starts in a directory with them, and the result has those that it made or changed),
    `mounts` (name to directory, with `:rw` to let it write), `functions` (name to Python function that the script may
    call); limits `fuel`, `deadline`, `memory`, `output`, `host_calls`, `host_bytes`, `data`, in the forms of manifests.
    Nothing else of this machine can be reached. The operator's policy may refuse mounts, files and functions, and caps
    the limits. `image` is what it runs in.

    A script that fails returns, too (`ok` is False). The first script builds and compiles the interpreter if nobody did
    (half a minute), and starts a worker, which is kept until this process ends; then one takes milliseconds. Safe from
    many threads.

    Raises: LimitError (`limit.*`: the script was stopped, or left a `MemoryError` uncaught; `limit.range` for an
        option); GrantError and TrustError (the policy refuses); UsageError (`usage.argument`); GuestTrap; EngineError.
        Errors have the script's `usage`. Added in 0.1.
    """
    return _runner(image_of(image)).run(code, **options)


def _runner(image: Image) -> ScriptRunner:
    with _Kept.lock:
        if _Kept.process != os.getpid():  # a forked child: what its parent keeps is the parent's
            _Kept.runners.clear()
            _Kept.process = os.getpid()
        found = _Kept.runners.get(image)
        if found is None:
            found = _Kept.runners[image] = ScriptRunner(image=image)
        return found


@atexit.register
def _close() -> None:
    if _Kept.process == os.getpid():
        for runner in _Kept.runners.values():
            runner.close()
