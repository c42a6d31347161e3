"""What one conversion may still cost, and how the caller's values are read: once, into something that cannot change.

A list, mapping or array of the caller's may change while it is converted: by another thread, or by the caller's own
code that runs for an item. So whatever is counted first and written afterwards is a copy, or a view of our own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

from cloche.engine.codec.problem import TooLarge

LOOK_BYTES = 1 << 15
"""How much of a long conversion goes on between two looks at the time, in canonical bytes: some milliseconds."""

_PLAIN: tuple[type, ...] = (list, tuple, type({}.items()))


class Budget:
    """Canonical bytes still allowed, and `pause`, which a long conversion calls now and then: it raises to stop it."""

    __slots__ = ("_since", "left", "pause")

    def __init__(self, pause: Callable[[], None] | None = None) -> None:
        self.left = 0
        self.pause = pause
        self._since = 0

    def charge(self, size: int) -> None:
        """Take `size` canonical bytes from what is left. Raises: TooLarge."""
        self.left -= size
        if self.left < 0:
            raise TooLarge

    def work(self, size: int) -> None:
        """Note that `size` canonical bytes are worked on item by item; looks at the time when it is due."""
        self._since += size
        if self._since >= LOOK_BYTES:
            self._since = 0
            if self.pause is not None:
                self.pause()

    def copy(self, items: Collection[Any], size: int) -> tuple[Any, ...]:
        """The items as they are now, `size` bytes each. Raises: TooLarge, before they are copied, for too many."""
        most = self.left // size
        if len(items) > most:
            raise TooLarge
        # These are copied at one stroke, whatever other threads do.
        given = tuple(items) if type(items) in _PLAIN else tuple(chain.from_iterable(self._read(items, size)))
        if len(given) > most:
            raise TooLarge
        return given

    def _read(self, items: Iterable[Any], size: int) -> Iterator[tuple[Any, ...]]:
        """Pieces of what code of the caller's gives, one at least beyond what is left: it may never end."""
        source, room = iter(items), self.left // size
        while room >= 0 and (piece := tuple(islice(source, max(1, LOOK_BYTES // size)))):
            room -= len(piece)
            self.work(len(piece) * size)
            yield piece

    def paced(self, items: Sequence[Any], size: int) -> Iterable[Any]:
        """`items` of `size` bytes each, for a loop over them that looks at the time as it goes on."""
        if len(items) * size >= LOOK_BYTES:
            return chain.from_iterable(self._pieces(items, size))
        self.work(len(items) * size)
        return items

    def _pieces(self, items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
        step = max(1, LOOK_BYTES // size)
        for start in range(0, len(items), step):
            piece = items[start : start + step]
            self.work(len(piece) * size)
            yield piece


class Passing(Budget):
    """A budget for what one call hands over, with the handles among it.

    `given` are those handles, by identity, and whether each moves; they live at least as long as the call. `undo` holds
    what must happen after it.
    """

    __slots__ = ("given", "undo")

    def __init__(self, pause: Callable[[], None] | None = None) -> None:
        super().__init__(pause)
        self.given: dict[int, tuple[object, bool]] = {}
        self.undo: list[Callable[[bool], None]] = []

    def note(self, item: object, is_own: bool) -> bool:
        """Remember a handle; False if it cannot go along with the others: one that moves must be alone."""
        before = self.given.get(id(item))
        self.given[id(item)] = item, is_own or (before is not None and before[1])
        return before is None or not (is_own or before[1])

    def settle(self, done: bool) -> None:
        """After the call: free what it lent; with `done` False also take back what it would have moved."""
        undo, self.undo, self.given = self.undo, [], {}
        for step in undo:
            step(done)


def few(items: Iterable[Any], most: int) -> tuple[Any, ...]:
    """The items as they are now; of more than `most` only one more, so that endless ones end."""
    return items if type(items) is tuple else tuple(islice(items, most + 1))
