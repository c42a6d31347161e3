"""The contract check: a component's world against what this host provides, calls and was allowed to. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from cloche.contract.exports import ExportCheck
from cloche.contract.imports import ImportCheck
from cloche.contract.providers import CapabilityGrant, Provider
from cloche.contract.report import Findings, Report
from cloche.contract.suggest import Suggestions
from cloche.manifest.versions import Requirement
from cloche.model import Instances, Tier
from cloche.wit.types import Interface, World

_NOTHING_DECLARED: Mapping[str, Requirement] = MappingProxyType({})


def check(
    world: World,
    *,
    providers: Sequence[Provider] = (),
    engine: Sequence[Interface] = (),
    grants: Sequence[CapabilityGrant] = (),
    extension_points: Sequence[Interface] = (),
    declared: Mapping[str, Requirement] = _NOTHING_DECLARED,
    instances: Instances = Instances.PER_CALL,
    tier: Tier = Tier.UNTRUSTED,
    refuse_poll: str = "",
) -> Report:
    """Decide about every import and export of `world`, and list everything that does not fit at once.

    `providers` are the host-defined interfaces, `engine` those of the engine's own WASI, and `grants` the decisions
    about both (a capability without one is denied); `extension_points` the interfaces that the host can call, in every
    version that it knows; `declared` the manifest's extension points, `ns:pkg/name` to a version requirement (empty for
    a bare component). `refuse_poll` says why guests that can sleep are refused in the trusted tier, not only warned
    about.

    Never raises for anything that a component or a manifest says: `Report.ensure_ok` does. Added in 0.1.
    """
    findings, suggestions = Findings(), Suggestions()
    imports = ImportCheck(
        providers=providers,
        engine=engine,
        grants=grants,
        extension_points=extension_points,
        tier=tier,
        refuse_poll=refuse_poll,
        suggestions=suggestions,
        findings=findings,
    )
    exports = ExportCheck(
        extension_points=extension_points,
        declared=declared,
        instances=instances,
        suggestions=suggestions,
        findings=findings,
    )
    bound = imports.bind(world)
    exported = exports.bind(world)
    return Report(
        imports=bound,
        import_functions=world.import_functions,
        exports=exported,
        export_functions=world.export_functions,
        findings=findings.all(),
    )
