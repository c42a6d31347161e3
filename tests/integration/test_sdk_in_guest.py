"""The SDK inside a component: how an instance starts, and what a plugin may hand to the host without ending it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import cloche
from cloche.capabilities.data.host import MAX_CALL_BYTES
from cloche.capabilities.keyvalue.host import MAX_BATCH_BYTES, MAX_VALUE_BYTES
from cloche.storage import storage_directory
from cloche_guest.lowering import MAX_ARGUMENT_BYTES
from support.guests import guest_home
from support.sdk_guest import PLUGIN, write_sdk_guest

pytestmark = pytest.mark.slow

POLICY = f"""
format-version = 1
[plugins."{PLUGIN}"]
allow."wasi:keyvalue" = {{}}
allow."cloche:host/data" = {{}}
allow."cloche:host/telemetry" = {{}}
"""


@dataclass
class Tried:
    """The plugin in a host."""

    host: cloche.Host
    place: Path

    def fresh(self) -> Any:
        """The plugin with no instance yet."""
        if any(plugin.id == PLUGIN for plugin in self.host.plugins()):
            self.host.unload(PLUGIN)
        return self.host.load(self.place, trust=cloche.Trusted("a test"))

    def run(self, code: str) -> str:
        """What the text leaves in `result`."""
        return str(self.host.plugin(PLUGIN)["acme:tried/run"].text(code))

    def error(self, code: str) -> str:
        """The exception that the text ends with. The instance lives on: it remembers what it was told before."""
        self.run("tokens.mark = 7")
        with pytest.raises(cloche.GuestError) as caught:
            self.run(code)
        assert self.run("result = tokens.mark") == "7"
        return str(caught.value.payload)


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tried]:
    """The plugin, built from source and loaded."""
    place = tmp_path_factory.mktemp("tried")
    (place / "policy.toml").write_text(POLICY)
    with cloche.Host(home=guest_home(), tenant="test-sdk", policy=place / "policy.toml") as host:
        made = Tried(host, write_sdk_guest(place))
        made.fresh()
        yield made
    shutil.rmtree(storage_directory(guest_home(), "test-sdk", f"path:{made.place}", PLUGIN))


@pytest.mark.parametrize("first", ["constructor", "static function", "function"])
def test_every_kind_of_first_call_starts_the_instance(tried: Tried, first: str) -> None:
    """Hooks ran once and numbers differ between instances, although methods were called at module level too."""
    seen: list[list[str]] = []
    for _ in range(2):
        plugin = tried.fresh()
        tokens = plugin["acme:tried/tokens"]
        if first == "constructor":
            with tokens.token() as token:
                seen.append(token.text().split())
        elif first == "static function":
            seen.append(tokens.token_found().split())
        else:
            seen.append(tried.run("result = tokens.found()").split())
        assert tried.run("result = len(starts)") == "1"
        seen[-1].append(tried.run("result = starts[0]"))
    assert [starts for starts, *_ in seen] == ["1", "1"]
    drawn = [number for _, *numbers in seen for number in numbers]
    assert len(set(drawn)) == len(drawn) == 6


def test_bounds_are_the_same_on_both_sides() -> None:
    """What the SDK lets pass is what the host takes."""
    assert {MAX_CALL_BYTES, MAX_VALUE_BYTES, MAX_BATCH_BYTES} == {MAX_ARGUMENT_BYTES}


MOST = MAX_ARGUMENT_BYTES


@pytest.mark.parametrize(
    ("write", "read"),
    [
        ("data.write('f', bytes({}))", "data.read('f')"),
        ("data.write_range('f', 0, bytes({}))", "data.read('f')"),
        ("keyvalue.open()['k'] = bytes({})", "keyvalue.open()['k']"),
    ],
)
def test_the_largest_contents(tried: Tried, write: str, read: str) -> None:
    """Exactly the bound is stored; one byte more is an exception with the bound in it, and the instance lives on."""
    assert tried.run(f"{write.format(MOST)}; result = data.usage().max_call_bytes") == str(MOST)
    told = tried.error(write.format(MOST + 1))
    assert told.startswith("ServiceError: ")
    assert f"{MOST + 1} bytes; one call takes at most {MOST}" in told
    assert tried.run(f"result = len({read})") == str(MOST)


@pytest.mark.parametrize(
    ("call", "refusal"),
    [
        ("data._host.write('g', bytes({}))", "Error_TooLarge()"),
        ("data._host.write_range('g', 0, bytes({}))", "Error_TooLarge()"),
        ("keyvalue.open()._opened().set('k', bytes({}))", f"a value has {MOST + 1} bytes"),
        (
            "batch.set_many(keyvalue.open()._opened(), [('a', bytes(9)), ('b', bytes({} - 11))])",
            f"has {MOST + 1} bytes",
        ),
    ],
)
def test_the_hosts_own_bounds(tried: Tried, call: str, refusal: str) -> None:
    """Without the SDK's check the host takes the same, and answers one byte more with an error value."""
    code = "try:\n    {}\n    result = 'stored'\nexcept Err as error:\n    result = repr(error.value)"
    assert tried.run(code.format(call.format(MOST))) == "stored"
    assert refusal in tried.run(code.format(call.format(MOST + 1)))


