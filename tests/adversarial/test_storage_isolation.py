"""Threat: another plugin, or another user of the machine, reads or changes what a plugin has stored. Neither can."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloche.app import Host
from cloche.capabilities.keyvalue.backend import Quota
from cloche.capabilities.keyvalue.sqlite import SqliteBackend
from cloche.storage import storage_directory
from support.wat_plugins import TRUSTED, open_host, write_plugin

pytestmark = pytest.mark.adversarial

POLICY = """
    format-version = 1
    [plugins."*"]
    allow."cloche:host/data" = {}
"""
ASKING = '[capabilities."cloche:host/data"]\n'
KEEPER = """
(component
  (type $data (instance
    (type (variant (case "access-denied") (case "invalid-path") (case "not-found") (case "wrong-kind")
      (case "already-exists") (case "quota-exceeded") (case "too-large") (case "other" string)))
    (export "error" (type (eq 0)))
    (export "read" (func (param "path" string) (result (result (list u8) (error 1)))))
    (export "write" (func (param "path" string) (param "contents" (list u8)) (result (result (error 1)))))))
  (import "cloche:host/data@1.0.0" (instance $data (type $data)))
  (core module $libc
    (memory (export "memory") 1)
    (data (i32.const 64) "deep/er/file")
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024)))
  (core instance $libc (instantiate $libc))
  (alias core export $libc "memory" (core memory $memory))
  (alias core export $libc "realloc" (core func $realloc))
  (core func $read (canon lower (func $data "read") (memory $memory) (realloc $realloc)))
  (core func $write (canon lower (func $data "write") (memory $memory) (realloc $realloc)))
  (core module $m
    (import "libc" "memory" (memory 1))
    (import "data" "read" (func $read (param i32 i32 i32)))
    (import "data" "write" (func $write (param i32 i32 i32 i32 i32)))
    (func (export "keep") (result i32)
      (call $write (i32.const 64) (i32.const 12) (i32.const 64) (i32.const 4) (i32.const 128))
      (i32.eqz (i32.load8_u (i32.const 128))))
    (func (export "has") (result i32)
      (call $read (i32.const 64) (i32.const 12) (i32.const 128))
      (i32.eqz (i32.load8_u (i32.const 128)))))
  (core instance $i (instantiate $m
    (with "libc" (instance $libc))
    (with "data" (instance (export "read" (func $read)) (export "write" (func $write))))))
  (func (export "keep") (result bool) (canon lift (core func $i "keep")))
  (func (export "has") (result bool) (canon lift (core func $i "has"))))
"""
"""`keep` stores a file, and answers whether it could; `has` says whether there is one."""


@pytest.fixture
def open_umask() -> Iterator[None]:
    """A process whose new files are open to everybody unless somebody sees to it."""
    before = os.umask(0)
    yield
    os.umask(before)


def answer(host: Host, plugin: Path, question: str) -> bool:
    """What the plugin says."""
    loaded = host.load(plugin, trust=TRUSTED)
    try:
        return bool(getattr(loaded[""], question)())
    finally:
        loaded.close()


@pytest.mark.parametrize(
    ("tenant", "directory", "plugin_id"),
    [("other", "place", "acme/keeper"), ("one", "elsewhere", "acme/keeper"), ("one", "place", "acme/thief")],
    ids=["tenant", "origin", "id"],
)
def test_what_is_stored_is_seen_by_no_other(tmp_path: Path, tenant: str, directory: str, plugin_id: str) -> None:
    """The same component for another tenant, from another place or under another id finds nothing, and leaves all."""
    home = tmp_path / "home"
    own = write_plugin(tmp_path / "place", KEEPER, plugin_id="acme/keeper", more=ASKING)
    with open_host(POLICY, home=home, tenant="one") as host:
        assert [answer(host, own, question) for question in ("has", "keep", "has")] == [False, True, True]
    other = write_plugin(tmp_path / directory, KEEPER, plugin_id=plugin_id, more=ASKING)
    with open_host(POLICY, home=home, tenant=tenant) as host:
        assert [answer(host, other, question) for question in ("has", "keep", "has")] == [False, True, True]
    assert len(list(home.rglob("deep/er/file"))) == 2


def test_parts_of_a_place_do_not_run_into_each_other(tmp_path: Path) -> None:
    """A tenant's name that ends as another's plugin begins gives no way into it."""
    names = [("a", "b", "c"), ("ab", "", "c"), ("a", "bc", ""), ("", "a", "bc"), ("a1:b", "", "c"), ("1:a", "b", "c")]
    assert len({storage_directory(tmp_path, *each) for each in names}) == len(names)


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
@pytest.mark.usefixtures("open_umask")
def test_what_is_stored_is_private_whatever_the_umask(tmp_path: Path) -> None:
    """The home, and in it the plugin's directory and all that its capabilities make there, are for their owner only."""
    home = tmp_path / "home"
    plugin = write_plugin(tmp_path / "place", KEEPER, more=ASKING)
    with open_host(POLICY, home=home) as host:
        assert answer(host, plugin, "keep")
        (storage,) = home.glob("data/*/*")
        backend = SqliteBackend(storage, Quota(1 << 20, 100))
        backend.change(b"bucket", {b"key": b"value"})
        made = {path: stat.filemode(path.stat().st_mode) for path in (home, storage, *storage.rglob("*"))}
        backend.close()
    assert {path.name for path in made} >= {"keyvalue.sqlite3", "data.ledger", "data.tmp", "data", "deep", "er", "file"}
    assert {path.name: mode for path, mode in made.items() if mode[4:] != "------"} == {}
