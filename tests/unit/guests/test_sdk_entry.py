"""The SDK's frame around exported functions, on this Python instead of inside a component."""

from __future__ import annotations

import importlib
import linecache
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def entry(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A fresh instance of the module, as a build with WASI would load it."""
    import cloche_guest.bindings
    import cloche_guest.entry

    monkeypatch.setattr(cloche_guest.bindings, "_WASI", True)

    state = random.getstate()
    yield importlib.reload(cloche_guest.entry)
    random.setstate(state)
    monkeypatch.undo()
    importlib.reload(cloche_guest.entry)


def test_hooks_and_seeds_come_once_before_the_first_call(entry: Any) -> None:
    """The second call of an instance starts nothing again."""
    events: list[str] = []
    entry.at_start(lambda: events.append("start"))

    @entry.export
    class Thing:
        def go(self) -> None:
            events.append("go")

    thing = Thing()
    assert events == []
    thing.go()
    thing.go()
    assert events == ["start", "go", "go"]


PLUGIN_MODULE = """
import importlib
import cloche_guest.entry

entry = importlib.reload(cloche_guest.entry)  # as its first import does, while this module is executed
events = []
entry.at_start(lambda: events.append("start"))

@entry.export
class Thing:
    def __init__(self):
        self.go()

    def go(self):
        events.append("go")

Thing().go()
"""


def test_a_call_at_module_level_starts_nothing(entry: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Warm-up calls are part of the build, and so is the constructor of an interface's class, whenever it runs."""
    (tmp_path / "plugin_that_warms_up.py").write_text(PLUGIN_MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    plugin: Any = importlib.import_module("plugin_that_warms_up")
    monkeypatch.delitem(sys.modules, "plugin_that_warms_up")
    thing = plugin.Thing()
    assert plugin.events == ["go"] * 3
    thing.go()
    assert plugin.events == ["go"] * 3 + ["start", "go"]


def test_the_constructor_of_a_resource_starts_the_instance(entry: Any) -> None:
    """It may be the first call of an instance; an interface's class is constructed at build instead."""
    events: list[str] = []
    entry.at_start(lambda: events.append("start"))
    binding = type("Token", (), {"__module__": "wit_world.exports.tokens"})

    @entry.export
    class Token(binding):  # type: ignore[misc, valid-type]
        def __init__(self, *, label: str) -> None:
            events.append(label)

    Token(label="a")
    Token(label="b")
    assert events == ["start", "a", "b"]


def test_generators_are_seeded_in_each_instance(entry: Any) -> None:
    """Two instances that start from the same frozen state draw different numbers, from both kinds of generators."""
    generator = entry.fresh_random()
    frozen, frozen_own = random.getstate(), generator.getstate()

    @entry.export
    class Thing:
        def draw(self) -> tuple[int, int]:
            return random.getrandbits(64), generator.getrandbits(64)

    drawn: set[int] = set()
    for _ in range(3):
        random.setstate(frozen)
        generator.setstate(frozen_own)
        entry._instance.is_started = False
        drawn.update(Thing().draw())
    assert len(drawn) == 6


def test_no_entropy_is_asked_for_without_wasi(entry: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a build without WASI the question would trap."""
    monkeypatch.setattr(entry, "_HAS_ENTROPY", False)

    def trap(_count: int) -> bytes:
        raise AssertionError("asked for entropy")

    monkeypatch.setattr(entry.os, "urandom", trap)
    entry.fresh_random()
    entry._instance.start()


class Stream:
    def __init__(self, error: Exception | None = None) -> None:
        self.flushed = 0
        self.error = error

    def flush(self) -> None:
        self.flushed += 1
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize("error", [None, OSError(), ValueError("closed")])
def test_output_is_delivered_however_the_call_ends(
    entry: Any, monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    """Both streams are flushed after a return and after an exception; a broken stream changes neither."""

    @entry.export
    class Thing:
        def good(self) -> int:
            return 1

        def bad(self) -> None:
            raise KeyError("x")

    out, err = Stream(error), Stream()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    assert Thing().good() == 1
    with pytest.raises(KeyError):
        Thing().bad()
    assert (out.flushed, err.flushed) == (2, 2)


def test_inner_calls_have_no_frame(entry: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A method that calls itself flushes once, however it names its arguments."""

    @entry.export
    class Thing:
        def down(self, depth: int) -> int:
            return depth and 1 + self.down(depth=depth - 1)

    out = Stream()
    monkeypatch.setattr(sys, "stdout", out)
    assert Thing().down(5) == 5
    assert out.flushed == 1


def test_everything_public_is_framed_and_nothing_else(entry: Any) -> None:
    """Inherited, static and class methods are exported too; private, abstract, asynchronous ones stay as they are."""
    from abc import abstractmethod
    from typing import Protocol

    class Interface(Protocol):
        @abstractmethod
        def missing(self) -> None: ...

    class Base:
        def inherited(self) -> int:
            return 1

        @staticmethod
        def inherited_static(value: int) -> int:
            return value

    @entry.export
    class Thing(Base, Interface):
        @staticmethod
        def static(value: int) -> int:
            return value

        @classmethod
        def made(cls) -> str:
            return cls.__name__

        async def later(self) -> None: ...

        def _private(self) -> None: ...

    named = [name for name in dir(Thing) if name[0] != "_" or name == "__init__"]
    framed = {name for name in named if hasattr(getattr(Thing, name), "__wrapped__")}
    assert framed == {"inherited", "inherited_static", "static", "made"}
    assert (Thing.static(3), Thing.inherited_static(4), Thing.made()) == (3, 4, "Thing")
    assert not hasattr(Base.inherited, "__wrapped__")


def test_source_lines_are_kept_for_tracebacks(entry: Any) -> None:
    """The module's lines are in the line cache in a form that is not looked up on disk again."""
    linecache.cache.pop(__file__, None)

    @entry.export
    class Thing:
        pass

    _size, changed, lines, _name = linecache.cache[__file__]  # type: ignore[misc]
    assert changed is None
    assert any("class Thing" in line for line in lines)
    linecache.clearcache()
