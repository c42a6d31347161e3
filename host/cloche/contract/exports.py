"""Whether a component exports what its manifest declares, at a version and with types that the host can call. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice

from cloche.contract.compare import Mismatch, Side, compare_interfaces
from cloche.contract.providers import same_line, unversioned, version_of
from cloche.contract.report import MAX_FINDINGS_PER_INTERFACE, ExportBinding, Findings
from cloche.contract.suggest import Suggestions
from cloche.contract.unsupported import unsupported_in, unsupported_in_function
from cloche.contract.versions import age, is_newer, parse_version, revision
from cloche.manifest.versions import Requirement
from cloche.model import Instances
from cloche.wit.types import Interface, World

LIFECYCLE = "cloche:plugin/lifecycle"
_MISMATCH = "contract.mismatch"
_COMPONENTIZE_PY_INIT = ("app-name", "symbols", "stub-wasi")


def is_internal(interface: Interface) -> bool:
    """Whether `interface` is componentize-py's own: it runs `init` while it builds and leaves it exported."""
    return (
        interface.id == "exports"
        and [function.name for function in interface.functions] == ["init"]
        and tuple(param.name for param in interface.functions[0].params) == _COMPONENTIZE_PY_INIT
    )


class ExportCheck:
    """Binds the exports of one component and adds what does not fit to `findings`. Used once."""

    def __init__(
        self,
        *,
        extension_points: Sequence[Interface],
        declared: Mapping[str, Requirement],
        instances: Instances,
        suggestions: Suggestions,
        findings: Findings,
    ) -> None:
        self._extension_points = extension_points
        self._declared = declared
        self._instances = instances
        self._suggestions = suggestions
        self._findings = findings

    def bind(self, world: World) -> tuple[ExportBinding, ...]:
        """One binding for each exported interface, whether the host knows it or not."""
        bindings = tuple(self._interface(interface) for interface in world.exports if not is_internal(interface))
        for function in world.export_functions:
            for finding in unsupported_in_function("the world", function):
                self._findings.add(finding)
        for name, requirement in self._declared.items():
            self._declaration(name, requirement, world.exports)
        if not world.export_functions and not any(item.interface.functions for item in bindings):
            self._findings.warn(_MISMATCH, "the world", "the component exports no function, so nothing can be called")
        return bindings

    def _interface(self, interface: Interface) -> ExportBinding:
        name = unversioned(interface.id)
        is_declared = name in self._declared
        known = same_line(self._extension_points, interface.id)
        unsupported = tuple(islice(unsupported_in(interface), MAX_FINDINGS_PER_INTERFACE))
        for finding in unsupported:
            self._findings.add(finding)
        mismatches: tuple[Mismatch, ...] = ()
        if known is not None and not unsupported:
            mismatches = self._compare(known, interface)
            for mismatch in mismatches:
                self._misfit(interface.id, str(mismatch), f"build against the WIT of {known.id}", is_declared)
        elif known is None and not is_declared and (versions := self._known_versions(name)):
            self._misfit(interface.id, _other_versions(interface.id, versions), f"build against {versions[-1]}", False)
        if name == LIFECYCLE:
            self._lifecycle(interface)
        fits = known is not None and not unsupported and not mismatches
        return ExportBinding(
            id=interface.id,
            revision=revision(version_of(interface.id)),
            interface=interface,
            extension_point=known.id if fits and known is not None else None,
            is_declared=is_declared,
        )

    def _compare(self, known: Interface, interface: Interface) -> tuple[Mismatch, ...]:
        """The host calls what its own version declares; what was added between two versions is nobody's fault."""
        is_older = is_newer(version_of(known.id), version_of(interface.id))
        found = compare_interfaces(known, interface, Side.EXPORT, may_lack=is_older, may_add=not is_older)
        return tuple(islice(found, MAX_FINDINGS_PER_INTERFACE))

    def _misfit(self, subject: str, message: str, remedy: str, is_declared: bool) -> None:
        # The host calls the lifecycle by itself, so a wrong one is never only "callable dynamically".
        if is_declared or unversioned(subject) == LIFECYCLE:
            self._findings.error(_MISMATCH, subject, message, remedy)
        else:
            self._findings.warn(_MISMATCH, subject, f"{message}; it can only be called dynamically", remedy)

    def _declaration(self, name: str, requirement: Requirement, exports: Sequence[Interface]) -> None:
        found = [interface.id for interface in exports if unversioned(interface.id) == name]
        if not found:
            exported = [unversioned(interface.id) for interface in exports]
            near = self._suggestions.nearest(name, exported)
            listed = ", ".join(exported[:8]) + (", …" if len(exported) > 8 else "")
            message = "the manifest declares this extension point, but the component does not export it"
            remedy = near or (f"it exports {listed}" if exported else "it exports no interface")
            self._findings.error(_MISMATCH, name, message, remedy)
            return
        fitting = [identity for identity in found if _admits(requirement, version_of(identity))]
        if not fitting:
            has = " and ".join(version_of(identity) or "no version" for identity in found)
            message = f"the manifest declares version {requirement}, the component exports {has}"
            self._findings.error(_MISMATCH, name, message, "mend [extension-points], or build against that version")
            return
        versions = self._known_versions(name)
        if versions and all(same_line(self._extension_points, identity) is None for identity in fitting):
            self._findings.error(
                _MISMATCH, name, _other_versions(fitting[-1], versions), f"build against {versions[-1]}"
            )

    def _known_versions(self, name: str) -> list[str]:
        return sorted((point.id for point in self._extension_points if unversioned(point.id) == name), key=age)

    def _lifecycle(self, interface: Interface) -> None:
        if self._instances is Instances.SINGLE or not {"start", "stop"} & interface.by_name.keys():
            return
        self._findings.warn(
            _MISMATCH,
            interface.id,
            f'with instances = "{self._instances.value}" only `initialize` is called, never start, stop or health',
            'if it needs start or stop, set instances = "single"',
        )


def _admits(requirement: Requirement, version: str | None) -> bool:
    """Whether an export of this version meets the manifest's requirement; without one it meets only `*`."""
    parsed = parse_version(version)
    return requirement.is_any if parsed is None else requirement.matches(parsed)


def _other_versions(exported: str, known: Sequence[str]) -> str:
    return f"the component exports version {version_of(exported) or 'none'}, the host calls {' and '.join(known)}"
