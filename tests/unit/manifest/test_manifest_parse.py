"""plugin.toml: what is read, what is refused, and in which words."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.errors import ManifestError
from cloche.manifest.bare import bare_manifest
from cloche.manifest.document import MAX_DOCUMENT_BYTES
from cloche.manifest.explain import DocumentError
from cloche.manifest.parse import parse_manifest, unmet_requirements
from cloche.manifest.value import Kind, Manifest
from cloche.manifest.versions import Requirement
from cloche.model import Digest, Instances

HEAD = 'format-version = 1\nid = "acme/hello"\nname = "Hello"\nversion = "1.2.3"\n'
COMPONENT = '[component]\npath = "hello.wasm"\n'

FULL = (
    b"""
format-version = 1
id = "acme/thumbnailer"
name = "Thumbnailer"; version = "1.4.0"
""".replace(b"; ", b"\n")
    + b"""
description = "Makes thumbnails"
authors = ["Ada <ada@example.com>"]
license = "Apache-2.0"
repository = "https://example.com/acme/thumbnailer"
kind = "code"
instances = "pooled"
[component]
path = "out/thumbnailer.wasm"
source = "app.py"
wit = "wit"
world = "plugin"
language = "python"
requirements = ["markdown-it-py>=3"]
wasi = true
[extension-points]
"cloche:speech/to-text" = "^2.0"
[capabilities."cloche:accel/tensor"]
version = "^1.0"
required = true
devices = ["any"]
gpu-memory = "512MiB"
gpu-work = 1e12
[capabilities."wasi:filesystem"]
read = ["input"]
write = []
[limits]
fuel = 5_000_000_000
memory = "256MiB"
deadline = "10s"
stack = "256KiB"
payload = 1_000
output = "1MiB"
log-lines = 10
host-calls = 11
host-bytes = "12MiB"
handles = 13
data = "14MiB"
files = 15
concurrency = 2
queue = 0
restarts = 1
[requires]
host = ">=0.1"
os = ["linux"]
arch = ["x86_64"]
gpu = false
[config]
quality = "80"
"""
)


def parse(text: str) -> Manifest:
    return parse_manifest(text.encode())


def failure(text: str | bytes) -> DocumentError:
    with pytest.raises(DocumentError) as caught:
        parse_manifest(text if isinstance(text, bytes) else text.encode())
    return caught.value


def test_a_full_manifest_is_read_whole() -> None:
    """Every key of the format arrives in the value, limits in the units of BOUNDS."""
    manifest = parse_manifest(FULL)
    assert (manifest.id, manifest.name, manifest.version) == ("acme/thumbnailer", "Thumbnailer", "1.4.0")
    assert (manifest.kind, manifest.instances) == (Kind.CODE, Instances.POOLED)
    assert manifest.component is not None
    assert (manifest.component.path, manifest.component.source) == ("out/thumbnailer.wasm", "app.py")
    assert (manifest.component.wit, manifest.component.world) == ("wit", "plugin")
    assert (manifest.component.language, manifest.component.requirements) == ("python", ("markdown-it-py>=3",))
    assert manifest.component.wasi is True
    assert manifest.extension_points == {"cloche:speech/to-text": Requirement.parse("^2.0")}
    tensor = manifest.capabilities["cloche:accel/tensor"]
    assert tensor.required
    assert tensor.version.matches("1.7.0")
    assert tensor.params == {"devices": ("any",), "gpu-memory": "512MiB", "gpu-work": 1e12}
    assert not manifest.capabilities["wasi:filesystem"].required
    assert manifest.limits == {
        "fuel": 5 * 10**9,
        "memory_bytes": 256 << 20,
        "deadline_ms": 10_000,
        "stack_bytes": 256 << 10,
        "payload_bytes": 1000,
        "output_bytes": 1 << 20,
        "log_lines_per_second": 10,
        "host_calls": 11,
        "host_call_bytes": 12 << 20,
        "handles": 13,
        "data_bytes": 14 << 20,
        "data_files": 15,
        "concurrency": 2,
        "queue": 0,
        "restarts_per_minute": 1,
    }
    assert (manifest.requires.os, manifest.requires.arch, manifest.requires.gpu) == (("linux",), ("x86_64",), False)
    assert manifest.config == {"quality": "80"}
    assert (manifest.format_version, manifest.migrated) == (1, ())
    assert json.loads(json.dumps(manifest.to_json()))["capabilities"]["wasi:filesystem"]["params"]["read"] == ["input"]


def test_a_minimal_manifest_asks_for_nothing() -> None:
    """Without tables there are no grants, no limits and a fresh instance for each call."""
    manifest = parse(HEAD + COMPONENT)
    assert (manifest.capabilities, manifest.limits, manifest.extension_points) == ({}, {}, {})
    assert manifest.instances == Instances.PER_CALL


def test_the_value_cannot_be_changed() -> None:
    """Tables inside the manifest are read-only, also nested ones."""
    manifest = parse_manifest(FULL)
    for table in (manifest.limits, manifest.capabilities, manifest.capabilities["cloche:accel/tensor"].params):
        with pytest.raises(TypeError):
            table["fuel"] = 1  # type: ignore[index]


KEYS = ("fuel", "memory", "deadline", "stack", "payload", "host-calls", "handles", "concurrency", "queue", "restarts")
HUGE = "0x" + "f" * 10_000
BAD_NUMBERS = (
    "-1",
    "18446744073709551616",
    '"1"',
    "true",
    "nan",
    "inf",
    "1.5",
    "[1]",
    "{}",
    '""',
    "1979-05-27",
    pytest.param(HUGE, id="huge"),
)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("value", BAD_NUMBERS)
def test_odd_limits_are_refused_before_anything_uses_them(key: str, value: str) -> None:
    """-1, 2^64, quoted numbers, booleans and NaN never become a limit; the message names key, value and range."""
    error = failure(f"{HEAD}{COMPONENT}[limits]\n{key} = {value}\n")
    assert error.code == "manifest.value"
    assert f"plugin.toml: limits.{key} = " in str(error)
    assert "expected a value from " in str(error)


@pytest.mark.parametrize(
    "line", ["fuel = 0", "memory = 0", 'deadline = "0s"', "deadline = 10", 'memory = "5GiB"', "stack = 1"]
)
def test_limits_outside_their_range_are_refused(line: str) -> None:
    """A limit that the engine would take as something else is refused by its bound."""
    assert failure(f"{HEAD}{COMPONENT}[limits]\n{line}\n").code == "manifest.value"


UNKNOWN = [
    ('auhtors = ["Ada"]\n', "auhtors", "authors"),
    ("[limits]\nfule = 1\n", "limits.fule", "fuel"),
    ("[limits]\nlog_lines = 1\n", "limits.log_lines", "log-lines"),
    ("[requires]\ncpu = true\n", "requires.cpu", "gpu"),
    ('[extension-point]\n"a:b/c" = "1"\n', "extension-point", "extension-points"),
    ("[Limits]\nfuel = 1\n", "Limits", "limits"),
]


@pytest.mark.parametrize(("text", "path", "near"), UNKNOWN)
def test_unknown_keys_name_the_nearest_known_key(text: str, path: str, near: str) -> None:
    """A typing mistake is an error that says what was probably meant."""
    error = failure(HEAD + text + COMPONENT)
    assert error.code == "manifest.unknown-key"
    assert f"{path}: unknown key; did you mean {near}?" in str(error)


def test_look_alike_keys_are_made_visible() -> None:
    """A key with a Cyrillic letter is unknown, and the message shows the letter's number."""
    error = failure(HEAD + '"n\u0430me" = "x"\n' + COMPONENT)
    assert error.code == "manifest.unknown-key"
    assert '"n\\u0430me": unknown key; did you mean name?' in str(error)


