"""The grant decision: manifest ∩ policy, as a pure function with a reason for every yes and no.

A grant never exceeds what was asked; a denial wins over every allow; what the policy does not mention is not granted,
save the default capabilities. Limits: the policy's ceiling (the plugin's entry, else [defaults], else the built-in
default); a manifest may only ask for less.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from types import MappingProxyType

from cloche.errors import CapabilityError, UsageError
from cloche.grants.change import Paste, lines_of, paste
from cloche.grants.limits import LimitGrant, decide_limits
from cloche.grants.params import read_params
from cloche.grants.policy import COMMAND_LINE, Mount, MountMode, Policy, Rules, SecretRef
from cloche.grants.remedy import Changes, Remedies
from cloche.grants.schema import GrantSchema, Params, Verdict
from cloche.grants.wasi import FILESYSTEM_ID, FilesystemAllowance, FilesystemGrant
from cloche.manifest.explain import (
    MAX_PROBLEMS_SHOWN,
    Path,
    Problem,
    ensure_no_problems,
    key_text,
    nearest,
    wrong_value,
)
from cloche.manifest.schema import CapabilityTable
from cloche.manifest.value import CapabilityRequest, Manifest
from cloche.manifest.versions import Version, VersionError
from cloche.model import Instances, Limits, PluginId, Tier


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer for one capability.

    `asked`: the manifest names it (else it is a default). `params` are what is granted, None when nothing is.
    `interfaces` are the WIT interface ids that the grant opens, or would open. `changes` of the policy would change the
    answer; empty where none would.
    """

    capability: str
    asked: bool
    required: bool
    granted: bool
    params: Params | None
    reason: str
    changes: Changes = ()
    interfaces: tuple[str, ...] = ()

    @property
    def remedy(self) -> tuple[str, ...]:
        """The changes as lines of policy.toml."""
        return lines_of(self.changes)


@dataclass(frozen=True, slots=True)
class GrantSet:
    """Everything that one plugin may do. Added in 0.1.

    `mounts` holds the granted mounts in the granted mode; `config` the author's defaults under the operator's values;
    `secrets` references that nobody has read yet; `notes` what the operator should know though nothing is refused.
    `policy` is what all of it was decided by.
    """

    plugin: PluginId
    tier: Tier
    decisions: tuple[Decision, ...]
    limits: Limits
    limit_grants: tuple[LimitGrant, ...]
    mounts: Mapping[str, Mount]
    config: Mapping[str, str]
    secrets: Mapping[str, SecretRef]
    instances: Instances
    policy: Policy = field(repr=False)
    notes: tuple[str, ...] = ()

    def decision(self, capability: str) -> Decision | None:
        """The answer for a capability, or None when it is neither asked for nor a default."""
        return next((item for item in self.decisions if item.capability == capability), None)

    def granted(self, capability: str) -> Params | None:
        """The granted parameters, or None when the capability is not granted."""
        decision = self.decision(capability)
        return None if decision is None else decision.params

    @property
    def interfaces(self) -> frozenset[str]:
        """The WIT interface ids that the grants open."""
        return frozenset(name for item in self.decisions if item.granted for name in item.interfaces)

    def missing(self) -> Paste:
        """What to write into the policy so that everything is granted that the manifest requires and that can be."""
        refused = (item for item in self.decisions if item.required and not item.granted)
        return paste(self.policy, (change for item in refused for change in item.changes))


def decide(
    manifest: Manifest, policy: Policy, tier: Tier, schemas: Mapping[str, GrantSchema], *, cores: int | None = None
) -> GrantSet:
    """Decide every request of `manifest`. Pure: no file, clock, network or environment is touched.

    `schemas` are the installed capabilities by id (`wasi.WASI_SCHEMAS` among them). `cores` bounds a wish for
    concurrency where the policy says one call for each core.

    Raises: DocumentError (`manifest.*`, `policy.*`) when parameters break a capability's schema or a denial names no
        capability, with every problem of that file; UsageError (`usage.argument`) for the same on the command line;
        CapabilityError (`capability.invalid`) when a capability package's own code fails. Added in 0.1.
    """
    rules = policy.rules_for(manifest.id)
    _ensure_denials(manifest, policy, schemas)
    requests = _read_requests(manifest, schemas)
    allowances = _read_allowances(manifest, policy, rules, schemas)
    remedies = Remedies(manifest, policy, rules)
    decisions = [
        _decide_one(capability, manifest, rules, schemas, requests, allowances, remedies)
        for capability in (*manifest.capabilities, *(key for key in schemas if key not in manifest.capabilities))
        if capability in manifest.capabilities or schemas[capability].default
    ]
    limits, limit_grants = decide_limits(manifest, policy, rules, cores)
    return GrantSet(
        plugin=manifest.id,
        tier=tier,
        decisions=tuple(decisions),
        limits=limits,
        limit_grants=limit_grants,
        mounts=_granted_mounts(decisions, rules),
        config=MappingProxyType({**manifest.config, **rules.config}),
        secrets=rules.secrets,
        instances=manifest.instances,
        policy=policy,
        notes=_notes(manifest, policy, rules, schemas),
    )


