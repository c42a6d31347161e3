"""Threat: files, manifests, policies, limits and values that are wrong in every way. Each is refused by its own code.

A host that has refused something goes on: a good plugin is loaded and called after every case.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cloche.app import Host
from cloche.cli.main import run
from cloche.errors import ClocheError
from cloche.grants.policy_file import parse_policy
from cloche.observe.events import EventKind
from support.binary_wat import composed, parse
from support.mutant_corpus import VALUES_CORE, VALUES_WIT, made
from support.wat_plugins import BASICS, TRUSTED, open_host, shared_home, write_plugin

pytestmark = [pytest.mark.adversarial, pytest.mark.skipif(os.name != "posix", reason="links, FIFOs and signals")]
ANSWER = """
(component
  (core module $m (func (export "answer") (result i32) (i32.const 42)))
  (core instance $i (instantiate $m))
  (func $answer (result u32) (canon lift (core func $i "answer")))
  (export "answer" (func $answer)))
"""


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    """One host for every refusal."""
    with open_host() as opened:
        yield opened


@pytest.fixture(autouse=True)
def _still_serving(host: Host, tmp_path: Path) -> Iterator[None]:
    """The next call works, whatever the test did."""
    yield
    ensure_serving(host, tmp_path)


def ensure_serving(host: Host, tmp_path: Path) -> None:
    """A good plugin loads, answers and goes."""
    good = write_plugin(tmp_path / "good", ANSWER, plugin_id="acme/good")
    with host.load(good, trust=TRUSTED) as plugin:
        assert plugin[""].answer() == 42


def refusal(act: Callable[..., object], *arguments: Any, **named: Any) -> ClocheError:
    """The error that this raises."""
    with pytest.raises(ClocheError) as caught:
        act(*arguments, **named)
    return caught.value


def descriptors() -> int:
    """How many descriptors this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


# -- files -------------------------------------------------------------------------------------------------------------

