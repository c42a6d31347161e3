"""The demo goes on without a plugin whose tools are missing, and with no other."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cloche.build.failure import build_error
from cloche.cli import demo
from cloche.errors import ClocheError, ContractError, UsageError


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
