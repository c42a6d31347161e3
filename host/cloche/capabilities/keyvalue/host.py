"""Host side of `wasi:keyvalue`: one object for each of `store`, `atomics` and `batch`, over one backend.

The standard's error variant has no case for a full store, so `other` carries short texts of ours. What the backend says
when it fails goes to the operator's events, never to the guest.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from cloche.capabilities.api import EventKind, HostInterface, Session
from cloche.capabilities.keyvalue.backend import (
    AnswerTooLargeError,
    BackendFactory,
    BackendFailureError,
    KeyValueBackend,
    NotANumberError,
    Quota,
    QuotaExceededError,
)
from cloche.capabilities.keyvalue.grant import ATOMICS, BATCH, SCHEMA, STORE, KeyValueRequest
from cloche.capabilities.keyvalue.sqlite import SqliteBackend
from cloche.grants.schema import Params
from cloche.model import Err, Ok
from cloche.resources import wit_dir
from cloche.values import Case

MAX_KEY_BYTES = 1024
"""Longest key, in bytes of UTF-8; the index holds keys whole."""
MAX_VALUE_BYTES = 2 << 20
"""Largest value. Below what the engine takes of a guest (2.7 million bytes): beyond that the guest would get a trap
instead of an answer."""
MAX_BATCH_KEYS = 1000
"""Most keys of one batch operation."""
MAX_BATCH_BYTES = 2 << 20
"""Most bytes of keys and values that one batch operation takes, and of values that it returns; as for one value."""
MAX_NOTED_BYTES = 32 << 20
"""Most bytes of values that the open `cas` handles of one instance remember together: making one moves no bytes."""
MAX_PAGE_KEYS = 256
"""Keys on one page of `list-keys`."""

T = TypeVar("T")


class _RefusedError(Exception):
    """A guest's own mistake; the text is for the guest."""


class Shop:
    """What the three interfaces of one instance share: the backend, the bounds and the mapping of errors."""

    def __init__(self, grant: KeyValueRequest, session: Session, backend: KeyValueBackend) -> None:
        self.grant, self.backend, self._session = grant, backend, session
        self.noted_bytes = 0
        self._has_told_full = False
        self.max_value_bytes = min(
            MAX_VALUE_BYTES, grant.value_bytes if grant.value_bytes is not None else MAX_VALUE_BYTES
        )

    def attempt(self, action: Callable[[], T]) -> Ok[T] | Err[Case]:
        """Do `action` and turn its failures into the guest's `other`. The first full store is a `limit` event, too."""
        try:
            return Ok(action())
        except QuotaExceededError as error:
            if not self._has_told_full:
                self._has_told_full = True
                full = {"code": "limit.data", "limit": "data", "message": str(error)}
                self._session.emit(EventKind.LIMIT, full)
            return Err(Case("other", str(error)))
        except (_RefusedError, NotANumberError, AnswerTooLargeError) as error:
            return Err(Case("other", str(error)))
        except BackendFailureError as error:
            self._session.emit(EventKind.BACKEND_ERROR, {"cause": str(error)})
            return Err(Case("other", "the storage failed"))

    @staticmethod
    def key(key: str) -> bytes:
        """The key's bytes. Raises: _RefusedError when it is too long."""
        encoded = key.encode()
        if len(encoded) > MAX_KEY_BYTES:
            raise _RefusedError(f"a key has {len(encoded)} bytes; at most {MAX_KEY_BYTES} are allowed")
        return encoded

    def value(self, value: bytes) -> bytes:
        """The value's bytes. Raises: _RefusedError when there are too many."""
        if len(value) > self.max_value_bytes:
            raise _RefusedError(f"a value has {len(value)} bytes; at most {self.max_value_bytes} are allowed")
        return bytes(value)


