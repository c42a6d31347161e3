"""The resource of the interface `counters`; componentize-py looks for it in a module of the interface's name."""

from __future__ import annotations

from wit_world.exports import counters as wit

from cloche_guest import export


@export
class Counter(wit.Counter):
    """A number that grows."""

    def __init__(self, start: int) -> None:
        self.number = start

    def increment(self, by: int) -> int:
        self.number += by
        return self.number

    def value(self) -> int:
        return self.number

    @staticmethod
    def merge(a: Counter, b: Counter) -> Counter:
        return Counter(a.number + b.number)
