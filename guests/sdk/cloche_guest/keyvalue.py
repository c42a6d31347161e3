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

DEFAULT_BUCKET = "default"

_host = imported("store", "wasi_keyvalue_store", "keyvalue_store", having="Bucket", standard=True)
_atomics = imported("atomics", "wasi_keyvalue_atomics", having="increment", standard=True)


def is_available() -> bool:
    """Whether the plugin's world imports `wasi:keyvalue/store`."""
    return _host is not None


class Bucket(MutableMapping[str, bytes]):
    """A collection of keys with byte values: a mapping, with a few things more. Iterating asks the host page by page.

    Every operation raises Unavailable without the import, Denied when the operator granted no such bucket, and
    ServiceError for anything else, such as a full quota.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._handle: Any = None

    def __getitem__(self, key: str) -> bytes:
        value: bytes | None = asked(self._what(key), self._opened().get, key)
        if value is None:
            raise KeyError(key)
        return value

    def __setitem__(self, key: str, value: bytes | bytearray | memoryview) -> None:
        asked(self._what(key), self._opened().set, key, bytes(value))

    def __delitem__(self, key: str) -> None:
        if key not in self:
            raise KeyError(key)
        asked(self._what(key), self._opened().delete, key)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and bool(asked(self._what(key), self._opened().exists, key))

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
        """Add `delta` to the number under `key` and return the sum, in one step. Needs `wasi:keyvalue/atomics`."""
        if _atomics is None:
            raise Unavailable("wasi:keyvalue/atomics")
        return int(asked(self._what(key), _atomics.increment, self._opened(), key, delta))

    def _opened(self) -> Any:
        if self._handle is None:
            if _host is None:
                raise Unavailable("wasi:keyvalue/store")
            self._handle = asked(f"bucket {self.name!r}", _host.open, self.name)
        return self._handle

    def _what(self, key: object) -> str:
        return f"key {key!r} of bucket {self.name!r}"


def open(name: str = DEFAULT_BUCKET) -> Bucket:  # noqa: A001 - the word that the interface uses
    """The bucket `name`. The host is asked when it is first used."""
    return Bucket(name)
