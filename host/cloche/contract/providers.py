"""What can stand behind an import: host-defined capabilities, and the WASI that the engine brings along. Pure."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass

from cloche.contract.versions import is_newer, is_provided_by, is_same_track
from cloche.wit.types import Interface


@dataclass(frozen=True, slots=True)
class Provider:
    """An interface that the host defines for plugins, and the capability whose grant covers it."""

    capability: str
    interface: Interface


@dataclass(frozen=True, slots=True)
class CapabilityGrant:
    """The decision about one capability of this plugin; a capability without one is not granted.

    `required` says that the plugin cannot do without it; `reason` is the decision's own words.
    """

    capability: str
    granted: bool
    required: bool = False
    reason: str = ""


# Of the engine's own WASI, each package is a capability of its own but for this one, which can do nothing alone.
NEEDS_NO_GRANT = frozenset({"wasi:io"})
# Without a grant the engine links these all the same, over a context that holds nothing: there are no arguments, no
# environment and no directory, no address can be reached, and what is printed goes nowhere (H26). The others are closed
# then: every function of them denies.
EMPTY_WITHOUT_GRANT = frozenset({"wasi:cli", "wasi:filesystem", "wasi:sockets"})

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


def find_provider(providers: Sequence[Provider], granted: Container[str], wanted: str) -> Provider | None:
    """The provider whose interface can stand in for `wanted`; a granted one goes before one that is not."""
    for is_granted in (True, False):
        candidates = [provider for provider in providers if (provider.capability in granted) is is_granted]
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