class Bucket:
    """The resource `bucket`: one granted bucket, for one instance."""

    def __init__(self, shop: Shop, identifier: str) -> None:
        self.shop, self.name = shop, identifier.encode()

    def get(self, key: str) -> Ok[bytes | None] | Err[Case]:
        """The value of `key`, or None."""
        return self.shop.attempt(lambda: self.shop.backend.read(self.name, self.shop.key(key)).value)

    def set(self, key: str, value: bytes) -> Ok[None] | Err[Case]:
        """Set the value; `other` when the key or value is too long or the quota would be exceeded."""
        return self.shop.attempt(
            lambda: self.shop.backend.change(self.name, {self.shop.key(key): self.shop.value(value)})
        )

    def delete(self, key: str) -> Ok[None] | Err[Case]:
        """Remove `key` if it exists."""
        return self.shop.attempt(lambda: self.shop.backend.change(self.name, {self.shop.key(key): None}))

    def exists(self, key: str) -> Ok[bool] | Err[Case]:
        """Whether `key` exists."""
        return self.shop.attempt(lambda: self.shop.backend.read(self.name, self.shop.key(key)).value is not None)

    def list_keys(self, cursor: str | None) -> Ok[dict[str, Any]] | Err[Case]:
        """One page of at most 256 keys in byte order, and the cursor of the next page (None after the last)."""

        def page() -> dict[str, Any]:
            keys = self.shop.backend.keys_after(self.name, _after(cursor), MAX_PAGE_KEYS + 1)
            more = len(keys) > MAX_PAGE_KEYS
            keys = keys[:MAX_PAGE_KEYS]
            return {
                "keys": [key.decode() for key in keys],
                "cursor": base64.urlsafe_b64encode(keys[-1]).decode() if more else None,
            }

        return self.shop.attempt(page)


class Cas:
    """The resource `cas`: a value as it was at one moment.

    Raises: _RefusedError when the instance's open handles would remember too much.
    """

    def __init__(self, bucket: Bucket, key: bytes) -> None:
        self.bucket, self.key = bucket, key
        seen = bucket.shop.backend.read(bucket.name, key)
        size = len(seen.value or b"")
        if bucket.shop.noted_bytes + size > MAX_NOTED_BYTES:
            raise _RefusedError(f"open cas handles may remember {MAX_NOTED_BYTES} bytes; drop some first")
        bucket.shop.noted_bytes += size
        self.stamp, self.value = seen.stamp, seen.value

    def current(self) -> Ok[bytes | None] | Err[Case]:
        """The value that was noted, or None."""
        return Ok(self.value)

    def close(self) -> None:
        """Forget the value. Idempotent."""
        self.bucket.shop.noted_bytes -= len(self.value or b"")
        self.value = None


class StoreHost:
    """`wasi:keyvalue/store` for one instance. Source: wit/deps/wasi-keyvalue/package.wit."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop

    def open(self, identifier: str) -> Ok[Bucket] | Err[Case]:
        """A granted bucket, made when it is first written; `access-denied` for any other identifier, known or not."""
        if identifier not in self._shop.grant.buckets:
            return Err(Case("access-denied"))
        return Ok(Bucket(self._shop, identifier))

    def close(self) -> None:
        """Close the backend that the three interfaces share."""
        self._shop.backend.close()


class AtomicsHost:
    """`wasi:keyvalue/atomics` for one instance. Source: wit/deps/wasi-keyvalue/package.wit."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop

    def cas_new(self, bucket: Bucket, key: str) -> Ok[Cas] | Err[Case]:
        """Take note of the present value of `key`."""
        return self._shop.attempt(lambda: Cas(bucket, self._shop.key(key)))

    def increment(self, bucket: Bucket, key: str, delta: int) -> Ok[int] | Err[Case]:
        """Add to the decimal number under `key`; `other` when it is none or the sum leaves 64 bits."""
        return self._shop.attempt(lambda: self._shop.backend.increment(bucket.name, self._shop.key(key), delta))

    def swap(self, cas: Cas, value: bytes) -> Ok[None] | Err[Case]:
        """Set the value if nobody changed it since `cas` was made; else `cas-failed` with a new handle."""
        shop = self._shop
        cas.close()  # a swap uses the handle up
        done = shop.attempt(lambda: shop.backend.swap(cas.bucket.name, cas.key, cas.stamp, shop.value(value)))
        if isinstance(done, Err):
            return Err(Case("store-error", done.value))
        if done.value:
            return Ok(None)
        renewed = shop.attempt(lambda: Cas(cas.bucket, cas.key))
        return Err(Case("store-error" if isinstance(renewed, Err) else "cas-failed", renewed.value))

    def close(self) -> None:
        """Nothing of its own; `StoreHost` closes the backend."""