BAD_VALUES = [
    *[
        (f'format-version = 1\nid = "{name}"\nname = "x"\nversion = "1.0.0"\n', "id")
        for name in (
            "acme",
            "Acme/hello",
            "acme/hello_world",
            "acme/hello/world",
            "acme/-x",
            "acme/x-",
            "/x",
            "acme/",
            "acme/h\u00e9llo",
            "acme/\uff48ello",
            "acme/hel\\u0000lo",
            "acme/hello\\n",
            "local/x0123456789ab",
            "a" * 200 + "/b",
        )
    ],
    *[
        (f'format-version = 1\nid = "a/b"\nname = "x"\nversion = "{version}"\n', "version")
        for version in (
            "1",
            "1.0",
            "v1.0.0",
            "1.0.0.0",
            "01.0.0",
            "1.0.0-01",
            "1.0.0-",
            "-1.0.0",
            "9" * 30 + ".0.0",
            "",
        )
    ],
    ('format-version = 1\nid = 3\nname = "x"\nversion = "1.0.0"\n', "id"),
    ('format-version = 1\nid = "a/b"\nname = ""\nversion = "1.0.0"\n', "name"),
    ('format-version = 1\nid = "a/b"\nname = "two\\nlines"\nversion = "1.0.0"\n', "name"),
    ('format-version = 1\nid = "a/b"\nname = "red \\u001b[31m"\nversion = "1.0.0"\n', "name"),
    ('format-version = 1\nid = "a/b"\nname = "turned \\u202e"\nversion = "1.0.0"\n', "name"),
    (HEAD + 'kind = "cod"\n', "kind"),
    (HEAD + 'instances = "shared"\n', "instances"),
    (HEAD + 'authors = "Ada"\n', "authors"),
    (HEAD + "authors = [" + '"x",' * 65 + "]\n", "authors = an array of 65: expected at most 64 entries"),
    (HEAD + '[component]\nsource = "x.py"\nworld = "a b"\n', "component.world"),
    (HEAD + '[component]\nsource = "x.py"\nlanguage = "perl"\n', "component.language"),
    (HEAD + '[component]\nsource = "x.py"\nwit = "../wit"\n', "component.wit"),
    (HEAD + "authors = [1]\n", "authors[0]"),
    (HEAD + "license = true\n", "license"),
    (HEAD + 'repository = "javascript:alert(1)"\n', "repository"),
    (HEAD + "description = 1979-05-27\n", "description"),
    (
        HEAD + '[extension-points]\n"cloche:speech/to-text@2.0.0" = "^2.0"\n',
        'extension-points."cloche:speech/to-text@2.0.0"',
    ),
    (HEAD + '[extension-points]\n"cloche:speech" = "^2.0"\n', 'extension-points."cloche:speech"'),
    (HEAD + '[extension-points]\n"a:b/c" = "two"\n', 'extension-points."a:b/c"'),
    (HEAD + '[extension-points]\n"a:b/c" = ">=2, <1"\n', 'extension-points."a:b/c"'),
    (HEAD + '[extension-points]\n"a:b/c" = 2\n', 'extension-points."a:b/c"'),
    (HEAD + '[capabilities]\n"wasi:logging" = true\n', 'capabilities."wasi:logging"'),
    (HEAD + '[capabilities."wasi:logging"]\nrequired = "yes"\n', 'capabilities."wasi:logging".required'),
    (HEAD + '[capabilities."WASI:logging"]\n', 'capabilities."WASI:logging"'),
    (HEAD + '[capabilities."wasi:logging@0.1.0"]\n', 'capabilities."wasi:logging@0.1.0"'),
    (HEAD + '[capabilities."a:b"]\nx = nan\n', 'capabilities."a:b".x'),
    (HEAD + '[capabilities."a:b"]\nx = [18446744073709551616]\n', 'capabilities."a:b".x[0]'),
    (HEAD + '[requires]\nos = ["beos"]\n', "requires.os[0]"),
    (HEAD + "[requires]\ngpu = 1\n", "requires.gpu"),
    (HEAD + f"[requires]\ngpu = {HUGE}\n", "requires.gpu"),
    (HEAD + f"license = {HUGE}\n", "license"),
    (HEAD + f'[capabilities."a:b"]\nx = {{y = [{HUGE}]}}\n', 'capabilities."a:b".x.y[0]'),
    (HEAD + "[config]\nquality = 80\n", "config.quality"),
    (HEAD + '[config]\n"a b" = "x"\n', 'config."a b"'),
    (HEAD + "limits = 3\n", "limits"),
]