def test_a_file_larger_than_one_call_is_read(tried: Tried) -> None:
    """Chunks of `max_call_bytes` make a file of any size, which `read` gives back whole."""
    tried.run(
        "step = data.usage().max_call_bytes\n"
        "for part in range(3): data.write_range('large', part * step, bytes([part]) * step)\n"
        "data.write_range('large', 3 * step, b'end')"
    )
    assert tried.run("whole = data.read('large'); result = len(whole), set(whole[::1 << 20]), whole[-3:]") == str(
        (3 * MOST + 3, {0, 1, 2, 101}, b"end")
    )
    tried.run("data.remove('large')")


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("data.read_range('f', -1, 1)", "ValueError: offset_bytes: -1 is not between 0 and"),
        ("data.read_range('f', 0, 1 << 32)", "ValueError: max_bytes: 4294967296 is not between 0 and"),
        ("data.read('\\ud800')", "UnicodeEncodeError"),
        ("data.read(5)", "TypeError"),
        ("keyvalue.open().increment('n', 1 << 63)", "ValueError: delta of key 'n' of bucket 'default'"),
        ("keyvalue.open()['\\ud800'] = b''", "UnicodeEncodeError"),
        ("keyvalue.open()['k'] = 5", "TypeError"),
    ],
)
def test_what_does_not_fit_is_an_exception(tried: Tried, call: str, error: str) -> None:
    """A plugin can catch it; none of this ends the instance."""
    assert tried.error(call).startswith(error)


def test_log_and_telemetry_end_nothing(tried: Tried) -> None:
    """Whatever they are given, the instance lives on, and only what fits is counted."""
    tried.run("tokens.mark = 8")
    answers = tried.run(
        "log.info('a\\ud800', context='\\udfff', value='\\udcff')\n"
        "count = telemetry.count\n"
        "result = [count('hits', -1), count('hits', 1 << 64), count('hits', 1.5), telemetry.gauge('level', 10**400),\n"
        "    telemetry.event('\\ud800', '\\udfff'), count('hits', 1, http_status=200, name='a'),\n"
        "    count('hits', 2, {'http-status': 200, 'name': 'a'})]"
    )
    assert answers == str([False] * 4 + [True] * 3)
    assert tried.run("result = tokens.mark") == "8"
    events = tried.host.events.recent(kind=cloche.EventKind.LOG)
    messages = [event.data["untrusted"]["message"] for event in events if event.data["untrusted"]["context"] == "?"]
    assert messages == ["a? value='\\udcff'"]
    counted = [event.data for event in tried.host.events.recent(kind=cloche.EventKind.METRIC)]
    assert [(data["value"], data["labels"]) for data in counted] == [
        (1, {"http-status": "200", "name": "a"}),
        (2, {"http-status": "200", "name": "a"}),
    ]


def test_methods_call_each_other_by_keyword(tried: Tried) -> None:
    """The frame of an exported method passes on whatever arguments it gets."""
    assert tried.run("result = run.told(code='result = 5', scope={})") == "5"
    assert tried.run("result = run.text(code='result = 6')") == "6"


def test_without_randomness_the_sdk_cannot_start(tried: Tried, tmp_path: Path) -> None:
    """A policy that takes `wasi:random` away ends the first call with a code that says so."""
    (tmp_path / "policy.toml").write_text(f'{POLICY}deny = ["wasi:random"]\n')
    with cloche.Host(home=guest_home(), tenant="no-randomness", policy=tmp_path / "policy.toml") as host:
        plugin = host.load(tried.place, trust=cloche.Trusted("a test"))
        with pytest.raises(cloche.ClocheError) as caught:
            plugin["acme:tried/run"].text("result = 1")
        assert caught.value.code == "grant.denied"
