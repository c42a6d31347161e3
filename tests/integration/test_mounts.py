"""Directories of the operator that a plugin may use, by name and mode."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloche.app import Host
from cloche.cli.main import run
from cloche.errors import GrantError, GuestError, GuestTrap
from cloche.grants.policy_file import parse_policy
from cloche.model import Trusted
from cloche.runtime.plugin import ExtensionPoint
from support.guests import built, guest_home

MANIFEST = """format-version = 1
id = "acme/files"
name = "Files"
version = "1.0.0"
instances = "pooled"
[component]
path = "noop.wasm"
[capabilities."wasi:filesystem"]
read = ["input"]
write = ["work"]
"""


def policy(**mounts: tuple[Path, str]) -> bytes:
    """A policy that binds these mounts for the plugin."""
    lines = [f'mounts.{name} = {{ path = "{path}", mode = "{mode}" }}' for name, (path, mode) in mounts.items()]
    return ('format-version = 1\n[plugins."acme/files"]\n' + "\n".join(lines) + "\n").encode()


@pytest.fixture
def plugin_directory(tmp_path: Path) -> Path:
    """The noop guest under a manifest that asks for two mounts."""
    directory = tmp_path / "plugin"
    directory.mkdir()
    (directory / "plugin.toml").write_text(MANIFEST)
    (directory / "noop.wasm").write_bytes(built("noop").read_bytes())
    return directory


@pytest.fixture
def files(tmp_path: Path, plugin_directory: Path) -> Iterator[ExtensionPoint]:
    """The guest with `input` bound read-only and `work` read-write, beside a secret that neither covers."""
    (tmp_path / "in").mkdir()
    (tmp_path / "work").mkdir()
    (tmp_path / "in" / "given.txt").write_text("given")
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "in" / "way-out").symlink_to("../secret.txt")
    rules = parse_policy(policy(input=(tmp_path / "in", "ro"), work=(tmp_path / "work", "rw")))
    with Host(home=guest_home(), policy=rules) as host:
        yield host.load(plugin_directory, trust=Trusted("a fixture"))["cloche:noop/misbehave"]


@pytest.mark.slow
def test_a_mount_is_read_and_written_by_its_mode(files: ExtensionPoint, tmp_path: Path) -> None:
    """A read-only mount reads and refuses writes; a read-write mount does both."""
    assert files.read_file("/input/given.txt") == b"given"
    with pytest.raises(GuestError):
        files.write_file("/input/new.txt", b"x")
    files.write_file("/work/new.txt", b"made")
    assert (tmp_path / "work" / "new.txt").read_bytes() == b"made"
    assert sorted(path.name for path in (tmp_path / "in").iterdir()) == ["given.txt", "way-out"]


@pytest.mark.slow
def test_the_command_line_binds_directories_for_one_run(
    tmp_path: Path, plugin_directory: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--mount NAME=DIRECTORY` binds for reading, with `:rw` for writing, by a relative path too; a denial wins."""
    monkeypatch.setenv("CLOCHE_HOME", str(guest_home()))
    monkeypatch.chdir(tmp_path)
    for name in ("in", "work"):
        (tmp_path / name).mkdir()
    (tmp_path / "in" / "given.txt").write_text("given")
    (tmp_path / "denying.toml").write_text('format-version = 1\n[plugins."*"]\ndeny = ["wasi:filesystem"]\n')

    def call(*words: str, policy: tuple[str, ...] = ()) -> tuple[int, str]:
        mounts = ["--mount", "input=in", "--mount", f"work={tmp_path / 'work'}:rw"]
        status = run(["call", "--trust", *policy, *mounts, str(plugin_directory), *words])
        return status, capfd.readouterr().out

    given = base64.b64encode(b"given").decode()
    assert call("read-file", "/input/given.txt") == (0, f"{given}\n")
    assert call("write-file", "/work/new.txt", f'"{given}"')[0] == 0
    assert (tmp_path / "work" / "new.txt").read_text() == "given"
    assert call("write-file", "/input/new.txt", f'"{given}"')[0] == 1
    assert call("read-file", "/input/given.txt", policy=("--policy", "denying.toml"))[0] == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [
        "/input/../secret.txt",
        "/input/way-out",
        "/secret.txt",
        "/input/../../etc/passwd",
        "/etc/passwd",
        "input/../secret.txt",
        "/input/./../secret.txt",
        "/input//../secret.txt",
        "/input/given.txt/../../secret.txt",
    ],
)
def test_no_path_leads_out_of_a_mount(files: ExtensionPoint, path: str) -> None:
    """Neither `..`, nor a link that was planted on the host's side, nor an absolute path reaches anything else."""
    with pytest.raises(GuestError):
        files.read_file(path)
    assert files.read_file("/input/given.txt") == b"given"


@pytest.mark.slow
def test_links_out_of_a_writable_mount_are_reported(tmp_path: Path, plugin_directory: Path) -> None:
    """A link that a guest may have planted for others to follow is a warning, once; those that stay inside are none."""
    work = tmp_path / "work"
    (work / "deep").mkdir(parents=True)
    (work / "given.txt").write_text("given")
    (work / "inside").symlink_to("given.txt")
    (work / "deep" / "up").symlink_to("../given.txt")
    (work / "deep" / "relative").symlink_to("../../secret.txt")
    (work / "absolute").symlink_to("/etc/passwd")
    rules = parse_policy(policy(input=(tmp_path, "ro"), work=(work, "rw")))
    with Host(home=guest_home(), policy=rules) as host:
        plugin = host.load(plugin_directory, trust=Trusted("a fixture"))
        for _ in range(2):
            with pytest.raises(GuestTrap):  # ends the pooled instance
                plugin["cloche:noop/misbehave"].crash("next")
        told = [event.data for event in host.events.recent() if "leads out" in str(event.data.get("text"))]
        assert sorted(data["untrusted"]["path"] for data in told) == ["/work/absolute", "/work/deep/relative"]


@pytest.mark.slow
def test_a_mount_that_is_not_there_is_refused_by_name(tmp_path: Path, plugin_directory: Path) -> None:
    """Loading works, because nothing is opened; the first call says which mount is missing, and so does the next."""
    rules = parse_policy(policy(input=(tmp_path / "nowhere", "ro")))
    with Host(home=guest_home(), policy=rules) as host:
        point = host.load(plugin_directory, trust=Trusted("a fixture"))["cloche:noop/scalar"]
        for _ in range(2):
            with pytest.raises(GrantError, match="mount 'input'") as caught:
                point.add(1, 2)
            assert caught.value.code == "grant.refused"
