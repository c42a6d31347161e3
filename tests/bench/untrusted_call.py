"""Calls of an untrusted plugin against bare pipes between two Python processes and the trusted tier, in one run.

A call of scalars against a round trip of 16 bytes, and an echo of 1 MB `list<u8>` against 1 MB there and back. Reports
medians and ratios; asserts nothing. Run as `./dev bench untrusted_call`.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter_ns

sys.path.insert(0, str(Path(__file__).parent.parent))

import cloche
from support.wat_plugins import BASICS, write_plugin

ADD = """
(component
  (core module $m (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
    (memory (export "memory") 1)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024)))
  (core instance $i (instantiate $m))
  (func (export "add") (param "a" s32) (param "b" s32) (result s32) (canon lift (core func $i "add"))))
"""
ECHO = "import os\nwhile True:\n    data = os.read(0, 64)\n    if not data: break\n    os.write(1, data)\n"
ECHO_ALL = """
import os, sys
size = int(sys.argv[1])
while True:
    data = bytearray(size)
    view, at = memoryview(data), 0
    while at < size:
        got = os.readv(0, [view[at:]])
        if not got: sys.exit()
        at += got
    while view: view = view[os.write(1, view):]
"""
MEGABYTE = 1 << 20


def timed(work: Callable[[], object], calls: int) -> float:
    """Microseconds for one call, as the mean of `calls`."""
    begun = perf_counter_ns()
    for _ in range(calls):
        work()
    return (perf_counter_ns() - begun) / calls / 1000


@contextmanager
def child(code: str, *arguments: str) -> Iterator[tuple[int, int]]:
    """A Python process; the pipes to it and back."""
    argv = [sys.executable, "-I", "-S", "-c", code, *arguments]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield process.stdin.fileno(), process.stdout.fileno()
        process.stdin.close()


def report(title: str, works: dict[str, Callable[[], object]], calls: int, rounds: int) -> None:
    """Take turns, and print the table; the first of `works` is what the others are compared with."""
    for work in works.values():
        timed(work, calls)
    figures: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            figures[name].append(timed(work, calls))
    medians = {name: statistics.median(found) for name, found in figures.items()}
    print(title)
    base = next(iter(medians))
    for name, found in figures.items():
        ratios = f"{medians[name] / medians[base]:.2f} (least {min(found) / min(figures[base]):.2f})"
        print(f"  {name:<16} {medians[name]:9.1f} µs  ({min(found):.1f} to {max(found):.1f})  / {base}: {ratios}")


def main() -> None:
    """Run both comparisons."""
    with (
        child(ECHO) as (to, back),
        child(ECHO_ALL, str(MEGABYTE)) as (to_all, back_all),
        tempfile.TemporaryDirectory() as place,
        cloche.Host() as host,
    ):
        adds: dict[str, Callable[..., object]] = {}
        echoes: dict[str, Callable[..., object]] = {}
        for tier, trust in (("untrusted", None), ("trusted", cloche.Trusted())):
            for wat, name, calls in ((ADD, "add", adds), (BASICS, "echo", echoes)):
                plugin_id = f"bench/{tier}-{name}"
                directory = write_plugin(Path(place) / tier / name, wat, plugin_id=plugin_id, instances="pooled")
                calls[tier] = host.load(directory, trust=trust)[""][name].call
        data = bytes(MEGABYTE)

        def round_trip() -> None:
            os.write(to, b"x" * 16)
            os.read(back, 64)

        def megabyte_round_trip() -> None:
            view = memoryview(data)
            while view:
                view = view[os.write(to_all, view) :]
            found = bytearray(MEGABYTE)
            view, at = memoryview(found), 0
            while at < MEGABYTE:
                at += os.readv(back_all, [view[at:]])

        report(
            "a call of scalars",
            {
                "pipe round trip": round_trip,
                "untrusted call": lambda: adds["untrusted"](1, 2),
                "trusted call": lambda: adds["trusted"](1, 2),
            },
            1000,
            15,
        )
        report(
            "1 MB there and back",
            {
                "pipe round trip": megabyte_round_trip,
                "untrusted call": lambda: echoes["untrusted"](data),
                "trusted call": lambda: echoes["trusted"](data),
            },
            1,
            5,
        )


if __name__ == "__main__":
    main()
