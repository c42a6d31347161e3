"""Mutants of small components, and a parent that drives thousands of them through hosts in child processes.

`python -m support.mutants --count 20000` (with `tests` on the path; `just mutants` does it) prints one line of figures
and each finding: a child that crashed, that stood still, or that met an exception which is not Cloche's.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

MAGIC = b"\0asm"
PREAMBLE_BYTES = 8
TESTS = Path(__file__).parents[1]
PER_CHILD = 400
STILL_S = 90.0
"""A child that says nothing for this long, though each call of a guest has 0.2 s, hangs."""


def mutant(originals: Sequence[bytes], number: int) -> bytes:
    """Mutant `number`: always the same bytes for the same originals."""
    chance = random.Random(number)
    data = chance.choice(originals)
    for _ in range(chance.choice((1, 1, 1, 1, 2, 3))):
        # Most edits keep the sizes of sections right: others end at the parser's first step.
        data = _edit_tree(data, originals, chance) if chance.random() < 0.85 else _edit_bytes(data, originals, chance)
    return data


def _edit_bytes(data: bytes, originals: Sequence[bytes], chance: random.Random) -> bytes:
    out = bytearray(data)
    at = chance.randrange(len(out)) if out else 0
    match chance.randrange(8):
        case 0 | 1 if out:
            out[at] ^= 1 << chance.randrange(8)
        case 2 if out:
            out[at] = chance.choice((0x00, 0x01, 0x40, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        case 3:
            out[at:at] = chance.randbytes(chance.randint(1, 16))
        case 4:
            del out[at : at + chance.randint(1, 16)]
        case 5:
            out[at:at] = out[at : at + chance.randint(1, 64)]
        case 6:
            _edit_number(out, at, chance)
        case _:
            other = chance.choice(originals)
            start = chance.randrange(len(other))
            out[at : at + chance.randint(0, 64)] = other[start : start + chance.randint(1, 64)]
    return bytes(out)


def _edit_one(data: bytes, chance: random.Random) -> bytes:
    """Change one byte in its place: what most often leaves a valid component that does something else."""
    out = bytearray(data)
    if out:
        at = chance.randrange(len(out))
        out[at] = chance.choice((out[at] ^ 1 << chance.randrange(8), out[at] + 1 & 0xFF, out[at] - 1 & 0xFF))
    return bytes(out)


def _edit_number(out: bytearray, at: int, chance: random.Random) -> None:
    """Write another LEB128 number over the one that begins at `at`, if one does."""
    end = at
    while end < len(out) and out[end] & 0x80 and end - at < 9:
        end += 1
    value = 0
    for byte in reversed(out[at : end + 1]):
        value = value << 7 | byte & 0x7F
    near = (value + 1, max(0, value - 1), value * 2, 0, 1, 127, 128)
    far = (65535, 65536, 1 << 20, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 64) - 1)
    out[at : end + 1] = leb(chance.choice(near if chance.random() < 0.7 else far), chance.choice((0, 0, 0, 1, 4)))


def leb(value: int, padding: int = 0) -> bytes:
    """An unsigned LEB128 number, with `padding` bytes more than it needs."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    if padding:
        out[-1] |= 0x80
        out += b"\x80" * (padding - 1) + b"\0"
    return bytes(out)


def _edit_tree(data: bytes, originals: Sequence[bytes], chance: random.Random) -> bytes:
    """Change one section, or the order of sections, and write every size anew."""
    sections = _split(data)
    if not sections:
        return _edit_bytes(data, originals, chance)
    weights = [len(payload) + 8 for _, payload in sections]
    place = chance.choices(range(len(sections)), weights if chance.random() < 0.8 else None)[0]
    identity, payload = sections[place]
    match chance.randrange(20):
        case 0:
            sections.insert(chance.randrange(len(sections) + 1), (identity, payload))
        case 1:
            del sections[place]
        case 2:
            other = chance.randrange(len(sections))
            sections[place], sections[other] = sections[other], sections[place]
        case 3:
            foreign = _split(chance.choice(originals))
            sections.insert(place, chance.choice(foreign))
        case 4:
            sections[place] = (identity, payload[: chance.randrange(len(payload) + 1)])
        case 5:
            sections.insert(
                place, (chance.choice((0, 0, 1, 4, 11, 12, 13, 255)), chance.randbytes(chance.randint(0, 40)))
            )
        case _ if payload[:4] == MAGIC:
            sections[place] = (identity, _edit_tree(payload, originals, chance))
        case 6 | 7:
            sections[place] = (identity, _edit_bytes(payload, originals, chance))
        case _:
            sections[place] = (identity, _edit_one(payload, chance))
    return data[:PREAMBLE_BYTES] + b"".join(bytes((key,)) + leb(len(body)) + body for key, body in sections)


def _split(data: bytes) -> list[tuple[int, bytes]]:
    """Sections by id and payload, as far as they can be told apart."""
    sections, at = [], PREAMBLE_BYTES
    while at + 1 < len(data):
        size, shift, end = 0, 0, at + 1
        while end < len(data) and shift < 35:
            size |= (data[end] & 0x7F) << shift
            shift += 7
            end += 1
            if not data[end - 1] & 0x80:
                break
        if end + size > len(data):
            break
        sections.append((data[at], data[end : end + size]))
        at = end + size
    return sections