class BatchHost:
    """`wasi:keyvalue/batch` for one instance; each operation happens as a whole or not at all."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop

    def get_many(self, bucket: Bucket, keys: list[str]) -> Ok[list[tuple[str, bytes | None]]] | Err[Case]:
        """The value of each key in order; `other` for more than 1000 keys or 2 MiB of values."""

        def read() -> list[tuple[str, bytes | None]]:
            encoded = self._keys(keys)
            values = self._shop.backend.read_many(bucket.name, encoded, MAX_BATCH_BYTES)
            return [(key, values[name]) for key, name in zip(keys, encoded, strict=True)]

        return self._shop.attempt(read)

    def set_many(self, bucket: Bucket, key_values: list[tuple[str, bytes]]) -> Ok[None] | Err[Case]:
        """Set many values; of a key that is named twice the last value stays. `other` for more than 2 MiB together."""

        def write() -> None:
            keys = self._keys([key for key, _ in key_values])
            values = [self._shop.value(value) for _, value in key_values]
            size_bytes = sum(map(len, keys)) + sum(map(len, values))
            if size_bytes > MAX_BATCH_BYTES:
                raise _RefusedError(f"a batch has {size_bytes} bytes; at most {MAX_BATCH_BYTES} are allowed")
            self._shop.backend.change(bucket.name, dict(zip(keys, values, strict=True)))

        return self._shop.attempt(write)

    def delete_many(self, bucket: Bucket, keys: list[str]) -> Ok[None] | Err[Case]:
        """Remove many keys."""
        return self._shop.attempt(lambda: self._shop.backend.change(bucket.name, dict.fromkeys(self._keys(keys))))

    def close(self) -> None:
        """Nothing of its own; `StoreHost` closes the backend."""

    def _keys(self, keys: list[str]) -> list[bytes]:
        if len(keys) > MAX_BATCH_KEYS:
            raise _RefusedError(f"{len(keys)} keys in one batch; at most {MAX_BATCH_KEYS} are allowed")
        return [self._shop.key(key) for key in keys]


class KeyValue:
    """The capability `wasi:keyvalue`. `backend` opens a plugin's storage; by default one SQLite file each."""

    schema = SCHEMA

    def __init__(self, backend: BackendFactory = SqliteBackend) -> None:
        self._backend = backend

    def wit(self) -> Path:
        """The directory of the WIT package."""
        return wit_dir() / "deps/wasi-keyvalue"

    def open(self, grant: Params, session: Session) -> Mapping[str, HostInterface]:
        """Host objects for one instance. The quota is the lower of grant and limit (`data`)."""
        assert isinstance(grant, KeyValueRequest)
        limits = session.limits
        quota = Quota(
            limits.data_bytes if grant.bytes is None else min(grant.bytes, limits.data_bytes),
            limits.data_files if grant.keys is None else min(grant.keys, limits.data_files),
        )
        shop = Shop(grant, session, self._backend(session.storage, quota))
        return {STORE: StoreHost(shop), ATOMICS: AtomicsHost(shop), BATCH: BatchHost(shop)}


def _after(cursor: str | None) -> bytes | None:
    """The key that a cursor of ours stands for. Raises: _RefusedError for any other text."""
    if cursor is None:
        return None
    try:
        if len(cursor) > 2 * MAX_KEY_BYTES:
            raise ValueError
        return base64.b64decode(cursor.encode(), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        raise _RefusedError("not a cursor of this store") from None
