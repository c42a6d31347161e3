"""Starts the launcher, which limits itself and then becomes or runs what the plan says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def start_child(
    plan: Mapping[str, Any],
    *,
    report: int,
    stdin: int,
    stdout: int,
    stderr: int,
    environment: Mapping[str, str],
    directory: str = "/",
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start the launcher in a session of its own, with nothing of this process but what is named.

    `plan` is what the launcher reads; `report` the descriptor on which it tells how far it got. The caller waits
    for the child, kills it and reaps it. Raises: OSError. Added in 0.1.
    """
    package = Path(__file__).resolve().parent.parent
    full_plan = {
        "path": [],
        "supervised": False,
        "nice": 0,
        **plan,
        "report": report,
        "parent": os.getpid(),
        "package": str(package),
    }
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-B", str(package / "confine" / "launcher.py"), json.dumps(full_plan)],
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env=environment,
        cwd=directory,
        close_fds=True,
        pass_fds=(report, *pass_fds),
        start_new_session=True,
    )
