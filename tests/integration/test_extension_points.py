"""Extension points from the manifest and the embedder's WIT to the plugins that a host offers for them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloche.app import Host
from cloche.errors import ClocheError, ContractError, UsageError
from cloche.resources import wit_dir
from support.wat_plugins import load, open_host

BELL = "package test:door@1.1.0;\ninterface bell { ring: func() -> u32; knock: func() -> u32; }\n"


def bell(
    identity: str = "test:door/bell@1.1.0", functions: tuple[str, ...] = ("ring", "knock"), kind: str = "u32"
) -> str:
    """A component that exports this interface; every function answers 7."""
    exports = " ".join(f'(export "{name}" (func $seven))' for name in functions)
    return f"""(component
      (core module $m (func (export "seven") (result i32) (i32.const 7)))
      (core instance $i (instantiate $m))
      (func $seven (result {kind}) (canon lift (core func $i "seven")))
      (instance $bell {exports})
      (export "{identity}" (instance $bell)))"""


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A host that calls `test:door/bell@1.1.0`."""
    (tmp_path / "wit").mkdir()
    (tmp_path / "wit" / "bell.wit").write_text(BELL)
    with open_host(extension_points=[tmp_path / "wit"]) as made:
        yield made


@pytest.mark.parametrize(
    ("requirement", "fits"),
    [
        ("*", True),
        ("^1.0", True),
        ("1.0", True),
        ("1", True),
        ("~1.1", True),
        ("~1.0", False),
        (">=1.0", True),
        (">=1.0, <3", True),
        (">=1.0,<2", True),
        (">1.1", False),
        ("> 0.9", True),
        ("<1.1", False),
        ("<=1.1", True),
        ("=1.1.0", True),
        ("==1.1.0", True),
        ("=1.0.0", False),
        ("1.1.0-rc.1", False),
        ("^2.0", False),
    ],
)
def test_every_form_of_a_requirement(host: Host, tmp_path: Path, requirement: str, fits: bool) -> None:
    """What the manifest's reader accepts means the same when the plugin is loaded."""
    more = f'[extension-points]\n"test:door/bell" = "{requirement}"\n'
    if fits:
        assert load(host, tmp_path / "p", bell(), more=more)["test:door/bell"].ring() == 7
        return
    with pytest.raises(ContractError, match="the manifest declares version") as caught:
        load(host, tmp_path / "p", bell(), more=more)
    assert caught.value.code == "contract.mismatch"


@pytest.mark.parametrize(("exported", "fits"), [("1.0.0-rc.1", True), ("1.0.0", False)])
def test_a_pre_release_is_only_itself(tmp_path: Path, exported: str, fits: bool) -> None:
    """A manifest that names a draft accepts the draft, and not the release that follows it."""
    wat = bell(f"test:door/bell@{exported}")
    more = '[extension-points]\n"test:door/bell" = "1.0.0-rc.1"\n'
    with open_host() as host:
        if fits:
            assert load(host, tmp_path / "p", wat, more=more)["test:door/bell"].ring() == 7
        else:
            with pytest.raises(ContractError, match=r"declares version 1.0.0-rc.1, the component exports 1.0.0"):
                load(host, tmp_path / "p", wat, more=more)


NAME = "test:door/bell"
MISFITS = {
    "another-major": bell(f"{NAME}@2.0.0"),
    "a-draft": bell(f"{NAME}@1.1.0-rc.1"),
    "no-version": bell(NAME),
    "functions-missing": bell(functions=("ring",)),
    "other-types": bell(kind="u64").replace("(result i32)", "(result i64)").replace("i32.const", "i64.const"),
    "another-interface": bell("test:door/lock@1.1.0"),
}


def served(host: Host, extension_point: str) -> list[str]:
    """Who is offered for it; each must be there for its callers as well."""
    offered = list(host.providers(extension_point))
    assert [plugin[extension_point].ring() for plugin in offered] == [7] * len(offered)
    return [plugin.id for plugin in offered]


@pytest.mark.parametrize("misfit", MISFITS)
def test_who_only_has_the_name_is_not_offered(host: Host, tmp_path: Path, misfit: str) -> None:
    """A plugin whose export does not fit is no provider; what it exports can be called all the same."""
    fitting = load(host, tmp_path / "fits", bell(), plugin_id="acme/fits")
    plugin = load(host, tmp_path / "misfit", MISFITS[misfit], plugin_id="acme/misfit")
    for name in (NAME, f"{NAME}@1.0.0", f"{NAME}@1.1.0"):
        assert served(host, name) == ["acme/fits"]
        assert fitting.serves(name)
        assert not plugin.serves(name)
    (export,) = plugin.interfaces()
    assert plugin[export].ring() == plugin[export.partition("@")[0]].ring() == 7


