"""A typed, bounded table of live objects behind integer handles.

The host keeps what a guest's resources stand for here and closes it itself: the engine runs no destructor when a store
is closed or after a trap.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from cloche.errors import LimitError

T = TypeVar("T")


def too_many(most: int) -> LimitError:
    """The error for one live resource more than `most`."""
    return LimitError(
        f"more than {most} live resources; drop handles earlier or raise the limit `handles`", code="limit.handles"
    )


class Handles(Generic[T]):
    """Maps handles (1, 2, …; reused after release) to objects; at most `most` alive at once.

    Not thread-safe: one instance serves one call at a time and owns its table.
    """

    __slots__ = ("_close", "_free", "_items", "_live", "_most", "peak")

    def __init__(self, most: int, close: Callable[[T], None]) -> None:
        self._most = most
        self._close = close
        self._items: list[T | None] = [None]
        self._free: list[int] = []
        self._live = 0
        self.peak = 0

    def __len__(self) -> int:
        return self._live

    def push(self, item: T) -> int:
        """Store `item` and return its handle.

        Raises: LimitError (`limit.handles`) when the table is full; `item` is closed first, so nothing leaks.
        """
        if self._live >= self._most:
            self._close(item)
            raise too_many(self._most)
        self._live += 1
        self.peak = max(self.peak, self._live)
        if self._free:
            handle = self._free.pop()
            self._items[handle] = item
            return handle
        self._items.append(item)
        return len(self._items) - 1

    def get(self, handle: int) -> T:
        """The object behind `handle`. Raises: KeyError when it is not alive."""
        item = self._items[handle] if 0 < handle < len(self._items) else None
        if item is None:
            raise KeyError(handle)
        return item

    def take(self, handle: int) -> T:
        """Remove `handle` and return its object without closing it. Raises: KeyError when it is not alive."""
        item = self.get(handle)
        self._items[handle] = None
        self._free.append(handle)
        self._live -= 1
        return item

    def release(self, handle: int) -> None:
        """Remove `handle` and close its object; an unknown handle is ignored."""
        try:
            item = self.take(handle)
        except KeyError:
            return
        self._close(item)

    def close(self) -> list[BaseException]:
        """Close everything that is still alive, newest first; return what failed instead of stopping there."""
        failures: list[BaseException] = []
        for handle in range(len(self._items) - 1, 0, -1):
            item = self._items[handle]
            if item is not None:
                self._items[handle] = None
                try:
                    self._close(item)
                except BaseException as error:
                    failures.append(error)
        self._live = 0
        self._items = [None]
        self._free = []
        return failures
