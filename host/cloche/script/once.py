"""`run_python`: one script, one call, with a runner that this process keeps."""

from __future__ import annotations

import atexit
import os
import threading
from pathlib import Path
from typing import Unpack

from cloche.script.image import Image, image_of
from cloche.script.options import ScriptOptions
from cloche.script.result import ScriptResult
from cloche.script.runner import ScriptRunner

_lock = threading.Lock()
_runners: dict[Image, ScriptRunner] = {}
_owner = os.getpid()


def run_python(code: str, *, image: str | Path | Image = "python", **options: Unpack[ScriptOptions]) -> ScriptResult:
    """Run untrusted Python in a fresh sandbox and return what it did. Blocks until it has ended.

        result = cloche.run_python("import sys; print(sys.stdin.read().upper())", stdin="hello")
        assert (result.ok, result.stdout) == (True, "HELLO\\n")

    Options (all optional; see `script.options`): `name`, `arguments`, `stdin`, `environment`; `files` (relative path →
    bytes or text; the script starts in a directory with them, and the result has those that it made or changed),
    `mounts` (name → directory, with `:rw` to let it write), `functions` (name → Python function that the script may
    call); limits `fuel`, `deadline`, `memory`, `output`, `host_calls`, `host_bytes`, `data`, in the forms of manifests.
    Nothing else of this machine can be reached. The operator's policy may refuse mounts, files and functions, and caps
    the limits. `image` is what it runs in.

    A script that fails returns, too (`ok` is False). The first script builds and compiles the interpreter if nobody did
    (half a minute), and starts a worker, which is kept until this process ends; then one takes milliseconds. Thread-safe.

    Raises: LimitError (`limit.*`: the script was stopped, or left a `MemoryError` uncaught; `limit.range` for an option);
        GrantError and TrustError (the policy refuses); UsageError (`usage.argument`); GuestTrap; EngineError. Errors have
        the script's `usage`. Added in 0.1.
    """
    return _runner(image_of(image)).run(code, **options)


def _runner(image: Image) -> ScriptRunner:
    global _owner
    with _lock:
        if _owner != os.getpid():  # a forked child: what its parent keeps is the parent's
            _runners.clear()
            _owner = os.getpid()
        found = _runners.get(image)
        if found is None:
            found = _runners[image] = ScriptRunner(image=image)
        return found


@atexit.register
def _close() -> None:
    if _owner == os.getpid():
        for runner in _runners.values():
            runner.close()
