"""Converting values is part of a call: the deadline counts it, it can be stopped, and it runs foreign code safely."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from cloche.app import Host
from cloche.engine.instance import Control
from cloche.errors import ClocheError, LimitError, UsageError
from cloche.model import Metering
from cloche.runtime.plugin import ExtensionPoint
from support.wat_plugins import BASICS, load, open_host, run_program

MANY = 50_000_000

TEXTS = """
(component
  (core module $m
    (memory (export "memory") 100)
    (func (export "texts") (param i32) (result i32)
      (i32.store (i32.const 16) (i32.const 4096)) (i32.store (i32.const 20) (local.get 0)) (i32.const 16)))
  (core instance $i (instantiate $m))
  (func (export "texts") (param "count" u32) (result (list string))
    (canon lift (core func $i "texts") (memory (core memory $i "memory")))))
"""
"""`texts(n)` gives n empty strings at once."""


class Acting(Sequence[int]):
    """A sequence that runs code when it is first read, and counts what is read of it."""

    def __init__(self, act: Callable[[], object], count: int) -> None:
        self.act, self.size, self.read = act, count, 0

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: Any) -> Any:
        raise AssertionError("read one by one")

    def __iter__(self) -> Iterator[int]:
        self.act()
        for _ in range(self.size):
            self.read += 1
            yield 1


@pytest.fixture
def host() -> Iterator[Host]:
    with open_host() as made:
        yield made


def basics(host: Host, directory: Path, **manifest: Any) -> ExtensionPoint:
    return load(host, directory, BASICS, **manifest)[""]


def nothing() -> None:
    pass


def test_the_deadline_counts_from_the_arguments_on(host: Host, tmp_path: Path) -> None:
    """A conversion that takes too long ends at the deadline; the guest was not entered, and its instance lives on."""
    point = basics(host, tmp_path, instances="pooled")
    assert point.next() == 1
    given = Acting(nothing, MANY)
    with pytest.raises(LimitError) as caught:
        point.size.options(deadline=0.02)(given)
    assert caught.value.code == "limit.deadline"
    assert 0 < given.read < MANY
    usage = caught.value.usage
    assert usage is not None
    assert usage.wall_ms >= 20
    assert (usage.fuel, usage.host_calls) == (0, 0)
    assert point.next() == 2


def test_a_short_conversion_that_took_long_does_not_enter_the_guest(host: Host, tmp_path: Path) -> None:
    """Few items may take long, too: past the deadline the guest is not entered, and its instance lives on."""
    point = basics(host, tmp_path, instances="pooled")
    assert point.next() == 1
    with pytest.raises(LimitError) as caught:
        point.size.options(deadline=0.02)(Acting(lambda: time.sleep(0.05), 10))
    assert caught.value.code == "limit.deadline"
    assert caught.value.usage is not None
    assert (caught.value.usage.fuel, caught.value.usage.instance_calls) == (0, 1)
    assert point.next() == 2


def test_a_call_that_is_cancelled_by_its_argument_is_not_made(host: Host, tmp_path: Path) -> None:
    """Cancelling while the last argument is read ends the call before the guest, where nothing is lost."""
    point = basics(host, tmp_path, instances="pooled")
    control = Control()
    assert point.next() == 1
    with pytest.raises(UsageError) as caught:
        point._backend.invoke(point.size._export, [Acting(control.cancel, 10)], point.size._limits, control)
    assert caught.value.code == "usage.interrupted"
    assert point.next() == 2


def test_results_count_as_well(host: Host, tmp_path: Path) -> None:
    """A result that takes longer to convert than the call may take ends at the deadline, too."""
    point = load(host, tmp_path, TEXTS, instances="pooled")[""]
    assert point.texts.options(deadline=60)(200_000) == [""] * 200_000
    with pytest.raises(LimitError) as caught:
        point.texts.options(deadline=0.001)(200_000)
    assert caught.value.code == "limit.deadline"
    assert point.texts(3) == [""] * 3


def test_the_wall_time_includes_the_conversion(host: Host, tmp_path: Path) -> None:
    """`Usage.wall_ms` is what the caller waited for the call, the reading of its arguments included."""
    point = basics(host, tmp_path)
    assert point.size.call(Acting(lambda: time.sleep(0.05), 10)).usage.wall_ms >= 50


def test_without_fuel_no_bytes_are_charged(tmp_path: Path) -> None:
    """A host that counts time only has no fuel limit, and its errors tell no fuel."""
    with open_host(metering=Metering.DEADLINE) as made:
        point = basics(made, tmp_path, instances="pooled")
        assert point.size.options(fuel=1)([1] * 1000) == 1000
        with pytest.raises(LimitError) as caught:
            point.size.options(deadline=0.02)(Acting(nothing, MANY))
        assert caught.value.code == "limit.deadline"
        assert caught.value.usage is not None
        assert caught.value.usage.fuel is None


def test_without_epochs_no_time_is_counted(tmp_path: Path) -> None:
    """A host that counts fuel only has no deadline, neither for guests nor for conversions."""
    with open_host(metering=Metering.FUEL) as made:
        assert basics(made, tmp_path).size.options(deadline=0.001)(Acting(lambda: time.sleep(0.01), 100_000)) == 100_000


def test_a_conversion_can_be_cancelled(host: Host, tmp_path: Path) -> None:
    """Cancelling an awaited call stops it while its arguments are still read."""
    point = basics(host, tmp_path, instances="pooled")
    started = threading.Event()
    given = Acting(started.set, MANY)

    async def run() -> None:
        task = asyncio.create_task(point.size.call_async(given))
        await asyncio.to_thread(started.wait, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert 0 < given.read < MANY
    assert point.next() == 1


def test_ctrl_c_ends_a_conversion(tmp_path: Path) -> None:
    """A Ctrl-C while arguments are read on the main thread ends the call soon, and the host goes on."""
    done = run_program(
        """
        import os, signal
        from pathlib import Path
        sys.path.insert(0, sys.argv[2])
        from test_conversions import MANY, Acting, basics, open_host
        with open_host() as host:
            point = basics(host, Path(sys.argv[1]), instances="pooled")
            given = Acting(lambda: os.kill(os.getpid(), signal.SIGINT), MANY)
            try:
                point.size(given)
            except KeyboardInterrupt:
                print("interrupted", 0 < given.read < MANY, point.next())
        """,
        tmp_path,
        Path(__file__).parent,
    )
    assert done.stdout == "interrupted True 1\n", done.stderr


@pytest.mark.parametrize(("instances", "more"), [("single", ""), ("pooled", "[limits]\nconcurrency = 1\n")])
def test_an_argument_cannot_call_the_instance_that_it_is_for(
    host: Host, tmp_path: Path, instances: str, more: str
) -> None:
    """An argument whose reading calls the same plugin is refused at once where no other instance can answer."""
    point = basics(host, tmp_path, instances=instances, more=more)
    with pytest.raises(UsageError) as caught:
        point.size(Acting(point.next.options(deadline=60), 10))
    assert caught.value.code == "usage.re-entry"
    assert point.next() == 1


def test_an_argument_may_call_another_instance(host: Host, tmp_path: Path) -> None:
    """Where there are more instances, one of them answers, and both calls go on."""
    point = basics(host, tmp_path, instances="pooled", more="[limits]\nconcurrency = 2\n")
    seen: list[int] = []
    assert point.size(Acting(lambda: seen.append(point.next()), 10)) == 10
    assert seen == [1]


@pytest.mark.parametrize("instances", ["single", "pooled", "per-call"])
def test_an_argument_cannot_close_its_plugin(host: Host, tmp_path: Path, instances: str) -> None:
    """Nor can the plugin be closed from there: that would wait for the very call."""
    plugin = load(host, tmp_path, BASICS, instances=instances)
    with pytest.raises(UsageError) as caught:
        plugin[""].size(Acting(plugin.close, 10))
    assert caught.value.code == "usage.re-entry"
    assert plugin[""].add(1, 2) == 3


def test_an_argument_that_fails_costs_no_instance(host: Host, tmp_path: Path) -> None:
    """Whatever the caller's code raises, the instance serves the next call."""
    point = basics(host, tmp_path, instances="pooled")
    assert point.next() == 1

    def fail() -> None:
        raise ZeroDivisionError("mine")

    with pytest.raises(ClocheError) as caught:
        point.size(Acting(fail, 10))
    assert caught.value.code == "usage.value"
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert point.next() == 2
