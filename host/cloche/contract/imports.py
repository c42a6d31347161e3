"""What becomes of each import: provided, closed, the engine's, types only, or refused. Pure.

Denied by default: an import that nothing here provides is refused, also when it is empty. The engine would link an
empty instance without asking (H26), so "it instantiates" says nothing about grants.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice

from cloche.contract.compare import Mismatch, Side, compare_functions, compare_interfaces
from cloche.contract.providers import (
    BLOCKING,
    ENGINE_WASI_VERSION,
    ROOT,
    WASI,
    EngineGrant,
    Provider,
    WasiInterface,
    find,
    find_provider,
    find_wasi,
    unversioned,
    version_of,
)
from cloche.contract.report import MAX_FINDINGS_PER_INTERFACE, Disposition, Findings, FunctionBinding, ImportBinding
from cloche.contract.suggest import Suggestions
from cloche.contract.unsupported import unsupported_in, unsupported_in_function
from cloche.contract.versions import is_newer
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
        engine: Sequence[EngineGrant],
        extension_points: Sequence[Interface],
        tier: Tier,
        refuse_poll: str,
        suggestions: Suggestions,
        findings: Findings,
    ) -> None:
        self._providers = providers
        self._engine: Mapping[str, EngineGrant] = {grant.capability: grant for grant in engine}
        self._extension_points = extension_points
        self._tier = tier
        self._refuse_poll = refuse_poll
        self._suggestions = suggestions
        self._findings = findings

    def bind(self, world: World) -> tuple[tuple[ImportBinding, ...], tuple[FunctionBinding, ...]]:
        """One binding for each imported interface and for each function imported at the root."""
        imports = tuple(self._interface(interface) for interface in world.imports)
        functions = tuple(self._function(function) for function in world.import_functions)
        for name, found in world.import_types:
            # A type that is brought in with `use` belongs to the interface that declares it, and was judged there.
            if isinstance(found, ResourceType) and found.name.interface is None:
                self._findings.error(
                    REFUSED, f"resource `{name}`", "it is imported at the root of the world", _ROOT_REMEDY
                )
        self._judge_blocking(imports)
        return imports, functions

    # Interfaces

    def _interface(self, wanted: Interface) -> ImportBinding:
        unsupported = tuple(islice(unsupported_in(wanted), MAX_FINDINGS_PER_INTERFACE))
        for finding in unsupported:
            self._findings.add(finding)
        if unsupported:
            return _refused(wanted, "it needs something asynchronous")
        provider = find_provider(self._providers, wanted.id)
        if provider is not None:
            return self._provided(wanted, provider)
        wasi = find_wasi(wanted.id)
        if wasi is not None:
            return self._by_engine(wanted, wasi)
        if wanted.types and not wanted.functions and not _has_resources(wanted):
            return self._types_only(wanted)
        return self._unknown(wanted)

    def _provided(self, wanted: Interface, provider: Provider) -> ImportBinding:
        def bound(disposition: Disposition, reason: str) -> ImportBinding:
            return ImportBinding(
                wanted.id, disposition, provider.capability, provider.interface.id, wanted, reason or "as decided"
            )

        mismatches = _differences(provider.interface, wanted)
        for mismatch in mismatches:
            self._mismatch(wanted.id, mismatch, provider.interface)
        if mismatches:
            return bound(Disposition.REFUSED, "its types differ from the host's")
        if provider.granted:
            return bound(Disposition.PROVIDED, provider.reason)
        if provider.required:
            self._not_granted(wanted.id, provider.capability, provider.reason)
            return bound(Disposition.REFUSED, provider.reason)
        return bound(Disposition.CLOSED, provider.reason)

    def _by_engine(self, wanted: Interface, wasi: WasiInterface) -> ImportBinding:
        if is_newer(version_of(wanted.id), ENGINE_WASI_VERSION):
            self._findings.warn(
                MISMATCH,
                wanted.id,
                f"it is newer than the engine's {ENGINE_WASI_VERSION}; functions that were added since do not exist",
                f"build against WASI {ENGINE_WASI_VERSION} or older",
            )
        provider = f"{unversioned(wanted.id)}@{ENGINE_WASI_VERSION}"

        def bound(disposition: Disposition, reason: str) -> ImportBinding:
            return ImportBinding(wanted.id, disposition, wasi.capability, provider, wanted, reason)

        if wasi.capability is None:
            return bound(Disposition.ENGINE, "the engine's own; needs no grant")
        grant = self._engine.get(wasi.capability)
        reason = (grant.reason if grant is not None else "") or f"no grant for {wasi.capability}"
        if grant is not None and grant.granted:
            return bound(Disposition.ENGINE, grant.reason or f"granted as {wasi.capability}")
        if grant is not None and grant.required:
            self._not_granted(wanted.id, wasi.capability, reason)
            return bound(Disposition.REFUSED, reason)
        if wasi.is_empty_without_grant:
            return bound(Disposition.ENGINE, f"{reason}; linked over an empty context")
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
        offered = sorted({p.interface.id for p in self._providers if unversioned(p.interface.id) == name})
        if name in WASI:
            offered.append(f"{name}@{ENGINE_WASI_VERSION}")
        if offered:
            message = f"the component needs version {version or 'none'}, the host has {' and '.join(offered)}"
            self._findings.error(MISMATCH, wanted.id, message, f"build against {offered[-1]}")
        elif any(unversioned(point.id) == name for point in self._extension_points):
            message = "it is an extension point, which plugins export; the host does not provide it to plugins"
            self._findings.error(REFUSED, wanted.id, message, "remove the import")
        else:
            known = {unversioned(provider.interface.id) for provider in self._providers} | WASI.keys()
            near = self._suggestions.nearest(name, known)
            remedy = near or "remove the import, or install a capability that provides it"
            self._findings.error(REFUSED, wanted.id, "nothing in this host provides this interface", remedy)
        return _refused(wanted, "nothing provides it")

    # Functions at the root

    def _function(self, wanted: Function) -> FunctionBinding:
        def bound(disposition: Disposition, reason: str, capability: str | None = None) -> FunctionBinding:
            return FunctionBinding(wanted.name, disposition, capability, wanted, reason)

        subject = f"function `{wanted.name}`"
        unsupported = tuple(unsupported_in_function("the world", wanted))
        for finding in unsupported:
            self._findings.add(finding)
        if unsupported:
            return bound(Disposition.REFUSED, "it needs something asynchronous")
        at_root = [provider for provider in self._providers if provider.interface.id == ROOT]
        provider = next((one for one in at_root if wanted.name in one.interface.by_name), None)
        if provider is None:
            known = [name for one in at_root for name in one.interface.by_name]
            remedy = self._suggestions.nearest(wanted.name, known) or _ROOT_REMEDY
            self._findings.error(
                REFUSED, subject, "it is imported at the root of the world, and nothing provides it", remedy
            )
            return bound(Disposition.REFUSED, "nothing provides it")
        mismatches = tuple(compare_functions(provider.interface.by_name[wanted.name], wanted, Side.IMPORT))
        for mismatch in mismatches:
            self._findings.error(MISMATCH, "the world", str(mismatch), "build against the host's WIT")
        if mismatches:
            return bound(Disposition.REFUSED, "its type differs from the host's", provider.capability)
        if not provider.granted and provider.required:
            self._not_granted(subject, provider.capability, provider.reason)
            return bound(Disposition.REFUSED, provider.reason, provider.capability)
        disposition = Disposition.PROVIDED if provider.granted else Disposition.CLOSED
        return bound(disposition, provider.reason or "as decided", provider.capability)

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

    def _not_granted(self, subject: str, capability: str, reason: str) -> None:
        message = f"the manifest requires `{capability}`, which is not granted" + (f": {reason}" if reason else "")
        self._findings.error(
            REQUIRED, subject, message, f'allow."{capability}" in the policy, or `--allow {capability}`'
        )


_ROOT_REMEDY = "put it into an interface that a capability of this host provides"


def _refused(wanted: Interface, reason: str) -> ImportBinding:
    return ImportBinding(wanted.id, Disposition.REFUSED, None, None, wanted, reason)


def _differences(known: Interface, wanted: Interface) -> tuple[Mismatch, ...]:
    return tuple(islice(compare_interfaces(known, wanted, Side.IMPORT), MAX_FINDINGS_PER_INTERFACE))


def _has_resources(interface: Interface) -> bool:
    return any(isinstance(found, ResourceType) for _, found in interface.types)
