"""Key-value storage in one SQLite file for each plugin (`keyvalue.sqlite3` in its directory), in WAL mode.

Each instance has a connection of its own, opened on first use, so threads and processes meet only in SQLite. Every
change is one transaction that begins with the write lock: quota and value are checked and changed under it.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from cloche.capabilities.filelock import LOCK_WAIT_SECONDS, locked_file
from cloche.capabilities.keyvalue.backend import (
    BackendFailureError,
    Quota,
    Stamped,
    added,
    ensure_room,
    within,
)

FILE_NAME = "keyvalue.sqlite3"
LOCK_NAME = "keyvalue.lock"
PAGE_BYTES = 4096
SLACK_BYTES = 1 << 20
"""What the file may be larger than twice the quota: indexes, free pages, the schema. A backstop behind the quota."""
WAL_KEPT_BYTES = 1 << 20
"""Size to which the write-ahead log is cut back after a checkpoint."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    bucket BLOB NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL, stamp INTEGER NOT NULL, UNIQUE (bucket, key)
);
CREATE TABLE IF NOT EXISTS totals (
    id INTEGER PRIMARY KEY CHECK (id = 1), bytes INTEGER NOT NULL, keys INTEGER NOT NULL, stamp INTEGER NOT NULL,
    removal_stamp INTEGER NOT NULL
);
INSERT OR IGNORE INTO totals VALUES (1, 0, 0, 0, 0);
"""


class SqliteBackend:
    """A backend over the plugin's file. Used by one thread at a time, not always the same one."""

    def __init__(self, storage: Path, quota: Quota) -> None:
        self._storage, self._quota = storage, quota
        self._connection: sqlite3.Connection | None = None

    def read(self, bucket: bytes, key: bytes) -> Stamped:
        """See `KeyValueBackend.read`."""
        with self._transaction("DEFERRED") as connection:
            return _read(connection, bucket, key)

    def read_many(self, bucket: bytes, keys: Iterable[bytes], max_bytes: int) -> dict[bytes, bytes | None]:
        """See `KeyValueBackend.read_many`."""
        with self._transaction("DEFERRED") as connection:
            return within(((key, _read(connection, bucket, key).value) for key in keys), max_bytes)

    def change(self, bucket: bytes, changes: Mapping[bytes, bytes | None]) -> None:
        """See `KeyValueBackend.change`."""
        with self._transaction("IMMEDIATE") as connection:
            self._change(connection, bucket, changes)

    def increment(self, bucket: bytes, key: bytes, delta: int) -> int:
        """See `KeyValueBackend.increment`."""
        with self._transaction("IMMEDIATE") as connection:
            total, text = added(_read(connection, bucket, key).value, delta)
            self._change(connection, bucket, {key: text})
            return total

    def swap(self, bucket: bytes, key: bytes, stamp: int, value: bytes) -> bool:
        """See `KeyValueBackend.swap`."""
        with self._transaction("IMMEDIATE") as connection:
            if _read(connection, bucket, key).stamp != stamp:
                return False
            self._change(connection, bucket, {key: value})
            return True

    def keys_after(self, bucket: bytes, after: bytes | None, most: int) -> list[bytes]:
        """See `KeyValueBackend.keys_after`."""
        with self._transaction("DEFERRED") as connection:
            # The empty key is a key like any other, so "from the first" needs a statement of its own.
            if after is None:
                rows = connection.execute(
                    "SELECT key FROM entries WHERE bucket = ? ORDER BY key LIMIT ?", (bucket, most)
                )
            else:
                rows = connection.execute(
                    "SELECT key FROM entries WHERE bucket = ? AND key > ? ORDER BY key LIMIT ?", (bucket, after, most)
                )
            return [bytes(key) for (key,) in rows.fetchall()]

    def close(self) -> None:
        """Close the connection, if it was ever opened."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _change(self, connection: sqlite3.Connection, bucket: bytes, changes: Mapping[bytes, bytes | None]) -> None:
        used_bytes, used_keys, stamp, removal_stamp = connection.execute(
            "SELECT bytes, keys, stamp, removal_stamp FROM totals"
        ).fetchone()
        stamp += 1
        more_bytes = more_keys = 0
        for key, value in changes.items():
            old = connection.execute(
                "SELECT length(value) FROM entries WHERE bucket = ? AND key = ?", (bucket, key)
            ).fetchone()
            more_bytes += (0 if value is None else len(key) + len(value)) - (0 if old is None else len(key) + old[0])
            more_keys += (value is not None) - (old is not None)
        ensure_room(self._quota, used_bytes, used_keys, more_bytes, more_keys)
        for key, value in changes.items():
            if value is None:
                removed = connection.execute("DELETE FROM entries WHERE bucket = ? AND key = ?", (bucket, key)).rowcount
                removal_stamp = stamp if removed else removal_stamp
            else:
                connection.execute(
                    "INSERT INTO entries VALUES (?, ?, ?, ?)"
                    " ON CONFLICT (bucket, key) DO UPDATE SET value = excluded.value, stamp = excluded.stamp",
                    (bucket, key, value, stamp),
                )
        connection.execute(
            "UPDATE totals SET bytes = ?, keys = ?, stamp = ?, removal_stamp = ?",
            (used_bytes + more_bytes, used_keys + more_keys, stamp, removal_stamp),
        )

    @contextmanager
    def _transaction(self, kind: str) -> Iterator[sqlite3.Connection]:
        try:
            connection = self._connection or self._open()
            connection.execute(f"BEGIN {kind}")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise BackendFailureError(f"{FILE_NAME}: {error}") from error
        except OSError as error:
            raise BackendFailureError(f"{FILE_NAME}: {error.strerror}") from error

    def _open(self) -> sqlite3.Connection:
        self._storage.mkdir(mode=0o700, parents=True, exist_ok=True)
        # One opener at a time: switching to WAL answers "locked" at once, without waiting, when two do it together.
        with locked_file(self._storage / LOCK_NAME):
            self._connection = self._connect(self._storage / FILE_NAME)
        return self._connection

    def _connect(self, path: Path) -> sqlite3.Connection:
        # Made by us, so that the file is private whatever the umask. Only a file that did not exist: closing another
        # descriptor of an open database would take away the locks that this process holds on it.
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(path, timeout=LOCK_WAIT_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute(f"PRAGMA journal_size_limit = {WAL_KEPT_BYTES}")
            pages = (2 * self._quota.max_bytes + SLACK_BYTES) // PAGE_BYTES + self._quota.max_keys
            connection.execute(f"PRAGMA max_page_count = {min(pages, 0xFFFFFFFE)}")
            if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0:
                connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
        except BaseException:
            connection.close()
            raise
        return connection


def _read(connection: sqlite3.Connection, bucket: bytes, key: bytes) -> Stamped:
    row = connection.execute("SELECT value, stamp FROM entries WHERE bucket = ? AND key = ?", (bucket, key)).fetchone()
    if row is not None:
        return Stamped(bytes(row[0]), row[1])
    return Stamped(None, connection.execute("SELECT removal_stamp FROM totals").fetchone()[0])