FILES: dict[str, tuple[Callable[[], bytes], str]] = {
    "truncated": (lambda: parse(BASICS)[:-40], "component.malformed"),
    "cut in the header": (lambda: parse(BASICS)[:6], "component.malformed"),
    "prose": (lambda: b"I am a poem.\n", "component.not-wasm"),
    "wat": (ANSWER.encode, "component.not-wasm"),
    "empty": (lambda: b"", "component.malformed"),
    "zeros": (lambda: bytes(4096), "component.not-wasm"),
    "native code": (lambda: b"\x7fELF\x02\x01\x01" + bytes(200), "component.not-wasm"),
    "archive": (lambda: b"PK\x03\x04" + bytes(200), "component.not-wasm"),
    "core module": (lambda: parse("(module (func))"), "component.core-module"),
    "unknown version": (lambda: b"\0asm\x99\0\x01\0", "component.malformed"),
    "two in one": (lambda: parse(ANSWER) * 2, "component.malformed"),
    "noise behind": (lambda: parse(ANSWER) + b"\x07\x03abc", "component.malformed"),
    "does not validate": (
        lambda: parse('(component (core module $m (func (export "f") (result i32) nop)))'),
        "component.malformed",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_what_is_no_component_is_named(host: Host, tmp_path: Path, name: str) -> None:
    """A bare file, a file in a plugin's directory and bytes from memory get the same code."""
    make, code = FILES[name]
    data = make()
    bare = tmp_path / "bare.wasm"
    bare.write_bytes(data)
    directory = write_plugin(tmp_path / "plugin", ANSWER)
    (directory / "plugin.wasm").write_bytes(data)
    assert [
        code,
        code,
        code,
    ] == [
        refusal(host.load, bare, trust=TRUSTED).code,
        refusal(host.load, directory, trust=TRUSTED).code,
        refusal(host.load_bytes, data, trust=TRUSTED).code,
    ]


def _missing(place: Path) -> Path:
    return place / "nowhere.wasm"


def _loop(place: Path) -> Path:
    (place / "loop.wasm").symlink_to(place / "loop.wasm")
    return place / "loop.wasm"


def _two_links(place: Path) -> Path:
    (place / "a").symlink_to(place / "b")
    (place / "b").symlink_to(place / "a")
    return place / "a" / "plugin"


def _pipe(place: Path) -> Path:
    os.mkfifo(place / "pipe.wasm")
    return place / "pipe.wasm"


def _device(place: Path) -> Path:
    return Path("/dev/zero")


def _no_manifest(place: Path) -> Path:
    (place / "empty").mkdir()
    return place / "empty"


def _manifest_pipe(place: Path) -> Path:
    (place / "piped").mkdir()
    os.mkfifo(place / "piped" / "plugin.toml")
    return place / "piped"


def _manifest_directory(place: Path) -> Path:
    (place / "odd" / "plugin.toml").mkdir(parents=True)
    return place / "odd"


def _replaced(place: Path, make: Callable[[Path], object]) -> Path:
    directory = write_plugin(place / "plugin", ANSWER)
    component = directory / "plugin.wasm"
    component.unlink()
    make(component)
    return directory


def _component_gone(place: Path) -> Path:
    return _replaced(place, lambda component: None)


def _component_pipe(place: Path) -> Path:
    return _replaced(place, os.mkfifo)


def _component_directory(place: Path) -> Path:
    return _replaced(place, Path.mkdir)


def _component_loop(place: Path) -> Path:
    return _replaced(place, lambda component: component.symlink_to(component))


def _component_outside(place: Path) -> Path:
    (place / "outside.wasm").write_bytes(parse(ANSWER))
    return _replaced(place, lambda component: component.symlink_to(place / "outside.wasm"))


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (_missing, "usage.not-found"),
        (_loop, "usage.not-found"),
        (_two_links, "usage.not-found"),
        (_pipe, "component.missing"),
        (_device, "component.missing"),
        (_no_manifest, "manifest.missing"),
        (_manifest_pipe, "manifest.missing"),
        (_manifest_directory, "manifest.missing"),
        (_component_gone, "component.missing"),
        (_component_pipe, "component.missing"),
        (_component_directory, "component.missing"),
        (_component_loop, "component.missing"),
        (_component_outside, "component.missing"),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) else "",
)
def test_paths_that_lead_nowhere_are_refused_at_once(
    host: Host, tmp_path: Path, make: Callable[[Path], Path], code: str
) -> None:
    """Absent files, links in circles, FIFOs without a writer, devices and ways out of the directory: nothing waits."""
    path, before = make(tmp_path), descriptors()
    error = refusal(host.load, path, trust=TRUSTED)
    assert (error.code, refusal(host.inspect, path).code) == (code, code)
    assert descriptors() == before


def test_a_composition_that_the_compiler_cannot_take_is_refused(host: Host) -> None:
    """The engine's compiler aborts on some compositions; its child dies of it, and the host says what to do."""
    error = refusal(host.load_bytes, composed(), trust=TRUSTED)
    assert error.code == "contract.unsupported"
    assert "build it as one component" in error.message


# -- worlds and imports ------------------------------------------------------------------------------------------------

