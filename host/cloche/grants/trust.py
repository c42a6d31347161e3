"""Which tier a plugin gets. Trust is the operator's word in one of three forms; a plugin never chooses, and a tier that
is not available is an error, never a promotion.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from cloche.errors import TrustError
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
    """The tier, the form of trust that gave it, and why, in one sentence."""

    tier: Tier
    form: TrustForm
    reason: str


def decide_tier(
    policy: Policy,
    digest: Digest,
    trust: Trusted | None = None,
    publisher: str | None = None,
    untrusted_available: bool = False,
    *,
    plugin: str | None = None,
) -> TierDecision:
    """The tier of one artifact. Pure.

    `publisher` is the policy's name of a publisher whose signature was verified over exactly these bytes, `trust` the
    embedder's own word, `plugin` the id, which a publisher must own and `[plugins."ID"] tier` may hold back. Trust
    needs a form that the policy permits and nothing in the policy that says `untrusted` for this digest or plugin.

    Raises: TrustError `trust.refused` when the embedder vouches and the policy forbids it, and
        `trust.untrusted-unavailable` when nobody vouches and this system has no worker. Added in 0.1.
    """
    form, reason = _vouching(policy, digest, trust, publisher, plugin)
    if form is not TrustForm.NONE:
        forbidden = _forbidden(policy, digest, plugin)
        if forbidden is None:
            return TierDecision(Tier.TRUSTED, form, reason)
        if trust is not None:
            raise TrustError(f"{_named(plugin, digest)} may not be trusted: {forbidden}", plugin=plugin)
        reason = forbidden
    elif trust is not None:
        raise TrustError(
            f"{_named(plugin, digest)} was loaded with trust=Trusted(), which {policy.file} forbids "
            f"([trust] allow-in-code = false); {_ways(policy, digest)}",
            plugin=plugin,
        )
    if not untrusted_available:
        raise TrustError(
            f"{_named(plugin, digest)} would run untrusted ({reason}), and this system has no worker for that; "
            f"{_ways(policy, digest)}",
            code="trust.untrusted-unavailable",
            plugin=plugin,
        )
    return TierDecision(Tier.UNTRUSTED, TrustForm.NONE, reason)


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
    if pinned:
        return TrustForm.NONE, f"{policy.file} lists its digest, but [trust] allow-digests is false"
    if known is not None and not signed:
        return TrustForm.NONE, f"{known.name} signed it, who may not sign for this id"
    return TrustForm.NONE, "nobody vouches for it"


def _forbidden(policy: Policy, digest: Digest, plugin: str | None) -> str | None:
    if policy.digests.get(digest) is Tier.UNTRUSTED:
        return f'{policy.file} says [trust.digests] "sha256:{digest}" = "untrusted"'
    tier = policy.rules_for(plugin).tier if plugin is not None else None
    if tier is not None and tier.value is Tier.UNTRUSTED:
        return f'{policy.file} says [plugins."{tier.pattern}"] tier = "untrusted"'
    return None


def _named(plugin: str | None, digest: Digest) -> str:
    return plugin or f"sha256:{digest}"


def _ways(policy: Policy, digest: Digest) -> str:
    """What the operator can do, and last the lines for the policy, so that they can be copied."""
    ways, lines = [], ""
    if policy.allow_in_code:
        ways.append("load it with trust=Trusted() (command line: --trust)")
    if policy.allow_digests:
        # A table may stand in a file only once.
        there = f"under [trust.digests] in {policy.file}" if policy.digests else f"into {policy.file}"
        ways.append(f"write {there}:")
        heading = "" if policy.digests else "[trust.digests]\n"
        if policy == replace(Policy.empty(), file=policy.file):  # most likely there is no file yet
            heading = f"format-version = 1\n{heading}"
        lines = f'\n{heading}"sha256:{digest}" = "trusted"'
    return "to trust it, " + " or ".join(ways or [f"name its publisher in {policy.file}"]) + lines
