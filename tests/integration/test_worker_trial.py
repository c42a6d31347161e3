"""A worker of the real kind is started for `cloche doctor`, and the kernel says how it is locked in."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cloche.confine import landlock
from cloche.confine.level import offered
from cloche.errors import EngineError
from cloche.worker import trial as trial_module
from cloche.worker.house import BASE_BYTES
from cloche.worker.trial import try_worker

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
    assert found.limits["data_bytes"] >= BASE_BYTES
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


def test_a_process_that_nobody_sees_is_no_lock(tmp_path: Path) -> None:
    """Without /proc nothing is claimed."""
    with pytest.raises(EngineError) as caught:
        trial_module._seen(tmp_path / "none", "landlock+seccomp")
    assert caught.value.code == "engine.unsupported"