def _ensure_denials(manifest: Manifest, policy: Policy, schemas: Mapping[str, GrantSchema]) -> None:
    """A denial that no capability answers to would deny nothing, without a word. Raises: DocumentError."""
    problems: list[Problem] = []
    for entry in policy.entries_for(manifest.id):
        for name in entry.deny:
            if name not in schemas:
                close = _owner_of(name, schemas) or nearest(name, schemas)
                hint = f"; did you mean {close}?" if close else f"; known here: {', '.join(sorted(schemas))}"
                path = ("plugins", entry.pattern, "deny")
                problems.append(Problem("value", path, f" names {name}, which is no capability of this host{hint}"))
    ensure_no_problems(policy.file, "policy", problems, plugin=manifest.id)


def _owner_of(interface: str, schemas: Mapping[str, GrantSchema]) -> str | None:
    """The capability that an interface belongs to."""
    owners = (
        key for key, schema in schemas.items() if any(interface == i.partition("@")[0] for i in schema.interfaces)
    )
    return next(owners, None)


def _read_requests(manifest: Manifest, schemas: Mapping[str, GrantSchema]) -> dict[str, Params]:
    read: dict[str, Params] = {}
    problems: list[Problem] = []
    for capability, schema in schemas.items():
        asked = manifest.capabilities.get(capability)
        if asked is None and not schema.default:
            continue
        # Parameters of another version may have another shape: the version is the answer then, not the shape.
        if asked is not None and not asked.version.matches(_version_of(schema)):
            continue
        path = ("capabilities", capability)
        found = read_params(schema.request, asked.params if asked else {}, path, CapabilityTable.model_fields)
        if isinstance(found, Params):
            read[capability] = found
        elif asked is None:
            raise CapabilityError(f"the default capability {capability} needs parameters", code="capability.invalid")
        else:
            problems += found
    ensure_no_problems(manifest.file, "manifest", problems, plugin=manifest.id)
    return read


def _version_of(schema: GrantSchema) -> Version:
    try:
        return Version.parse(schema.version)
    except VersionError as error:
        raise CapabilityError(f"{schema.id} has no semantic version", code="capability.invalid") from error


def _read_allowances(
    manifest: Manifest, policy: Policy, rules: Rules, schemas: Mapping[str, GrantSchema]
) -> dict[str, Params]:
    """The policy's side, for the capabilities that it mentions."""
    read: dict[str, Params] = {}
    problems: list[Problem] = []
    for capability, source in rules.allow.items():
        schema = schemas.get(capability)
        is_option = source.pattern == COMMAND_LINE
        if schema is None:
            if is_option:
                close = nearest(capability, schemas)
                hint = f"; did you mean {close}?" if close else ""
                raise UsageError(f"--allow {capability}: no capability of this name is installed{hint}")
            continue
        path: Path = () if is_option else ("plugins", str(source.pattern), "allow", capability)
        found: Params | list[Problem]
        if capability == FILESYSTEM_ID:
            if not source.value:
                continue
            bind = "--mount NAME=PATH" if is_option else 'mounts.NAME = { path = "/…", mode = "ro" }'
            found = [wrong_value(path, dict(source.value), f"true; bind directories with {bind}")]
        else:
            found = read_params(schema.allowance, source.value, path)
        if isinstance(found, Params):
            read[capability] = found
        elif is_option:
            raise UsageError(f"--allow {capability}: {'; '.join(problem.line().lstrip(' =:') for problem in found)}")
        else:
            problems += found
    ensure_no_problems(policy.file, "policy", problems, plugin=manifest.id)
    if rules.mounts:
        read[FILESYSTEM_ID] = FilesystemAllowance(
            ro=tuple(name for name, mount in rules.mounts.items() if mount.value.mode is MountMode.READ_ONLY),
            rw=tuple(name for name, mount in rules.mounts.items() if mount.value.mode is MountMode.READ_WRITE),
        )
    return read


def _decide_one(
    capability: str,
    manifest: Manifest,
    rules: Rules,
    schemas: Mapping[str, GrantSchema],
    requests: Mapping[str, Params],
    allowances: Mapping[str, Params],
    remedies: Remedies,
) -> Decision:
    asked = manifest.capabilities.get(capability)
    request = asked or CapabilityRequest()
    schema = schemas.get(capability)

    def answer(params: Params | None, reason: str, changes: Changes = ()) -> Decision:
        interfaces = () if schema is None else schema.interfaces
        granted = params is not None
        return Decision(capability, asked is not None, request.required, granted, params, reason, changes, interfaces)

    if schema is None:
        return answer(None, f"no capability of this name is installed{_perhaps(capability, request, schemas)}")
    if capability not in requests:
        reason = f"the manifest asks for version {request.version}, installed is {schema.version}"
        if _version_of(schema).pre:
            reason += f'; a draft matches only its whole name: version = "{schema.version}"'
        return answer(None, reason)
    asking = requests[capability]
    denied = rules.deny.get(capability)
    if denied is not None:
        undenied = _weigh(schema, asking, rules, schemas, allowances.get(capability), remedies)
        # A denial is worth lifting only where the rest then grants something.
        helps = undenied[0] is not None or undenied[2]
        changes = remedies.without_denial(capability) + undenied[2] if helps else ()
        return answer(None, f"denied by {denied.said_in('the policy')}", changes)
    return answer(*_weigh(schema, asking, rules, schemas, allowances.get(capability), remedies))


