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

from cloche_guest.lowering import MAX_ARGUMENT_BYTES

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


def test_telemetry_takes_labels_of_any_name(sdk: Callable[..., SimpleNamespace]) -> None:
    """A keyword's `_` stands for `-`; a mapping gives names as they are; a label may be called like a parameter."""
    taken: list[tuple[object, ...]] = []
    functions = {name: lambda *args: taken.append(args) for name in ("count", "gauge", "observe")}
    it = sdk(telemetry=functions).telemetry
    assert it.count("hits", 1, http_status=200, name="a", labels="b", increment="c")
    assert it.gauge("level", 1, {"http-status": "200"}, value=None)
    assert it.observe("time", True)
    assert taken == [
        ("hits", 1, [("http-status", "200"), ("name", "a"), ("labels", "b"), ("increment", "c")]),
        ("level", 1.0, [("http-status", "200"), ("value", "None")]),
        ("time", 1.0, []),
    ]


def test_telemetry_breaks_for_nothing_that_it_is_given(sdk: Callable[..., SimpleNamespace]) -> None:
    """What does not fit its WIT type never reaches the host: the answer is False, and a warning tells once why."""
    lines: list[str] = []
    it = sdk(
        logging={"Level": Level, "log": lambda _level, _context, message: lines.append(message)},
        telemetry={name: lambda *args: pytest.fail(f"handed over: {args}") for name in ("count", "observe", "event")},
    ).telemetry
    endless: list[object] = []
    endless.append(endless)
    calls: tuple[Callable[[], bool], ...] = (
        *(lambda number=number: it.count("hits", number) for number in (-1, 1 << 64, 10**5000, 1.5, "1", None)),
        *(lambda number=number: it.observe("time", number) for number in (10**400, "x", None)),
        lambda: it.count("hits", 1, 5),
        lambda: it.event("odd", object()),
        lambda: it.event("odd", endless),
        lambda: it.event("long", "x" * (MAX_ARGUMENT_BYTES + 1)),
    )
    assert [call() for call in calls] == [False] * len(calls)
    assert [line.split(" detail")[0] for line in lines] == [
        "telemetry refused name='hits' reason='invalid_value'",
        "telemetry refused name='time' reason='invalid_value'",
        "telemetry refused name='odd' reason='invalid_value'",
        "telemetry refused name='long' reason='too_large'",
    ]
    assert f"-1 is not between 0 and {(1 << 64) - 1}" in lines[0]


def test_halves_of_surrogate_pairs_are_replaced(sdk: Callable[..., SimpleNamespace]) -> None:
    """Texts for people arrive with question marks where the host could take no character."""
    lines: list[tuple[str, str]] = []
    taken: list[tuple[object, ...]] = []
    it = sdk(
        logging={"Level": Level, "log": lambda _level, *rest: lines.append(rest)},
        telemetry={name: lambda *args: taken.append(args) for name in ("count", "observe", "event")},
    )
    it.log.info("a\ud800b", context="c\udfff", message="m\udcff")
    it.log.info(5)
    assert lines == [("c?", "a?b message='m\\udcff'"), ("", "5")]
    assert it.telemetry.count("n\ud800", 1, {"l\ud800": "v\ud800"})
    assert it.telemetry.event("k\ud800", "p\ud800")
    assert taken == [("n?", 1, [("l?", "v?")]), ("k?", "p?")]


def never(*args: object) -> object:
    """A function of the host that a test does not expect to be called."""
    return pytest.fail(f"handed over: {args}")


