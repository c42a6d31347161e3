"""Memory, threads and descriptors over many calls and many instances of one Python guest.

    python tests/bench/leaks.py [--home DIR]

10,000 calls of a pooled instance, then 1,000 fresh instances with one call each. Both are run once beforehand, so that
caches are full and only what grows with use is left.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cloche
from cloche.config import Settings
from cloche.resources import guests_dir

CALLS, INSTANCES = 10_000, 1_000


def state() -> tuple[int, int, int]:
    """Resident KiB, threads of the process, open descriptors."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return (
        pages * os.sysconf("SC_PAGE_SIZE") // 1024,
        len(list(Path("/proc/self/task").iterdir())),
        len(list(Path("/proc/self/fd").iterdir())),
    )


def watch(what: str, warm: Callable[[], None], run: Callable[[], None]) -> None:
    """Warm up, run, and print what changed."""
    warm()
    before = state()
    run()
    after = state()
    growth = after[0] - before[0]
    print(
        f"{what:<24} RSS {before[0]:>8,} -> {after[0]:>8,} KiB ({growth:+,}), "
        f"threads {before[1]} -> {after[1]}, descriptors {before[2]} -> {after[2]}"
    )


def repeat(function: cloche.BoundFunction, times: int) -> Callable[[], None]:
    """Calls `function` so often."""

    def run() -> None:
        for _ in range(times):
            function(20, 22)

    return run


def main() -> int:
    """Run both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--home", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cloche-bench-") as temporary:
        compare(options.home or Path(temporary))
    return 0


def compare(home: Path) -> None:
    """Both, with everything below `home`."""
    settings = replace(Settings.from_environment(), home=home, background_compile=False)
    with cloche.Host(settings=settings) as host:
        pooled = host.load(guests_dir() / "noop", trust=cloche.Trusted("benchmark"))
        add = pooled["cloche:noop/scalar"].add

        watch(f"{CALLS:,} pooled calls", repeat(add, CALLS), repeat(add, CALLS))
        component = host.inspect(guests_dir() / "noop").artifact.component
        fresh = host.load_bytes(component, trust=cloche.Trusted("benchmark"))
        once = fresh["cloche:noop/scalar"].add
        watch(f"{INSTANCES:,} fresh instances", repeat(once, 100), repeat(once, INSTANCES))


if __name__ == "__main__":
    sys.exit(main())
