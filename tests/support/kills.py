"""Workers that are killed in a loop while several threads call the plugins that live in them.

`python -m support.kills --count 100` (with `tests` on the path; `just kills` does it) prints what the callers were told
and each finding: a call that was done twice or whose caller was told something else than what happened, an object of
the host's that was not closed once, and whatever the host still holds at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from cloche.errors import ClocheError
from cloche.observe.events import Event, EventKind
from cloche.runtime.plugin import Plugin
from support.gate_capability import INTERFACE, GateCapability, GateHost
from support.ledger import Ledger
from support.wat_plugins import open_host, write_plugin

MODES = ("pooled", "pooled", "single")
"""How the instances live of the plugins that each thread calls; those that live alike are one plugin."""
STILL_S = 60.0
"""If no call ends well for this long, the host is lost."""
_LIMITS = "[limits]\nrestarts = 10000\n"
_GROWN_BYTES = 32 << 20

WAT = f"""
(component
  (import "{INTERFACE}" (instance $gate
    (export "thing" (type $thing (sub resource)))
    (export "twice" (func (param "n" u32) (result u32)))
    (export "make" (func (result (own $thing))))))
  (alias export $gate "thing" (type $thing))
  (core func $twice (canon lower (func $gate "twice")))
  (core func $make (canon lower (func $gate "make")))
  (core func $drop (canon resource.drop $thing))
  (core module $m
    (import "h" "twice" (func $twice (param i32) (result i32)))
    (import "h" "make" (func $make (result i32)))
    (import "h" "drop" (func $drop (param i32)))
    (func (export "task") (param $ticket i32) (param $turns i32) (result i32) (local $thing i32)
      (local.set $thing (call $make))
      (drop (call $twice (local.get $ticket)))
      (loop $more (br_if $more (local.tee $turns (i32.sub (local.get $turns) (i32.const 1)))))
      (call $drop (local.get $thing))
      (local.get $ticket)))
  (core instance $i (instantiate $m (with "h" (instance
    (export "twice" (func $twice)) (export "make" (func $make)) (export "drop" (func $drop))))))
  (func (export "task") (param "ticket" u32) (param "turns" u32) (result u32) (canon lift (core func $i "task"))))
"""
"""`task` makes a thing, tells the host its ticket, works for a while, and drops the thing."""


class CountingGate(GateHost):
    """Counts how often each ticket was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: Counter[int] = Counter()

    def twice(self, n: int) -> int:
        self.shown[n] += 1  # a ticket is one thread's
        time.sleep(0.002)  # so that some workers are killed while the host is at work
        return 2 * n


@dataclass
class Tally:
    """What became of the calls: the tickets of those that gave their value, and of those that failed, by code."""

    kills: int = 0
    done: list[int] = field(default_factory=list)
    failed: dict[str, list[int]] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)
    effects: int = 0
    wall_s: float = 0.0

    @property
    def unknown(self) -> list[int]:
        """Tickets whose callers were told that nobody knows."""
        return self.failed.get("engine.worker-lost", [])

    def __str__(self) -> str:
        codes = ", ".join(f"{code} {len(tickets)}" for code, tickets in self.failed.items())
        return (
            f"{self.kills} kills in {self.wall_s:.0f} s: {len(self.findings)} findings; {len(self.done)} calls gave "
            f"their value, failed: {codes or 'none'}; {self.effects} effects on the host"
        )


class _Callers:
    """Threads that call until they are stopped, and note what they were told."""

    def __init__(self, plugins: list[Plugin], tally: Tally) -> None:
        self._tally, self._tickets = tally, count(1)
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=(plugin,)) for plugin in plugins]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """No more calls; waits for those in progress."""
        self._stop.set()
        for thread in self._threads:
            thread.join(STILL_S)
            if thread.is_alive():
                self._tally.findings.append("a call does not end")

    def _call(self, plugin: Plugin) -> None:
        chance = random.Random(plugin.id)
        while not self._stop.is_set():
            ticket = next(self._tickets)
            try:
                if plugin[""].task(ticket, chance.randrange(1, 2_000_000)) != ticket:
                    self._tally.findings.append(f"the answer to {ticket} is another's")
                self._tally.done.append(ticket)
            except ClocheError as error:
                self._tally.failed.setdefault(error.code, []).append(ticket)
            except BaseException:
                self._tally.findings.append(f"a foreign exception\n{traceback.format_exc()[-1500:]}")


