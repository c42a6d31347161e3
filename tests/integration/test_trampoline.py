"""Whatever host code raises: the process survives, the right caller sees it and nobody else does (H15, H16)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloche.engine.instance import Instance
from cloche.errors import CapabilityError, ClocheError, GuestTrap, LimitError
from cloche.model import Metering
from support.gate_capability import Gate, GateHost, Thing
from support.wat_plugins import events

SECRET = "tenant A keeps it under /srv/secret"

# what is raised, and what the caller must see
RAISED: list[tuple[Callable[[], BaseException], type[BaseException], str | None]] = [
    (lambda: KeyboardInterrupt(SECRET), KeyboardInterrupt, None),
    (lambda: SystemExit(SECRET), SystemExit, None),
    (lambda: asyncio.CancelledError(SECRET), asyncio.CancelledError, None),
    (lambda: GeneratorExit(SECRET), GeneratorExit, None),
    (lambda: ValueError(SECRET), CapabilityError, "capability.backend"),
    (lambda: StopIteration(SECRET), CapabilityError, "capability.backend"),
    (lambda: RecursionError(SECRET), CapabilityError, "capability.backend"),
    (lambda: CapabilityError("the device is gone"), CapabilityError, "capability.backend"),
    (lambda: LimitError("the quota is full", code="limit.data"), LimitError, "limit.data"),
]


def raiser(make: Callable[[], BaseException]) -> Callable[[], None]:
    def act() -> None:
        raise make()

    return act


def ensure_seen(caught: BaseException, kind: type[BaseException], code: str | None) -> None:
    assert type(caught) is kind
    if code is not None:
        assert isinstance(caught, ClocheError)
        assert caught.code == code
        assert SECRET not in str(caught)
        assert caught.usage is not None
        assert caught.plugin == "acme/gated"


@pytest.mark.parametrize(("make", "kind", "code"), RAISED)
@pytest.mark.parametrize("instances", ["per-call", "pooled", "single"])
def test_what_a_host_function_raises(
    gate: Gate, side: GateHost, instances: str, make: Callable[[], BaseException], kind: type[BaseException], code: str
) -> None:
    """The caller gets it, foreign exceptions wrapped without their text; the instance is gone, the next call works."""
    point = gate.load(instances=instances)
    before = point.next()
    side.action = raiser(make)
    with pytest.raises(kind) as caught:
        point.act()
    ensure_seen(caught.value, kind, code)
    assert point.next() == 1, before
    told = [event for event in gate.host.events.recent() if event.kind == "backend-error"]
    assert {event.capability for event in told} <= {"test:gate"}
    assert len(told) == (code == "capability.backend")
    if kind is CapabilityError and "device" not in str(caught.value):
        assert str(caught.value).startswith("test:gate/gate@1.0.0.act failed with ")


@pytest.mark.parametrize(("make", "kind", "code"), RAISED)
def test_what_a_destructor_raises(
    gate: Gate, side: GateHost, make: Callable[[], BaseException], kind: type[BaseException], code: str
) -> None:
    """An exception of a resource's `close` is reported and harms nobody; what is no Exception reaches the caller."""
    point = gate.load(instances="pooled")
    side.on_thing_close = raiser(make)
    if code is None:
        with pytest.raises(kind):
            point.make_drop()
    else:
        point.make_drop()
    side.on_thing_close = lambda: None
    assert point.many(2) == 2
    assert [thing.closed for thing in side.things] == [1]
    gate.host.unload("acme/gated")
    told = [data for data in events(gate.host, "backend-error") if "failed to close" in data["message"]]
    assert len(told) == (0 if code is None else 1)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, MemoryError, SystemExit])
def test_what_the_look_at_the_clock_raises(
    gate: Gate, monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]
) -> None:
    """Whatever strikes while the engine asks how long a guest may go on ends that guest and reaches the caller."""
    point = gate.load(instances="pooled", more="[limits]\nfuel = 500000000\n")

    def look(_: Instance) -> int:
        raise kind(SECRET)

    with monkeypatch.context() as patch:
        patch.setattr(Instance, "ticks_until_stop", look)
        with pytest.raises(kind if kind is not MemoryError else CapabilityError):
            point.spin.options(deadline=0.1)()
    assert point.next() == 1


def test_a_failure_of_another_plugin_keeps_its_name(gate: Gate, side: GateHost) -> None:
    """What a host function raises on purpose may come from a plugin that it called: that one is to blame."""
    outer, inner = gate.load("acme/outer"), gate.load("acme/inner")
    side.action = inner.crash
    with pytest.raises(GuestTrap) as caught:
        outer.act()
    assert caught.value.plugin == "acme/inner"


def test_without_a_clock_a_cancelled_guest_ends_in_its_call_of_the_host(tmp_path: Path) -> None:
    """Nothing stops it while it computes, so the host does not serve it any longer."""

    class Cancelling(GateHost):
        loop: asyncio.AbstractEventLoop
        task: asyncio.Task[object]

        def make(self) -> Thing:
            if not self.things:
                self.loop.call_soon_threadsafe(self.task.cancel)
                asyncio.run_coroutine_threadsafe(asyncio.sleep(0.1), self.loop).result(30)
            return super().make()

    side = Cancelling()
    with Gate(side, tmp_path, metering=Metering.FUEL) as gate:
        point = gate.load()

        async def run() -> None:
            side.loop = asyncio.get_running_loop()
            side.task = asyncio.create_task(point.keep.call_async(20))
            with pytest.raises(asyncio.CancelledError):
                await side.task

        asyncio.run(run())
    assert [thing.closed for thing in side.things] == [1]


