"""A driver that has the host read hundreds of thousands of frames of a hostile worker.

`python -m support.frames --count 500000` (with `tests` on the path; `just frames` does it) prints what became of them
and each finding: an exception that is not Cloche's, an exchange that did not end, an object of the host's that was not
closed once, a value that is none of its type. The host's side is the real one, over a real socket.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import resource
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any

from cloche.engine.endings import UnreachedError
from cloche.errors import ClocheError
from cloche.worker.instance import RemoteInstance
from cloche.worker.messages import Closed, encode
from support.hostile_frames import Script, framed
from support.ledger import grown, resident_bytes
from support.stand_in import (
    EXPORTS,
    LIMITS,
    PLANS,
    PLUGIN,
    SCALARS,
    SETTINGS,
    Numbers,
    Offers,
    StandIn,
    Thing,
)

BATCH = 2_000
"""Conversations between two reports."""
STILL_S = 5.0
"""An exchange that takes longer than this, though its deadline is 0.3 s away, hangs."""


@dataclass
class Tally:
    """What became of conversations. `frames` are the hostile ones that the host read, `good` the others."""

    conversations: int = 0
    frames: int = 0
    good: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    longest_s: float = 0.0
    wall_s: float = 0.0
    peak_bytes: int = 0
    grown_bytes: int = 0

    def add(self, other: Tally) -> None:
        """Count another's in."""
        self.conversations += other.conversations
        self.frames += other.frames
        self.good += other.good
        self.outcomes.update(other.outcomes)
        self.findings += other.findings
        self.longest_s = max(self.longest_s, other.longest_s)
        self.peak_bytes = max(self.peak_bytes, other.peak_bytes)

    def __str__(self) -> str:
        shown = ", ".join(f"{code} {count}" for code, count in self.outcomes.most_common())
        return (
            f"{self.frames} hostile frames and {self.good} good ones in {self.conversations} conversations, "
            f"{self.wall_s:.0f} s: {len(self.findings)} findings; the longest exchange took {self.longest_s:.2f} s; "
            f"peak {self.peak_bytes >> 20} MiB resident, grown by {self.grown_bytes / 2**20:.1f} MiB\n  {shown}"
        )


def converse(numbers: range) -> Tally:
    """Hold these conversations, one after the other. Blocking."""
    tally, started = Tally(), time.monotonic()
    for number in numbers:
        _Conversation(number, tally).hold()
    tally.wall_s = time.monotonic() - started
    tally.peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return tally