GREETER = """
(component
  (core module $m (func (export "f") (param i32) (result i32) (local.get 0)))
  (core instance $i (instantiate $m))
  (func $f (param "name" u32) (result u32) (canon lift (core func $i "f")))
  (instance $greeter (export "greet" (func $f)))
  (export "cloche:example/greeter@{version}" (instance $greeter)))
"""
DECLARED = '[extension-points]\n"cloche:example/greeter" = "^1.0"'
CONFIG = """
(component
  (import "wasi:config/store@0.2.0-rc.1" (instance $store
    (type $error (variant (case "upstream" string) (case "io" string)))
    (export "error" (type $e (eq $error)))
    (export "get" (func (param "key" {key}) (result (result (option string) (error $e)))))))
  (core module $memory (memory (export "memory") 1)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024)))
  (core instance $s (instantiate $memory))
  (core func $get (canon lower (func $store "get") (memory (core memory $s "memory"))
    (realloc (core func $s "realloc"))))
  (core module $m (import "h" "get" (func $get {params}))
    (func (export "ask") {call}))
  (core instance $i (instantiate $m (with "h" (instance (export "get" (func $get))))))
  (func (export "ask") (canon lift (core func $i "ask"))))
"""
ASKS_TEXT = CONFIG.format(
    key="string",
    params="(param i32 i32 i32)",
    call="(call $get (i32.const 0) (i32.const 1) (i32.const 16))",
)
ASKS_NUMBER = CONFIG.format(
    key="u32", params="(param i32 i32)", call="(call $get (i32.const 0) (i32.const 16)) unreachable"
)
LOGS = """
(component
  (import "wasi:logging/logging@0.1.0-draft" (instance $logging
    (type $leveld (enum "trace" "debug" "info" "warn" "error" "critical"))
    (export "level" (type $level (eq $leveld)))
    (export "log" (func (param "level" $level) (param "context" string) (param "message" string)))))
  (core module $memory (memory (export "memory") 1))
  (core instance $s (instantiate $memory))
  (core func $log (canon lower (func $logging "log") (memory (core memory $s "memory"))))
  (core module $m (import "h" "log" (func $log (param i32 i32 i32 i32 i32)))
    (func (export "ask") (call $log (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 1))))
  (core instance $i (instantiate $m (with "h" (instance (export "log" (func $log))))))
  (func (export "ask") (canon lift (core func $i "ask"))))
"""
DRAWS = """
(component
  (import "wasi:random/random@0.2.0" (instance $random (export "get-random-u64" (func (result u64)))))
  (core func $draw (canon lower (func $random "get-random-u64")))
  (core module $m (import "h" "draw" (func $draw (result i64))) (func (export "ask") (drop (call $draw))))
  (core instance $i (instantiate $m (with "h" (instance (export "draw" (func $draw))))))
  (func (export "ask") (canon lift (core func $i "ask"))))
"""
STRANGER = '(component (import "nobody:knows/this@1.0.0" (instance (export "ask" (func (result u32))))))'


@pytest.mark.parametrize(
    ("wat", "manifest", "code", "said"),
    [
        (ANSWER, DECLARED, "contract.mismatch", "greeter"),
        (GREETER.format(version="2.0.0"), DECLARED, "contract.mismatch", "2.0.0"),
        (GREETER.format(version="1.0.0"), DECLARED, "contract.mismatch", "string"),
        (STRANGER, "", "grant.refused", "nobody:knows/this"),
        (ASKS_NUMBER, '[capabilities."wasi:config"]', "contract.mismatch", "string"),
        (ASKS_NUMBER, "", "contract.mismatch", "string"),
        (LOGS, '[capabilities."cloche:host/data"]\nrequired = true', "grant.required", "cloche:host/data"),
        (LOGS, '[capabilities."no:such/thing"]\nrequired = true', "grant.required", "no:such/thing"),
    ],
    ids=[
        "declared and not exported", "wrong major", "mistyped export", "unknown import",
        "mistyped import, granted", "mistyped import, not granted", "required and not granted", "required and unknown",
    ],
)  # fmt: skip
def test_worlds_that_do_not_fit_are_refused(
    host: Host, tmp_path: Path, wat: str, manifest: str, code: str, said: str
) -> None:
    """What does not fit is refused before any code of the plugin runs, and the message names it."""
    error = refusal(host.load, write_plugin(tmp_path / "plugin", wat, more=manifest), trust=TRUSTED)
    assert error.code == code
    assert said in " ".join([error.message, *getattr(error, "findings", ())])


def test_an_undeclared_export_of_the_wrong_type_is_a_strangers(host: Host, tmp_path: Path) -> None:
    """A plugin that declares nothing may export what it likes; it is called by its own types, after a warning."""
    wat = GREETER.format(version="1.0.0")
    with host.load(write_plugin(tmp_path / "plugin", wat, plugin_id="acme/stranger"), trust=TRUSTED) as plugin:
        assert plugin.report is not None
        assert {finding.code for finding in plugin.report.warnings} == {"contract.mismatch"}
        assert plugin["cloche:example/greeter"].greet(7) == 7
        assert refusal(plugin["cloche:example/greeter"].greet, "Ada").code == "usage.value"