@pytest.mark.parametrize(("make", "kind", "code"), RAISED)
@pytest.mark.parametrize("where", ["things", "host"])
def test_what_closing_raises_after_a_trap(
    gate: Gate, side: GateHost, where: str, make: Callable[[], BaseException], kind: type[BaseException], code: str
) -> None:
    """Everything is closed once although each close fails, the engine forgets the instance, the next call works."""
    point = gate.load(instances="pooled")
    if where == "things":
        side.on_thing_close = raiser(make)
    else:
        side.on_close = raiser(make)
    with pytest.raises(BaseException) as caught:
        point.keep_crash(5)
    assert type(caught.value) is kind if code is None else getattr(caught.value, "code", "") == "guest.trap"
    side.on_thing_close = side.on_close = lambda: None
    assert [thing.closed for thing in side.things] == [1] * 5
    assert side.closed == 1
    assert not point._backend._house._engine.instances  # type: ignore[attr-defined]
    assert point._backend.pool.alive == 0  # type: ignore[attr-defined]
    assert point.many(2) == 2


def test_a_wrong_answer_of_the_host_is_named(gate: Gate, side: GateHost) -> None:
    """A host function that answers with a value of another type fails with the function's name, and is no trap."""
    point = gate.load()
    for wrong in (-1, 2**40, "x", None, 1.5, True):
        side.twice = lambda n, wrong=wrong: wrong  # type: ignore[method-assign,misc]
        with pytest.raises(CapabilityError, match="twice") as caught:
            point.many(1)
        assert caught.value.code == "capability.invalid"
    side.action = lambda: 5  # type: ignore[assignment]
    side.act = lambda: 5  # type: ignore[method-assign,assignment]
    with pytest.raises(CapabilityError, match="act") as caught:
        point.act()
    assert caught.value.code == "capability.invalid"


def test_a_capability_without_the_method_is_named(gate: Gate, side: GateHost) -> None:
    """A host object that lacks a function is the capability's fault and says which."""
    point = gate.load()
    side.act = None  # type: ignore[method-assign,assignment]
    with pytest.raises(CapabilityError, match="act") as caught:
        point.act()
    assert caught.value.code == "capability.invalid"


def test_a_capability_that_does_not_open(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """A capability that fails to open is named to the operator; the guest's call fails and the next one may work."""
    point = gate.load(instances="pooled")
    capability = gate.host.catalog.capabilities["test:gate"]
    with monkeypatch.context() as patch:
        patch.setattr(type(capability), "open", lambda *_: 1 / 0)
        with pytest.raises(CapabilityError, match="ZeroDivisionError"):
            point.many(1)
    assert point.many(1) == 1


def test_nobody_gets_anothers_exception(tmp_path: Path) -> None:
    """Four threads and two hosts raise at once: each sees its own exception and no other, none is lost (H16)."""
    wrong: list[str] = []
    sides = [GateHost(), GateHost()]
    local = threading.local()

    def act() -> None:
        raise ValueError(local.name)

    for side in sides:
        side.action = act
    with Gate(sides[0], tmp_path / "a") as first, Gate(sides[1], tmp_path / "b") as second:
        points = [first.load(instances="per-call"), second.load(instances="pooled")]

        def work(number: int) -> None:
            point = points[number % 2]
            for turn in range(100):
                local.name = f"{number}.{turn}"
                try:
                    point.act()
                    wrong.append(f"{local.name} lost")
                except CapabilityError as error:
                    if str(error.__cause__) != local.name or error.plugin != "acme/gated":
                        wrong.append(f"{local.name} got {error.__cause__!r}")
                except BaseException as error:
                    wrong.append(f"{local.name} got {error!r}")
                if point.many(1) != 1:
                    wrong.append("many")

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_an_exception_while_an_instance_is_made_stays_there(tmp_path: Path, side: GateHost) -> None:
    """A host function that fails inside a start function fails that call, and is not delivered to a later one (H16)."""
    wat = """(component
      (import "test:gate/gate@1.0.0" (instance $gate (export "act" (func))))
      (core func $act (canon lower (func $gate "act")))
      (core module $m (import "h" "act" (func $act)) (start $act) (func (export "f")))
      (core instance $i (instantiate $m (with "h" (instance (export "act" (func $act))))))
      (func (export "f") (canon lift (core func $i "f"))))"""
    from support.wat_plugins import load

    with Gate(side, tmp_path) as gate:
        point = load(gate.host, tmp_path / "start", wat, plugin_id="acme/start")[""]
        other = gate.load(instances="pooled")
        side.action = raiser(lambda: PermissionError(SECRET))
        with pytest.raises(CapabilityError) as caught:
            point.f()
        assert SECRET not in str(caught.value)
        with pytest.raises(ClocheError) as trap:
            other.crash()
        assert trap.value.code == "guest.trap"
        assert SECRET not in str(trap.value) + repr(trap.value.__cause__) + repr(trap.value.__context__)
        side.action = lambda: None
        point.f()


def test_guests_see_only_the_opaque_text(gate: Gate, side: GateHost) -> None:
    """A failing host function tells the engine, and so the guest, one fixed text and nothing else."""
    seen: list[Any] = []

    point = gate.load()
    engine = point._backend._house._engine  # type: ignore[attr-defined]
    real = engine._new_error

    def told(text: bytes) -> int:
        seen.append(text)
        return int(real(text))

    engine._new_error = told
    side.action = raiser(lambda: ValueError(SECRET))
    with pytest.raises(CapabilityError):
        point.act()
    assert seen == [b"the host ended this call"]
