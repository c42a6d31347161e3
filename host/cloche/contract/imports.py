"""What becomes of each import: provided, closed, the engine's, types only, or refused. Pure.

Denied by default: an import that nothing here provides is refused, also when it is empty. The engine would link an
empty instance without asking (H26), so "it instantiates" says nothing about grants.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice

from cloche.contract.compare import Mismatch, Side, compare_interfaces
from cloche.contract.providers import (
    BLOCKING,
    EMPTY_WITHOUT_GRANT,
    NEEDS_NO_GRANT,
    CapabilityGrant,
    Provider,
    find,
    find_provider,
    same_line,
    unversioned,
    version_of,
)
from cloche.contract.report import MAX_FINDINGS_PER_INTERFACE, Disposition, Findings, ImportBinding
from cloche.contract.suggest import Suggestions
from cloche.contract.unsupported import unsupported_in, unsupported_in_function
from cloche.contract.versions import age
from cloche.model import Tier
from cloche.wit.types import Function, Interface, ResourceType, World

MISMATCH = "contract.mismatch"
REQUIRED = "grant.required"
REFUSED = "grant.refused"


class ImportCheck:
    """Binds the imports of one component and adds what does not fit to `findings`. Used once."""

    def __init__(
        self,
        *,
        providers: Sequence[Provider],
        engine: Sequence[Interface],
        grants: Sequence[CapabilityGrant],
        extension_points: Sequence[Interface],
        tier: Tier,
        refuse_poll: str,
        suggestions: Suggestions,
        findings: Findings,
    ) -> None:
        self._providers = providers
        self._engine = engine
        self._grants: Mapping[str, CapabilityGrant] = {grant.capability: grant for grant in grants}
        self._granted = frozenset(grant.capability for grant in grants if grant.granted)
        self._extension_points = extension_points
        self._tier = tier
        self._refuse_poll = refuse_poll
        self._suggestions = suggestions
        self._findings = findings

    def bind(self, world: World) -> tuple[ImportBinding, ...]:
        """One binding for each imported interface. What the manifest requires in vain is a finding, imported or not."""
        for grant in self._grants.values():
            if grant.required and not grant.granted:
                message = "the manifest requires it, and it is not granted"
                message += f": {grant.reason}" if grant.reason else ""
                self._findings.error(REQUIRED, grant.capability, message)
        imports = tuple(self._interface(interface) for interface in world.imports)
        for function in world.import_functions:
            self._function(function)
        for name, found in world.import_types:
            # A type that is brought in with `use` belongs to the interface that declares it, and was judged there.
            if isinstance(found, ResourceType) and found.name.interface is None:
                self._findings.error(
                    REFUSED, f"resource `{name}`", "it is imported at the root of the world", _ROOT_REMEDY
                )
        self._judge_blocking(imports)
        return imports

    # Interfaces

    def _interface(self, wanted: Interface) -> ImportBinding:
        unsupported = tuple(islice(unsupported_in(wanted), MAX_FINDINGS_PER_INTERFACE))
        for finding in unsupported:
            self._findings.add(finding)
        if unsupported:
            return _refused(wanted, "it needs something asynchronous")
        provider = find_provider(self._providers, self._granted, wanted.id)
        if provider is not None:
            return self._offered(wanted, provider.interface, provider.capability, Disposition.PROVIDED)
        # The engine takes any 0.2 for its own, also a newer one: what it does not have is a difference.
        known = same_line(self._engine, wanted.id)
        if known is not None:
            return self._offered(wanted, known, unversioned(known.id).partition("/")[0], Disposition.ENGINE)
        if wanted.types and not wanted.functions and not _has_resources(wanted):
            return self._types_only(wanted)
        return self._unknown(wanted)

    def _offered(self, wanted: Interface, known: Interface, capability: str, by: Disposition) -> ImportBinding:
        """What becomes of an import that the host offers as `known`; granted, it is bound as `by`."""
        is_free = by is Disposition.ENGINE and capability in NEEDS_NO_GRANT

        def bound(disposition: Disposition, reason: str) -> ImportBinding:
            return ImportBinding(wanted.id, disposition, None if is_free else capability, known.id, wanted, reason)

        mismatches = _differences(known, wanted)
        for mismatch in mismatches:
            self._mismatch(wanted.id, mismatch, known)
        if mismatches:
            return bound(Disposition.REFUSED, "its types differ from the host's")
        if is_free:
            return bound(by, "the engine's own; needs no grant")
        grant = self._grants.get(capability, CapabilityGrant(capability, False, reason=_NOT_ASKED))
        reason = grant.reason or "as decided"
        if grant.granted:
            return bound(by, reason)
        if grant.required:
            return bound(Disposition.REFUSED, reason)
        if by is Disposition.ENGINE and capability in EMPTY_WITHOUT_GRANT:
            return bound(by, f"{reason}; linked over an empty context")
        return bound(Disposition.CLOSED, reason)

    def _types_only(self, wanted: Interface) -> ImportBinding:
        """Records and the like need nobody to provide them, but what the host knows has to be the same."""
        known = find([*self._extension_points, *(provider.interface for provider in self._providers)], wanted.id)
        mismatches = () if known is None else _differences(known, wanted)
        if known is not None:
            for mismatch in mismatches:
                self._mismatch(wanted.id, mismatch, known)
        disposition = Disposition.REFUSED if mismatches else Disposition.TYPES
        reason = "its types differ from the host's" if mismatches else "it brings only types"
        return ImportBinding(wanted.id, disposition, None, known.id if known else None, wanted, reason)

    def _unknown(self, wanted: Interface) -> ImportBinding:
        name, version = unversioned(wanted.id), version_of(wanted.id)
        host = [*(provider.interface for provider in self._providers), *self._engine]
        offered = sorted({known.id for known in host if unversioned(known.id) == name}, key=age)
        if offered:
            message = f"the component needs version {version or 'none'}, the host has {' and '.join(offered)}"
            self._findings.error(MISMATCH, wanted.id, message, f"build against {offered[-1]}")
        elif any(unversioned(point.id) == name for point in self._extension_points):
            message = "it is an extension point, which plugins export; the host does not provide it to plugins"
            self._findings.error(REFUSED, wanted.id, message, "remove the import")
        else:
            near = self._suggestions.nearest(name, (unversioned(known.id) for known in host))
            remedy = near or "remove the import, or install a capability that provides it"
            self._findings.error(REFUSED, wanted.id, "nothing in this host provides this interface", remedy)
        return _refused(wanted, "nothing provides it")

    # Functions at the root

    def _function(self, wanted: Function) -> None:
        """Capabilities are interfaces, so nothing provides a function that stands alone."""
        unsupported = tuple(unsupported_in_function("the world", wanted))
        for finding in unsupported:
            self._findings.add(finding)
        if not unsupported:
            message = "it is imported at the root of the world, and nothing provides it"
            self._findings.error(REFUSED, f"function `{wanted.name}`", message, _ROOT_REMEDY)

    # Findings

    def _judge_blocking(self, imports: Sequence[ImportBinding]) -> None:
        if self._tier is not Tier.TRUSTED:
            return
        blocking = [
            binding.id
            for binding in imports
            if binding.disposition is Disposition.ENGINE and unversioned(binding.id) in BLOCKING
        ]
        if not blocking:
            return
        subject = " and ".join(blocking)
        message = "a guest can sleep in them, and in the trusted tier no limit wakes it up"
        if self._refuse_poll:
            remedy = (
                "write `wasi = false` into [component] and build it again (another tool chain: stub WASI, as "
                "`componentize-py --stub-wasi` does), or let the policy accept them"
            )
            self._findings.error(REFUSED, subject, f"{message}; {self._refuse_poll}", remedy)
        else:
            remedy = "build with `wasi = false` in [component] if it needs no WASI; else trust only who will not hang"
            self._findings.warn(REFUSED, subject, message, remedy)

    def _mismatch(self, subject: str, mismatch: Mismatch, known: Interface) -> None:
        remedy = ""
        if mismatch.unknown is not None:
            remedy = self._suggestions.nearest(mismatch.unknown, known.by_name)
        self._findings.error(MISMATCH, subject, str(mismatch), remedy or f"build against the WIT of {known.id}")


_NOT_ASKED = "the manifest does not ask for it"
_ROOT_REMEDY = "put it into an interface that a capability of this host provides"


def _refused(wanted: Interface, reason: str) -> ImportBinding:
    return ImportBinding(wanted.id, Disposition.REFUSED, None, None, wanted, reason)


def _differences(known: Interface, wanted: Interface) -> tuple[Mismatch, ...]:
    return tuple(islice(compare_interfaces(known, wanted, Side.IMPORT), MAX_FINDINGS_PER_INTERFACE))


def _has_resources(interface: Interface) -> bool:
    return any(isinstance(found, ResourceType) for _, found in interface.types)