@pytest.mark.parametrize(("text", "path"), BAD_VALUES, ids=range(len(BAD_VALUES)))
def test_wrong_values_name_file_and_key(text: str, path: str) -> None:
    """Every wrong value is a manifest.value error that names the file and the key path."""
    error = failure(text + ("" if "component" in text else COMPONENT))
    assert error.code == "manifest.value"
    assert f"plugin.toml: {path}" in str(error).replace("problems\n  ", "")


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "../x.wasm", "a/../../x", "a//b", "./x", "", ".", "..", "a\\\\b", "C:x", "x\\u0000", "x/", "a\\nb"],
)
@pytest.mark.parametrize("key", ["path", "source"])
def test_component_paths_stay_inside_the_plugin(key: str, path: str) -> None:
    """Absolute paths, parents, drives, backslashes and NUL are refused."""
    error = failure(f'{HEAD}[component]\n{key} = "{path}"\n')
    assert error.code == "manifest.value"
    assert f"component.{key}" in str(error)


def test_all_problems_come_at_once_and_the_first_gives_the_code() -> None:
    """An author sees the whole list, in the order of the file format."""
    error = failure(
        'format-version = 1\nid = "X"\nname = "x"\n[limits]\nfuel = -1\nfule = 2\n[component]\npath = "/x"\n'
    )
    assert error.code == "manifest.value"
    assert [problem.path for problem in error.problems] == [
        ("id",),
        ("version",),
        ("component", "path"),
        ("limits", "fuel"),
        ("limits", "fule"),
    ]
    assert str(error).startswith("plugin.toml: 5 problems\n  id = 'X': expected publisher/name in lower-case kebab")
    assert "  version is missing\n" in str(error)
    assert len(error.to_json()["findings"]) == 5