class _Killer:
    """Knows the workers as they start, and kills them."""

    def __init__(self) -> None:
        self.workers: dict[str, int] = {}

    def __call__(self, event: Event, /) -> None:
        """Take one event of the host."""
        if event.kind is EventKind.WORKER and "pid" in event.data:
            self.workers[str(event.plugin)] = int(event.data["pid"])

    def kill(self, kills: int, tally: Tally) -> None:
        """Kill one worker after the other. Each time some call has ended well since the last."""
        chance = random.Random(kills)
        while tally.kills < kills:
            before, end = len(tally.done), time.monotonic() + STILL_S
            while len(tally.done) == before:
                if time.monotonic() > end:
                    tally.findings.append(f"no call ended well for {STILL_S:.0f} s")
                    return
                time.sleep(0.002)
            time.sleep(chance.random() * 0.05)
            victim = chance.choice(sorted(self.workers))
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.workers[victim], signal.SIGKILL)
                tally.kills += 1
                del self.workers[victim]  # until it is started again
            while not self.workers and time.monotonic() < end:
                time.sleep(0.002)


def drive(kills: int, place: Path) -> Tally:
    """Kill workers `kills` times under load; `place` is an empty directory. Blocking."""
    tally, started = Tally(), time.monotonic()
    _load(1, place / "first", Tally())  # what a process makes once is made
    before = Ledger.take()
    _load(kills, place / "second", tally)
    try:
        before.ensure_kept(_GROWN_BYTES)
    except AssertionError as error:
        tally.findings.append(str(error))
    tally.wall_s = time.monotonic() - started
    return tally


def _load(kills: int, place: Path, tally: Tally) -> None:
    side, killer = CountingGate(), _Killer()
    policy = 'format-version = 1\n[plugins."*".limits]\nrestarts = 10000\n'
    with open_host(policy, capabilities=[GateCapability(side, place / "wit")]) as host:
        host.events.add(killer)
        loaded = {
            mode: host.load(write_plugin(place / mode, WAT, plugin_id=f"acme/{mode}", instances=mode, more=_LIMITS))
            for mode in dict.fromkeys(MODES)
        }
        callers = _Callers([loaded[mode] for mode in MODES], tally)
        killer.kill(kills, tally)
        callers.stop()
        for mode, plugin in loaded.items():
            if plugin[""].task(0, 1) != 0:
                tally.findings.append(f"the {mode} plugin does not serve")
    _compare(side, tally)


def _compare(side: CountingGate, tally: Tally) -> None:
    """What the callers were told with what happened."""
    shown = Counter({ticket: times for ticket, times in side.shown.items() if ticket})
    unknown = set(tally.unknown)
    tally.effects = shown.total()
    tally.findings += [
        f"{ticket} gave its value, was done {shown[ticket]} times" for ticket in tally.done if shown[ticket] != 1
    ]
    tally.findings += [
        f"{ticket} is not known, was done {shown[ticket]} times" for ticket in unknown if shown[ticket] > 1
    ]
    tally.findings += [
        f"{ticket} failed with {code} and was done"
        for code, tickets in tally.failed.items()
        for ticket in tickets
        if shown[ticket] and ticket not in unknown
    ]
    if tally.effects != len(tally.done) + sum(shown[ticket] for ticket in unknown):
        tally.findings.append(f"{tally.effects} effects that nobody was told of")
    tally.findings += [f"a thing was closed {thing.closed} times" for thing in side.things if thing.closed != 1]
    if side.opened != side.closed:
        tally.findings.append(f"{side.opened} instances had a host's side, {side.closed} were closed")


def _words(arguments: list[str] | None = None) -> Iterator[str]:
    parser = argparse.ArgumentParser(description="Kill workers under load.")
    parser.add_argument("--count", type=int, default=100)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="cloche-kills-") as place:
        tally = drive(given.count, Path(place))
    yield str(tally)
    yield from tally.findings[:50]
    if tally.findings:
        raise SystemExit(1)


if __name__ == "__main__":
    for text in _words():
        print(text, flush=True)
