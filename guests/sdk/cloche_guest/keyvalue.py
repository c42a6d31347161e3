"""Key-value storage that outlives the instance, through `wasi:keyvalue`.

counters = keyvalue.open("counters")    # may stand at module level; the host is asked at the first use in a call
counters["seen"] = b"1"
total = counters.increment("hits")
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any

from cloche_guest.bindings import imported
from cloche_guest.errors import Unavailable, asked
from cloche_guest.lowering import S64_MAX, S64_MIN, contents, exact, integer

DEFAULT_BUCKET = "default"

_host = imported("store", "wasi_keyvalue_store", "keyvalue_store", having="Bucket", standard=True)
_atomics = imported("atomics", "wasi_keyvalue_atomics", having="increment", standard=True)


def is_available() -> bool:
    """Whether the plugin's world imports `wasi:keyvalue/store`."""
    return _host is not None


class Bucket(MutableMapping[str, bytes]):
    """A collection of keys with byte values: a mapping, with a few things more. Iterating asks the host page by page.

    Every operation raises Unavailable without the import, Denied when the operator granted no such bucket, and
    ServiceError for anything else, such as a full quota; ServiceError `too_large` for a value over 2 MiB.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._handle: Any = None

    def __getitem__(self, key: str) -> bytes:
        value: bytes | None = self._ask("get", key)
        if value is None:
            raise KeyError(key)
        return value

    def __setitem__(self, key: str, value: bytes | bytearray | memoryview) -> None:
        self._ask("set", key, contents(self._what(key), value))

    def __delitem__(self, key: str) -> None:
        if key not in self:
            raise KeyError(key)
        self._ask("delete", key)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and bool(self._ask("exists", key))

    def __iter__(self) -> Iterator[str]:
        cursor: str | None = None
        while True:
            page = asked(f"bucket {self.name!r}", self._opened().list_keys, cursor)
            yield from page.keys
            cursor = page.cursor
            if cursor is None:
                return

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def get_text(self, key: str, default: str | None = None) -> str | None:
        """The value of `key` as UTF-8 text, or `default`."""
        value = self.get(key)
        return default if value is None else value.decode("utf-8")

    def set_text(self, key: str, value: str) -> None:
        """Store a text as UTF-8."""
        self[key] = value.encode("utf-8")

    def increment(self, key: str, delta: int = 1) -> int:
        """Add `delta` to the number under `key` and return the sum, in one step. Needs `wasi:keyvalue/atomics`.

        Raises: ValueError for a `delta` of more than 64 bits.
        """
        if _atomics is None:
            raise Unavailable("wasi:keyvalue/atomics")
        what = self._what(key)
        delta = integer(f"delta of {what}", delta, S64_MIN, S64_MAX)
        return int(asked(what, _atomics.increment, self._opened(), exact(what, key), delta))

    def _ask(self, function: str, key: str, *values: bytes) -> Any:
        what = self._what(key)
        return asked(what, getattr(self._opened(), function), exact(what, key), *values)

    def _opened(self) -> Any:
        if self._handle is None:
            if _host is None:
                raise Unavailable("wasi:keyvalue/store")
            what = f"bucket {self.name!r}"
            self._handle = asked(what, _host.open, exact(what, self.name))
        return self._handle

    def _what(self, key: object) -> str:
        return f"key {key!r} of bucket {self.name!r}"


def open(name: str = DEFAULT_BUCKET) -> Bucket:  # noqa: A001 - the word that the interface uses
    """The bucket `name`. The host is asked when it is first used."""
    return Bucket(name)
