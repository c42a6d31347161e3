"""What can stand behind an import: host-defined capabilities, and the WASI that the engine brings along. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from cloche.contract.versions import is_newer, is_provided_by, is_same_track
from cloche.version import WASI_VERSION
from cloche.wit.types import Interface, InterfaceId

ROOT = "$root"
"""The interface id under which a provider offers functions that components import directly at the root."""


@dataclass(frozen=True, slots=True)
class Provider:
    """A host-defined interface, and whether this plugin was granted it.

    `capability` is the grant's id, `required` whether the manifest cannot do without it,
    `reason` the decision's own words.
    """

    capability: str
    interface: Interface
    granted: bool
    required: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True)
class EngineGrant:
    """The decision about one of the capabilities in `WASI`. A capability without one counts as not granted."""

    capability: str
    granted: bool
    required: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True)
class WasiInterface:
    """One interface of the engine: the grant that covers it (None: none is needed), and what denying it means.

    With `is_empty_without_grant` the engine links it all the same, over a context that holds nothing: no directory can
    be opened, no address reached, and what is printed goes nowhere. Without, a denied interface is closed: every
    function of it denies.
    """

    capability: str | None
    is_empty_without_grant: bool = False


_IO = WasiInterface(None)
# There are no arguments and no environment to read, and without a grant what is printed goes nowhere.
_CLI = WasiInterface("wasi:cli", is_empty_without_grant=True)
_CLOCKS = WasiInterface("wasi:clocks")
_RANDOM = WasiInterface("wasi:random")
_FILESYSTEM = WasiInterface("wasi:filesystem", is_empty_without_grant=True)
_SOCKETS = WasiInterface("wasi:sockets", is_empty_without_grant=True)

# The imports of `wasi:cli/command@0.2`, without HTTP (H26).
WASI: Mapping[str, WasiInterface] = MappingProxyType(
    {
        "wasi:io/error": _IO,
        "wasi:io/poll": _IO,
        "wasi:io/streams": _IO,
        "wasi:cli/environment": _CLI,
        "wasi:cli/exit": _CLI,
        "wasi:cli/stdin": _CLI,
        "wasi:cli/stdout": _CLI,
        "wasi:cli/stderr": _CLI,
        "wasi:cli/terminal-input": _CLI,
        "wasi:cli/terminal-output": _CLI,
        "wasi:cli/terminal-stdin": _CLI,
        "wasi:cli/terminal-stdout": _CLI,
        "wasi:cli/terminal-stderr": _CLI,
        "wasi:clocks/monotonic-clock": _CLOCKS,
        "wasi:clocks/wall-clock": _CLOCKS,
        "wasi:random/random": _RANDOM,
        "wasi:random/insecure": _RANDOM,
        "wasi:random/insecure-seed": _RANDOM,
        "wasi:filesystem/preopens": _FILESYSTEM,
        "wasi:filesystem/types": _FILESYSTEM,
        "wasi:sockets/instance-network": _SOCKETS,
        "wasi:sockets/ip-name-lookup": _SOCKETS,
        "wasi:sockets/network": _SOCKETS,
        "wasi:sockets/tcp": _SOCKETS,
        "wasi:sockets/tcp-create-socket": _SOCKETS,
        "wasi:sockets/udp": _SOCKETS,
        "wasi:sockets/udp-create-socket": _SOCKETS,
    }
)

# With these a guest can put the thread that runs it to sleep, out of reach of fuel, epochs and signals (H1).
BLOCKING = frozenset({"wasi:io/poll", "wasi:clocks/monotonic-clock"})


def unversioned(interface_id: str) -> str:
    """`ns:pkg/name` of an id; an inline interface's plain name as it is."""
    return interface_id.partition("@")[0]


def version_of(interface_id: str) -> str | None:
    """The version in an id; None without one."""
    return interface_id.partition("@")[2] or None


def find(interfaces: Iterable[Interface], wanted: str) -> Interface | None:
    """The interface that can stand in for `wanted`: the very version, else the newest that is compatible."""
    best: Interface | None = None
    for interface in interfaces:
        if interface.id == wanted:
            return interface
        if unversioned(interface.id) != unversioned(wanted):
            continue
        if not is_provided_by(version_of(wanted), version_of(interface.id)):
            continue
        if best is None or is_newer(version_of(interface.id), version_of(best.id)):
            best = interface
    return best


def find_provider(providers: Sequence[Provider], wanted: str) -> Provider | None:
    """The provider whose interface can stand in for `wanted`; a granted one goes before one that is not."""
    for granted in (True, False):
        candidates = [provider for provider in providers if provider.granted is granted]
        interface = find((provider.interface for provider in candidates), wanted)
        if interface is not None:
            return next(provider for provider in candidates if provider.interface is interface)
    return None


def same_line(interfaces: Iterable[Interface], wanted: str) -> Interface | None:
    """The newest interface on the version track of `wanted`, older or newer than it."""
    best: Interface | None = None
    for interface in interfaces:
        if unversioned(interface.id) != unversioned(wanted):
            continue
        if not is_same_track(version_of(wanted), version_of(interface.id)):
            continue
        if interface.id == wanted:
            return interface
        if best is None or is_newer(version_of(interface.id), version_of(best.id)):
            best = interface
    return best


def find_wasi(wanted: str) -> WasiInterface | None:
    """The engine's own interface for `wanted`, any 0.2 release of it; None when the engine has none."""
    parsed = InterfaceId.parse(wanted)
    if parsed is None or not is_same_track(parsed.version, WASI_VERSION):
        return None
    return WASI.get(parsed.unversioned)