def test_a_flood_of_problems_stays_readable() -> None:
    """A hostile manifest with thousands of wrong keys gives a short message."""
    error = failure(HEAD + "".join(f"k{index} = 1\n" for index in range(3000)) + COMPONENT)
    assert len(error.problems) == 3000
    assert len(str(error)) < 20_000
    assert "and 2950 more" in str(error)


SYNTAX = [
    (b"", "manifest.version"),
    (b"\xff\xfe", "manifest.syntax"),
    (b"format-version = ", "manifest.syntax"),
    (b"a = 1\na = 2", "manifest.syntax"),
    (b"a = " + b"9" * 5000, "manifest.syntax"),
    (b"a = " + b"[" * 50_000, "manifest.syntax"),
    (b"a = " + b"[" * 20 + b"]" * 20, "manifest.syntax"),
    (b"a." * 60_000 + b"a = 1", "manifest.syntax"),
    (b'"".' * 60_000 + b"a = 1", "manifest.syntax"),
    (b".".join([b"a"] * 30) + b" = 1", "manifest.syntax"),
    (b"#" * (MAX_DOCUMENT_BYTES + 1), "manifest.too-large"),
    (b"\x00", "manifest.syntax"),
    (b"format-version = 2\n", "manifest.version"),
    (b"format-version = true\n", "manifest.version"),
    (b"format-version = " + HUGE.encode(), "manifest.version"),
    (b"format-version = -1\n", "manifest.version"),
    (b'format-version = "1"\n', "manifest.version"),
    (b'id = "acme/hello"\n', "manifest.version"),
]


@pytest.mark.parametrize(("data", "code"), SYNTAX, ids=range(len(SYNTAX)))
def test_bytes_that_are_no_manifest(data: bytes, code: str) -> None:
    """Each kind of unreadable bytes has its code; deep nesting and long dotted keys cost nothing."""
    assert code == failure(data).code


