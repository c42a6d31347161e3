"""Closed and denied imports, and what a guest writes: counted, bounded, marked, reported."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cloche.app import Host
from cloche.engine.stdio import TAIL_BYTES, Output
from cloche.errors import ClocheError, GrantError, GuestTrap, LimitError
from support.life_plugin import component_of
from support.wat_plugins import events, load, open_host

ROOT = Path(__file__).parents[2]

IO = """package wasi:io@0.2.0;
interface poll { resource pollable { block: func(); } }
interface error { resource error { } }
interface streams {
  use error.{error};
  variant stream-error { last-operation-failed(error), closed }
  resource output-stream { blocking-write-and-flush: func(contents: list<u8>) -> result<_, stream-error>; }
}
"""

CLI = """package wasi:cli@0.2.0;
interface stdout { use wasi:io/streams@0.2.0.{output-stream}; get-stdout: func() -> output-stream; }
interface stderr { use wasi:io/streams@0.2.0.{output-stream}; get-stderr: func() -> output-stream; }
"""

CLOCKS = """package wasi:clocks@0.2.0;
interface monotonic-clock {
  use wasi:io/poll@0.2.0.{pollable};
  type instant = u64;
  type duration = u64;
  now: func() -> instant;
  resolution: func() -> duration;
  subscribe-duration: func(when: duration) -> pollable;
}
"""

RANDOM = """package wasi:random@0.2.0;
interface random { get-random-u64: func() -> u64; }
"""

ASKING_WORLD = """package test:asking;
world asking {
  import wasi:logging/logging@0.1.0-draft;
  import wasi:keyvalue/store@0.2.0-draft2;
  import wasi:clocks/monotonic-clock@0.2.0;
  import wasi:random/random@0.2.0;
  export say: func();
  export open: func() -> u32;
  export time: func() -> u64;
  export sleep: func();
  export dice: func() -> u64;
  export answer: func() -> u32;
}
"""

ASKING = """(module
  (import "wasi:logging/logging@0.1.0-draft" "log" (func $log (param i32 i32 i32 i32 i32)))
  (import "wasi:keyvalue/store@0.2.0-draft2" "open" (func $open (param i32 i32 i32)))
  (import "wasi:clocks/monotonic-clock@0.2.0" "now" (func $now (result i64)))
  (import "wasi:clocks/monotonic-clock@0.2.0" "subscribe-duration" (func $subscribe (param i64) (result i32)))
  (import "wasi:random/random@0.2.0" "get-random-u64" (func $random (result i64)))
  (memory (export "memory") 1)
  (data (i32.const 64) "hello")
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096))
  (func (export "say")
    (call $log (i32.const 2) (i32.const 64) (i32.const 5) (i32.const 64) (i32.const 5)))
  (func (export "open") (result i32)
    (call $open (i32.const 64) (i32.const 0) (i32.const 128))
    (i32.add (i32.mul (i32.load8_u (i32.const 128)) (i32.const 100)) (i32.load8_u (i32.const 132))))
  (func (export "time") (result i64) (call $now))
  (func (export "sleep") (drop (call $subscribe (i64.const 1))))
  (func (export "dice") (result i64) (call $random))
  (func (export "answer") (result i32) (i32.const 42)))
"""

WRITING_WORLD = """package test:writing;
world writing {
  import wasi:cli/stdout@0.2.0;
  import wasi:cli/stderr@0.2.0;
  export print: func(to-stderr: bool, size: u32, turns: u32);
  export fail: func(noise: u32);
  export quiet: func(n: u32) -> u32;
}
"""

TRACEBACK = "Traceback (most recent call last):\\0a  File \\22app.py\\22, line 3\\0aValueError: no\\0a"

LINES = "0123456789abcde\\0a" * 256

WRITING = f"""(module
  (import "wasi:cli/stdout@0.2.0" "get-stdout" (func $stdout (result i32)))
  (import "wasi:cli/stderr@0.2.0" "get-stderr" (func $stderr (result i32)))
  (import "wasi:io/streams@0.2.0" "[method]output-stream.blocking-write-and-flush"
    (func $write (param i32 i32 i32 i32)))
  (memory (export "memory") 1)
  (data (i32.const 1024) "{LINES}")
  (data (i32.const 8192) "{TRACEBACK}")
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 16384))
  (func $put (param $stream i32) (param $from i32) (param $size i32) (param $turns i32)
    (block $done (loop $more
      (br_if $done (i32.eqz (local.get $turns)))
      (call $write (local.get $stream) (local.get $from) (local.get $size) (i32.const 16))
      (local.set $turns (i32.sub (local.get $turns) (i32.const 1)))
      (br $more))))
  (func (export "print") (param i32 i32 i32)
    (call $put (if (result i32) (local.get 0) (then (call $stderr)) (else (call $stdout)))
      (i32.const 1024) (local.get 1) (local.get 2)))
  (func (export "fail") (param i32) (local $to i32)
    (local.set $to (call $stderr))
    (call $put (local.get $to) (i32.const 1024) (i32.const 4096) (local.get 0))
    (call $put (local.get $to) (i32.const 8192) (i32.const 74) (i32.const 1))
    unreachable)
  (func (export "quiet") (param i32) (result i32) (local.get 0)))