def test_an_import_without_a_grant_is_closed(tmp_path: Path) -> None:
    """A plugin whose import is not granted loads; the call that uses it is denied, as is every later one."""
    policy = 'format-version = 1\n[plugins."acme/test"]\ndeny = ["wasi:random"]\n'
    with open_host(policy) as host, host.load(write_plugin(tmp_path, DRAWS), trust=TRUSTED) as plugin:
        assert [refusal(plugin[""].ask).code for _ in range(3)] == ["grant.denied"] * 3


@pytest.mark.parametrize(("wat", "name"), [(LOGS, "wasi:logging/logging"), (ASKS_TEXT, "wasi:config/store")])
def test_an_import_that_can_say_nothing_answers_so_without_a_grant(tmp_path: Path, wat: str, name: str) -> None:
    """The plugin goes on as where nobody listens and nothing is set; the operator sees what was denied."""
    capability = name.partition("/")[0]
    policy = f'format-version = 1\n[plugins."acme/test"]\ndeny = ["{capability}"]\n'
    directory = write_plugin(tmp_path, wat, more='[capabilities."wasi:logging"]')
    with open_host(policy) as host, host.load(directory, trust=TRUSTED) as plugin:
        plugin[""].ask()
        denied = host.events.recent(kind=EventKind.DENIED)
        assert [event.capability for event in denied] == [capability]
        assert host.events.recent(kind=EventKind.LOG) == []


# -- manifests, policies, limits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        ("[limit]\nfuel = 1", "manifest.unknown-key", "limits"),
        ("[limits]\nfule = 1", "manifest.unknown-key", "fuel"),
        ("[capability]", "manifest.unknown-key", "capabilities"),
        ('[capabilities."wasi:config"]\nkees = ["a"]', "manifest.unknown-key", "keys"),
        ('[capabilities."wasi:config"]\nkeys = "a"', "manifest.value", "keys"),
        ('[capabilities."wasi:config"]\nrequired = "yes"', "manifest.value", "required"),
        ("[extension-points]\ngreeter = 1", "manifest.value", "greeter"),
        ("[limits]\nfuel = []", "manifest.value", "fuel"),
        ("[limits]\nfuel = 1\nfuel = 2", "manifest.syntax", "plugin.toml"),
        ("[limits", "manifest.syntax", "plugin.toml"),
        ('[requires]\nos = ["plan9"]', "manifest.value", "plan9"),
        ('[requires]\nos = ["windows"]', "manifest.requires", "windows"),
        ('[requires]\nhost = ">=99"', "manifest.requires", "99"),
    ],
)
def test_wrong_manifests_are_refused_by_key(host: Host, tmp_path: Path, more: str, code: str, said: str) -> None:
    """Unknown and mistyped keys of a directory's manifest are named, with the nearest known key."""
    error = refusal(host.load, write_plugin(tmp_path / "plugin", ANSWER, more=more), trust=TRUSTED)
    assert (error.code, said in error.message) == (code, True), error.message


@pytest.mark.parametrize(
    ("line", "wrong", "code", "said"),
    [
        ('path = "plugin.wasm"', 'path = "../plugin.wasm"', "manifest.value", "path"),
        ('path = "plugin.wasm"', 'path = "/etc/passwd"', "manifest.value", "path"),
        ('path = "plugin.wasm"', 'path = "a/../../b.wasm"', "manifest.value", "path"),
        ('path = "plugin.wasm"', 'path = ""', "manifest.value", "path"),
        ('path = "plugin.wasm"', "path = 7", "manifest.value", "path"),
        ("format-version = 1\n", "", "manifest.version", "format-version"),
        ("format-version = 1", "format-version = 99", "manifest.version", "99"),
        ("format-version = 1", "format-version = true", "manifest.version", "format-version"),
        ('id = "acme/test"', 'id = "Acme/../test"', "manifest.value", "id"),
        ('version = "1.0.0"', 'version = "one"', "manifest.value", "version"),
    ],
)
def test_wrong_lines_of_a_manifest_are_refused(
    host: Host, tmp_path: Path, line: str, wrong: str, code: str, said: str
) -> None:
    """Paths that lead out, foreign formats, odd ids and versions."""
    directory = write_plugin(tmp_path / "plugin", ANSWER)
    text = (directory / "plugin.toml").read_text()
    assert line in text
    (directory / "plugin.toml").write_text(text.replace(line, wrong))
    error = refusal(host.load, directory, trust=TRUSTED)
    assert (error.code, said in error.message) == (code, True), error.message


