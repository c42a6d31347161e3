"""The project's guests as components, built once for all tests and all test processes.

    from support.guests import built
    component = built("noop")            # pathlib.Path of the .wasm

    from support.guests import guest_dir, guest_home
    with cloche.Host(home=guest_home(), tenant="my-test") as host: ...   # shares built components and native code

The home is `.cloche` in the working tree, or where GUEST_HOME says; it stays there between runs. A test that stores
something in it takes a tenant of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from cloche.artifact import component_ref, read_manifest
from cloche.build.builder import BuiltComponent, build_plugin
from cloche.build.settings import BuildSettings, build_settings

ROOT = Path(__file__).resolve().parents[2]
PYTHON_GUESTS = ("hello", "markdown", "noop")
GUESTS = (*PYTHON_GUESTS, "hello-js", "hello-c")


def guest_home() -> Path:
    """A home for hosts that run the guests: compiling a Python guest takes long enough to do it once for all tests."""
    return Path(os.environ.get("GUEST_HOME") or ROOT / ".cloche")


def build_cache() -> Path:
    """Where the built guests are kept: the place that a host with `guest_home` looks in."""
    return guest_home() / "cache" / "build"


def guest_dir(name: str) -> Path:
    """The directory of the guest `name`; a name with a suffix is a file in `fixtures-wat`."""
    return ROOT / "guests" / name


def settings_of(directory: Path) -> BuildSettings:
    """How the plugin in `directory` is built, by its manifest."""
    manifest = read_manifest(directory)
    return build_settings(directory, manifest.id, component_ref(manifest))


def build_directory(
    directory: Path, *, cache: Path, out: Path | None = None, progress: Callable[[str], None] | None = None
) -> BuiltComponent:
    """Build the plugin in `directory` as its manifest says."""
    return build_plugin(directory, settings_of(directory), out=out, cache=cache, progress=progress)


def build(name: str) -> BuiltComponent:
    """Build the guest `name`, or take it from the cache. Other processes wait for the one that builds."""
    return build_directory(guest_dir(name), cache=build_cache())


def built(name: str) -> Path:
    """The component of the guest `name`; a Python guest takes 10 to 40 seconds the first time."""
    return build(name).path