@pytest.mark.parametrize(
    ("exported", "functions", "served_as"),
    [
        ("1.0.0", ("ring",), {"1.0.0"}),
        ("1.1.0", ("ring", "knock"), {"1.0.0", "1.1.0"}),
        ("1.4.0", ("ring", "knock", "kick"), {"1.0.0", "1.1.0", "1.4.0"}),
    ],
)
def test_versions_of_one_track_serve_each_others_callers(
    host: Host, tmp_path: Path, exported: str, functions: tuple[str, ...], served_as: set[str]
) -> None:
    """Without a version every plugin on the host's track is offered; with one, those that have all of that version."""
    load(host, tmp_path / "p", bell(f"{NAME}@{exported}", functions), plugin_id="acme/bell")
    assert served(host, NAME) == ["acme/bell"]
    for version in ("1.0.0", "1.1.0", "1.4.0", "2.0.0"):
        assert served(host, f"{NAME}@{version}") == (["acme/bell"] if version in served_as else [])


def test_of_several_exports_the_one_that_fits_is_called(host: Host, tmp_path: Path) -> None:
    """A plugin that also exports a newer major is a provider of the one that the host knows, and called by it."""
    later = f'(export "{NAME}@2.0.0" (instance $bell)))'
    plugin = load(host, tmp_path / "p", bell().removesuffix(")") + later)
    assert served(host, NAME) == ["acme/test"]
    assert plugin[NAME].wit.id == f"{NAME}@1.1.0"
    assert plugin[f"{NAME}@2.0.0"].ring() == 7


def test_a_builtin_is_a_provider_of_what_it_was_added_for(host: Host) -> None:
    """The embedder's own object is taken at its word, at the version that the host knows."""

    class Bell:
        def ring(self) -> int:
            return 7

    host.add_builtin("acme/builtin", {NAME: Bell()})
    for name in (NAME, f"{NAME}@1.0.0", f"{NAME}@1.1.0"):
        assert served(host, name) == ["acme/builtin"]
    assert served(host, f"{NAME}@1.2.0") == []


def test_what_the_host_does_not_know_has_no_providers(tmp_path: Path) -> None:
    """Without the interface's WIT nothing can be said to fit it; it is still there to be called."""
    with open_host() as host:
        plugin = load(host, tmp_path / "p", bell())
        assert served(host, NAME) == []
        assert plugin[NAME].ring() == 7


LIFECYCLE = "package cloche:plugin@{version};\ninterface lifecycle {{ initialize: func() -> u8; }}\n"
OTHER_BELL = BELL.replace("ring: func() -> u32", "ring: func() -> u64")
DIRECTORIES: list[tuple[dict[str, str], str, str]] = [
    ({"README.md": "nothing here"}, "usage.argument", "holds no WIT"),
    ({"deps/door/bell.wit": BELL}, "usage.argument", "holds no WIT"),
    ({"world.wit": "package test:door@1.1.0;\nworld w {}\n"}, "usage.argument", "declares no interface"),
    ({"plugin.wit": LIFECYCLE.format(version="1.0.0")}, "usage.argument", "than Cloche itself does"),
    ({"plugin.wit": LIFECYCLE.format(version="1.1.0")}, "usage.argument", "than Cloche itself does"),
    ({"a/bell.wit": BELL, "b/bell.wit": OTHER_BELL}, "usage.argument", "than an earlier one does"),
    ({"bell.wit": "interface {"}, "contract.wit", "cannot be read"),
]


@pytest.mark.parametrize(("files", "code", "said"), DIRECTORIES, ids=[case[2] for case in DIRECTORIES])
def test_a_directory_that_is_no_good_is_named(tmp_path: Path, files: dict[str, str], code: str, said: str) -> None:
    """An embedder who points at the wrong place, or redefines what is known, is told so; nothing goes unchecked."""
    for name, text in files.items():
        (tmp_path / "points" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "points" / name).write_text(text)
    with open_host(extension_points=[tmp_path / "points"]) as host, pytest.raises(ClocheError, match=said) as caught:
        assert host.catalog
    assert caught.value.code == code
    assert str(tmp_path / "points") in str(caught.value)


@pytest.mark.parametrize("path", ["/nonexistent", __file__])
def test_a_directory_that_is_none_is_named(path: str) -> None:
    """So is a path where there is no directory."""
    with open_host(extension_points=[path]) as host, pytest.raises(UsageError, match="cannot be read") as caught:
        assert host.catalog
    assert caught.value.code == "usage.not-found"
    assert path in str(caught.value)


def test_the_same_declaration_may_come_twice(tmp_path: Path) -> None:
    """A copy of our own packages, or of one's own, changes nothing."""
    shutil.copytree(wit_dir(), tmp_path / "wit")
    (tmp_path / "wit" / "door").mkdir()
    (tmp_path / "wit" / "door" / "bell.wit").write_text(BELL)
    with open_host() as plain, open_host(extension_points=[tmp_path / "wit", tmp_path / "wit"]) as host:
        found = {known.id for known in host.catalog.extension_points}
        assert found == {known.id for known in plain.catalog.extension_points} | {f"{NAME}@1.1.0"}
