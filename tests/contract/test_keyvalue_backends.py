"""`wasi:keyvalue` over every backend: the same calls give the same answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloche.capabilities.keyvalue.backend import BackendFactory
from cloche.capabilities.keyvalue.grant import ATOMICS, BATCH, STORE, KeyValueRequest
from cloche.capabilities.keyvalue.host import (
    MAX_BATCH_BYTES,
    MAX_BATCH_KEYS,
    MAX_KEY_BYTES,
    MAX_NOTED_BYTES,
    MAX_PAGE_KEYS,
    MAX_VALUE_BYTES,
    KeyValue,
)
from cloche.capabilities.keyvalue.memory import MemoryStores
from cloche.capabilities.keyvalue.sqlite import SqliteBackend
from cloche.model import Limits
from cloche.observe.events import EventKind
from support.capability_rig import Rig, err, ok, reason

# The empty key, case twins, separators, NUL, reserved names, SQL, and text outside the basic plane.
ODD_KEYS = [
    "",
    "a",
    "A",
    "a/b",
    "../x",
    "/etc/passwd",
    "\x00",
    "a\x00b",
    "CON",
    "'; DROP TABLE entries;--",
    "%",
    "🦀",
    "\uffff",
]


class Store:
    """Opens instances of one plugin over one backend."""

    def __init__(self, factory: BackendFactory, storage: Path) -> None:
        self.capability, self.storage = KeyValue(factory), storage
        self.opened: list[Any] = []
        self.rig = Rig(storage)

    def instance(self, limits: Limits | None = None, **grant: Any) -> Any:
        """An instance's host objects: `.store`, `.atomics`, `.batch`, and its default bucket."""
        self.rig.limits = limits or Limits()
        hosts = self.capability.open(KeyValueRequest.model_validate(grant), self.rig.session())
        self.opened.extend(hosts.values())

        class Instance:
            store: Any = hosts[STORE]
            atomics: Any = hosts[ATOMICS]
            batch: Any = hosts[BATCH]

            @property
            def bucket(self) -> Any:
                return ok(self.store.open("default"))

        return Instance()


