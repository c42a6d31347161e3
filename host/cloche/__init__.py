"""Cloche: run third-party WebAssembly components with grants, limits and metering.

    import cloche

    with cloche.Host() as host:
        plugin = host.load("guests/hello", trust=cloche.Trusted())
        print(plugin["cloche:example/greeter"].greet("Ada"))

Names are loaded on first use, so that `import cloche` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cloche.app import Host
    from cloche.capabilities.api import Capability, HostInterface, Session
    from cloche.capabilities.script.host import FunctionError, Quota, ScriptFunctions
    from cloche.engine.codec.handles import GuestResource
    from cloche.engine.compile import Progress
    from cloche.errors import (
        Blame,
        CapabilityError,
        ClocheError,
        ContractError,
        EngineError,
        GrantError,
        GuestError,
        GuestTrap,
        LimitError,
        ManifestError,
        RegistryError,
        TrustError,
        UsageError,
    )
    from cloche.grants.policy import Policy
    from cloche.grants.schema import GrantSchema, NoParams, Params, Verdict
    from cloche.manifest.value import Manifest
    from cloche.model import Err, Instances, Limits, Metering, Ok, Outcome, Some, State, Tier, Trusted, Usage
    from cloche.observe.events import Event, EventKind
    from cloche.runtime.functions import BoundFunction
    from cloche.runtime.plugin import ExtensionPoint, Plugin
    from cloche.script.image import Image
    from cloche.script.once import run_python
    from cloche.script.result import ScriptResult
    from cloche.script.runner import ScriptRunner
    from cloche.script.session import ScriptSession
    from cloche.values import Case

    __version__: str

_ROOMS = {
    "app": ("Host",),
    "capabilities.api": ("Capability", "HostInterface", "Session"),
    "capabilities.script.host": ("FunctionError", "Quota", "ScriptFunctions"),
    "engine.codec.handles": ("GuestResource",),
    "engine.compile": ("Progress",),
    "errors": (
        "Blame",
        "CapabilityError",
        "ClocheError",
        "ContractError",
        "EngineError",
        "GrantError",
        "GuestError",
        "GuestTrap",
        "LimitError",
        "ManifestError",
        "RegistryError",
        "TrustError",
        "UsageError",
    ),
    "grants.policy": ("Policy",),
    "grants.schema": ("GrantSchema", "NoParams", "Params", "Verdict"),
    "manifest.value": ("Manifest",),
    "model": ("Err", "Instances", "Limits", "Metering", "Ok", "Outcome", "Some", "State", "Tier", "Trusted", "Usage"),
    "observe.events": ("Event", "EventKind"),
    "runtime.functions": ("BoundFunction",),
    "runtime.plugin": ("ExtensionPoint", "Plugin"),
    "script.image": ("Image",),
    "script.once": ("run_python",),
    "script.result": ("ScriptResult",),
    "script.runner": ("ScriptRunner",),
    "script.session": ("ScriptSession",),
    "values": ("Case",),
}
_HOMES = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = [
    "Blame",
    "BoundFunction",
    "Capability",
    "CapabilityError",
    "Case",
    "ClocheError",
    "ContractError",
    "EngineError",
    "Err",
    "Event",
    "EventKind",
    "ExtensionPoint",
    "FunctionError",
    "GrantError",
    "GrantSchema",
    "GuestError",
    "GuestResource",
    "GuestTrap",
    "Host",
    "HostInterface",
    "Image",
    "Instances",
    "LimitError",
    "Limits",
    "Manifest",
    "ManifestError",
    "Metering",
    "NoParams",
    "Ok",
    "Outcome",
    "Params",
    "Plugin",
    "Policy",
    "Progress",
    "Quota",
    "RegistryError",
    "ScriptFunctions",
    "ScriptResult",
    "ScriptRunner",
    "ScriptSession",
    "Session",
    "Some",
    "State",
    "Tier",
    "TrustError",
    "Trusted",
    "Usage",
    "UsageError",
    "Verdict",
    "__version__",
    "run_python",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("cloche.version").VERSION
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'cloche' has no attribute {name!r}")
    found = globals()[name] = getattr(importlib.import_module(f"cloche.{home}"), name)
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
