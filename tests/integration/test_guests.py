"""The guests of this project in their sandbox: what the SDK promises, and what plugins of three languages answer."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import cloche
from cloche.grants.policy_file import parse_policy
from support.guests import guest_dir, guest_home

GREETER = "cloche:example/greeter"
POINT = {name: f"cloche:noop/{name}" for name in ("scalar", "values", "counters", "services", "misbehave")}
GREETERS = [
    "hello-c",
    "fixtures-wat/greeter",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("hello", "hello-js", "noop")),
]


@pytest.fixture(scope="module")
def host() -> Iterator[cloche.Host]:
    """One host for this file, with a tenant of its own."""
    with cloche.Host(home=guest_home(), tenant="test-guests", policy=cloche.Policy()) as host:
        yield host


def load(host: cloche.Host, name: str) -> cloche.Plugin:
    """The guest `name`, loaded once."""
    try:
        return host.plugin({"fixtures-wat/greeter": "cloche/greeter-wat"}.get(name, f"cloche/{name}"))
    except cloche.UsageError:
        return host.load(guest_dir(name), trust=cloche.Trusted("a test"))


@pytest.fixture
def noop(host: cloche.Host) -> cloche.Plugin:
    """The fixture guest."""
    return load(host, "noop")


@pytest.mark.parametrize("name", GREETERS)
def test_greeters_of_every_language_answer_alike(host: cloche.Host, name: str) -> None:
    """One extension point, any language; empty, long and non-ASCII names, and many calls of one instance."""
    greeter = load(host, name)[GREETER]
    for text in ("Ada", "", "Ünïcödé ✓ 🪴", "x" * 200_000):
        assert greeter.greet(text) == f"Hello, {text}!"
    assert {greeter.greet(str(number)) for number in range(50)} == {f"Hello, {number}!" for number in range(50)}


@pytest.mark.slow
def test_markdown_renders_documents(host: cloche.Host) -> None:
    """Markdown becomes HTML and plain text; raw HTML is shown as text, with a warning."""
    point: Any = load(host, "markdown")["cloche:example/text-transform"]

    def transform(text: str, into: str) -> Any:
        return point.transform({"format": "markdown", "text": text}, into)

    result = transform("# Hi *you*\n\n| a |\n| - |\n| ~~1~~ |\n\n```py\nx < 1\n```\n", "html")
    assert "<h1>Hi <em>you</em></h1>" in result.document.text
    assert "<td><s>1</s></td>" in result.document.text
    assert "x &lt; 1" in result.document.text
    assert list(result.warnings) == []
    raw = transform("a <script>alert(1)</script>", "html")
    assert "<script>" not in raw.document.text
    assert list(raw.warnings) == ["raw HTML is shown as text"]
    assert transform("# Hi *you*\n\nthere", "plain").document.text == "Hi you\nthere\n"
    readme = (guest_dir("") / ".." / "README.md").read_text(encoding="utf-8")
    assert transform(readme, "html").document.text.count("<h1>") >= 1
    with pytest.raises(cloche.GuestError):
        transform("x", "markdown")


@pytest.mark.slow
def test_a_traceback_names_the_authors_line(noop: cloche.Plugin) -> None:
    """An exception reaches the embedder with file, line number and the source line that was read at build."""
    with pytest.raises(cloche.GuestTrap) as caught:
        noop[POINT["misbehave"]].crash("boom")
    text = caught.value.traceback or ""
    lines = (guest_dir("noop") / "misbehave.py").read_text().splitlines()
    number = next(i for i, line in enumerate(lines, 1) if line.strip() == "raise RuntimeError(message)")
    assert f'misbehave.py", line {number}, in crash' in text
    assert "raise RuntimeError(message)" in text
    assert "RuntimeError: boom" in text
    assert noop[POINT["scalar"]].add(2, 3) == 5


@pytest.mark.slow
def test_instances_draw_different_numbers(noop: cloche.Plugin, host: cloche.Host, tmp_path: Path) -> None:
    """Entropy, the module `random` and the SDK's generators differ between fresh instances."""
    drawn: list[Any] = []
    for _ in range(3):
        with pytest.raises(cloche.GuestTrap):  # ends the pooled instance
            noop[POINT["misbehave"]].crash("next")
        drawn += [bytes(part) if isinstance(part, bytes) else part for part in noop[POINT["misbehave"]].randoms()]
    assert len(set(drawn)) == 9


@pytest.mark.slow
def test_error_values_and_resources(noop: cloche.Plugin) -> None:
    """An error value leaves the instance alive; resources work as handles, borrowed, used up and returned."""
    counters: Any = noop[POINT["counters"]]
    with counters.counter(5) as kept:
        with pytest.raises(cloche.GuestError) as caught:
            noop[POINT["misbehave"]].fail("no")
        assert caught.value.payload == "no"
        assert kept.increment(2) == 7
        assert counters.total([kept, kept]) == 14
        made = counters.make(3)
        assert counters.finish(made) == 3
        with pytest.raises(cloche.UsageError):
            made.value()
        assert kept.value() == 7


