"""Workers that wait ready: taken by whoever needs one, replaced in the background, gone with what keeps them."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cloche.app import Host
from cloche.capabilities.api import EventKind
from cloche.errors import ClocheError, EngineError
from cloche.worker import ready as ready_module
from cloche.worker.house import House
from cloche.worker.messages import Order
from cloche.worker.ready import ReadyWorkers
from support.process_programs import SETUP, ensure_good
from support.wat_plugins import BASICS, events, open_host, run_program, write_plugin


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)


def is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def ready_of(host: Host, count: int = 1) -> list[int]:
    """Those that wait, once there are as many as wanted."""
    until(lambda: len(host._ready.waiting) == count)
    return host._ready.waiting


def pids_of(host: Host) -> list[int]:
    """The workers that served, in order."""
    return [int(data["pid"]) for data in events(host, EventKind.WORKER) if "pid" in data]


def held_by(pid: int) -> list[str]:
    """What is behind a process's descriptors; nothing where they change meanwhile."""
    try:
        return sorted(str(entry.readlink()).partition(":")[0] for entry in Path(f"/proc/{pid}/fd").iterdir())
    except FileNotFoundError:
        return []


def lodge(host: Host, directory: Path, name: str) -> Callable[[int, int], int]:
    plugin = host.load(write_plugin(directory / name, BASICS, plugin_id=f"acme/{name}", instances="pooled"))
    add: Callable[[int, int], int] = plugin[""].add
    return add


def descriptors() -> set[str]:
    return {entry.name for entry in Path("/proc/self/fd").iterdir()}


def test_the_second_plugin_gets_the_worker_that_waits(tmp_path: Path) -> None:
    """Nothing is started ahead before the first plugin; each one that is taken is replaced."""
    with open_host(ready_workers=1) as host:
        ready = host._ready
        assert (ready.spawned, ready.waiting) == (0, [])
        lodge(host, tmp_path, "one")
        (first,) = ready_of(host)
        assert (ready.spawned, ready.handed_out, first in pids_of(host)) == (1, 0, False)
        add = lodge(host, tmp_path, "two")
        assert (ready.handed_out, pids_of(host)[1], add(1, 2)) == (1, first, 3)
        (second,) = ready_of(host)
        assert (ready.spawned, second == first) == (2, False)


def test_none_wait_when_none_are_wanted(tmp_path: Path) -> None:
    """`ready_workers = 0`: each plugin's worker is started for it."""
    with open_host() as host:
        for name in ("one", "two"):
            assert lodge(host, tmp_path, name)(1, 2) == 3
        assert (host._ready.spawned, host._ready.handed_out, host._ready.waiting) == (0, 0, [])


def test_a_crashed_plugin_goes_on_in_the_worker_that_waits(tmp_path: Path) -> None:
    """Restarts take it, and are counted as ever: the third crash within a minute is one too many."""
    with open_host('format-version = 1\n[plugins."*".limits]\nrestarts = 2\n', ready_workers=1) as host:
        add = lodge(host, tmp_path, "one")
        for turn in range(2):
            (waiting,) = ready_of(host)
            end_serving(host)
            assert (add(1, 2), pids_of(host)[-1], host._ready.handed_out) == (3, waiting, turn + 1)
        ready_of(host)
        end_serving(host)
        with pytest.raises(ClocheError) as caught:
            add(1, 2)
        assert (caught.value.code, host._ready.handed_out, host._ready.spawned) == ("limit.restarts", 2, 3)


def end_serving(host: Host) -> None:
    """Kill the worker of the only plugin; back once that was noticed."""
    (house,) = host._houses
    assert isinstance(house, House)
    worker = house._worker
    assert worker is not None
    os.kill(worker.pid, signal.SIGKILL)
    assert worker.wait(10)


def test_a_waiting_worker_that_dies_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever loads a plugin notices nothing, and the plugins that are served even less."""
    monkeypatch.setattr(ready_module, "LEAST_LIFE_S", 0.0)
    with open_host(ready_workers=1) as host:
        add = lodge(host, tmp_path, "one")
        (killed,) = ready_of(host)
        os.kill(killed, signal.SIGKILL)
        until(lambda: host._ready.waiting not in ([], [killed]))
        (waiting,) = host._ready.waiting
        assert (host._ready.spawned, is_gone(killed)) == (2, True)
        assert (add(1, 2), lodge(host, tmp_path, "two")(1, 2), pids_of(host)[-1]) == (3, 3, waiting)
        assert not [data for data in events(host, EventKind.WORKER) if data["event"] == "worker-ended"]


def test_one_that_dies_at_once_is_not_replaced_before_it_is_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A system on which new processes die is not kept busy with them."""
    monkeypatch.setattr(ready_module, "LEAST_LIFE_S", 3600.0)
    with open_host(ready_workers=1) as host:
        lodge(host, tmp_path, "one")
        (killed,) = ready_of(host)
        os.kill(killed, signal.SIGKILL)
        until(lambda: host._ready.waiting == [])
        time.sleep(0.2)
        assert (host._ready.spawned, host._ready.waiting) == (1, [])
        assert lodge(host, tmp_path, "two")(1, 2) == 3
        assert ready_of(host) != [killed]
        assert (host._ready.spawned, host._ready.handed_out) == (2, 0)


