"""The engine's own limits of one store."""

from __future__ import annotations

from cloche.frozen import dataclass


@dataclass(frozen=True, slots=True)
class StoreBounds:
    """The engine's own limits of one store. Memory is per linear memory there, so the plan divides it (H6)."""

    memory_bytes: int
    memories: int
    tables: int
    table_elements: int
    instances: int

    @property
    def all_memory_bytes(self) -> int:
        """What all memories together can grow to."""
        return self.memory_bytes * self.memories
