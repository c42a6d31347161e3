"""The SDK's services over stand-ins of the generated bindings."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

MODULES = ("log", "config", "keyvalue", "telemetry", "data", "lifecycle")


@dataclass
class Error_AccessDenied:
    pass


@dataclass
class Error_NotFound:
    pass


@dataclass
class Error_Other:
    value: str


class Level(Enum):
    TRACE = 0
    DEBUG = 1
    INFO = 2
    WARN = 3
    ERROR = 4
    CRITICAL = 5


@pytest.fixture
def sdk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., SimpleNamespace]]:
    """Loads the SDK anew over the given binding modules, by name: `sdk(logging={...})`."""

    def load(exports: dict[str, object] | None = None, **imports: dict[str, object]) -> SimpleNamespace:
        for package in ("wit_world", "wit_world.imports", "wit_world.exports"):
            monkeypatch.setitem(sys.modules, package, ModuleType(package))
        for name, attributes in imports.items():
            module = ModuleType(name)
            vars(module).update(attributes)
            monkeypatch.setitem(sys.modules, f"wit_world.imports.{name}", module)
        if exports is not None:
            module = ModuleType("lifecycle")
            vars(module).update(exports)
            monkeypatch.setitem(sys.modules, "wit_world.exports.lifecycle", module)
        return SimpleNamespace(
            **{name: importlib.reload(importlib.import_module(f"cloche_guest.{name}")) for name in MODULES}
        )

    yield load
    monkeypatch.undo()
    for name in MODULES:
        importlib.reload(importlib.import_module(f"cloche_guest.{name}"))


@pytest.mark.parametrize(("wasi", "expected"), [(True, True), (None, True), (False, False)])
def test_standard_interfaces_are_gone_without_wasi(
    sdk: Callable[..., SimpleNamespace], monkeypatch: pytest.MonkeyPatch, wasi: bool | None, expected: bool
) -> None:
    """A build without WASI stubs everything of that namespace, logging too; the host's own interfaces stay."""
    import cloche_guest.bindings

    monkeypatch.setattr(cloche_guest.bindings, "_WASI", wasi)
    it = sdk(logging={"Level": Level, "log": print}, data={"read_range": None})
    assert (it.log.is_available(), it.data.is_available()) == (expected, True)


def refuse(error: object) -> Callable[..., Any]:
    def call(*_args: object) -> object:
        from cloche_guest.errors import Err

        raise Err(error)

    return call


def test_nothing_breaks_without_imports(sdk: Callable[..., SimpleNamespace]) -> None:
    """Logging and telemetry do nothing; what has to answer says which import is missing."""
    from cloche_guest.errors import Unavailable

    it = sdk()
    it.log.info("x")
    assert [getattr(it, name).is_available() for name in MODULES[:-1]] == [False] * 5
    assert (it.telemetry.count("a"), it.config.get("a", "b"), it.config.get_all()) == (False, "b", {})
    calls: tuple[Callable[[], object], ...] = (
        lambda: it.config.require("a"),
        lambda: it.keyvalue.open()["a"],
        lambda: it.keyvalue.open().increment("a"),
        lambda: it.data.read("a"),
    )
    for call in calls:
        with pytest.raises(Unavailable, match="to the world and build again"):
            call()


def test_log_levels_contexts_and_fields(sdk: Callable[..., SimpleNamespace]) -> None:
    """Direct functions and the standard `logging` arrive with level, context and message."""
    lines: list[tuple[str, str, str]] = []
    it = sdk(logging={"Level": Level, "log": lambda level, *rest: lines.append((level.name, *rest))})
    for name in ("trace", "debug", "info", "warning", "error", "critical"):
        getattr(it.log, name)("m", context="c", n=1)
    assert [line[0] for line in lines] == [level.name for level in Level]
    assert lines[0][1:] == ("c", "m n=1")
    lines.clear()
    logger = logging.getLogger("sdk-test")
    logger.propagate = False
    logger.addHandler(it.log.Handler())
    logger.setLevel(1)
    logger.log(5, "a %s", "b")
    logger.warning("w")
    logger.critical("c")
    assert lines == [("TRACE", "sdk-test", "a b"), ("WARN", "sdk-test", "w"), ("CRITICAL", "sdk-test", "c")]


@pytest.mark.parametrize("module", ["store", "wasi_config_store"])
def test_configuration(sdk: Callable[..., SimpleNamespace], module: str) -> None:
    """Values, defaults and conversions, under either name of the bindings."""
    values = {"a": "1", "on": "Yes", "odd": "x"}
    it = sdk(**{module: {"get": values.get, "get_all": lambda: list(values.items())}}).config
    assert (it.get("a"), it.get("b"), it.get("b", 3), it.require("a")) == ("1", None, 3, "1")
    assert (it.get_int("a", 0), it.get_int("b", 7), it.get_bool("on", False), it.get_bool("b", True)) == (
        1,
        7,
        True,
        True,
    )
    assert list(it.get_all()) == ["a", "odd", "on"]
    calls: tuple[Callable[[], object], ...] = (lambda: it.get_int("odd", 0), lambda: it.get_bool("odd", False))
    for call in calls:
        with pytest.raises(ValueError, match="configuration key 'odd' must be"):
            call()
    with pytest.raises(KeyError, match="'b'"):
        it.require("b")