@pytest.mark.parametrize("size_bytes", [MAX_ARGUMENT_BYTES, MAX_ARGUMENT_BYTES + 1])
def test_contents_are_bounded_before_they_are_handed_over(sdk: Callable[..., SimpleNamespace], size_bytes: int) -> None:
    """Exactly the bound passes; one byte more is an exception that names the bound, and the host is not asked."""
    from cloche_guest.errors import ServiceError

    sizes: list[int] = []

    def take(*args: Any) -> None:
        sizes.append(len(args[-1]))

    bucket = SimpleNamespace(set=take)
    it = sdk(
        store={"Bucket": object, "open": lambda _name: bucket},
        data={"read_range": None, "write": take, "write_range": take},
    )
    contents = bytes(size_bytes)
    calls: tuple[Callable[[], object], ...] = (
        lambda: it.data.write("p", contents),
        lambda: it.data.write_range("p", 0, memoryview(contents)),
        lambda: it.keyvalue.open("b").__setitem__("k", bytearray(contents)),
        lambda: it.keyvalue.open("b").set_text("k", "x" * size_bytes),
    )
    for call in calls:
        if size_bytes <= MAX_ARGUMENT_BYTES:
            call()
            continue
        with pytest.raises(ServiceError, match=f"at most {MAX_ARGUMENT_BYTES}") as caught:
            call()
        assert caught.value.case == "too_large"
    assert sizes == ([size_bytes] * 4 if size_bytes <= MAX_ARGUMENT_BYTES else [])


def test_what_fits_no_wit_type_is_an_exception(sdk: Callable[..., SimpleNamespace]) -> None:
    """Numbers out of range, wrong types and halves of surrogate pairs are refused, and the host is not asked."""
    it = sdk(
        wasi_keyvalue_store={"Bucket": object, "open": lambda _name: SimpleNamespace(get=never, set=never)},
        wasi_config_store={"get_all": never, "get": never},
        atomics={"increment": never},
        data={"read_range": never, "write_range": never, "read": never, "write": never},
    )
    bucket = it.keyvalue.open("b")
    refused: tuple[tuple[type[Exception], Callable[[], object]], ...] = (
        (ValueError, lambda: it.data.read_range("p", -1, 1)),
        (ValueError, lambda: it.data.read_range("p", 1 << 64, 1)),
        (ValueError, lambda: it.data.read_range("p", 0, 1 << 32)),
        (ValueError, lambda: it.data.write_range("p", -1, b"")),
        (TypeError, lambda: it.data.write_range("p", 0.5, b"")),
        (TypeError, lambda: it.data.write("p", 5)),
        (TypeError, lambda: it.data.write("p", "text")),
        (TypeError, lambda: it.data.read(5)),
        (UnicodeEncodeError, lambda: it.data.read("\ud800")),
        (ValueError, lambda: bucket.increment("k", 1 << 63)),
        (ValueError, lambda: bucket.increment("k", -(1 << 63) - 1)),
        (TypeError, lambda: bucket.increment("k", 1.5)),
        (TypeError, lambda: bucket.__setitem__("k", 5)),
        (TypeError, lambda: bucket[5]),
        (UnicodeEncodeError, lambda: bucket["\ud800"]),
        (UnicodeEncodeError, lambda: it.keyvalue.open("\ud800")["k"]),
        (TypeError, lambda: it.config.get(5)),
    )
    for error, call in refused:
        with pytest.raises(error):
            call()
    with pytest.raises(ValueError, match=f"between {-(1 << 63)} and {(1 << 63) - 1}"):
        bucket.increment("k", 1 << 63)


@pytest.mark.parametrize("size_bytes", [MAX_ARGUMENT_BYTES, 2 * MAX_ARGUMENT_BYTES, 2 * MAX_ARGUMENT_BYTES + 1])
def test_a_large_file_is_read_part_by_part(sdk: Callable[..., SimpleNamespace], size_bytes: int) -> None:
    """A file that the host does not give at once is the same bytes, asked for in ranges."""
    content = b"".join(number.to_bytes(4) for number in range(size_bytes // 4 + 1))[:size_bytes]
    asked: list[int] = []

    def read_range(_path: str, offset: int, most: int) -> bytes:
        asked.append(offset)
        return content[offset : offset + most]

    it = sdk(data={"read": refuse(type("Error_TooLarge", (), {})()), "read_range": read_range}).data
    assert it.read("p") == content
    assert asked == list(range(0, size_bytes + 1, MAX_ARGUMENT_BYTES))


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
