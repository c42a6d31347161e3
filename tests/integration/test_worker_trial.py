"""A worker of the real kind is started for `cloche doctor`, and the kernel says how it is locked in."""

from __future__ import annotations

import errno
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest

from cloche.confine import landlock
from cloche.confine.level import offered
from cloche.errors import EngineError, TrustError
from cloche.model import MIB, Limits
from cloche.worker import process as process_module
from cloche.worker import trial as trial_module
from cloche.worker.messages import Ready, from_worker
from cloche.worker.orders import BASE_BYTES, CALL_BYTES
from cloche.worker.trial import try_worker
from support.wat_plugins import BASICS, events, open_host, write_plugin

STATUS = "Name:\tpython\nCapEff:\t{privileges:016x}\nNoNewPrivs:\t{new}\nSeccomp:\t{mode}\n"
LIMITS = """Limit                     Soft Limit           Hard Limit           Units
Max data size             1073741824           1073741824           bytes
Max core file size        0                    0                    bytes
Max open files            1024                 1024                 files
Max locked memory         unlimited            unlimited            bytes
Max msgqueue size         0                    0                    bytes
"""


def test_a_real_worker_is_locked_in_and_gone() -> None:
    """As far as this system offers; its limits are set, and neither a process nor a descriptor is left of it."""
    before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208 - numbers, not paths
    found = try_worker()
    assert found.level == offered()
    assert (found.no_new_privileges, found.privileges) == (True, 0)
    assert found.limits["data_bytes"] == BASE_BYTES + 1 * (CALL_BYTES + Limits().memory_bytes)
    assert {
        name: found.limits[name] for name in ("open_files", "core_bytes", "locked_bytes", "message_queue_bytes")
    } == {
        "open_files": 1024,
        "core_bytes": 0,
        "locked_bytes": 0,
        "message_queue_bytes": 0,
    }
    assert set(os.listdir("/proc/self/fd")) <= before  # noqa: PTH208


def process(directory: Path, *threads: str, limits: str = LIMITS) -> Path:
    """What /proc says of a process."""
    for number, status in enumerate(threads):
        (directory / "task" / str(number)).mkdir(parents=True)
        (directory / "task" / str(number) / "status").write_text(status)
    (directory / "limits").write_text(limits)
    return directory


def test_one_thread_that_is_left_out_counts(tmp_path: Path) -> None:
    """The lock is as strong as it is on the weakest thread, whatever the worker says of itself."""
    good, bad = STATUS.format(privileges=0, new=1, mode=2), STATUS.format(privileges=4, new=0, mode=0)
    whole = trial_module._seen(process(tmp_path / "a", good, good), "landlock+seccomp")
    assert (whole.level.seccomp, whole.no_new_privileges, whole.privileges) == (True, True, 0)
    assert whole.level.landlock_abi == landlock.abi()
    assert whole.limits == {"data_bytes": 1 << 30, "core_bytes": 0, "open_files": 1024, "message_queue_bytes": 0}
    weak = trial_module._seen(process(tmp_path / "b", good, bad), "seccomp")
    assert (weak.level.seccomp, weak.no_new_privileges, weak.privileges) == (False, False, 4)
    assert weak.level.word == "rlimits"


def test_a_system_without_room_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is one that `cloche doctor` can show."""

    def refuse(**_: object) -> None:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(tempfile, "TemporaryDirectory", refuse)
    with pytest.raises(EngineError, match="nowhere to compile"):
        try_worker()


def test_a_process_that_nobody_sees_is_no_lock(tmp_path: Path) -> None:
    """Without /proc nothing is claimed."""
    with pytest.raises(EngineError) as caught:
        trial_module._seen(tmp_path / "none", "landlock+seccomp")
    assert caught.value.code == "engine.unsupported"


ROOT = Path(__file__).parents[2]
NAMES = {
    "RLIMIT_NOFILE": "open_files",
    "RLIMIT_CORE": "core_bytes",
    "RLIMIT_MEMLOCK": "locked_bytes",
    "RLIMIT_MSGQUEUE": "message_queue_bytes",
}


def test_the_limits_on_the_page_are_those_of_a_worker() -> None:
    """The table of docs/security-model.md is what the kernel holds a worker to."""
    page = (ROOT / "docs" / "security-model.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(RLIMIT_\w+)` \| (.+) \|$", page, re.MULTILINE))
    found = try_worker().limits
    data = rows.pop("RLIMIT_DATA")
    assert [int(number) * MIB for number in re.findall(r"(\d+) MiB", data)] == [BASE_BYTES, CALL_BYTES]
    assert {NAMES[name]: int(text.replace(",", "")) for name, text in rows.items()} == {
        name: number for name, number in found.items() if name != "data_bytes"
    }


@pytest.fixture
def ready(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a worker says once it is ready, with changes of the test's."""
    changes: dict[str, Any] = {}

    def changed(data: bytes) -> object:
        said = from_worker(data)
        if not isinstance(said, Ready):
            return said
        return Ready(**{"landlock_abi": said.landlock_abi, "seccomp": said.seccomp, "leaks": said.leaks, **changes})

    monkeypatch.setattr(process_module, "from_worker", changed)
    return changes


def test_a_worker_below_the_policys_demand_is_not_used(tmp_path: Path, ready: dict[str, Any]) -> None:
    """The load is refused, and nothing is promoted; with less demanded it runs, and the event says how."""
    ready["landlock_abi"] = 0
    directory = write_plugin(tmp_path, BASICS)
    for demanded in ("landlock+seccomp", "landlock"):
        policy = f'format-version = 1\n[defaults]\nrequire-lockdown = "{demanded}"\n'
        with open_host(policy) as host:
            with pytest.raises(TrustError) as caught:
                host.load(directory)
            assert (caught.value.code, host.plugins()) == ("trust.untrusted-unavailable", [])
            assert events(host, "worker") == []
    with open_host('format-version = 1\n[defaults]\nrequire-lockdown = "seccomp"\n') as host:
        assert host.load(directory)[""].add(1, 2) == 3
        assert [data["level"] for data in events(host, "worker")] == ["seccomp"]


def test_a_worker_whose_lock_leaks_is_not_used(tmp_path: Path, ready: dict[str, Any]) -> None:
    """One that could do anything that it tried ends before the plugin runs."""
    ready["leaks"] = ["make a TCP socket"]
    with open_host() as host:
        with pytest.raises(EngineError, match="could do what it must not: make a TCP socket") as caught:
            host.load(write_plugin(tmp_path, BASICS))
        assert (caught.value.code, host.plugins()) == ("engine.worker-start", [])
