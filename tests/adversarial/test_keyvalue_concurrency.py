"""Threat: instances on many threads and in several processes write one plugin's store at once, or its file is damaged.

Expected: no update is lost, the quota holds, and a damaged file is an error value.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from cloche.capabilities.api import EventKind
from cloche.capabilities.keyvalue.grant import ATOMICS, STORE, KeyValueRequest
from cloche.capabilities.keyvalue.host import KeyValue
from cloche.capabilities.keyvalue.sqlite import FILE_NAME
from cloche.model import Limits
from support.capability_rig import Rig, ok, reason

pytestmark = pytest.mark.adversarial

WORK = """
import sys
from pathlib import Path
from support.capability_rig import Rig, ok
from cloche.capabilities.keyvalue.grant import ATOMICS, STORE, KeyValueRequest
from cloche.capabilities.keyvalue.host import KeyValue

hosts = KeyValue().open(KeyValueRequest(), Rig(Path(sys.argv[1])).session())
bucket = ok(hosts[STORE].open("default"))
for _ in range(int(sys.argv[2])):
    ok(hosts[ATOMICS].increment(bucket, "n", 1))
hosts[STORE].close()
"""


def test_two_processes_and_four_threads_lose_nothing(tmp_path: Path) -> None:
    """Every increment of every writer counts, also when the file does not exist yet."""
    storage = tmp_path / "storage"
    tests = Path(__file__).parents[1]
    children = [
        subprocess.Popen([sys.executable, "-c", WORK, str(storage), "100"], cwd=tests, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    capability, rig = KeyValue(), Rig(storage)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            hosts: Any = capability.open(KeyValueRequest(), rig.session())
            bucket = ok(hosts[STORE].open("default"))
            for _ in range(50):
                ok(hosts[ATOMICS].increment(bucket, "n", 1))
            hosts[STORE].close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for child in children:
        _, told = child.communicate(timeout=60)
        assert child.returncode == 0, told.decode()
    assert failures == []
    hosts: Any = capability.open(KeyValueRequest(), rig.session())
    assert ok(ok(hosts[STORE].open("default")).get("n")) == b"400"
    hosts[STORE].close()


def test_the_quota_holds_for_all_instances_together(tmp_path: Path) -> None:
    """Instances that race for the last keys never get more than there are."""
    rig = Rig(tmp_path, limits=Limits(data_files=10))
    capability = KeyValue()

    def work(number: int) -> None:
        hosts: Any = capability.open(KeyValueRequest(), rig.session())
        bucket = ok(hosts[STORE].open("default"))
        for turn in range(10):
            bucket.set(f"{number}-{turn}", b"")
        hosts[STORE].close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    hosts: Any = capability.open(KeyValueRequest(), rig.session())
    assert len(ok(ok(hosts[STORE].open("default")).list_keys(None))["keys"]) == 10
    hosts[STORE].close()


@pytest.mark.parametrize("damage", [b"not a database at all" * 100, b"SQLite format 3\x00" + b"\xff" * 4096])
def test_a_damaged_file_is_an_error_value(tmp_path: Path, damage: bytes) -> None:
    """The guest sees that the storage failed, the operator sees the file's name and the cause; nothing is raised."""
    (tmp_path / FILE_NAME).write_bytes(damage)
    rig = Rig(tmp_path)
    hosts: Any = KeyValue().open(KeyValueRequest(), rig.session())
    bucket = ok(hosts[STORE].open("default"))
    for _ in range(2):
        assert reason(bucket.get("k")) == "the storage failed"
    assert all(FILE_NAME in event["cause"] for event in rig.of(EventKind.BACKEND_ERROR))
    assert len(rig.events) == 2
    assert (tmp_path / FILE_NAME).read_bytes() == damage
    hosts[STORE].close()


def test_a_flood_of_values_stays_small_on_disk(tmp_path: Path) -> None:
    """Overwriting and removing for long leaves a file within a small multiple of the quota."""
    rig = Rig(tmp_path, limits=Limits(data_bytes=100_000, data_files=50))
    hosts: Any = KeyValue().open(KeyValueRequest(), rig.session())
    bucket = ok(hosts[STORE].open("default"))
    for turn in range(400):
        bucket.set(str(turn % 60), bytes([turn % 256]) * (turn * 97 % 20_000))
        if turn % 5 == 0:
            ok(bucket.delete(str(turn % 60)))
    hosts[STORE].close()
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 2 * 100_000 + (1 << 20)