@pytest.fixture(params=["sqlite", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A plugin's store over each backend."""
    made = Store(SqliteBackend if request.param == "sqlite" else MemoryStores(), tmp_path / "storage")
    yield made
    for host in made.opened:
        host.close()


def test_values_come_back(store: Store) -> None:
    """What was set is found, also by another instance; what was not is None."""
    bucket = store.instance().bucket
    assert ok(bucket.get("k")) is None
    assert ok(bucket.exists("k")) is False
    ok(bucket.set("k", b"\x00\xff"))
    ok(bucket.set("k", b"new"))
    assert ok(bucket.get("k")) == b"new"
    assert ok(bucket.exists("k")) is True
    assert ok(store.instance().bucket.get("k")) == b"new"


def test_an_empty_value_is_a_value(store: Store) -> None:
    """An empty value exists, in contrast to a missing one."""
    bucket = store.instance().bucket
    ok(bucket.set("k", b""))
    assert ok(bucket.get("k")) == b""
    assert ok(bucket.exists("k")) is True


def test_delete(store: Store) -> None:
    """A removed key is gone; removing it again does nothing."""
    bucket = store.instance().bucket
    ok(bucket.set("k", b"v"))
    ok(bucket.delete("k"))
    ok(bucket.delete("k"))
    assert ok(bucket.get("k")) is None


def test_odd_keys_are_distinct(store: Store) -> None:
    """Keys are opaque: no two are confused and none is refused for its characters."""
    bucket = store.instance().bucket
    for number, key in enumerate(ODD_KEYS):
        ok(bucket.set(key, str(number).encode()))
    assert [ok(bucket.get(key)) for key in ODD_KEYS] == [str(number).encode() for number in range(len(ODD_KEYS))]
    page = ok(bucket.list_keys(None))
    assert sorted(page["keys"]) == sorted(ODD_KEYS)
    assert page["cursor"] is None


def test_buckets_are_apart(store: Store) -> None:
    """The same key in two buckets has two values."""
    opened = store.instance(buckets=["a", "b"]).store
    a, b = ok(opened.open("a")), ok(opened.open("b"))
    ok(a.set("k", b"1"))
    assert ok(b.get("k")) is None
    assert ok(b.list_keys(None))["keys"] == []


@pytest.mark.parametrize("identifier", ["other", "", "Default", "default\x00", "../default"])
def test_only_granted_buckets_open(store: Store, identifier: str) -> None:
    """Any other identifier is denied, whether such a bucket exists or not."""
    ok(store.instance(buckets=["other"]).store.open("other"))
    assert err(store.instance().store.open(identifier)) == "access-denied"


def test_pages_hold_every_key_once(store: Store) -> None:
    """Cursors lead through all keys, the empty one first, without repeating any."""
    bucket = store.instance().bucket
    keys = ["", *(f"k{number:04}" for number in range(2 * MAX_PAGE_KEYS))]
    for start in range(0, len(keys), 500):
        ok(store.instance().batch.set_many(bucket, [(key, b"") for key in keys[start : start + 500]]))
    found: list[str] = []
    cursor = None
    for _ in range(3):
        page = ok(bucket.list_keys(cursor))
        found += page["keys"]
        cursor = page["cursor"]
    assert cursor is None
    assert found == keys


def test_a_page_that_just_fits_is_the_last(store: Store) -> None:
    """Exactly one page of keys gives no cursor."""
    instance = store.instance()
    ok(instance.batch.set_many(instance.bucket, [(str(number), b"") for number in range(MAX_PAGE_KEYS)]))
    page = ok(instance.bucket.list_keys(None))
    assert (len(page["keys"]), page["cursor"]) == (MAX_PAGE_KEYS, None)


@pytest.mark.parametrize("cursor", ["not base64!", "a", "é", "x" * 5000])
def test_foreign_cursors_are_refused(store: Store, cursor: str) -> None:
    """A text that is no cursor of ours is an error value, not a crash."""
    assert reason(store.instance().bucket.list_keys(cursor)) == "not a cursor of this store"


def test_quota_edges(store: Store) -> None:
    """The last byte and the last key fit, one more does not, and nothing is changed by the attempt."""
    bucket = store.instance(bytes=10, keys=2).bucket
    ok(bucket.set("k", b"123456789"))
    assert "10 bytes" in reason(bucket.set("k", b"1234567890"))
    assert "10 bytes" in reason(bucket.set("", b"1"))
    assert ok(bucket.get("k")) == b"123456789"
    ok(bucket.set("", b""))
    ok(bucket.set("k", b"12345678"))
    assert "2 keys" in reason(bucket.set("3", b""))
    ok(bucket.delete("k"))
    ok(bucket.set("3", b"123456789"))


def test_the_operator_is_told_once_that_the_store_is_full(store: Store) -> None:
    """One `limit` event for each instance that meets the quota, which names the bound; none before."""
    instance = store.instance(bytes=10, keys=2)
    ok(instance.bucket.set("k", b"123456789"))
    assert store.rig.of(EventKind.LIMIT) == []
    for _ in range(3):
        assert "10 bytes" in reason(instance.bucket.set("k", b"1234567890"))
    (told,) = store.rig.of(EventKind.LIMIT)
    assert (told["code"], told["limit"]) == ("limit.data", "data")
    assert "10 bytes" in told["message"]


def test_a_lowered_quota_still_allows_shrinking(store: Store) -> None:
    """A store that is over its new quota can be read and made smaller."""
    ok(store.instance().bucket.set("k", b"x" * 100))
    bucket = store.instance(bytes=10).bucket
    assert ok(bucket.get("k")) == b"x" * 100
    ok(bucket.set("k", b"x" * 50))
    assert "10 bytes" in reason(bucket.set("k", b"x" * 51))
    ok(bucket.delete("k"))


def test_the_plugins_limit_bounds_the_grant(store: Store) -> None:
    """A grant larger than the limit `data` does not count."""
    bucket = store.instance(Limits(data_bytes=5, data_files=1), bytes=100, keys=100).bucket
    assert "5 bytes" in reason(bucket.set("k", b"12345"))
    ok(bucket.set("k", b"1234"))
    assert "1 keys" in reason(bucket.set("", b""))


def test_size_caps(store: Store) -> None:
    """Keys and values have bounds of their own, in bytes."""
    bucket = store.instance(value_bytes=4).bucket
    ok(bucket.set("k" * MAX_KEY_BYTES, b"1234"))
    assert f"at most {MAX_KEY_BYTES}" in reason(bucket.set("k" * (MAX_KEY_BYTES + 1), b""))
    assert f"at most {MAX_KEY_BYTES}" in reason(bucket.get("é" * (MAX_KEY_BYTES // 2 + 1)))
    assert "at most 4" in reason(bucket.set("k", b"12345"))
    bucket = store.instance().bucket
    ok(bucket.set("k", b"x" * MAX_VALUE_BYTES))
    assert f"at most {MAX_VALUE_BYTES}" in reason(bucket.set("k", b"x" * (MAX_VALUE_BYTES + 1)))


@pytest.mark.parametrize(
    ("before", "delta", "expected"),
    [(None, 5, 5), (b"7", -10, -3), (b"-3", 3, 0), (b"0", 2**63 - 1, 2**63 - 1), (b"-1", -(2**63) + 1, -(2**63))],
)
def test_increment(store: Store, before: bytes | None, delta: int, expected: int) -> None:
    """A missing key counts as 0; the sum is kept as decimal text."""
    instance = store.instance()
    if before is not None:
        ok(instance.bucket.set("n", before))
    assert ok(instance.atomics.increment(instance.bucket, "n", delta)) == expected
    assert ok(instance.bucket.get("n")) == str(expected).encode()


@pytest.mark.parametrize(
    ("before", "delta"),
    [
        (b"", 1),
        (b"x", 1),
        (b"1.5", 1),
        (b" 1", 1),
        (b"+1", 1),
        (b"\xb2", 1),
        (b"9" * 5000, 1),
        (str(2**63 - 1).encode(), 1),
    ],
)
def test_increment_refuses_what_is_no_number(store: Store, before: bytes, delta: int) -> None:
    """Anything but a decimal number of 64 bits is an error value and stays as it is."""
    instance = store.instance()
    ok(instance.bucket.set("n", before))
    assert "64 bits" in reason(instance.atomics.increment(instance.bucket, "n", delta))
    assert ok(instance.bucket.get("n")) == before


def test_compare_and_swap(store: Store) -> None:
    """A swap happens once; the loser gets a handle with the winner's value and can try again."""
    instance = store.instance()
    bucket, atomics = instance.bucket, instance.atomics
    first, second = ok(atomics.cas_new(bucket, "k")), ok(atomics.cas_new(bucket, "k"))
    assert ok(first.current()) is None
    ok(atomics.swap(first, b"1"))
    failed = atomics.swap(second, b"2")
    assert err(failed) == "cas-failed"
    assert ok(failed.value.payload.current()) == b"1"
    ok(atomics.swap(failed.value.payload, b"2"))
    assert ok(bucket.get("k")) == b"2"


def test_swap_sees_a_value_that_came_back(store: Store) -> None:
    """A key that was removed and set to the same value again has been changed."""
    instance = store.instance()
    bucket, atomics = instance.bucket, instance.atomics
    ok(bucket.set("k", b"v"))
    cas = ok(atomics.cas_new(bucket, "k"))
    ok(bucket.delete("k"))
    ok(bucket.set("k", b"v"))
    assert err(atomics.swap(cas, b"w")) == "cas-failed"


def test_swap_sees_a_key_that_came_and_went(store: Store) -> None:
    """A key that was set and removed again has been changed, also by another instance; other values do not count."""
    instance = store.instance()
    bucket, atomics = instance.bucket, instance.atomics
    cas = ok(atomics.cas_new(bucket, "k"))
    other = store.instance().bucket
    ok(other.set("k", b"v"))
    ok(other.delete("k"))
    failed = atomics.swap(cas, b"w")
    assert err(failed) == "cas-failed"
    ok(other.set("other", b""))
    ok(other.delete("absent"))
    ok(atomics.swap(failed.value.payload, b"w"))
    assert ok(bucket.get("k")) == b"w"


def test_swap_over_quota_is_a_store_error(store: Store) -> None:
    """The quota holds for swaps, and the error says so in the store's terms."""
    instance = store.instance(bytes=3)
    failed = instance.atomics.swap(ok(instance.atomics.cas_new(instance.bucket, "k")), b"123")
    assert err(failed) == "store-error"
    assert "3 bytes" in failed.value.payload.payload


def test_what_cas_handles_remember_is_bounded(store: Store) -> None:
    """Handles of a large value are refused beyond the bound; dropping one, or swapping with it, makes room."""
    instance = store.instance()
    bucket, atomics = instance.bucket, instance.atomics
    most = MAX_NOTED_BYTES // MAX_VALUE_BYTES
    ok(bucket.set("k", b"x" * MAX_VALUE_BYTES))
    first, second, *_ = [ok(atomics.cas_new(bucket, "k")) for _ in range(most)]
    assert f"{MAX_NOTED_BYTES} bytes" in reason(atomics.cas_new(bucket, "k"))
    first.close()
    ok(atomics.swap(second, b"small"))
    ok(bucket.set("k", b"x" * MAX_VALUE_BYTES))
    assert [len(ok(ok(atomics.cas_new(bucket, "k")).current())) for _ in range(2)] == [MAX_VALUE_BYTES] * 2


def test_batch(store: Store) -> None:
    """Many keys at once; the answer has one entry for each key asked for, in order, repeated ones included."""
    instance = store.instance()
    bucket, batch = instance.bucket, instance.batch
    ok(batch.set_many(bucket, [("a", b"1"), ("b", b"2"), ("a", b"3")]))
    assert ok(batch.get_many(bucket, ["b", "x", "a", "b"])) == [("b", b"2"), ("x", None), ("a", b"3"), ("b", b"2")]
    ok(batch.delete_many(bucket, ["a", "x", "a"]))
    assert ok(batch.get_many(bucket, ["a", "b"])) == [("a", None), ("b", b"2")]
    assert ok(batch.get_many(bucket, [])) == []


def test_a_batch_happens_whole_or_not_at_all(store: Store) -> None:
    """One value over the quota leaves all of them out."""
    instance = store.instance(bytes=10)
    assert "10 bytes" in reason(instance.batch.set_many(instance.bucket, [("a", b"1"), ("b", b"x" * 10)]))
    assert ok(instance.bucket.list_keys(None))["keys"] == []


def test_batches_are_bounded(store: Store) -> None:
    """Too many keys are refused, and so are too many bytes, of what is set and of an answer in which keys repeat."""
    instance = store.instance()
    bucket, batch = instance.bucket, instance.batch
    keys = ["k"] * (MAX_BATCH_KEYS + 1)
    assert f"at most {MAX_BATCH_KEYS}" in reason(batch.get_many(bucket, keys))
    assert f"at most {MAX_BATCH_KEYS}" in reason(batch.set_many(bucket, [(key, b"") for key in keys]))
    assert f"at most {MAX_BATCH_KEYS}" in reason(batch.delete_many(bucket, keys))
    half = MAX_BATCH_BYTES // 2
    ok(batch.set_many(bucket, [("j", b"x" * (half - 1)), ("k", b"x" * (half - 1))]))
    assert f"at most {MAX_BATCH_BYTES}" in reason(
        batch.set_many(bucket, [("j", b"y" * (half - 1)), ("k", b"y" * half)])
    )
    assert [value[:1] for _, value in ok(batch.get_many(bucket, ["j", "k"]))] == [b"x", b"x"]
    ok(bucket.set("k", b"x" * half))
    assert len(ok(batch.get_many(bucket, ["k"] * 2))) == 2
    assert "fewer keys" in reason(batch.get_many(bucket, ["k", "k", "j"]))


def test_two_plugins_share_nothing(store: Store, tmp_path: Path) -> None:
    """Another storage directory is another store."""
    ok(store.instance().bucket.set("k", b"v"))
    store.rig.storage = tmp_path / "elsewhere"
    assert ok(store.instance().bucket.get("k")) is None