def test_one_whose_death_nobody_noticed_is_no_matter(tmp_path: Path) -> None:
    """It is found out when it is told its order, and a new worker is told instead."""
    with open_host(ready_workers=1) as host:
        lodge(host, tmp_path, "one")
        ready_of(host)
        (worker,) = host._ready._waiting
        worker._tell_end = None  # nobody is told, as in the moment before somebody is
        os.kill(worker.pid, signal.SIGKILL)
        assert worker.wait(10)
        worker.is_usable = True
        assert lodge(host, tmp_path, "two")(1, 2) == 3
        assert worker.pid not in pids_of(host)


def test_a_refused_order_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a worker says of a plugin would be said by the next one, too."""
    ready = ReadyWorkers(1)
    ready.begin()
    until(lambda: len(ready.waiting) == 1)
    order = Order("acme/bad", {"metering": "both"}, [], [], [], {}, {}, None, [], 1 << 30)
    monkeypatch.setattr(ready, "_fill", lambda: None)
    monkeypatch.setattr(ready_module, "WorkerProcess", lambda: pytest.fail("a second worker was started"))
    read, write = os.pipe()  # no native code
    try:
        with pytest.raises(EngineError) as caught:
            ready.start(order, [read])
    finally:
        os.close(read)
        os.close(write)
        ready.close()
    assert (caught.value.code, ready.spawned, ready.handed_out) == ("engine.unsupported", 1, 1)


def test_a_waiting_worker_has_nothing_of_any_plugin(tmp_path: Path) -> None:
    """Its streams and its two sockets are all that it holds, though plugins with code were loaded before."""
    with open_host(ready_workers=1) as host:
        lodge(host, tmp_path, "one")
        (pid,) = ready_of(host)
        expected = [f"/proc/{pid}/maps", "/dev/null", "/dev/null", "pipe", "socket", "socket"]
        until(lambda: held_by(pid) == sorted(expected))  # before that it still reads what it imports
        assert "cloche-native" not in Path(f"/proc/{pid}/maps").read_text()
        assert b"acme" not in Path(f"/proc/{pid}/cmdline").read_bytes()


def test_closing_leaves_nothing(tmp_path: Path) -> None:
    """No process, descriptor or thread, also when one is just being started; and nothing begins anew afterwards."""
    before = descriptors(), set(threading.enumerate())
    for settle in (True, False):
        with open_host(ready_workers=2) as host:
            lodge(host, tmp_path, "one")
            pids = ready_of(host, 2) if settle else []
        assert all(map(is_gone, pids))
        ready = host._ready
        ready.begin()
        ready.close()
        assert (ready.waiting, ready._filling) == ([], None)
    until(lambda: set(threading.enumerate()) <= before[1])
    assert descriptors() <= before[0]


def test_what_nobody_closed_ends_all_the_same() -> None:
    """When nothing refers to them any more the processes are ended."""
    kept = [ReadyWorkers(1)]
    kept[0].begin()
    until(lambda: len(kept[0].waiting) == 1 and kept[0]._filling is None)
    (pid,) = kept[0].waiting
    kept.clear()
    gc.collect()
    until(lambda: is_gone(pid))


def test_a_forked_child_leaves_those_that_wait_to_its_parent(tmp_path: Path) -> None:
    """Both would speak to the same process otherwise; the child starts its own."""
    source = (
        SETUP
        + """
import os, warnings
warnings.simplefilter("ignore")
from cloche.worker.ready import ReadyWorkers
ready = ReadyWorkers(1)
ready.begin()
while len(ready.waiting) != 1 or ready._filling is not None: time.sleep(0.01)
mine = ready.waiting
child = os.fork()
if not child:
    ok = ready.waiting == []
    ready._fill()
    while len(ready.waiting) != 1: time.sleep(0.01)
    ok &= ready.waiting != mine
    ready.close()
    os._exit(0 if ok else 1)
print(os.waitpid(child, 0)[1], ready.waiting == mine)
ready.close()
"""
    )
    ensure_good(run_program(source, tmp_path), "0 True\n")


def test_a_host_that_nobody_closed_takes_them_along(tmp_path: Path) -> None:
    """Its workers end when it is collected, those that wait as well."""
    source = (
        SETUP
        + """
import gc, os, warnings
warnings.simplefilter("ignore")
from cloche.app import Host
from cloche.config import Settings
from support.wat_plugins import shared_home, write_plugin
home = shared_home()
host = Host(home=home, settings=Settings(home=home, background_compile=False, ready_workers=1))
host.load(write_plugin(folder / "p", BASICS, plugin_id="acme/x"))
while len(host._ready.waiting) != 1 or host._ready._filling is not None: time.sleep(0.01)
(pid,) = host._ready.waiting
del host
gc.collect()
for _ in range(1000):
    if not os.path.exists(f"/proc/{pid}"): break
    time.sleep(0.01)
print(os.path.exists(f"/proc/{pid}"))
"""
    )
    ensure_good(run_program(source, tmp_path), "False\n")