def test_the_file_name_is_the_callers() -> None:
    """Messages name the file as it was given."""
    with pytest.raises(ManifestError, match=r"^plugins/x/plugin\.toml: "):
        parse_manifest(b"", "plugins/x/plugin.toml")


def test_kind_decides_about_the_component() -> None:
    """A skill has none, code and composite need one."""
    assert parse(HEAD + 'kind = "skill"\n').component is None
    for text in (HEAD, HEAD + 'kind = "composite"\n', HEAD + "[component]\n", HEAD + 'kind = "skill"\n' + COMPONENT):
        assert failure(text).code == "manifest.value"
        assert "component" in str(failure(text))


REQUIRES = [
    ("", "0.1.0", "linux", "x86_64", "no driver", True),
    ('host = ">=0.1"', "0.1.0", "linux", "x86_64", "no driver", True),
    ('host = ">=0.2"', "0.1.0", "linux", "x86_64", "no driver", False),
    ('host = ">=0.2"', "0.2.0.dev3", "linux", "x86_64", "no driver", True),
    ('host = "^0.1"', "0.2.0", "linux", "x86_64", "no driver", False),
    ('os = ["linux"]', "0.1.0", "darwin", "x86_64", "no driver", False),
    ('os = ["macos", "linux"]', "0.1.0", "darwin", "x86_64", "no driver", True),
    ('arch = ["aarch64"]', "0.1.0", "linux", "arm64", "no driver", True),
    ('arch = ["aarch64"]', "0.1.0", "linux", "x86_64", "no driver", False),
    ("gpu = false", "0.1.0", "linux", "x86_64", "no driver", True),
    ("gpu = true", "0.1.0", "linux", "x86_64", "no driver", False),
    ("gpu = true", "0.1.0", "linux", "x86_64", "", True),
]


@pytest.mark.parametrize(("text", "host", "os", "arch", "gpu", "met"), REQUIRES)
def test_requirements_on_the_system(text: str, host: str, os: str, arch: str, gpu: str, met: bool) -> None:
    """[requires] is compared with the system in either spelling; what is not met is named."""
    manifest = parse(f"{HEAD}{COMPONENT}[requires]\n{text}\n")
    unmet = unmet_requirements(manifest, host, os, arch, lacks_gpu=lambda: gpu)
    assert [item.split(" ", maxsplit=1)[0] for item in unmet] == ([] if met else [text.split(" ", maxsplit=1)[0]])


def test_a_bare_component_gets_an_empty_manifest() -> None:
    """Its id comes from the digest, and it asks for nothing."""
    manifest = bare_manifest(Digest("0123456789abcdef" * 4), "dir/some\x1b.wasm")
    assert (manifest.id, manifest.name, manifest.version) == ("local/x0123456789ab", "some?", "0.0.0")
    assert (manifest.capabilities, manifest.limits) == ({}, {})
    assert manifest.is_bare
    assert not parse(HEAD + COMPONENT).is_bare


@given(st.binary(max_size=200))
def test_any_bytes_give_a_manifest_or_a_manifest_error(data: bytes) -> None:
    """Nothing else ever comes out of the parser."""
    for candidate in (data, HEAD.encode() + data):
        with contextlib.suppress(ManifestError):
            parse_manifest(candidate)


TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def toml_value(value: object) -> str:
    """A TOML value for the generated tree; None, which TOML lacks, becomes an empty array."""
    if value is None:
        return "[]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    return json.dumps(value) if isinstance(value, bool | str) else repr(value)


@given(st.sampled_from(["id", "component", "limits", "capabilities", "extension-points", "requires", "config"]), TREES)
def test_any_tree_under_a_known_key_is_judged(key: str, tree: object) -> None:
    """Wrong shapes anywhere give a manifest error, never a crash of the validator."""
    lines = {"id": '"acme/hello"', "component": '{path = "x.wasm"}', key: toml_value(tree)}
    text = 'format-version = 1\nname = "x"\nversion = "1.0.0"\n' + "".join(f"{k} = {v}\n" for k, v in lines.items())
    with contextlib.suppress(ManifestError):
        parse_manifest(text.encode("utf-8", "surrogatepass"))