"""


def package(name: str) -> str:
    return (ROOT / "wit" / "deps" / name / "package.wit").read_text()


@pytest.fixture(scope="module")
def asking() -> bytes:
    deps = {"log": package("wasi-logging"), "kv": package("wasi-keyvalue"), "io": IO, "clocks": CLOCKS, "r": RANDOM}
    return component_of(ASKING, ASKING_WORLD, deps)


@pytest.fixture(scope="module")
def writing() -> bytes:
    return component_of(WRITING, WRITING_WORLD, {"io": IO, "cli": CLI})


@pytest.fixture
def host() -> Iterator[Host]:
    with open_host() as made:
        yield made


def policy(*denied: str) -> str:
    return f'format-version = 1\n[plugins."*"]\ndeny = [{", ".join(map(repr, denied))}]\n'


def denials(host: Host) -> list[tuple[object, object]]:
    """Closed functions that were hit, with the count, as the events tell."""
    return [
        (data["function"], data["count"]) for data in events(host, "denied") if "function" in data and "count" in data
    ]


def test_default_grants_work(host: Host, tmp_path: Path, asking: bytes) -> None:
    """Logging, clocks and randomness are granted by default; nothing is counted as denied."""
    point = load(host, tmp_path, asking)[""]
    point.say()
    assert point.time() > 0
    point.sleep()
    assert point.dice() != point.dice()
    assert denials(host) == []
    assert len(events(host, "log")) == 1


def test_an_ungranted_interface_denies_in_its_own_words(host: Host, tmp_path: Path, asking: bytes) -> None:
    """`wasi:keyvalue`, not asked for, answers `open` with its own `access-denied`; hits are counted and reported."""
    plugin = load(host, tmp_path, asking, instances="pooled")
    assert plugin[""].open() == 101
    assert plugin[""].open() == 101
    assert denials(host) == [("wasi:keyvalue/store@0.2.0-draft2.open", 1)] * 2
    assert plugin[""].answer() == 42


@pytest.mark.parametrize(
    ("function", "capability", "name"),
    [
        ("time", "wasi:clocks", "wasi:clocks/monotonic-clock@0.2.0.now"),
        ("sleep", "wasi:clocks", "wasi:clocks/monotonic-clock@0.2.0.subscribe-duration"),
        ("dice", "wasi:random", "wasi:random/random@0.2.0.get-random-u64"),
    ],
)
def test_a_removed_grant_traps_where_there_is_no_error_case(
    tmp_path: Path, asking: bytes, function: str, capability: str, name: str
) -> None:
    """A function without an error to give ends the call with `grant.denied` and its name; the rest works on."""
    with open_host(policy(capability)) as host:
        plugin = load(host, tmp_path, asking)
        with pytest.raises(GrantError) as caught:
            plugin[""][function]()
        assert caught.value.code == "grant.denied"
        assert name in str(caught.value)
        assert caught.value.usage is not None
        assert caught.value.plugin == "acme/test"
        assert denials(host) == [(name, 1)]
        assert plugin[""].answer() == 42


def test_denied_messages_are_left_out(tmp_path: Path, asking: bytes) -> None:
    """Without the grant a message goes nowhere, as its interface allows, and the plugin does not notice."""
    with open_host(policy("wasi:logging")) as host:
        load(host, tmp_path, asking)[""].say()
        assert denials(host) == [("wasi:logging/logging@0.1.0-draft.log", 1)]
        assert events(host, "log") == []


def test_everything_can_be_removed_at_once(tmp_path: Path, asking: bytes) -> None:
    """With all of it denied the component still loads and serves what needs none."""
    with open_host(policy("wasi:clocks", "wasi:random", "wasi:logging", "wasi:keyvalue", "wasi:cli")) as host:
        point = load(host, tmp_path, asking)[""]
        assert point.answer() == 42
        point.say()
        for name in ("time", "sleep", "dice"):
            with pytest.raises(GrantError):
                point[name]()
        assert point.open() == 101


def test_an_unknown_empty_interface_is_refused(host: Host, tmp_path: Path) -> None:
    """The engine would link an empty instance without asking; we refuse it at load and name it (H26)."""
    with pytest.raises(ClocheError, match="nobody:knows/this") as caught:
        load(host, tmp_path, '(component (import "nobody:knows/this@1.0.0" (instance)))')
    assert caught.value.code in {"grant.refused", "contract.mismatch"}


def test_output_becomes_events(host: Host, tmp_path: Path, writing: bytes) -> None:
    """What a guest writes is one event per stream and call, with the text and the call's id."""
    point = load(host, tmp_path, writing, instances="pooled")[""]
    point.print(False, 16, 2)
    point.print(True, 16, 1)
    told = [event for event in host.events.recent() if event.kind == "output"]
    assert [(event.data["stream"], event.data["text"]) for event in told] == [
        ("stdout", "0123456789abcde\n" * 2),
        ("stderr", "0123456789abcde\n"),
    ]
    assert len({event.call_id for event in told}) == 2
    assert {event.plugin for event in told} == {"acme/test"}


