"""The demo goes on without a plugin whose tools are missing, and with no other; it says what its plugins left."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cloche.build.failure import build_error
from cloche.cli import attacks, demo
from cloche.cli.attacks import Attempt, Held
from cloche.errors import ClocheError, ContractError, TrustError, UsageError
from cloche.model import Usage


@dataclass
class Host:
    """A host that knows only which plugins do not build, and remembers which were asked for."""

    broken: dict[str, ClocheError]
    asked: list[str] = field(default_factory=list)

    def inspect(self, source: Path, *, progress: Any) -> None:
        """Fails as it was told to."""
        self.asked.append(source.name)
        if source.name in self.broken:
            raise self.broken[source.name]


def build(broken: dict[str, ClocheError]) -> dict[str, ContractError]:
    """What was left out; every other plugin was built."""
    host = Host(broken)
    left_out = demo.build_guests(host, lambda step: None)  # type: ignore[arg-type]
    assert sorted(host.asked) == sorted(demo.GUESTS)
    return left_out


@pytest.mark.parametrize("name", demo.DISPENSABLE)
def test_a_plugin_whose_tools_are_missing_is_left_out(name: str) -> None:
    """The reason is one line, without the tool's own words and without terminal controls."""
    error = build_error(f"cloche/{name}", "npm cannot fetch it", advice="Use the network\x1b", output="npm error\nmore")
    left_out = build({name: error})
    assert list(left_out) == [name]
    assert demo._reason(left_out[name]) == "npm cannot fetch it. Use the network\\x1b"


@pytest.mark.parametrize(
    ("name", "error"),
    [("noop", build_error("cloche/noop", "it is broken")), ("hello-js", UsageError("the disk is full"))],
)
def test_any_other_failure_ends_it(name: str, error: ClocheError) -> None:
    """What the rest of the demo needs, and what is no failed build, is an error."""
    with pytest.raises(ClocheError) as caught:
        build({name: error})
    assert caught.value is error


def test_a_system_that_runs_nobodys_plugins_is_told(tmp_path: Path) -> None:
    """The rest of the demo goes on; any other failure ends it."""
    refused = TrustError("a worker is confined by rlimits here", code="trust.untrusted-unavailable")
    assert demo.refusal(Refusing(refused), tmp_path, lambda _: None) is refused  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        demo.refusal(Refusing(UsageError("the disk is full")), tmp_path, lambda _: None)  # type: ignore[arg-type]


@dataclass
class Refusing:
    """A host that loads nothing."""

    error: ClocheError

    def load(self, source: Path, *, progress: Any) -> None:
        """Fails as it was told to."""
        del source, progress
        raise self.error


def test_what_is_left_is_counted() -> None:
    """A process that still runs and a descriptor that is still open are remains; what was there before is none."""
    before = Held()
    assert before.remains("hello") == attacks.Remains("hello", 0, 0)
    reading, writing = os.pipe()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=reading) as child:
        assert before.remains("hello") == attacks.Remains("hello", 1, 2)
        later = Held()
        os.close(writing)
        os.close(reading)
        assert child.wait(30) == 1
    assert later.remains("") == attacks.Remains("", 0, 0)
    assert before.remains("") == attacks.Remains("", 0, 0)


def test_a_row_is_cut_between_words_and_leaves_out_what_nobody_counted() -> None:
    """The code stands first; of a worker that was lost only the time is known."""
    item = Attempt("spin", "untrusted", f"it ended {'word ' * 40}", "engine.worker-lost", Usage(wall_ms=12.34))
    tried, tier, happened, fuel, time, memory = demo._row(item)
    assert (tried, tier, fuel, time, memory) == ("spin", "untrusted", "", "12.3 ms", "")
    assert happened.startswith("engine.worker-lost: it ended word ")
    assert happened.endswith("word …")
    counted = demo._row(Attempt("add", "untrusted", "returned 3", "ok", Usage(5, 6, 1.0, 1.0, 65536)))
    assert counted[2:] == ("ok: returned 3", "11", "1.0 ms", "64.0 KiB")


def test_the_bomb_is_small() -> None:
    """What takes a compiler more memory than it may have is a small component."""
    bomb = attacks._parsed(attacks._bomb())
    assert bomb[:4] == b"\0asm"
    assert len(bomb) < 100_000
