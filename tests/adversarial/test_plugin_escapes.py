"""Threat: a plugin's directory leads the host to files outside it, also by changing while it is read.

Expected: nothing outside is read, the answer is the file's own code, and links that stay inside keep working.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloche import artifact, beneath
from cloche.artifact import Artifact, read_artifact
from cloche.errors import ClocheError, ContractError, ManifestError
from cloche.manifest.parse import parse_manifest
from support.wat_plugins import write_plugin

pytestmark = pytest.mark.adversarial

OWN, OUTSIDE = b"\0asm own", b"\0asm outside"
PRECIOUS = 'password = "hunter2"\n'


@pytest.fixture(params=["kernel", "walking"])
def plugin(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A plugin's directory beside files that are none of its business, read in each way."""
    if request.param == "walking":
        monkeypatch.setattr(beneath, "choose_opener", lambda *, links=False: beneath.WalkingOpener(links=links))
    elif not isinstance(beneath.choose_opener(), beneath.KernelOpener):
        pytest.skip("this system has no openat2")
    (tmp_path / "outside.wasm").write_bytes(OUTSIDE)
    (tmp_path / "precious.toml").write_text(PRECIOUS)
    return write_plugin(tmp_path / "plugin", OWN)


def read(plugin: Path) -> Artifact:
    """The plugin, which is not built."""

    def build(directory: Path, manifest: object) -> bytes:
        raise AssertionError(f"{directory} is built")

    return read_artifact(plugin, build)


def test_a_component_that_turns_into_a_link_is_not_followed(plugin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who swaps the component once the manifest is read gets nothing outside into the plugin."""
    component, real_open, armed = plugin / "plugin.wasm", os.open, []

    def then_arm(*arguments: Any) -> Any:
        armed.append(True)
        return parse_manifest(*arguments)

    def swapping(path: Any, *arguments: Any, **options: Any) -> int:
        if armed and not component.is_symlink():
            component.unlink()
            component.symlink_to("../outside.wasm")
        return real_open(path, *arguments, **options)

    monkeypatch.setattr(artifact, "parse_manifest", then_arm)
    monkeypatch.setattr(os, "open", swapping)
    with pytest.raises(ContractError, match="leads out of the plugin's directory") as caught:
        read(plugin)
    assert (caught.value.code, component.is_symlink()) == ("component.missing", True)


@pytest.mark.parametrize("target", ["real.wasm", "deep/real.wasm", "deep/../deep/real.wasm", "deep/again.wasm"])
def test_links_that_stay_inside_work(plugin: Path, target: str) -> None:
    """A component, and a manifest, may be links to files in the same directory."""
    (plugin / "deep").mkdir()
    for place in (plugin, plugin / "deep"):
        (place / "real.wasm").write_bytes(OWN)
    (plugin / "deep" / "again.wasm").symlink_to("../real.wasm")
    (plugin / "plugin.wasm").unlink()
    (plugin / "plugin.wasm").symlink_to(target)
    (plugin / "plugin.toml").rename(plugin / "deep" / "plugin.toml")
    (plugin / "plugin.toml").symlink_to("deep/plugin.toml")
    assert read(plugin).component == OWN


@pytest.mark.parametrize(
    "link",
    [
        lambda plugin: "../precious.toml",
        lambda plugin: str(plugin.parent / "precious.toml"),
        lambda plugin: "/proc/self/environ",
        lambda plugin: "/dev/zero",
        lambda plugin: "plugin.toml",
        lambda plugin: "absent.toml",
    ],
)
def test_a_manifest_that_leads_out_is_none(plugin: Path, link: Callable[[Path], str]) -> None:
    """plugin.toml is read inside the directory like the component, and no message tells what is outside."""
    (plugin / "plugin.toml").unlink()
    (plugin / "plugin.toml").symlink_to(link(plugin))
    with pytest.raises(ManifestError) as caught:
        read(plugin)
    assert caught.value.code == "manifest.missing"
    assert "hunter2" not in str(caught.value)


def test_a_component_that_is_too_large_is_refused_unread(plugin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its size alone is enough: nothing of a file that would fill the memory is read."""
    monkeypatch.setattr(artifact, "MAX_COMPONENT_BYTES", len(OWN))
    assert read(plugin).component == OWN
    os.truncate(plugin / "plugin.wasm", 1 << 42)
    with pytest.raises(ContractError, match="has 4398046511104 bytes, more than") as caught:
        read(plugin)
    assert caught.value.code == "component.too-large"


def test_a_component_that_grows_while_it_is_read_is_refused(plugin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read is bounded by what is read, and not only by the size that the file had."""
    component, fstat = plugin / "plugin.wasm", os.fstat
    monkeypatch.setattr(artifact, "MAX_COMPONENT_BYTES", len(OWN) + 10)

    def growing(descriptor: int) -> os.stat_result:
        found = fstat(descriptor)
        if os.path.samestat(found, component.stat()):
            os.truncate(component, 1 << 20)
        return found

    monkeypatch.setattr(os, "fstat", growing)
    with pytest.raises(ContractError, match="grew past") as caught:
        read(plugin)
    assert caught.value.code == "component.too-large"


def test_a_file_that_cannot_be_read_once_it_is_open_is_missing() -> None:
    """A failing disk, or a file of the kernel's that opens and cannot be read, is an error of ours."""
    with pytest.raises(ClocheError) as caught:
        read(Path("/proc/self/mem"))
    assert caught.value.code == "component.missing"
