"""Threat: a guest has broken out of wasm, and the worker's own native code is now a stranger's (H28, H30, H41).

It reaches nothing, and whatever it does to itself ends one call: the caller is told, the next call is served by a new
worker, and the host holds no more than before. What such a worker may say is in `test_frames.py`.
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cloche.confine import spawn
from cloche.errors import ClocheError
from cloche.model import MIB
from cloche.observe.events import Event, EventKind
from cloche.runtime.plugin import ExtensionPoint
from cloche.worker import house, process
from support.ledger import Ledger
from support.taken_over import MARK
from support.wat_plugins import BASICS, TESTS, TRUSTED, open_host, shared_home, write_plugin

pytestmark = pytest.mark.adversarial
REFUSED = {"EPERM", "EACCES", "ValueError"}
LIMITS = '[limits]\nmemory = "16MiB"\nconcurrency = 1\nrestarts = 10000\n'
POLICY = 'format-version = 1\n[plugins."*".limits]\nrestarts = 10000\n'


@dataclass
class Stage:
    """A plugin whose workers are strangers', one in the host's process that keeps count, and the workers so far."""

    point: ExtensionPoint
    witness: ExtensionPoint
    workers: list[int]
    places: tuple[Path, ...]
    seen: int = 0

    def serves(self) -> None:
        """The plugin is served, by a worker that does as it should until it is told otherwise, and so is the other."""
        assert self.point.add(3, 4) == 7
        self.seen += 1
        assert self.witness.next() == self.seen

    def told(self, deed: str) -> ClocheError:
        """What a call ends with in whose middle the worker does `deed`."""
        with pytest.raises(ClocheError) as caught:
            self.point.echo.options(deadline=1.0)(MARK + deed.encode())
        return caught.value


@pytest.fixture
def stage(made: Stage) -> Stage:
    """With a worker that lives."""
    made.serves()
    return made


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    start_child = spawn.start_child
    temporary = tmp_path_factory.mktemp("temporary")

    def started(plan: dict[str, Any], **options: Any) -> Any:
        return start_child({**plan, "module": "support.taken_over", "path": [*plan["path"], str(TESTS)]}, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "start_child", started)
        patch.setattr(house, "BACK_OFF_S", (0.0,))
        patch.setattr(tempfile, "tempdir", str(temporary))
        with open_host(POLICY) as host:
            workers: list[int] = []

            def note(event: Event, /) -> None:
                if event.kind is EventKind.WORKER and "pid" in event.data:
                    workers.append(int(event.data["pid"]))

            host.events.add(note)
            folders = [tmp_path_factory.mktemp(name) for name in ("taken", "witness")]
            taken = write_plugin(folders[0], BASICS, plugin_id="acme/taken", instances="pooled", more=LIMITS)
            witness = write_plugin(folders[1], BASICS, plugin_id="acme/witness", instances="single")
            points = host.load(taken)[""], host.load(witness, trust=TRUSTED)[""]
            yield Stage(*points, workers, (temporary, shared_home()))


def until_gone(worker: int) -> None:
    """Until a worker has ended and was reaped."""
    end = time.monotonic() + 20
    while Path(f"/proc/{worker}").exists():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_it_reaches_nothing(stage: Stage) -> None:
    """Files, processes, networks, the kernel, its own limits: each attempt is refused, and the call goes on."""
    found = json.loads(stage.point.echo(MARK + b"try"))
    assert len(found) > 18
    assert {what: came for what, came in found.items() if came not in REFUSED} == {}
    assert not Path("/tmp/cloche-taken-over").exists()
    stage.serves()


ENDS = {
    "crash": "engine.worker-lost",
    "abort": "engine.worker-lost",
    "exit": "engine.worker-lost",
    "close": "engine.worker-lost",
    "sever": "engine.worker-lost",
    "last-words": "engine.worker-lost",
    "shared-memory": "limit.memory",
    "data": "limit.deadline",
    "flood": "limit.deadline",
    "hush": "limit.deadline",
}


@pytest.mark.parametrize("deed", ENDS)
def test_what_it_does_to_itself_ends_one_call(stage: Stage, deed: str) -> None:
    """Crashing, going, falling silent, shouting, taking memory."""
    assert stage.told(deed).code == ENDS[deed]
    stage.serves()
    before = Ledger.take(*stage.places)
    for _ in range(2):
        assert stage.told(deed).code == ENDS[deed]
        stage.serves()
    before.ensure_kept(16 * MIB)


def test_its_last_words_are_short_and_harmless(stage: Stage) -> None:
    """What it wrote before it died is quoted, but not all of it, and nothing that a terminal would obey (H39)."""
    error = stage.told("last-words")
    assert "yyyy" in str(error)
    assert len(str(error)) < 2_000
    assert str(error).isprintable()
    stage.serves()


def test_it_takes_no_more_memory_than_it_may(stage: Stage) -> None:
    """Memory of its own has a limit in the kernel, shared memory is watched; both hold in the middle of a call."""
    bound = stage.point._backend._house.settings.memory_bytes  # type: ignore[attr-defined]
    for deed in ("data", "shared-memory"):
        peak, done = [0], threading.Event()
        worker = stage.workers[-1]

        def watch(worker: int = worker, peak: list[int] = peak, done: threading.Event = done) -> None:
            while not done.wait(0.01):
                with suppress(OSError, ValueError, IndexError):
                    peak[0] = max(peak[0], int(Path(f"/proc/{worker}/statm").read_text().split()[1]) * 4096)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            stage.told(deed)
        finally:
            done.set()
            watcher.join()
        assert 100 * MIB < peak[0] < 2 * bound
        stage.serves()


def test_it_starts_no_threads_without_end(stage: Stage) -> None:
    """Each costs memory of its limit; the call ends, and so does the next."""
    assert 0 < int(stage.point.echo.options(deadline=30)(MARK + b"threads")) < 10_000
    stage.serves()
    os.kill(stage.workers[-1], signal.SIGKILL)
    until_gone(stage.workers[-1])
    stage.serves()


def test_what_it_says_where_nobody_asks_is_not_kept(stage: Stage) -> None:
    """A flood on the socket on which only the host speaks costs no memory."""
    before = Ledger.take(*stage.places)
    with suppress(ClocheError):
        assert stage.point.echo(MARK + b"chatter") == b"done"
    stage.serves()
    before.ensure_kept(8 * MIB)


@pytest.mark.parametrize("name", ["SIGSTOP", "SIGKILL", "SIGABRT", "SIGTERM"])
def test_signals_from_outside_end_one_call_at_most(stage: Stage, name: str) -> None:
    """Somebody else stops or ends the worker; one that stands still is killed at the deadline like one that spins."""
    before = Ledger.take(*stage.places)
    for _ in range(2):
        worker = stage.workers[-1]
        os.kill(worker, getattr(signal, name))
        with suppress(ClocheError):  # a thread of it may still answer
            assert stage.point.add.options(deadline=0.5)(1, 1) == 2
        until_gone(worker)
        stage.serves()
    before.ensure_kept(16 * MIB)
