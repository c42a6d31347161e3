"""The manifest of a component that came without one: it asks for nothing."""

from __future__ import annotations

from cloche.manifest.value import Manifest
from cloche.model import Digest, PluginId

BARE_VERSION = "0.0.0"


def bare_manifest(digest: Digest, file: str = "component.wasm") -> Manifest:
    """A manifest with an id made from the component's digest, no requests and no limits of its own.

    `file` is the name that messages use. Two components with the same first 48 bits of digest would share an id; what
    they may do is tied to the whole digest elsewhere. Added in 0.1.
    """
    name = file.replace("\\", "/").rpartition("/")[2].removesuffix(".wasm")
    shown = "".join(char if char.isprintable() else "?" for char in name)[:64]
    return Manifest(id=PluginId(f"local/x{digest[:12]}"), name=shown or "component", version=BARE_VERSION, file=file)