def test_output_is_reported_once(host: Host, tmp_path: Path, writing: bytes) -> None:
    """A later call that writes nothing, or is refused before it begins, reports nothing of an earlier one."""
    point = load(host, tmp_path, writing, instances="pooled")[""]
    point.print(False, 16, 1)
    point.quiet(1)
    with pytest.raises(ClocheError):
        point.quiet(-1)
    assert len(events(host, "output")) == 1


def test_a_flood_is_cut_and_marked(host: Host, tmp_path: Path, writing: bytes) -> None:
    """What is over the limit is counted, dropped and marked, and the call goes on (H20)."""
    point = load(host, tmp_path, writing, instances="pooled", more='[limits]\noutput = "10KiB"\n')[""]
    point.print(False, 4096, 1000)
    (told,) = events(host, "output")
    assert told["dropped_bytes"] == 4096 * 1000 - 10 * 1024
    assert told["text"][: 10 * 1024] == ("0123456789abcde\n" * 640)
    assert "[truncated: 4085760 bytes over the output limit of 10240 bytes]" in told["text"]
    assert len(told["text"]) < 10 * 1024 + 200
    point.print.options(output=20)(False, 16, 2)
    assert events(host, "output")[-1]["text"].startswith("0123456789abcde\n0123\n[truncated: 12 bytes")
    point.print.options(output=0)(True, 16, 1)
    assert events(host, "output")[-1]["text"].startswith("\n[truncated: 16 bytes")


def test_output_at_the_exact_limit_is_whole(host: Host, tmp_path: Path, writing: bytes) -> None:
    """Exactly as many bytes as allowed are neither cut nor marked."""
    point = load(host, tmp_path, writing, instances="pooled")[""]
    point.print.options(output=32)(False, 16, 2)
    assert events(host, "output")[-1]["text"] == "0123456789abcde\n" * 2


def test_each_call_has_an_output_of_its_own(host: Host, tmp_path: Path, writing: bytes) -> None:
    """What an instance wrote in an earlier call takes nothing from the limit of a later one, and is not told again."""
    point = load(host, tmp_path, writing, instances="single", more="[limits]\noutput = 20\n")[""]
    for _ in range(3):
        point.print(False, 16, 1)
    assert [data["text"] for data in events(host, "output")] == ["0123456789abcde\n"] * 3


def test_only_the_flooded_stream_is_marked(host: Host, tmp_path: Path, writing: bytes) -> None:
    """A stream that wrote nothing has no event, also when the other one was cut."""
    point = load(host, tmp_path, writing, instances="pooled", more="[limits]\noutput = 100\n")[""]
    point.print(True, 4096, 10)
    assert [data["stream"] for data in events(host, "output")] == ["stderr"]


@pytest.mark.parametrize("noise", [0, 1, 1000])
def test_a_traceback_reaches_the_trap(host: Host, tmp_path: Path, writing: bytes, noise: int) -> None:
    """What looks like a Python traceback at the end of stderr is part of the GuestTrap, even behind a flood."""
    point = load(host, tmp_path, writing)[""]
    with pytest.raises(GuestTrap) as caught:
        point.fail(noise)
    assert caught.value.traceback is not None
    assert caught.value.traceback.startswith("Traceback (most recent call last):\n")
    assert caught.value.traceback.endswith("ValueError: no")
    assert caught.value.traceback in str(caught.value)
    assert len(caught.value.traceback) < TAIL_BYTES
    assert point.quiet(3) == 3


def test_output_that_cannot_be_kept_is_dropped(
    host: Host, tmp_path: Path, writing: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even a Ctrl-C while the host takes a guest's bytes gets into the engine: the guest goes on."""
    point = load(host, tmp_path, writing, instances="pooled")[""]

    def refuse(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Output, "write", refuse)
        point.print(False, 16, 2)
    point.print(False, 16, 1)
    assert [data["text"] for data in events(host, "output")] == ["0123456789abcde\n"]


def test_output_costs_no_memory_per_write(host: Host, tmp_path: Path, writing: bytes) -> None:
    """A hundred thousand writes of one byte are kept as that many bytes, and the deadline still holds."""
    point = load(host, tmp_path, writing)[""]
    point.print(False, 1, 100_000)
    assert events(host, "output")[-1]["text"] == "0" * 100_000
    with pytest.raises(LimitError) as caught:
        point.print.options(deadline=0.2)(False, 1, 2**31)
    assert caught.value.code == "limit.deadline"
