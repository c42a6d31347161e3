"""What the first Python plugin costs to compile on an empty cache, and the second one after it.

    python tests/bench/compile_time.py [--builds DIR]

Components are built beforehand. Each `Host.load` is timed as a caller sees it; below it stands what was compiled.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import cloche
from cloche.artifact import component_ref, read_manifest
from cloche.build.builder import build_plugin
from cloche.build.settings import build_settings
from cloche.config import Settings
from cloche.resources import guests_dir

GUESTS = ("hello", "markdown", "noop")


def main() -> int:
    """Build, then load one after the other with an empty cache."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--builds", type=Path, help="a cache of built components to use")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cloche-bench-") as directory:
        home = Path(directory)
        cache = options.builds or home / "builds"
        paths = [build(guests_dir() / name, cache) for name in GUESTS]
        settings = replace(Settings.from_environment(), home=home, background_compile=False)
        with cloche.Host(settings=settings) as host:
            seen = 0
            for name, path in zip(GUESTS, paths, strict=True):
                started = time.perf_counter()
                host.load(path, trust=cloche.Trusted("benchmark"))
                seconds = time.perf_counter() - started
                compiled = host.events.recent(kind=cloche.EventKind.COMPILE)[seen:]
                seen += len(compiled)
                total = sum(event.data["wall_ms"] for event in compiled) / 1000
                print(f"{name:<9} load {seconds:6.2f} s, of which compiling {total:6.2f} s in {len(compiled)} parts")
                for event in compiled:
                    what = f"{event.data['kind']} {event.data['digest'][:12]}"
                    print(f"          {event.data['wall_ms'] / 1000:6.2f} s  {event.data['wasm_bytes']:>10,} B  {what}")
        return 0


def build(directory: Path, cache: Path) -> Path:
    """The component of the plugin in `directory`, from `cache` where it is there."""
    manifest = read_manifest(directory)
    return build_plugin(directory, build_settings(directory, manifest.id, component_ref(manifest)), cache=cache).path


if __name__ == "__main__":
    sys.exit(main())
