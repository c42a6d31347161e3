"""How long a worker takes from nothing to its first instance, and how much of that is imports; the host's side as well.

Reports medians; asserts nothing. Run as `./dev bench worker_start`.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter, sleep

sys.path.insert(0, str(Path(__file__).parent.parent))

import cloche
from cloche.model import Limits
from cloche.worker.instance import RemoteInstance
from cloche.worker.process import WorkerProcess
from cloche.worker.ready import ReadyWorkers
from support.fresh import HOST_SIDE, WORKER_SIDE, fresh
from support.wat_plugins import write_plugin

NOOP = """
(component
  (core module $m (func (export "work")))
  (core instance $i (instantiate $m))
  (func (export "work") (canon lift (core func $i "work"))))
"""
ROUNDS = 15


def imports(modules: str) -> float:
    """Milliseconds for importing them in a fresh interpreter, which needs more to start and to end."""
    return float(fresh(modules, "print((perf_counter() - begun) * 1000)"))


def bare() -> float:
    """Milliseconds for an interpreter that does nothing."""
    begun = perf_counter()
    subprocess.run([sys.executable, "-I", "-S", "-c", "pass"], check=True)
    return (perf_counter() - begun) * 1000


def main() -> None:
    """Take turns and print the table."""
    figures: dict[str, list[float]] = {}

    def note(name: str, ms: float) -> None:
        figures.setdefault(name, []).append(ms)

    with tempfile.TemporaryDirectory() as place, cloche.Host() as host:
        host.load(write_plugin(Path(place), NOOP, plugin_id="bench/noop", instances="pooled"))
        (house,) = host._houses
        ready = ReadyWorkers(1)
        for _ in range(ROUNDS):
            note("bare interpreter", bare())
            note("imports of a worker", imports(WORKER_SIDE))
            note("imports of the host's side", imports(HOST_SIDE))
            begun = perf_counter()
            worker = WorkerProcess()
            note("spawn to started", (perf_counter() - begun) * 1000)
            worker.take(house._order, house._code)
            note("spawn to Ready", (perf_counter() - begun) * 1000)
            instance = RemoteInstance(worker, house.settings, lambda _: [], None, Limits())
            note("spawn to Made", (perf_counter() - begun) * 1000)
            instance.close()
            worker.close()
            ready.begin()
            while not ready.waiting:
                sleep(0.01)
            sleep(0.5)
            begun = perf_counter()
            worker, _ = ready.start(house._order, house._code)
            note("ready worker to Ready", (perf_counter() - begun) * 1000)
            worker.close()
        ready.close()
    for name, found in figures.items():
        print(f"{name:<28} {statistics.median(found):7.1f} ms  ({min(found):.1f} to {max(found):.1f})")


if __name__ == "__main__":
    main()