class FakeBucket:
    def __init__(self) -> None:
        self.items = {f"k{number}": b"v" for number in range(5)}
        self.get, self.exists = self.items.get, self.items.__contains__
        self.set, self.delete = self.items.__setitem__, self.items.pop

    def list_keys(self, cursor: str | None) -> SimpleNamespace:
        start = int(cursor or 0)
        page = list(self.items)[start : start + 2]
        return SimpleNamespace(keys=page, cursor=str(start + 2) if start + 2 < len(self.items) else None)


def test_a_bucket_is_a_mapping(sdk: Callable[..., SimpleNamespace]) -> None:
    """It is opened at the first use only, and pages are joined."""
    opened: list[str] = []

    def open_bucket(name: str) -> FakeBucket:
        opened.append(name)
        return FakeBucket()

    it = sdk(
        wasi_keyvalue_store={"Bucket": object, "open": open_bucket},
        atomics={"increment": lambda _bucket, _key, delta: 40 + delta},
    )
    bucket = it.keyvalue.open("b")
    assert opened == []
    assert (bucket["k0"], bucket.get("x"), "k1" in bucket, "x" in bucket, len(bucket)) == (b"v", None, True, False, 5)
    bucket.set_text("t", "ö")
    del bucket["k0"]
    assert (bucket.get_text("t"), sorted(bucket)) == ("ö", ["k1", "k2", "k3", "k4", "t"])
    assert (bucket.increment("n", 2), opened) == (42, ["b"])
    with pytest.raises(KeyError):
        del bucket["k0"]


def test_refusals_are_typed(sdk: Callable[..., SimpleNamespace]) -> None:
    """A denial, a missing file and anything else are three exceptions, named after what was asked."""
    from cloche_guest.errors import Denied, ServiceError

    it = sdk(
        store={"Bucket": object, "open": refuse(Error_AccessDenied())},
        data={
            "read_range": None,
            "read": refuse(Error_NotFound()),
            "stat": refuse(Error_NotFound()),
            "write": refuse(Error_Other("full")),
        },
    )
    with pytest.raises(Denied, match="bucket 'b': access denied"):
        it.keyvalue.open("b")["k"]
    with pytest.raises(FileNotFoundError, match="data read 'p'"):
        it.data.read("p")
    assert it.data.exists("p") is False
    with pytest.raises(ServiceError, match=r"data write 'p': other \(full\)") as caught:
        it.data.write("p", b"x")
    assert (caught.value.case, caught.value.detail, type(caught.value)) == ("other", "full", ServiceError)


def test_telemetry_says_whether_it_was_taken(sdk: Callable[..., SimpleNamespace]) -> None:
    """Refusals are told once for each instrument and reason, and break nothing."""
    lines: list[str] = []
    taken: list[tuple[object, ...]] = []
    it = sdk(
        logging={"Level": Level, "log": lambda _level, _context, message: lines.append(message)},
        telemetry={
            "count": lambda *args: taken.append(args),
            "observe": refuse(Error_Other("no")),
            "event": lambda *args: taken.append(args),
        },
    ).telemetry
    assert it.count("hits", 2, route="a")
    assert it.event("done", {"n": 1})
    assert taken == [("hits", 2, [("route", "a")]), ("done", '{"n": 1}')]
    assert [it.observe("t", 1) for _ in range(3)] == [False] * 3
    assert len(lines) == 1
    assert "reason='other'" in lines[0]


def test_lifecycle_hooks_become_wit_answers(sdk: Callable[..., SimpleNamespace]) -> None:
    """Hooks get plain values and raise plain exceptions; the WIT methods translate both ways."""
    from cloche_guest.errors import Err, ServiceError

    names = (
        "Error_InvalidConfig",
        "Error_Unavailable",
        "Error_Other",
        "Status_Ok",
        "Status_Degraded",
        "Status_Failing",
    )
    it = sdk(exports={name: lambda *args, name=name: (name, *args) for name in names}).lifecycle
    got: list[dict[str, str]] = []

    class Life(it.Lifecycle):  # type: ignore[misc, name-defined]
        def on_initialize(self, config: dict[str, str]) -> None:
            got.append(config)

        def on_health(self) -> Any:
            return it.Health.degraded("slow")

    life = Life()
    life.initialize([("a", "b")])
    assert (got, life.start(), life.stop(), life.health()) == ([{"a": "b"}], None, None, ("Status_Degraded", "slow"))
    assert it.Lifecycle().health() == ("Status_Ok",)
    for error, answer in (
        (it.InvalidConfig("a"), ("Error_InvalidConfig", "a")),
        (it.NotNow("b"), ("Error_Unavailable", "b")),
        (ServiceError("c", "d"), ("Error_Other", "c: d")),
    ):

        def fail(error: Exception = error) -> None:
            raise error

        life.on_start = fail
        with pytest.raises(Err) as caught:
            life.start()
        assert caught.value.value == answer