def test_a_manifest_that_is_no_text_is_refused(host: Host, tmp_path: Path) -> None:
    """Bytes that are not UTF-8, NULs, and a manifest above its bound."""
    directory = write_plugin(tmp_path / "plugin", ANSWER)
    for data, code in (
        (b"\xff\xfe", "manifest.syntax"),
        (b"a = 1\0", "manifest.syntax"),
        (b"#" * (300 * 1024), "manifest.too-large"),
        (b"#" * (256 * 1024 + 1), "manifest.too-large"),
    ):
        (directory / "plugin.toml").write_bytes(data)
        assert refusal(host.load, directory, trust=TRUSTED).code == code


ODD = ["-1", "0", "18446744073709551616", '"1"', "true", "nan", "inf", "1.5", "[]"]
KEYS = ["fuel", "memory", "deadline", "stack"]


@pytest.mark.parametrize("value", ODD)
@pytest.mark.parametrize("key", KEYS)
def test_odd_limits_in_files_are_refused(host: Host, tmp_path: Path, key: str, value: str) -> None:
    """A limit that is negative, nothing, beyond 64 bits, bare text, a bool or no number is refused where it stands."""
    directory = write_plugin(tmp_path / "plugin", ANSWER, more=f"[limits]\n{key} = {value}\n")
    error = refusal(host.load, directory, trust=TRUSTED)
    assert (error.code, key in error.message) == ("manifest.value", True)
    for table in (f"[defaults]\nlimits = {{ {key} = {value} }}", f'[plugins."a/b"]\nlimits = {{ {key} = {value} }}'):
        file = tmp_path / "policy.toml"
        file.write_text(f"format-version = 1\n{table}\n")
        error = refusal(Host, home=shared_home(), policy=file)
        assert (error.code, key in error.message) == ("policy.value", True)
        assert refusal(parse_policy, file.read_bytes()).code == "policy.value"


@pytest.mark.parametrize("value", [-1, 0, 2**64, "1", True, float("nan"), float("inf"), None, [], "many", b"1"])
@pytest.mark.parametrize("key", ["fuel", "deadline"])
def test_odd_options_are_refused(host: Host, tmp_path: Path, key: str, value: object) -> None:
    """The same for one call; the function itself goes on unchanged."""
    plugin = host.load(write_plugin(tmp_path / "plugin", ANSWER), trust=TRUSTED)
    try:
        answer = plugin[""].answer
        error = refusal(answer.options, **{key: value})
        assert (error.code, key in error.message) == ("limit.range", True)
        assert answer() == 42
    finally:
        host.unload(plugin.id)


@pytest.mark.parametrize("value", ["-1", "0", "18446744073709551616", "true", "nan", "inf", "", "1.5.5", "0x10"])
@pytest.mark.parametrize("flag", ["--fuel", "--memory", "--deadline"])
def test_odd_flags_are_refused(
    host: Host,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    flag: str,
    value: str,
) -> None:
    """The same on the command line, with the status of a wrong use."""
    monkeypatch.setenv("CLOCHE_HOME", str(shared_home()))
    directory = write_plugin(tmp_path / "plugin", ANSWER)
    status = run(["call", "--trust", f"{flag}={value}", str(directory), "answer"])
    out, err = capfd.readouterr()
    assert (status, out) == (2, "")
    assert err.startswith("error[limit.range]"), err


def test_what_is_no_path_and_no_bytes_is_refused(host: Host) -> None:
    """A NUL or a lone surrogate in a path, and text in place of a component, are errors of ours."""
    for path in ("a\0b", "a\udcff\ud800"):
        assert refusal(host.load, path, trust=TRUSTED).code == "usage.not-found"
    for component in ("abc", None, 7, ["a"]):
        assert refusal(host.load_bytes, component, trust=TRUSTED).code == "usage.argument"


