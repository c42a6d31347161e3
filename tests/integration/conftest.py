"""What many of these tests begin with: a host with a capability that does as the test says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.gate_capability import Gate, GateHost


@pytest.fixture
def side() -> GateHost:
    """The host side of the capability."""
    return GateHost()


@pytest.fixture
def gate(side: GateHost, tmp_path: Path) -> Iterator[Gate]:
    """An open host whose plugins call `side`."""
    with Gate(side, tmp_path) as made:
        yield made
