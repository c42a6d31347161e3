"""asyncio calls, cancelling, events, log lines and metrics. Run it: python examples/watch/main.py"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import cloche
from cloche.observe.log import LogSink, json_renderer
from cloche.observe.metrics import Metrics

HERE = Path(__file__).resolve().parent


async def run(host: cloche.Host) -> None:
    """Four calls at once, then one that never ends, stopped in three ways."""
    work = host.load(HERE / "spinner", trust=cloche.Trusted("part of this example"))["acme:spinner/work"]

    outcomes = await asyncio.gather(*(work.spin.call_async(turns) for turns in (10, 1_000, 100_000, 1_000_000)))
    print("fuel:", *(outcome.usage.guest_fuel for outcome in outcomes))

    for options in ({"fuel": "1M"}, {"deadline": "50ms"}):
        try:
            await work.spin.options(**options).call_async(0)
        except cloche.LimitError as error:
            print("stopped:", error.code)

    call = asyncio.create_task(work.spin.call_async(0))
    await asyncio.sleep(0.05)
    call.cancel()
    try:
        await call
    except asyncio.CancelledError:
        print("stopped: cancelled")

    outcome = await work.spin.call_async(1)
    print("the next call:", outcome.usage.host_fuel, "host fuel")


def main() -> None:
    """Watch a host: warnings as JSON lines on standard error, every event counted."""
    metrics = Metrics()
    log = LogSink(json_renderer(), sys.stderr, least_level="warning")
    with cloche.Host(sinks=[metrics, log], policy=cloche.Policy.empty()) as host:
        asyncio.run(run(host))
        for event in host.events.recent(kind=cloche.EventKind.LIMIT):
            print("limit event:", event.plugin, event.data.get("code"))
    for line in metrics.prometheus().splitlines():
        if line.startswith("cloche_call_guest_fuel"):
            print(line)


if __name__ == "__main__":
    main()
