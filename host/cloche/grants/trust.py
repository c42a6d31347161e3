"""Which tier a plugin gets. Trust is the operator's word in one of three forms; a plugin never chooses, and a tier that
is not available is an error, never a promotion.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from cloche.errors import TrustError, UsageError
from cloche.grants.change import Change, paste
from cloche.grants.policy import Policy
from cloche.model import Digest, Tier, Trusted


class TrustForm(StrEnum):
    """Who vouched for a plugin, and how."""

    PUBLISHER = "publisher"
    DIGEST = "digest"
    CODE = "code"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class TierDecision:
    """The tier, the form of trust that gave it, and why, in one sentence.

    `refusal` is the error code where a plugin with this answer is not loaded. What would give another answer: `advice`
    in words, `changes` of the policy.
    """

    tier: Tier
    form: TrustForm
    reason: str
    refusal: str | None = None
    advice: str = ""
    changes: tuple[Change, ...] = ()

    def remedy(self, policy: Policy, purpose: str, indent: str = "") -> list[str]:
        """What would give another answer, after `purpose` ("to trust it,"), in lines; none where nothing would."""
        lead = f"{purpose} {self.advice}" if self.advice else purpose
        written = paste(policy, self.changes).lines(f"{lead} or" if self.advice else lead, indent)
        return written or ([lead] if self.advice else [])


def decide_tier(
    policy: Policy,
    digest: Digest,
    trust: Trusted | None = None,
    publisher: str | None = None,
    untrusted_available: bool = False,
    *,
    plugin: str | None = None,
) -> TierDecision:
    """The tier of one artifact that is to be loaded. Pure; parameters as of `weigh_tier`.

    Raises: TrustError `trust.refused` when the embedder vouches and the policy forbids it, or when the id belongs to a
        publisher whose signature was not verified; `trust.untrusted-unavailable` when nobody vouches and this system
        has no worker. UsageError (`usage.argument`) when `trust` is no `Trusted`. Added in 0.1.
    """
    found = weigh_tier(policy, digest, trust, publisher, untrusted_available, plugin=plugin)
    if found.refusal is None:
        return found
    named = plugin or f"sha256:{digest}"
    if found.refusal == "trust.refused":
        what = f"{named} may not be trusted: {found.reason}"
    else:
        what = f"{named} would run untrusted ({found.reason}), and this system has no worker for that"
    message = "; ".join([what, "\n".join(found.remedy(policy, "to trust it,"))])
    raise TrustError(message, code=found.refusal, plugin=plugin)


def weigh_tier(
    policy: Policy,
    digest: Digest,
    trust: Trusted | None = None,
    publisher: str | None = None,
    untrusted_available: bool = False,
    *,
    plugin: str | None = None,
) -> TierDecision:
    """The tier of one artifact, also where it is refused. Pure.

    `publisher` is the policy's name of a publisher whose signature was verified over exactly these bytes, `trust` the
    embedder's own word, `plugin` the id. An id that the policy gives to a publisher is nobody else's: grants, mounts
    and secrets go by the id, and no other form of trust says anything about the manifest that claims it. Else trust
    needs a form that the policy permits, and nothing in the policy that says `untrusted` for this digest or plugin.

    Raises: UsageError (`usage.argument`) when `trust` is no `Trusted`.
    """
    if trust is not None and not isinstance(trust, Trusted):
        raise UsageError(f"trust is a cloche.Trusted or None, not {type(trust).__name__}", plugin=plugin)
    owner = None if plugin is None else policy.owner_of(plugin)
    if owner is not None and owner.name != publisher:
        return TierDecision(
            Tier.UNTRUSTED,
            TrustForm.NONE,
            f"{policy.file} gives this id to the publisher {owner.name}, and this version verifies no signatures",
            "trust.refused",
            f"give it another id, or take this one out of the namespaces of [publishers.{owner.name}]",
        )
    form, reason = _vouching(policy, digest, trust, publisher, plugin)
    held, lifts = _held_back(policy, digest, plugin)
    if form is not TrustForm.NONE:
        if held is None:
            return TierDecision(Tier.TRUSTED, form, reason)
        reason, advice = held, ""
    else:
        lifts += _pin(policy, digest)
        can_say_so = trust is None and policy.allow_in_code
        advice = "load it with trust=Trusted() (command line: --trust)" if can_say_so else ""
        if not (advice or lifts):
            advice = f"allow a form of trust in [trust] of {policy.file}"
    refusal = "trust.refused" if trust is not None else None
    if refusal is None and not untrusted_available:
        refusal = "trust.untrusted-unavailable"
    return TierDecision(Tier.UNTRUSTED, TrustForm.NONE, reason, refusal, advice, lifts)


def _vouching(
    policy: Policy, digest: Digest, trust: Trusted | None, publisher: str | None, plugin: str | None
) -> tuple[TrustForm, str]:
    known = policy.publishers.get(publisher) if publisher is not None else None
    # A publisher's key says nothing about ids that are somebody else's.
    signed = known is not None and plugin is not None and known.owns(plugin)
    if known is not None and signed and known.tier is Tier.TRUSTED:
        return TrustForm.PUBLISHER, f"signed by {known.name}, whom {policy.file} trusts"
    pinned = policy.digests.get(digest) is Tier.TRUSTED
    if pinned and policy.allow_digests:
        return TrustForm.DIGEST, f"{policy.file} trusts sha256:{digest}"
    if trust is not None and policy.allow_in_code:
        return TrustForm.CODE, trust.reason
    if trust is not None:
        return (
            TrustForm.NONE,
            f"{policy.file} forbids to trust in code, as --trust does ([trust] allow-in-code = false)",
        )
    if pinned:
        return TrustForm.NONE, f"{policy.file} lists its digest, but [trust] allow-digests is false"
    if known is not None and not signed:
        return TrustForm.NONE, f"{known.name} signed it, who may not sign for this id"
    return TrustForm.NONE, "nobody vouches for it"


def _held_back(policy: Policy, digest: Digest, plugin: str | None) -> tuple[str | None, tuple[Change, ...]]:
    """What keeps the artifact out of the trusted tier, whoever vouches, and the changes that would no longer."""
    reason: str | None = None
    lifts: tuple[Change, ...] = ()
    for entry in policy.entries_for(plugin) if plugin is not None else ():
        if entry.tier is Tier.UNTRUSTED:
            reason = f'{policy.file} says [plugins."{entry.pattern}"] tier = "untrusted"'
            lifts += (Change(f'plugins."{entry.pattern}"', "tier", Tier.TRUSTED.value),)
    if policy.digests.get(digest) is Tier.UNTRUSTED:
        reason = f'{policy.file} says [trust.digests] "sha256:{digest}" = "untrusted"'
        lifts += (_trusting(digest),)
    return reason, lifts


def _pin(policy: Policy, digest: Digest) -> tuple[Change, ...]:
    """The pin that would trust the artifact, where pins count and it has none."""
    return () if not policy.allow_digests or digest in policy.digests else (_trusting(digest),)


def _trusting(digest: Digest) -> Change:
    return Change("trust.digests", f'"sha256:{digest}"', Tier.TRUSTED.value)