class _Conversation:
    """One instance in one stand-in: perhaps some good calls, then one that is answered with hostile frames."""

    def __init__(self, number: int, tally: Tally) -> None:
        self._number, self._tally = number, tally
        self._chance = random.Random(number)
        self._script = Script(self._chance)
        self._worker, self._offers = StandIn(), Offers()
        self._lent, self._given = Thing(), list[Thing]()
        self._unsent: set[Thing] = set()
        self._returned: list[object] = []
        self._frames: list[bool] = []

    def hold(self) -> None:
        """Everything, with what must be true at its end."""
        instance: RemoteInstance | None = None
        try:
            with_made = self._chance.random() < 0.95
            self._frames.append(not with_made)
            self._worker.say(
                framed(*self._script.made()) if with_made else self._script.hostile(0), is_last=not with_made
            )
            instance = self._timed(lambda: RemoteInstance(self._worker, SETTINGS, lambda _: self._offers.targets))  # type: ignore[arg-type]
            if instance is not None:
                self._talk(instance)
        finally:
            if instance is not None:
                self._worker.say(framed(encode(Closed())), is_last=True)
                self._timed(instance.close)
                if instance.unclosed:
                    self._find(f"closing failed with {instance.unclosed!r}")
            self._worker.end()
        self._tally.conversations += 1
        read = self._frames[: self._worker.received]
        self._tally.frames += sum(read)
        self._tally.good += len(read) - sum(read)
        self._ensure_closed()

    def _talk(self, instance: RemoteInstance) -> None:
        for _ in range(self._chance.choice((0, 0, 0, 1, 3))):
            index = self._chance.randrange(len(EXPORTS))
            answer = [framed(*frame) for frame in self._script.answer(index)]
            if not self._call(instance, index, answer, [False] * len(answer), is_last=False):
                return
        index = self._chance.randrange(len(EXPORTS))
        frames: list[bytes] = []
        hostile: list[bool] = []
        while len(frames) < 6 and not (any(hostile) and self._chance.random() < 0.3):
            hostile.append(self._chance.random() < 0.8)
            frames.append(self._script.hostile(index) if hostile[-1] else framed(*self._script.host_call()))
        frames.append(framed(*self._script.done(index)))
        hostile.append(False)
        # Some leave the host waiting until the deadline; most end, as a worker that was killed does.
        self._call(instance, index, frames, hostile, is_last=self._chance.random() < 0.999)

    def _call(
        self, instance: RemoteInstance, index: int, frames: list[bytes], hostile: list[bool], *, is_last: bool
    ) -> bool:
        self._frames += hostile
        self._worker.say(b"".join(frames), is_last=is_last)
        takes_scalars = EXPORTS[index].function.params == SCALARS
        given = Thing() if self._chance.random() < 0.3 and not takes_scalars else None
        before = self._worker.received
        arguments = (7, True, 0.5) if takes_scalars else ("hello", self._lent, given, [1, 2, 3])
        found = self._timed(lambda: instance.call(EXPORTS[index], arguments, LIMITS))
        if given is not None:
            self._given.append(given)
            if self._worker.received == before or self._unreached:  # the object stays its caller's
                self._unsent.add(given)
        if found is None:
            return False
        value, usage = found
        self._tally.outcomes["a value"] += 1
        seen = Numbers(lambda _resource, _is_own: 0)
        try:
            PLANS[index].write_result(value, seen, 1 << 30, by_host=False)
            if any(not math.isfinite(part) or part < 0 for part in usage if part is not None):
                self._find(f"a usage of {usage}")
        except ClocheError as error:
            self._find(f"a value that is none of its type: {error}")
        self._returned += seen.given
        return instance.is_sound and not instance.finished

    def _timed(self, act: Any) -> Any:
        """What `act` gives; None after an error of Cloche's, which is counted."""
        started, self._unreached = time.monotonic(), False
        try:
            return act()
        except ClocheError as error:
            self._tally.outcomes[error.code] += 1
            self._unreached = isinstance(error, UnreachedError)
            if error.plugin != PLUGIN:
                self._find(f"{error.code} is of {error.plugin!r}")
        except BaseException:
            self._tally.outcomes["foreign"] += 1
            self._find(f"a foreign exception\n{traceback.format_exc()[-1500:]}")
        finally:
            took = time.monotonic() - started
            self._tally.longest_s = max(self._tally.longest_s, took)
            if took > STILL_S:
                self._find(f"an exchange took {took:.1f} s")
        return None

    def _ensure_closed(self) -> None:
        if self._lent.closed:
            self._find("an object that was lent is closed")
        elsewhere = {id(thing) for thing in (*self._returned, *self._offers.returned)}
        for thing in (*self._offers.made, *self._given):
            wanted = 0 if id(thing) in elsewhere or thing in self._unsent else 1
            if thing.closed != wanted:
                self._find(f"an object was closed {thing.closed} times instead of {wanted}")
        if self._offers.calls > 10 * LIMITS.host_calls:
            self._find(f"{self._offers.calls} host calls")

    def _find(self, what: str) -> None:
        self._tally.findings.append(f"conversation {self._number}: {what}")


def _batch(numbers: range) -> tuple[Tally, int, int]:
    tally = converse(numbers)
    return tally, os.getpid(), resident_bytes()


def drive(frames: int, *, first: int = 0, jobs: int = 0) -> Tally:
    """Converse until `frames` hostile frames were read, in `jobs` processes. Blocking.

    A process that dies, or does not report for minutes, raises what `concurrent.futures` says of it.
    """
    tally, started = Tally(), time.monotonic()
    sizes: dict[int, list[int]] = {}
    jobs = jobs or os.cpu_count() or 1
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        running: set[Future[tuple[Tally, int, int]]] = set()
        while tally.frames < frames or running:
            while tally.frames < frames and len(running) < 2 * jobs:
                running.add(pool.submit(_batch, range(first, first + BATCH)))
                first += BATCH
            done = next(as_completed(running, timeout=BATCH * STILL_S))
            running.remove(done)
            part, process, size = done.result()
            tally.add(part)
            sizes.setdefault(process, []).append(size)
    tally.wall_s = time.monotonic() - started
    tally.grown_bytes = max(grown(each) for each in sizes.values())
    return tally


def _words(arguments: list[str] | None = None) -> Iterator[str]:
    parser = argparse.ArgumentParser(description="Have the host read hostile frames from a worker that is none.")
    parser.add_argument("--count", type=int, default=500_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first conversation")
    parser.add_argument("--jobs", type=int, default=0, help="processes at once; one for each core by default")
    given = parser.parse_args(arguments)
    tally = drive(given.count, first=given.first, jobs=given.jobs)
    yield str(tally)
    yield from tally.findings[:50]
    if tally.findings:
        raise SystemExit(1)


if __name__ == "__main__":
    for text in _words():
        print(text, flush=True)
