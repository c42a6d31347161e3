"""Puts the WIT packages and the guests' sources into the wheel, below `cloche/_data`.

A working tree is used as it lies (see `cloche/resources.py`), so an editable installation gets nothing from here. What
building a guest leaves behind (components of 18 MB, generated bindings) stays out.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCES = ("wit", "guests")
LEFT_OUT_DIRECTORIES = {"__pycache__", "node_modules", "wit_world", "componentize-out"}
IMPORT_PACKAGE = Path("guests/sdk/cloche_guest")
LEFT_OUT_SUFFIXES = {".wasm", ".pyc", ".native"}


class DataFiles(BuildHookInterface[Any]):
    """The build hook that hatchling looks for in this file."""

    PLUGIN_NAME = "custom"

    _copies: tempfile.TemporaryDirectory[str] | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Name every data file and its place in the wheel."""
        if version == "editable":
            return
        root = Path(self.root)
        self._copies = tempfile.TemporaryDirectory()
        for source in SOURCES:
            for directory, names, files in os.walk(root / source, followlinks=True):
                names[:] = sorted(set(names) - LEFT_OUT_DIRECTORIES)
                for file in sorted(files):
                    path = Path(directory, file)
                    if path.suffix not in LEFT_OUT_SUFFIXES:
                        place = path.relative_to(root)
                        build_data["force_include"][self._once_more(path, place)] = f"cloche/_data/{place.as_posix()}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the copies."""
        del version, build_data, artifact_path
        if self._copies is not None:
            self._copies.cleanup()

    def _once_more(self, path: Path, place: Path) -> str:
        """The file to include: `path`, or a copy for what is an import package too, since each file has one place."""
        if not place.is_relative_to(IMPORT_PACKAGE):
            return str(path)
        assert self._copies is not None
        copy = Path(self._copies.name) / place
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
        return str(copy)
