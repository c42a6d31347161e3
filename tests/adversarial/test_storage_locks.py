"""Threat: a process that holds a lock of a plugin's storage is stopped, or a child of it has inherited the lock.

Expected: others wait for a bounded time, the guest gets an error value and the operator the cause; the next call works.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cloche.capabilities import filelock
from cloche.capabilities.api import EventKind
from cloche.capabilities.data.grant import INTERFACE, DataParams
from cloche.capabilities.data.host import Data
from cloche.capabilities.data.ledger import FILE_NAME
from cloche.capabilities.keyvalue.grant import STORE, KeyValueRequest
from cloche.capabilities.keyvalue.host import KeyValue
from cloche.capabilities.keyvalue.sqlite import LOCK_NAME
from support.capability_rig import Rig, ok, reason

pytestmark = pytest.mark.adversarial

HOLD = """
import fcntl, os, sys
held = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
fcntl.flock(held, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def held_elsewhere(path: Path) -> Iterator[None]:
    """Another process holds the lock of the file `path` and does not let go."""
    path.parent.mkdir(exist_ok=True)
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        try:
            yield
        finally:
            child.kill()


def write_data(rig: Rig) -> Any:
    """The answer of a write into the data directory of a fresh instance."""
    hosts: Any = Data().open(DataParams(), rig.session())
    try:
        return hosts[INTERFACE].write("a", b"1")
    finally:
        hosts[INTERFACE].close()


def write_value(rig: Rig) -> Any:
    """The answer of a write into the key-value store of a fresh instance."""
    hosts: Any = KeyValue().open(KeyValueRequest(), rig.session())
    try:
        return ok(hosts[STORE].open("default")).set("a", b"1")
    finally:
        hosts[STORE].close()


@pytest.mark.parametrize(("name", "write"), [(FILE_NAME, write_data), (LOCK_NAME, write_value)])
def test_a_lock_that_is_not_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, write: Callable[[Rig], Any]
) -> None:
    """The guest sees that the storage failed, the operator why; afterwards everything works."""
    monkeypatch.setattr(filelock, "LOCK_WAIT_SECONDS", 0.1)
    rig = Rig(tmp_path / "storage")
    with held_elsewhere(rig.storage / name):
        assert reason(write(rig)) == "the storage failed"
    (event,) = rig.of(EventKind.BACKEND_ERROR)
    assert "another writer held the lock for 0.1 seconds" in event["cause"]
    ok(write(rig))
    assert len(rig.events) == 1


def test_a_child_does_not_keep_what_it_inherited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A descriptor in a child is the same lock as in its parent: when the parent lets go, it is free."""
    monkeypatch.setattr(filelock, "LOCK_WAIT_SECONDS", 0.1)
    command = [sys.executable, "-c", "import sys; print('up', flush=True); sys.stdin.read()"]
    with filelock.locked_file(tmp_path / "lock") as descriptor:
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[descriptor])
        with pytest.raises(TimeoutError), filelock.locked_file(tmp_path / "lock"):
            pass
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"up\n"
        with filelock.locked_file(tmp_path / "lock"):
            pass
        child.kill()
