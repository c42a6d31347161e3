"""From an artifact to everything that is decided about it before any code of it runs: pure steps over values.

`Candidate` is the frozen result; `load` turns it into a plugin, `inspect`, `check` and `explain` show it.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from cloche.artifact import Artifact
from cloche.binary.header import ensure_component
from cloche.binary.probe import PROBE_EXPORT, Probed, add_probe
from cloche.binary.survey import Survey, survey
from cloche.capabilities.config.grant import SCHEMA as CONFIG
from cloche.capabilities.config.grant import ConfigRequest
from cloche.catalog import Catalog
from cloche.contract.check import check
from cloche.contract.exports import is_internal
from cloche.contract.providers import CapabilityGrant, Provider
from cloche.contract.report import REQUIRES, Disposition, Finding, Report, Severity
from cloche.engine.slots import Import
from cloche.errors import ManifestError
from cloche.grants.decide import GrantSet, decide
from cloche.grants.policy import Policy, SecretRef
from cloche.grants.schema import GrantSchema
from cloche.grants.trust import TierDecision
from cloche.grants.wasi import POLL_ID
from cloche.manifest.parse import unmet_requirements
from cloche.manifest.value import Manifest
from cloche.model import Tier
from cloche.version import VERSION
from cloche.wit.store import TypeStore
from cloche.wit.types import Interface, ResourceType, World


@dataclass(frozen=True, slots=True)
class Candidate:
    """A plugin that could be loaded: its bytes, what they need and hold, its tier, what it was granted and how it fits.

    `runnable` is what is compiled: the component, with the memory probe added where that is possible and the probe sees
    every memory (`probe` names its export then).
    """

    artifact: Artifact
    survey: Survey
    world: World
    tier: TierDecision
    grants: GrantSet
    report: Report
    runnable: bytes
    probe: str | None

    def unprobed(self) -> Candidate:
        """The same with the component as it came: the probe can take it over a bound of the engine's validation."""
        return dataclasses.replace(self, runnable=self.artifact.component, probe=None)


def examine(
    artifact: Artifact,
    policy: Policy,
    tier: TierDecision,
    catalog: Catalog,
    types: TypeStore,
    lacks_gpu: Callable[[], str],
) -> Candidate:
    """Decide everything about an artifact. Blocks for a child process when its types were never read.

    With a tier that is refused the rest is decided as for a trusted plugin, so that the tier does not hide it.
    `lacks_gpu` says why no GPU can be used, with an empty text where one can; it is asked only for who requires one.

    Raises: ContractError (`component.*`, `contract.inspect`); ManifestError for grant parameters (`manifest.requires`
        where [requires] is not met either). What does not fit is in the report, not raised.
    """
    ensure_component(artifact.component)
    found = survey(artifact.component)
    world = types.component_world(artifact.component, artifact.digest)
    unmet = _unmet(artifact.manifest, lacks_gpu)
    try:
        grants = decide(artifact.manifest, policy, tier.tier, catalog.schemas, cores=os.cpu_count())
    except ManifestError:
        Report(findings=unmet).ensure_ok(artifact.manifest.id)  # written for another host, it may ask in other words
        raise
    grants = replace(grants, notes=(*grants.notes, *_unbound_secrets(grants)))
    poll = grants.decision(POLL_ID)
    report = check(
        world,
        providers=tuple(Provider(capability, interface) for capability, interface in catalog.provided),
        engine=catalog.engine,
        grants=tuple(
            CapabilityGrant(item.capability, item.granted, item.required, item.reason) for item in grants.decisions
        ),
        extension_points=catalog.extension_points,
        declared=artifact.manifest.extension_points,
        instances=grants.instances,
        tier=tier.tier if tier.refusal is None else Tier.TRUSTED,
        refuse_poll="" if poll is None or poll.granted else poll.reason,
    )
    probed = _probed(artifact.component, found)
    return Candidate(
        artifact=artifact,
        survey=found,
        world=world,
        tier=tier,
        grants=grants,
        report=replace(
            report,
            findings=(*unmet, *report.findings),
            advice=tuple(grants.missing().lines("to grant what is required,")),
        ),
        runnable=artifact.component if probed is None else probed.bytes,
        probe=None if probed is None else PROBE_EXPORT,
    )


def _probed(component: bytes, found: Survey) -> Probed | None:
    """The component with its memory probe, unless some memory would be left out: no figure is better than a low one."""
    probed = add_probe(component) if found.is_exact else None
    return probed if probed is not None and probed.memories == found.memory_count else None


def host_imports(report: Report, schemas: Mapping[str, GrantSchema]) -> tuple[Import, ...]:
    """What the linker has to define: provided and closed interfaces."""

    def answers(capability: str | None) -> Mapping[str, object]:
        schema = schemas.get(capability or "")
        return {} if schema is None else schema.without_grant

    return tuple(
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
    )


def granted_settings(grants: GrantSet) -> dict[str, str]:
    """What the plugin may read of its settings, by whichever way: the keys that `wasi:config` grants, with values."""
    params = grants.granted(CONFIG.id)
    keys = params.keys if isinstance(params, ConfigRequest) else ()
    return {key: grants.config[key] for key in keys if key in grants.config}


def granted_secrets(grants: GrantSet) -> dict[str, SecretRef]:
    """The secrets that `wasi:config` grants and the policy binds: no other is read."""
    return {name: grants.secrets[name] for name in _secret_names(grants) if name in grants.secrets}


def _secret_names(grants: GrantSet) -> tuple[str, ...]:
    params = grants.granted(CONFIG.id)
    return params.secrets if isinstance(params, ConfigRequest) else ()


def _unbound_secrets(grants: GrantSet) -> Iterator[str]:
    for name in _secret_names(grants):
        if name not in grants.secrets:
            yield (
                f"{CONFIG.id} grants the secret {name!r}, and {grants.policy.file} binds none of that name: the plugin "
                f'finds nothing until there is a secrets.{name} = {{ env = "VARIABLE" }} or {{ file = "/…" }}'
            )


def provided_interfaces(report: Report) -> dict[str, str]:
    """The provider's interface id by the name that the component imports."""
    return {
        binding.id: binding.provider or binding.id
        for binding in report.imports
        if binding.disposition is Disposition.PROVIDED
    }


def exported_interfaces(world: World) -> tuple[tuple[str | None, Interface], ...]:
    """Every export by its name in the component; functions at the root stand together under None."""
    found: list[tuple[str | None, Interface]] = [
        (interface.id, interface) for interface in world.exports if not is_internal(interface)
    ]
    if world.export_functions:
        found.append((None, Interface("", world.export_functions)))
    return tuple(found)


def _unmet(manifest: Manifest, lacks_gpu: Callable[[], str]) -> tuple[Finding, ...]:
    """What this system is not, though the manifest's [requires] says that it has to be."""
    unmet = unmet_requirements(manifest, VERSION, sys.platform, platform.machine(), lacks_gpu=lacks_gpu)
    return tuple(Finding(Severity.ERROR, REQUIRES, "[requires]", text) for text in unmet)
