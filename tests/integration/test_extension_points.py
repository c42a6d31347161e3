"""Extension points from the manifest and the embedder's WIT to the plugins that a host offers for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cloche.app import Host
from cloche.errors import ContractError
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
