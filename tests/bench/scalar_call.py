"""A scalar call into the same Python guest in one interleaved run: raw C call, Cloche's public API, the library's own.

    python tests/bench/scalar_call.py [--home DIR] [--json]

All three run on the main thread in one process. `raw` calls the engine's C function with values prepared beforehand and
does nothing else. `cloche` is `plugin["cloche:noop/scalar"].add.call(20, 22)`: pooled instance, limits, fuel, deadline,
`Usage`. `library` is wasmtime-py's `Func.__call__` on an instance with fuel and epochs on.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloche
from cloche.contract.report import Disposition
from cloche.resources import guests_dir
from cloche.wit.types import Interface, ResourceType

ROUNDS, CALLS = 40, 500
INTERFACE = "cloche:noop/scalar"


def raw_call(plugin: cloche.Plugin) -> tuple[Callable[[], object], Callable[[], None]]:
    """The engine's C call on an instance of the plugin, with its arguments lowered once."""
    backend: Any = plugin._backends[0]
    instance = backend.pool.acquire(backend.limits)
    export = plugin[INTERFACE].add._export
    callee = instance.callee(export)
    lib = instance._lib
    callee.buffer.lower((20, 22), instance.bridge, 1 << 20)
    lib.wasmtime_context_set_fuel(instance.context, 1 << 62)
    lib.wasmtime_context_set_epoch_deadline(instance.context, 1 << 40)
    buffer, function = callee.buffer, lib.wasmtime_component_func_call
    arguments = (callee.address, instance.context, buffer.arguments, 2, buffer.results, 1)
    return lambda: function(*arguments), lambda: backend.pool.release(instance)


def library_call(component: bytes, imports: tuple[Interface, ...]) -> Callable[[], object]:
    """The library's own call of the same function; what is not WASI is defined, but never called."""
    import wasmtime
    from wasmtime import component as wc

    config = wasmtime.Config()
    config.consume_fuel = True
    config.epoch_interruption = True
    engine = wasmtime.Engine(config)
    compiled = wc.Component(engine, component)
    linker = wc.Linker(engine)
    linker.add_wasip2()
    resources: dict[ResourceType, int] = {}
    with linker.root() as root:
        for interface in imports:
            with root.add_instance(interface.id) as defined:
                for name, kind in interface.types:
                    if isinstance(kind, ResourceType):
                        number = resources.setdefault(kind, len(resources))
                        defined.add_resource(name, wc.ResourceType.host(number), lambda *_: None)
                for imported in interface.functions:
                    defined.add_func(imported.name, lambda *_: None)
    store = wasmtime.Store(engine)
    store.set_wasi(wasmtime.WasiConfig())
    store.set_fuel(1 << 62)
    store.set_epoch_deadline(1 << 40)
    instance = linker.instantiate(store, compiled)
    outer = instance.get_export_index(store, f"{INTERFACE}@1.0.0")
    inner = instance.get_export_index(store, "add", outer)
    assert inner is not None
    function = instance.get_func(store, inner)
    assert function is not None
    return lambda: function(store, 20, 22)


def measure(calls: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Microseconds per call, one figure per round and subject; subjects take turns within each round."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        for _ in range(CALLS):
            call()
    for _ in range(ROUNDS):
        for name, call in calls.items():
            started = time.perf_counter()
            for _ in range(CALLS):
                call()
            found[name].append((time.perf_counter() - started) / CALLS * 1e6)
    return found


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--home", type=Path)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="cloche-bench-") as temporary,
        cloche.Host(home=options.home or Path(temporary)) as host,
    ):
        plugin = host.load(guests_dir() / "noop", trust=cloche.Trusted("benchmark"))
        public = plugin[INTERFACE].add.call
        built = host.inspect(guests_dir() / "noop")
        strangers = tuple(item.interface for item in built.report.imports if item.disposition is not Disposition.ENGINE)
        raw, give_back = raw_call(plugin)
        library = library_call(built.artifact.component, strangers)
        found = measure({"raw": raw, "cloche": lambda: public(20, 22), "library": library})
        give_back()
    medians = {name: statistics.median(values) for name, values in found.items()}
    ratios = {
        "cloche/raw": statistics.median(a / b for a, b in zip(found["cloche"], found["raw"], strict=True)),
        "library/cloche": statistics.median(a / b for a, b in zip(found["library"], found["cloche"], strict=True)),
    }
    if options.json:
        print(json.dumps({"microseconds": medians, "ratios": ratios, "rounds": ROUNDS, "calls": CALLS}))
    else:
        for name, value in medians.items():
            spread = statistics.quantiles(found[name], n=10)
            print(f"{name:<8} {value:7.2f} µs   (10 % to 90 %: {spread[0]:.2f} to {spread[-1]:.2f})")
        for name, value in ratios.items():
            print(f"{name:<15} {value:5.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