@dataclass
class Tally:
    """What became of the mutants: how many ended with each code, and what must not happen at all.

    `panics` are mutants on which the compiler aborts its process. Hosts compile in a child, so each was loaded once
    more by a host that does, which must refuse it and live.
    """

    codes: Counter[str] = field(default_factory=Counter)
    crashes: list[str] = field(default_factory=list)
    panics: list[str] = field(default_factory=list)
    hangs: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    calls: Counter[str] = field(default_factory=Counter)
    mutants: int = 0
    wall_s: float = 0.0

    @property
    def findings(self) -> list[str]:
        """Everything that must not happen."""
        return [*self.crashes, *self.hangs, *self.foreign]

    def __str__(self) -> str:
        shown = ", ".join(f"{code} {count}" for code, count in self.codes.most_common())
        called = ", ".join(f"{code} {count}" for code, count in self.calls.most_common())
        return (
            f"{self.mutants} mutants in {self.wall_s:.0f} s: {len(self.crashes)} crashes, {len(self.hangs)} hangs, "
            f"{len(self.foreign)} foreign exceptions; {len(self.panics)} panics of the compiler, held by its child\n"
            f"  loading: {shown}\n  {self.calls.total()} calls: {called}"
        )


class _Child:
    """One child process with a range of mutants, and what it has said so far."""

    def __init__(self, place: Path, numbers: range, *, is_confined: bool = False) -> None:
        self.numbers, self.next = numbers, numbers.start
        self.is_confined = is_confined
        self._compiling = False
        self._spoke = time.monotonic()
        self._out, self._err = (place / f"{numbers.start}{is_confined}.{end}" for end in ("out", "err"))
        self._rest = b""
        program = f"import sys; sys.path.insert(0, {str(TESTS)!r}); from support.mutant_child import main; main()"
        words = [sys.executable, "-c", program, str(place), str(numbers.start), str(numbers.stop)]
        words += ["confined"] if is_confined else []
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        self._read_at = 0

    def follow(self, tally: Tally) -> range | None:
        """Read what was said; None while it runs, else the mutants that are left over."""
        status = self._process.poll()
        self._read(tally)
        if status is None and time.monotonic() - self._spoke > STILL_S:
            self._process.kill()
            self._process.wait()
            tally.hangs.append(f"mutant {self.next} stands still for {STILL_S} s")
            tally.mutants += 1
            return range(self.next + 1, self.numbers.stop)
        if status is None:
            return None
        if status == 0 and self.next == self.numbers.stop:
            return range(0)
        said = self._err.read_text(errors="replace")
        if self._compiling and not self.is_confined:
            lines = [line for line in said.splitlines() if line and not line.startswith((" ", "stack backtrace"))]
            tally.panics.append(f"mutant {self.next}: {' '.join(lines[:2])[:300]}")
            return range(self.next, self.numbers.stop)
        tail = said[-3000:]
        tally.crashes.append(f"mutant {self.next}: the child ended with status {status}\n{tail}")
        tally.mutants += 1
        return range(self.next + 1, self.numbers.stop)

    def kill(self) -> None:
        """End the child, whatever it does."""
        self._process.kill()
        self._process.wait()

    def _read(self, tally: Tally) -> None:
        with self._out.open("rb") as out:
            out.seek(self._read_at)
            said = out.read()
        if not said:
            return
        self._read_at += len(said)
        self._spoke = time.monotonic()
        *lines, self._rest = (self._rest + said).split(b"\n")
        for line in lines:
            report = json.loads(line)
            if isinstance(report, bool):
                self._compiling = report
                continue
            self.next = report["mutant"] + 1
            tally.mutants += 1
            tally.codes[report["code"]] += 1
            tally.calls.update(report["calls"])
            tally.foreign += [f"mutant {report['mutant']}: {text}" for text in report["foreign"]]


def drive(count: int, *, first: int = 0, jobs: int = 0, place: Path | None = None) -> Tally:
    """Drive `count` mutants, from number `first` on, through hosts in `jobs` children at a time. Blocking."""
    if place is None:
        with tempfile.TemporaryDirectory(prefix="cloche-mutants-") as name:
            return drive(count, first=first, jobs=jobs, place=Path(name))
    _prepare(place)
    tally, started = Tally(), time.monotonic()
    jobs = jobs or os.cpu_count() or 1
    per_child = max(1, min(PER_CHILD, -(-count // jobs)))
    waiting = [range(n, min(n + per_child, first + count)) for n in range(first, first + count, per_child)][::-1]
    running: list[_Child] = []
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                running.append(_Child(place, waiting.pop()))
            for child in list(running):
                panics = len(tally.panics)
                left = child.follow(tally)
                if left is None:
                    continue
                running.remove(child)
                if len(tally.panics) > panics:
                    running.append(_Child(place, left[:1], is_confined=True))
                    left = left[1:]
                if left:
                    waiting.append(left)
            time.sleep(0.05)
    finally:
        for child in running:
            child.kill()
        tally.wall_s = time.monotonic() - started
    return tally


def originals_in(place: Path) -> tuple[bytes, ...]:
    """The originals that a parent has written."""
    return tuple(file.read_bytes() for file in sorted(place.glob("original-*.wasm")))


def _prepare(place: Path) -> None:
    from support.mutant_corpus import HOST_WIT, corpus

    for number, data in enumerate(corpus()):
        (place / f"original-{number:02}.wasm").write_bytes(data)
    (place / "wit").mkdir()
    (place / "wit" / "host.wit").write_text(HOST_WIT)


def _words(arguments: list[str] | None = None) -> Iterator[str]:
    parser = argparse.ArgumentParser(description="Drive mutated components through hosts in child processes.")
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first mutant")
    parser.add_argument("--jobs", type=int, default=0, help="children at once; one for each core by default")
    given = parser.parse_args(arguments)
    tally = drive(given.count, first=given.first, jobs=given.jobs)
    yield str(tally)
    yield from tally.findings + tally.panics
    if tally.findings:
        raise SystemExit(1)


if __name__ == "__main__":
    for text in _words():
        print(text, flush=True)
