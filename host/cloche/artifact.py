"""A plugin's bytes: read once, hashed, and from then on used from that buffer."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cloche.beneath import open_inside
from cloche.errors import ContractError, ManifestError, UsageError
from cloche.manifest.bare import bare_manifest
from cloche.manifest.parse import MANIFEST_FILE, parse_manifest
from cloche.manifest.value import ComponentRef, Manifest
from cloche.model import KIB, MIB, Digest, PluginId
from cloche.text import one_line

MAX_COMPONENT_BYTES = 256 * MIB
"""What is read from a file at most; the survey of a component has a tighter bound."""

MAX_MANIFEST_BYTES = 256 * KIB

# O_NONBLOCK: opening a FIFO must not wait for its other end.
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK

Build = Callable[[Path, Manifest], bytes]
"""Builds a component from a plugin directory with `source`; blocks for seconds, cached by content."""


@dataclass(frozen=True, slots=True, repr=False)
class Artifact:
    """One plugin as it was found: its manifest and the exact bytes of its component.

    `origin` is the canonical path of the directory or file that it came from: an unsigned plugin's storage belongs to
    it. `digest` is the component's sha256.
    """

    manifest: Manifest
    component: bytes
    digest: Digest
    origin: Path

    def __repr__(self) -> str:
        return f"Artifact({self.manifest.id} {self.manifest.version}, {len(self.component)} bytes, {self.digest[:12]})"


def read_artifact(source: Path, build: Build) -> Artifact:
    """Read a plugin from a directory with plugin.toml, or a bare `.wasm` file. Blocks on the disk, and on a build.

    Manifest and component are read below the directory: a relative link that stays inside it is followed, any other is
    refused, also while somebody changes it.

    Raises: UsageError (`usage.not-found`); ManifestError (`manifest.*`); ContractError (`component.missing`,
        `component.too-large`, `component.build`).
    """
    try:
        origin = source.resolve(strict=True)
    except (OSError, RuntimeError, ValueError) as error:  # ValueError: a NUL, or what no file name can hold
        raise UsageError(
            f"there is no plugin at {one_line(source)}: {_reason(error)}", code="usage.not-found"
        ) from error
    if not origin.is_dir():
        component = _read(lambda: os.open(origin, _READ), MAX_COMPONENT_BYTES, str(source))
        digest = digest_of(component)
        return Artifact(bare_manifest(digest, origin.name), component, digest, origin)
    manifest = read_manifest(origin)
    where = component_ref(manifest)
    if where.source is not None:
        component = build(origin, manifest)
    else:
        assert where.path is not None
        try:
            component = _read_below(origin, where.path, MAX_COMPONENT_BYTES)
        except ContractError as error:
            error.plugin = manifest.id
            raise
    return Artifact(manifest, component, digest_of(component), origin)


def read_manifest(directory: Path) -> Manifest:
    """The manifest of a plugin directory. Raises: ManifestError (`manifest.missing`, `manifest.*`)."""
    try:
        data = _read_below(directory, MANIFEST_FILE, MAX_MANIFEST_BYTES)
    except ContractError as error:
        if error.code == "component.too-large":
            raise ManifestError(f"{directory}: {error.message}", code="manifest.too-large") from error
        raise ManifestError(
            f"{directory} has no readable {MANIFEST_FILE}, which a plugin directory needs: {error.message}",
            code="manifest.missing",
        ) from error
    return parse_manifest(data, str(directory / MANIFEST_FILE))


def plugin_id(source: Path) -> PluginId:
    """The id of the plugin at `source`: its manifest's, or one made from a bare component's digest. Builds nothing.

    Raises: as `read_artifact`.
    """
    return read_manifest(source).id if source.is_dir() else read_artifact(source, _no_build).manifest.id


def _no_build(directory: Path, manifest: Manifest) -> bytes:
    """Only directories are built, and `plugin_id` reads no more of those than the manifest."""
    raise AssertionError(f"{directory} of {manifest.id} is not a file")


def component_ref(manifest: Manifest) -> ComponentRef:
    """Where the manifest's component is. Raises: ContractError (`component.missing`) when the plugin has none."""
    if manifest.component is None:
        raise ContractError(
            f"{manifest.id} is a {manifest.kind.value} and has no component",
            code="component.missing",
            plugin=manifest.id,
        )
    return manifest.component


def read_component(path: Path) -> bytes:
    """A component's bytes. Raises: ContractError (`component.missing`, `component.too-large`)."""
    return _read(lambda: os.open(path, _READ), MAX_COMPONENT_BYTES, str(path))


def digest_of(data: bytes) -> Digest:
    """sha256 of exact bytes, in lower-case hexadecimal."""
    return Digest(hashlib.sha256(data).hexdigest())


def _read_below(directory: Path, path: str, most: int) -> bytes:
    """The bytes of a file inside a plugin's directory, by its relative path."""
    return _read(lambda: open_inside(directory, path), most, path)


def _read(opened: Callable[[], int], most: int, name: str) -> bytes:
    """A regular file's bytes, read once. A FIFO or device is refused without waiting for it."""
    try:
        descriptor = opened()
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):  # before it becomes a file object, which a directory cannot
                raise ContractError(f"{name} is not a regular file", code="component.missing")
            if status.st_size > most:
                raise ContractError(
                    f"{name} has {status.st_size} bytes, more than the {most} that are read", code="component.too-large"
                )
            with open(descriptor, "rb", closefd=False) as file:
                data = file.read(most + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno == errno.EXDEV:
            text = f"{name} leads out of the plugin's directory; a link in it must be relative and stay inside"
        else:
            text = f"{name} cannot be read: {_reason(error)}"
        raise ContractError(text, code="component.missing") from error
    if len(data) > most:
        raise ContractError(f"{name} grew past {most} bytes while it was read", code="component.too-large")
    return data


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno) if error.errno != errno.ENOENT else "no such file or directory"
    return str(error)