def test_a_buffer_is_copied_before_it_is_looked_at(host: Host) -> None:
    """What its owner writes into it later does not change the plugin."""
    component = bytearray(parse(ANSWER))
    plugin = host.load_bytes(component, trust=TRUSTED)
    component[:] = bytes(len(component))
    assert plugin[""].answer() == 42
    host.unload(plugin.id)
    assert refusal(host.load_bytes, memoryview(component), trust=TRUSTED).code == "component.not-wasm"


# -- values ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Entry:
    a: int
    b: float


VALUES: list[tuple[str, tuple[object, ...], str]] = [
    ("colour_of", (), "usage.argument"),
    ("colour_of", ("red", "red"), "usage.argument"),
    ("colour_of", ("pink",), "usage.value"),
    ("colour_of", (0,), "usage.value"),
    ("colour_of", (None,), "usage.value"),
    ("marks_of", ({"a", "z"},), "usage.value"),
    ("marks_of", (255,), "usage.value"),
    ("choice_of", ({"num": -1},), "usage.value"),
    ("choice_of", ("text",), "usage.value"),
    ("choice_of", ("other",), "usage.value"),
    ("choice_of", (object(),), "usage.value"),
    ("entry_of", ({"a": 1, "b": 2.0},), "usage.value"),
    ("entry_of", ({"a": 1, "b": 2.0, "c": None, "d": 1},), "usage.value"),
    ("entry_of", ({"a": 256, "b": 2.0, "c": None},), "usage.value"),
    ("entry_of", ({"a": -1, "b": 2.0, "c": None},), "usage.value"),
    ("entry_of", ({"a": True, "b": 2.0, "c": None},), "usage.value"),
    ("entry_of", ({"a": 1.0, "b": 2.0, "c": None},), "usage.value"),
    ("entry_of", ({"a": 1, "b": "2", "c": None},), "usage.value"),
    ("entry_of", ({"a": 1, "b": 2.0, "c": 3},), "usage.value"),
    ("entry_of", (_Entry(1, 2.0),), "usage.value"),
    ("entry_of", ([1, 2.0, None],), "usage.value"),
    ("pair", ((1,),), "usage.value"),
    ("pair", ((1, "a", "b"),), "usage.value"),
    ("pair", ((2**32, "a"),), "usage.value"),
    ("pair", ((1, b"a"),), "usage.value"),
    ("pair", ((1, "\ud800"),), "usage.value"),
    ("entries", ({"a": 1},), "usage.value"),
    ("entries", ([{"a": 1, "b": 2.0, "c": None}, {"a": 1}],), "usage.value"),
    ("maybe", ([["a", None]],), "usage.value"),
    ("maybe", ("text",), "usage.value"),
    ("numbers", (["a"],), "usage.value"),
    ("numbers", ([1.0, None],), "usage.value"),
    ("texts", ("text",), "usage.value"),
    ("texts", ([256],), "usage.value"),
]


def test_values_that_do_not_fit_are_refused_before_the_call(host: Host, tmp_path: Path) -> None:
    """Ranges, kinds, counts, missing and unknown fields and cases; no call begins, and a good value then works."""
    plugin = host.load_bytes(made(VALUES_CORE, VALUES_WIT, "values-world"), trust=TRUSTED)
    point = plugin["test:mutants/values"]
    good = {"a": 1, "b": 2.0, "c": None}
    for name, arguments, code in VALUES:
        error = refusal(point[name], *arguments)
        assert error.code == code, (name, arguments, error)
        assert error.usage is None or error.usage.guest_fuel is None, (name, arguments)
        assert point.entry_of(good).a == 0
    assert refusal(lambda: point["no-such-function"]).code == "usage.not-found"
    with pytest.raises(AttributeError):
        getattr(point, "no_such_function")  # noqa: B009 - the look-up is what is tested
    with pytest.raises(TypeError):
        point.entry_of(x=good)  # type: ignore[call-arg]
    host.unload(plugin.id)
