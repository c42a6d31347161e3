"""Older manifest formats are brought forward in explicit steps, and say so."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from cloche.manifest import explain
from cloche.manifest.explain import DocumentError
from cloche.manifest.migrate import migrate
from cloche.manifest.parse import parse_manifest

OLD = b"""
plugin_id = "acme/hello"
version = "0.9.0"
description = "Says hello"
author = "Ada"
wasm = "hello.wasm"
permissions = ["kv", "log", "cloche:accel/tensor"]
max_memory_mb = 128
timeout_ms = 2500
fuel = 1_000_000
"""


@pytest.mark.parametrize("head", [b"", b"format-version = 0\n"])
def test_format_0_becomes_the_current_manifest(head: bytes) -> None:
    """The old flat keys arrive in their new places, with or without format-version = 0."""
    manifest = parse_manifest(head + OLD)
    assert (
        manifest.id,
        manifest.name,
        manifest.version,
        manifest.authors,
    ) == ("acme/hello", "hello", "0.9.0", ("Ada",))
    assert manifest.component is not None
    assert manifest.component.path == "hello.wasm"
    assert manifest.limits == {"memory_bytes": 128 << 20, "deadline_ms": 2500, "fuel": 1_000_000}
    assert list(manifest.capabilities) == ["wasi:keyvalue", "wasi:logging", "cloche:accel/tensor"]
    assert all(request.required for request in manifest.capabilities.values())
    assert manifest.format_version == 0


def test_what_changed_is_kept() -> None:
    """The notes name every key that moved."""
    assert parse_manifest(OLD).migrated == (
        "plugin_id: now id = 'acme/hello'",
        "author: now authors",
        "wasm: now component.path = 'hello.wasm'",
        "permissions: each became a table in [capabilities] with required = true",
        "max_memory_mb: now limits.memory = '128MiB'",
        "timeout_ms: now limits.deadline = '2500ms'",
        "fuel: now limits.fuel = 1000000",
        "name: taken from plugin_id",
    )


def test_the_current_format_is_left_alone() -> None:
    """No step runs, no note is made, and the input is not changed."""
    document: dict[str, Any] = {"format-version": 1, "id": "a/b"}
    before = copy.deepcopy(document)
    migration = migrate(document)
    assert (before, [], [], 1) == (
        migration.document,
        migration.notes,
        migration.problems,
        migration.written_version,
    )
    assert before == document


BAD = [
    ("max_memory_mb = -1", "manifest.value", "max_memory_mb"),
    ("max_memory_mb = true", "manifest.value", "max_memory_mb"),
    ("max_memory_mb = 99999999999999999999", "manifest.value", "max_memory_mb"),
    (f"max_memory_mb = 0x{'F' * 5000}", "manifest.value", "max_memory_mb = a huge number"),
    (f"timeout_ms = 0x{'F' * 5000}", "manifest.value", "timeout_ms = a huge number"),
    (f"fuel = 0x{'F' * 5000}", "manifest.value", "fuel = a huge number"),
    (f"format-version = 0x{'F' * 5000}", "manifest.version", "format-version = a huge number"),
    ('timeout_ms = "1"', "manifest.value", "timeout_ms"),
    ("timeout_ms = 0", "manifest.value", "timeout_ms"),
    ("fuel = nan", "manifest.value", "fuel"),
    ('wasm = "../x.wasm"', "manifest.value", "wasm"),
    ('permissions = ["everything"]', "manifest.value", "permissions[0]"),
    ("permissions = [1]", "manifest.value", "permissions[0]"),
    ('permissions = "kv"', "manifest.value", "permissions"),
    ("permission = []", "manifest.unknown-key", "permission: unknown key; did you mean permissions?"),
    ("limits = {fuel = 1}", "manifest.unknown-key", "limits"),
    ('id = "acme/other"', "manifest.unknown-key", "id: unknown key; did you mean plugin_id?"),
]


@pytest.mark.parametrize(("line", "code", "words"), BAD)
def test_messages_speak_of_the_keys_that_the_author_wrote(line: str, code: str, words: str) -> None:
    """A problem found after migration names the old key."""
    text = 'plugin_id = "acme/hello"\nversion = "1.0.0"\n' + line + "\n"
    with pytest.raises(DocumentError) as caught:
        parse_manifest((text if "wasm" in line else text + 'wasm = "x.wasm"\n').encode())
    assert code == caught.value.code
    assert f"plugin.toml: {words}" in str(caught.value)


@pytest.mark.parametrize("version", [2, 99, 1 << 70])
def test_newer_formats_are_refused(version: int) -> None:
    """A format from the future is never guessed at."""
    with pytest.raises(DocumentError, match="newer Cloche") as caught:
        parse_manifest(f"format-version = {version}\n".encode())
    assert caught.value.code == "manifest.version"


def test_only_what_is_shown_is_searched_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of unknown keys cost no search for the nearest name each."""
    searched: list[str] = []
    monkeypatch.setattr(explain, "nearest", lambda name, known: searched.extend(known))
    with pytest.raises(DocumentError) as caught:
        parse_manifest(b'plugin_id = "acme/hello"\n' + b"".join(b"key%d = 1\n" % number for number in range(5000)))
    assert len(caught.value.problems) >= 5000
    assert len(searched) <= 10 * explain.MAX_PROBLEMS_SHOWN  # ten keys of format 0 are compared with each
