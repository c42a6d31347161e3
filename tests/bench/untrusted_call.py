"""A scalar call of an untrusted plugin against a bare pipe round trip between two Python processes, in one run.

Reports medians and ratios; asserts nothing. Run as `./dev bench untrusted_call`.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter_ns

sys.path.insert(0, str(Path(__file__).parent.parent))

import cloche
from support.wat_plugins import write_plugin

ADD = """
(component
  (core module $m (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
    (memory (export "memory") 1)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024)))
  (core instance $i (instantiate $m))
  (func (export "add") (param "a" s32) (param "b" s32) (result s32) (canon lift (core func $i "add"))))
"""
ECHO = "import os\nwhile True:\n    data = os.read(0, 64)\n    if not data: break\n    os.write(1, data)\n"
ROUNDS, CALLS = 15, 1000


def timed(work: Callable[[], object]) -> float:
    """Microseconds for one call, as the mean of `CALLS`."""
    begun = perf_counter_ns()
    for _ in range(CALLS):
        work()
    return (perf_counter_ns() - begun) / CALLS / 1000


def main() -> None:
    """Take turns and print the table."""
    pipe = subprocess.Popen([sys.executable, "-I", "-S", "-c", ECHO], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert pipe.stdin is not None
    assert pipe.stdout is not None
    to, back = pipe.stdin.fileno(), pipe.stdout.fileno()
    with tempfile.TemporaryDirectory() as place, cloche.Host() as host:
        calls = {}
        for tier, trust in (("untrusted", None), ("trusted", cloche.Trusted())):
            directory = write_plugin(Path(place) / tier, ADD, plugin_id=f"bench/{tier}", instances="pooled")
            calls[tier] = host.load(directory, trust=trust)[""].add.call

        def round_trip() -> None:
            os.write(to, b"x" * 16)
            os.read(back, 64)

        works: dict[str, Callable[[], object]] = {
            "pipe round trip": round_trip,
            "untrusted call": lambda: calls["untrusted"](1, 2),
            "trusted call": lambda: calls["trusted"](1, 2),
        }
        for work in works.values():
            timed(work)
        figures: dict[str, list[float]] = {name: [] for name in works}
        for _ in range(ROUNDS):
            for name, work in works.items():
                figures[name].append(timed(work))
    pipe.stdin.close()
    pipe.wait()
    medians = {name: statistics.median(found) for name, found in figures.items()}
    for name, found in figures.items():
        print(f"{name:<16} {medians[name]:7.1f} µs  ({min(found):.1f} to {max(found):.1f})")
    for name in ("pipe round trip", "trusted call"):
        print(f"untrusted call / {name}: {medians['untrusted call'] / medians[name]:.2f}")


if __name__ == "__main__":
    main()