@pytest.mark.slow
@pytest.mark.parametrize("to_stderr", [False, True])
@pytest.mark.parametrize(("text", "times"), [("hi", 1), ("0123456789abcdef" * 64, 500), ("x", 8193)])
def test_what_was_printed_arrives_with_its_call(
    noop: cloche.Plugin, host: cloche.Host, text: str, times: int, to_stderr: bool
) -> None:
    """Python keeps what it prints in a block; the SDK delivers it, whole, before the call returns."""
    before = host.events.counts().get(cloche.EventKind.OUTPUT, 0)
    noop[POINT["misbehave"]].print(text, times, to_stderr)
    assert host.events.counts()[cloche.EventKind.OUTPUT] == before + 1
    data = host.events.recent(kind=cloche.EventKind.OUTPUT)[-1].data
    assert (data["stream"], data["dropped_bytes"]) == ("stderr" if to_stderr else "stdout", 0)
    assert data["text"] == text * times


@pytest.mark.slow
def test_what_was_not_granted_is_denied_by_name(noop: cloche.Plugin) -> None:
    """Ungranted storage answers with an error value, and no file or environment of the host is there."""
    with pytest.raises(cloche.GuestError, match="access denied"):
        noop[POINT["services"]].put("default", "k", b"v")
    assert noop[POINT["services"]].count("pages", 1) is False
    for function, argument in (("read_file", "/etc/passwd"), ("list_files", "/")):
        with pytest.raises(cloche.GuestError) as caught:
            getattr(noop[POINT["misbehave"]], function)(argument)
        assert "Error" in str(caught.value.payload)
    assert list(noop[POINT["misbehave"]].environment()) == []


@pytest.mark.slow
def test_lifecycle_is_called_before_the_first_function(noop: cloche.Plugin) -> None:
    """A pooled instance was initialized when its first function runs, and nothing else was called."""
    assert list(noop[POINT["services"]].history()) == ["initialize"]


@pytest.mark.slow
def test_a_python_guest_without_wasi_works(host: cloche.Host, tmp_path: Path) -> None:
    """With `wasi = false` the hello guest imports nothing, asks for no entropy, and greets with its default."""
    plugin = Path(shutil.copytree(guest_dir("hello"), tmp_path / "bare"))
    manifest = (plugin / "plugin.toml").read_text()
    manifest = manifest.replace('id = "cloche/hello"', 'id = "cloche/hello-bare"')
    (plugin / "plugin.toml").write_text(manifest.replace('source = "app.py"', 'source = "app.py"\nwasi = false'))
    loaded = host.load(plugin, trust=cloche.Trusted("a test"))
    assert loaded[GREETER].greet("Ada") == "Hello, Ada!"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hello", "markdown", "noop"])
def test_python_guests_work_without_most_default_grants(name: str) -> None:
    """A plugin that lost its settings, messages, clocks and captured output still answers."""
    denied = "[" + ", ".join(f'"{grant}"' for grant in ("wasi:cli", "wasi:clocks", "wasi:config", "wasi:logging")) + "]"
    policy = parse_policy(f'format-version = 1\n[plugins."*"]\ndeny = {denied}\n'.encode())
    with cloche.Host(home=guest_home(), tenant="test-guests", policy=policy) as host:
        plugin = load(host, name)
        if name == "markdown":
            point: Any = plugin["cloche:example/text-transform"]
            assert "<h1>" in point.transform({"format": "markdown", "text": "# Hi"}, "html").document.text
        else:
            assert plugin[GREETER].greet("Ada") == "Hello, Ada!"
        assert [event for event in host.events.recent() if event.kind is cloche.EventKind.TRAP] == []


@pytest.mark.slow
def test_a_python_guest_needs_randomness() -> None:
    """The SDK draws a seed for each instance: without `wasi:random` the first call says which grant is missing."""
    policy = parse_policy(b'format-version = 1\n[plugins."*"]\ndeny = ["wasi:random"]\n')
    with (
        cloche.Host(home=guest_home(), tenant="test-guests", policy=policy) as host,
        pytest.raises(cloche.GrantError, match="wasi:random"),
    ):
        load(host, "hello")[GREETER].greet("Ada")


@pytest.mark.slow
def test_hello_greets_as_the_operator_configured(tmp_path: Path) -> None:
    """The policy's `config` reaches the guest through the SDK and wins over the author's default."""
    policy = tmp_path / "policy.toml"
    policy.write_text('format-version = 1\n[plugins."cloche/hello"]\nconfig = { greeting = "Moin" }\n')
    with cloche.Host(home=guest_home(), tenant="test-guests", policy=policy) as host:
        assert load(host, "hello")[GREETER].greet("Ada") == "Moin, Ada!"
