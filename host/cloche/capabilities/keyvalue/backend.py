"""What a key-value backend is, and the arithmetic that all backends share.

Buckets and keys are opaque bytes: nothing here or below builds a path, a statement or a pattern from them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

S64_MIN, S64_MAX = -(1 << 63), (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Quota:
    """Bounds of all buckets of one plugin together: bytes of keys and values, and the number of keys."""

    max_bytes: int
    max_keys: int


@dataclass(frozen=True, slots=True)
class Stamped:
    """A value and the stamp of the change that made it; where there is no value, None and the stamp of the last change
    that removed any key. No two changes of one plugin's store have the same stamp, so neither a value that was removed
    and set again nor a lack of one that was mended meanwhile is mistaken for the old one."""

    value: bytes | None
    stamp: int


class QuotaExceededError(Exception):
    """A change would exceed the quota; nothing was changed. The text names the bound."""


class AnswerTooLargeError(Exception):
    """The values of one read are larger together than allowed. The text names the bound."""


class NotANumberError(Exception):
    """The value to be incremented is not a decimal number of 64 bits, or the sum would not be one."""


class BackendFailureError(Exception):
    """The storage itself failed (disk full, damaged file, locked too long). The text is for the operator only."""


class KeyValueBackend(Protocol):
    """Storage of one plugin, used by one instance at a time; other instances and processes have backends of their own.

    Every method may block on the disk for a bounded time and may raise BackendFailureError.
    """

    def read(self, bucket: bytes, key: bytes) -> Stamped:
        """The value under `key` with its stamp."""

    def read_many(self, bucket: bytes, keys: Iterable[bytes], max_bytes: int) -> dict[bytes, bytes | None]:
        """The values under `keys`, all as of one moment, at most `max_bytes` of them. Raises: AnswerTooLargeError."""

    def change(self, bucket: bytes, changes: Mapping[bytes, bytes | None]) -> None:
        """Set (bytes) and remove (None) keys, all or none. Raises: QuotaExceededError."""

    def increment(self, bucket: bytes, key: bytes, delta: int) -> int:
        """Add `delta` to the decimal number under `key` (missing: 0). Raises: NotANumberError, QuotaExceededError."""

    def swap(self, bucket: bytes, key: bytes, stamp: int, value: bytes) -> bool:
        """Set the value if the stamp is still the same; whether that happened. Raises: QuotaExceededError."""

    def keys_after(self, bucket: bytes, after: bytes | None, most: int) -> list[bytes]:
        """Up to `most` keys greater than `after` (None: from the first), in byte order."""

    def close(self) -> None:
        """Release connections and files."""


BackendFactory = Callable[[Path, Quota], KeyValueBackend]
"""Opens the storage in a plugin's own directory. Must be cheap; the disk is touched on first use."""


def ensure_room(quota: Quota, used_bytes: int, used_keys: int, more_bytes: int, more_keys: int) -> None:
    """Raises: QuotaExceededError when the store would grow and then be over a bound. Shrinking is always allowed."""
    if more_bytes > 0 and used_bytes + more_bytes > quota.max_bytes:
        raise QuotaExceededError(f"quota of {quota.max_bytes} bytes exceeded")
    if more_keys > 0 and used_keys + more_keys > quota.max_keys:
        raise QuotaExceededError(f"quota of {quota.max_keys} keys exceeded")


def within(entries: Iterator[tuple[bytes, bytes | None]], max_bytes: int) -> dict[bytes, bytes | None]:
    """The entries, read one by one and no further than `max_bytes` of values. Raises: AnswerTooLargeError."""
    answer: dict[bytes, bytes | None] = {}
    for key, value in entries:
        max_bytes -= 0 if value is None else len(value)
        if max_bytes < 0:
            raise AnswerTooLargeError("the values are larger together than one answer may be; ask for fewer keys")
        answer[key] = value
    return answer


def added(value: bytes | None, delta: int) -> tuple[int, bytes]:
    """The sum of a stored decimal number and `delta`, as number and as stored. Raises: NotANumberError."""
    text = b"0" if value is None else value
    digits = text[1:] if text[:1] == b"-" else text
    # isdigit on bytes is ASCII only; 19 digits are the most that 64 bits need, and int() never sees more.
    if not digits.isdigit() or len(digits) > 19:
        raise NotANumberError("the value is not a decimal number of 64 bits")
    total = int(text) + delta
    if not S64_MIN <= total <= S64_MAX:
        raise NotANumberError("the sum does not fit in 64 bits")
    return total, str(total).encode()
