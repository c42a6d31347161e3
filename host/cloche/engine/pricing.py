"""The published price list of host work, in fuel units, the same for every tier (docs/limits-and-usage.md).

The engine counts what a guest executes; it counts nothing for what the host does on its behalf (H2). So each host call
and each canonical-ABI byte that crosses the boundary in either direction has a fixed price, and the fuel limit is on
the sum of both.
"""

from __future__ import annotations

HOST_CALL_FUEL = 1_000
"""For one call from the guest to the host."""

BYTE_FUEL = 1
"""For one canonical-ABI byte of arguments or results, of the guest's functions and of the host's."""
