"""Key-value storage in memory, for tests and for embedders that want nothing kept."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from pathlib import Path

from cloche.capabilities.keyvalue.backend import KeyValueBackend, Quota, Stamped, added, ensure_room, within


class MemoryStore:
    """What one plugin has stored. Thread-safe through `lock`; lives as long as its stores object."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.entries: dict[tuple[bytes, bytes], Stamped] = {}
        self.used_bytes = 0
        self.stamp = self.removal_stamp = 0


class MemoryStores:
    """Hands out backends over stores that are kept per plugin directory: `KeyValue(MemoryStores())`."""

    def __init__(self) -> None:
        self._stores: dict[Path, MemoryStore] = {}
        self._lock = threading.Lock()

    def __call__(self, storage: Path, quota: Quota) -> KeyValueBackend:
        """A backend over the store that belongs to `storage`; the path only names it."""
        with self._lock:
            return MemoryBackend(self._stores.setdefault(storage, MemoryStore()), quota)


class MemoryBackend:
    """A backend over one `MemoryStore`."""

    def __init__(self, store: MemoryStore, quota: Quota) -> None:
        self._store, self._quota = store, quota

    def read(self, bucket: bytes, key: bytes) -> Stamped:
        """See `KeyValueBackend.read`."""
        with self._store.lock:
            return self._store.entries.get((bucket, key), Stamped(None, self._store.removal_stamp))

    def read_many(self, bucket: bytes, keys: Iterable[bytes], max_bytes: int) -> dict[bytes, bytes | None]:
        """See `KeyValueBackend.read_many`."""
        with self._store.lock:
            return within(((key, self.read(bucket, key).value) for key in keys), max_bytes)

    def change(self, bucket: bytes, changes: Mapping[bytes, bytes | None]) -> None:
        """See `KeyValueBackend.change`."""
        store = self._store
        with store.lock:
            more_bytes = more_keys = 0
            for key, value in changes.items():
                old = self.read(bucket, key).value
                more_bytes += (0 if value is None else len(key) + len(value)) - (
                    0 if old is None else len(key) + len(old)
                )
                more_keys += (value is not None) - (old is not None)
            ensure_room(self._quota, store.used_bytes, len(store.entries), more_bytes, more_keys)
            store.used_bytes += more_bytes
            store.stamp += 1
            for key, value in changes.items():
                if value is not None:
                    store.entries[(bucket, key)] = Stamped(value, store.stamp)
                elif store.entries.pop((bucket, key), None) is not None:
                    store.removal_stamp = store.stamp

    def increment(self, bucket: bytes, key: bytes, delta: int) -> int:
        """See `KeyValueBackend.increment`."""
        with self._store.lock:
            total, text = added(self.read(bucket, key).value, delta)
            self.change(bucket, {key: text})
            return total

    def swap(self, bucket: bytes, key: bytes, stamp: int, value: bytes) -> bool:
        """See `KeyValueBackend.swap`."""
        with self._store.lock:
            if self.read(bucket, key).stamp != stamp:
                return False
            self.change(bucket, {key: value})
            return True

    def keys_after(self, bucket: bytes, after: bytes | None, most: int) -> list[bytes]:
        """See `KeyValueBackend.keys_after`."""
        with self._store.lock:
            keys = sorted(key for of_bucket, key in self._store.entries if of_bucket == bucket)
        start = 0 if after is None else bisect_right(keys, after)
        return keys[start : start + most]

    def close(self) -> None:
        """Nothing to release; the store stays."""
