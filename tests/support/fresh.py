"""A fresh interpreter that imports rooms of the host as a worker does, and as a program that runs one script does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np

import cloche

WORKER_SIDE = "cloche.worker.child"
HOST_SIDE = "cloche.worker.house, cloche.worker.instance, cloche.worker.process, cloche.engine.codec.wire"

_PREPARE = """
import sys
sys.path[:0] = {path!r}
sys.modules["typing_extensions"] = None  # as `confine/launcher.py` does
from time import perf_counter
begun = perf_counter()
import {modules}
"""


def fresh(modules: str, then: str) -> str:
    """What `then` prints after `modules` were imported by an interpreter that had imported nothing."""
    places = {str(Path(package.__file__ or "").parents[1]) for package in (cloche, msgspec, np)}
    code = _PREPARE.format(path=sorted(places), modules=modules) + then
    return subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True, capture_output=True, text=True).stdout
