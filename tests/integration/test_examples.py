"""The programs in examples/ run and print what their readers are told."""

from __future__ import annotations

import filecmp
import os
import subprocess
import sys

import pytest

from support.guests import ROOT, guest_home

EXAMPLES = ROOT / "examples"
EXPECTED = {
    "embed": (
        "acme/gambler: 31 points with ten dice, 10 host calls",
        "guest.error: these dice are not allowed",
        "limit.host-calls after 1001 host calls",
    ),
    "watch": (
        "fuel: 84 8004 800004 8000004",
        "stopped: limit.fuel",
        "stopped: limit.deadline",
        "stopped: cancelled",
        "the next call: 4 host fuel",
        "limit event: acme/spinner limit.fuel",
        "limit event: acme/spinner limit.deadline",
    ),
}


def run_example(name: str) -> subprocess.CompletedProcess[str]:
    """Run one example as a reader does, with the home of the tests."""
    kept = {key: text for key, text in os.environ.items() if not key.startswith("CLOCHE_")}
    return subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", f"examples/{name}/main.py"],
        cwd=ROOT,
        env={**kept, "CLOCHE_HOME": str(guest_home())},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_no_example_is_forgotten() -> None:
    """Every directory with a main.py has its expected output here."""
    assert {path.parent.name for path in EXAMPLES.glob("*/main.py")} == EXPECTED.keys()


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_example_prints_what_it_should(name: str) -> None:
    """An example ends well and prints its lines in order."""
    done = run_example(name)
    assert done.returncode == 0, done.stderr
    assert tuple(done.stdout.splitlines())[: len(EXPECTED[name])] == EXPECTED[name]


def test_author_has_the_interfaces_of_the_application() -> None:
    """The plugin's copies of the application's WIT are exact."""
    copies = EXAMPLES / "embed/plugin/wit/deps"
    for name in ("game/game.wit", "dice/dice.wit"):
        assert filecmp.cmp(EXAMPLES / "embed/wit" / name, copies / name, shallow=False)