def _perhaps(capability: str, request: CapabilityRequest, schemas: Mapping[str, GrantSchema]) -> str:
    """What may be misspelt about a request that no schema checks: its name, or one of the keys that all have."""
    close = nearest(capability, schemas)
    hints = f"; did you mean {close}?" if close else ""
    for key in islice(request.params, MAX_PROBLEMS_SHOWN):  # the search costs time
        meant = nearest(key, CapabilityTable.model_fields)
        if meant is not None:
            return f"{hints}; its keys are not checked: is {key_text(key)} meant to be {meant}?"
    return hints


def _weigh(
    schema: GrantSchema,
    asking: Params,
    rules: Rules,
    schemas: Mapping[str, GrantSchema],
    allowance: Params | None,
    remedies: Remedies,
) -> tuple[Params | None, str, Changes]:
    """What is granted where nothing denies it, why, and what would grant more."""
    if allowance is None and not schema.default:
        changes, verdict = remedies.to_allow(schema, asking, intersect)
        if not changes and verdict is not None:
            return None, verdict.reason, ()
        if schema.id == FILESYSTEM_ID:
            return None, "the policy binds no mount for this plugin", changes
        return None, f"the policy does not allow it{_near_allow(schema.id, rules, schemas)}", changes
    verdict = intersect(schema, asking, default_allowance(schema) if allowance is None else allowance)
    changes = remedies.for_more(schema, asking, verdict, intersect)
    if verdict.granted is None:
        return None, verdict.reason, changes
    if allowance is None:
        return verdict.granted, _joined("a default grant", verdict.reason), changes
    source = rules.allow.get(schema.id)
    allowed_by = "mounts of the policy" if source is None else source.said_in("the policy")
    return verdict.granted, _joined(f"allowed by {allowed_by}", verdict.reason), changes


def intersect(schema: GrantSchema, request: Params, allowance: Params) -> Verdict:
    """What both sides agree on, by the capability's own rule.

    Raises: CapabilityError (`capability.invalid`) when that rule fails or answers with something else.
    """
    try:
        verdict = schema.intersect(request, allowance)
    except Exception as error:
        raise CapabilityError(f"the grant schema of {schema.id} failed", code="capability.invalid") from error
    if not isinstance(verdict, Verdict) or not isinstance(verdict.granted, Params | None):
        raise CapabilityError(f"the grant schema of {schema.id} gave no verdict", code="capability.invalid")
    return verdict


def default_allowance(schema: GrantSchema) -> Params:
    """What `true` allows. Raises: CapabilityError (`capability.invalid`) when the schema has no default."""
    found = read_params(schema.allowance, {}, ())
    if isinstance(found, Params):
        return found
    raise CapabilityError(f"the grant schema of {schema.id} has no default allowance", code="capability.invalid")


def _joined(rule: str, detail: str) -> str:
    return f"{rule}: {detail}" if detail else rule


def _near_allow(capability: str, rules: Rules, schemas: Mapping[str, GrantSchema]) -> str:
    close = nearest(capability, [key for key in rules.allow if key not in schemas])
    return f"; it allows {close}, which no capability is called" if close else ""


def _granted_mounts(decisions: list[Decision], rules: Rules) -> Mapping[str, Mount]:
    params = next((item.params for item in decisions if item.capability == FILESYSTEM_ID), None)
    if not isinstance(params, FilesystemGrant):
        return MappingProxyType({})
    modes = dict.fromkeys(params.read, MountMode.READ_ONLY) | dict.fromkeys(params.write, MountMode.READ_WRITE)
    return MappingProxyType({name: Mount(rules.mounts[name].value.path, mode) for name, mode in modes.items()})


def _notes(manifest: Manifest, policy: Policy, rules: Rules, schemas: Mapping[str, GrantSchema]) -> tuple[str, ...]:
    notes = list(manifest.migrated)
    for key, source in rules.allow.items():
        # A wider entry allows for many plugins; only the plugin's own entry was meant for this one.
        if source.pattern not in (manifest.id, COMMAND_LINE):
            continue
        if key in manifest.capabilities or (key in schemas and schemas[key].default):
            continue
        close = nearest(key, manifest.capabilities)
        meant = f"; it asks for {close}" if close else ""
        who = COMMAND_LINE if source.pattern == COMMAND_LINE else policy.file
        notes.append(f"{who} allows {key}, which the manifest does not ask for{meant}")
    return tuple(notes)
