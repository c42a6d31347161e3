"""From an artifact to everything that is decided about it before any code of it runs: pure steps over values.

`Candidate` is the frozen result; `load` turns it into a plugin, `inspect`, `check` and `explain` show it.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cloche.artifact import Artifact
from cloche.binary.header import ensure_component
from cloche.binary.probe import PROBE_EXPORT, Probed, add_probe
from cloche.binary.survey import Survey, survey
from cloche.capabilities.config.grant import SCHEMA as CONFIG
from cloche.capabilities.config.grant import ConfigRequest
from cloche.catalog import Catalog
from cloche.contract.check import check
from cloche.contract.exports import is_internal
from cloche.contract.providers import ROOT, EngineGrant, Provider
from cloche.contract.report import Disposition, Report
from cloche.engine.linker import Import
from cloche.grants.decide import GrantSet, decide
from cloche.grants.policy import Policy
from cloche.grants.schema import GrantSchema
from cloche.grants.wasi import WASI_SCHEMAS
from cloche.model import Tier
from cloche.wit.store import TypeStore
from cloche.wit.types import Interface, ResourceType, World

POLL = "wasi:io/poll"
"""In a policy's `deny` list this refuses plugins that can sleep in the host's thread, in the trusted tier (H1)."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A plugin that could be loaded: its bytes, what they need and hold, what it was granted and how it fits.

    `runnable` is what is compiled: the component, with the memory probe added where that is possible and the probe sees
    every memory (`probe` names its export then).
    """

    artifact: Artifact
    survey: Survey
    world: World
    grants: GrantSet
    report: Report
    runnable: bytes
    probe: str | None

    def unprobed(self) -> Candidate:
        """The same with the component as it came: the probe can take it over a bound of the engine's validation."""
        return dataclasses.replace(self, runnable=self.artifact.component, probe=None)


def examine(artifact: Artifact, policy: Policy, tier: Tier, catalog: Catalog, types: TypeStore) -> Candidate:
    """Decide everything about an artifact. Blocks for a child process when its types were never read.

    Raises: ContractError (`component.*`, `contract.inspect`); ManifestError for grant parameters. What does not fit is
    in the report, not raised.
    """
    ensure_component(artifact.component)
    found = survey(artifact.component)
    world = types.component_world(artifact.component, artifact.digest)
    grants = decide(artifact.manifest, policy, tier, catalog.schemas, cores=os.cpu_count())
    report = check(
        world,
        providers=tuple(_providers(catalog, grants)),
        engine=tuple(_engine_grants(grants)),
        extension_points=catalog.extension_points,
        declared=artifact.manifest.extension_points,
        instances=grants.instances,
        tier=tier,
        refuse_poll=POLL in policy.rules_for(artifact.manifest.id).deny,
    )
    probed = _probed(artifact.component, found)
    return Candidate(
        artifact=artifact,
        survey=found,
        world=world,
        grants=grants,
        report=report,
        runnable=artifact.component if probed is None else probed.bytes,
        probe=None if probed is None else PROBE_EXPORT,
    )


def _probed(component: bytes, found: Survey) -> Probed | None:
    """The component with its memory probe, unless some memory would be left out: no figure is better than a low one."""
    probed = add_probe(component) if found.is_exact else None
    return probed if probed is not None and probed.memories == found.memory_count else None


def host_imports(report: Report, schemas: Mapping[str, GrantSchema]) -> tuple[Import, ...]:
    """What the linker has to define: provided and closed interfaces, and functions at the root."""

    def answers(capability: str | None) -> Mapping[str, object]:
        schema = schemas.get(capability or "")
        return {} if schema is None else schema.without_grant

    found = [
        Import(
            name=binding.id,
            capability=binding.capability or "",
            functions=binding.interface.functions,
            resources=tuple((name, kind) for name, kind in binding.interface.types if isinstance(kind, ResourceType)),
            closed=binding.disposition is Disposition.CLOSED,
            answers=answers(binding.capability),
        )
        for binding in report.imports
        if binding.disposition in {Disposition.PROVIDED, Disposition.CLOSED}
    ]
    found += [
        Import(
            "",
            item.capability or "",
            (item.function,),
            closed=item.disposition is Disposition.CLOSED,
            answers=answers(item.capability),
        )
        for item in report.import_functions
        if item.disposition in {Disposition.PROVIDED, Disposition.CLOSED}
    ]
    return tuple(found)


def granted_settings(grants: GrantSet) -> dict[str, str]:
    """What the plugin may read of its settings, by whichever way: the keys that `wasi:config` grants, with values."""
    params = grants.granted(CONFIG.id)
    keys = params.keys if isinstance(params, ConfigRequest) else ()
    return {key: grants.config[key] for key in keys if key in grants.config}


def provided_interfaces(report: Report) -> dict[str, str]:
    """The provider's interface id by the name that the component imports; the root has an empty name."""
    found = {
        binding.id: binding.provider or binding.id
        for binding in report.imports
        if binding.disposition is Disposition.PROVIDED
    }
    return {"": ROOT, **found}


def exported_interfaces(world: World) -> tuple[tuple[str | None, Interface], ...]:
    """Every export by its name in the component; functions at the root stand together under None."""
    found: list[tuple[str | None, Interface]] = [
        (interface.id, interface) for interface in world.exports if not is_internal(interface)
    ]
    if world.export_functions:
        found.append((None, Interface("", world.export_functions)))
    return tuple(found)


def _providers(catalog: Catalog, grants: GrantSet) -> Iterator[Provider]:
    for capability, interface in catalog.provided:
        decision = grants.decision(capability)
        if decision is None:
            yield Provider(capability, interface, granted=False, reason="the manifest does not ask for it")
        else:
            yield Provider(
                capability, interface, granted=decision.granted, required=decision.required, reason=decision.reason
            )


def _engine_grants(grants: GrantSet) -> Iterator[EngineGrant]:
    for schema in WASI_SCHEMAS:
        decision = grants.decision(schema.id)
        if decision is not None:
            yield EngineGrant(schema.id, granted=decision.granted, required=decision.required, reason=decision.reason)
