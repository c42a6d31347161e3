"""The tier of an artifact: three forms of trust, never a promotion."""

from __future__ import annotations

import json
import tomllib
from types import MappingProxyType
from typing import Any

import pytest

from cloche.errors import TrustError, UsageError
from cloche.grants.policy import PluginPolicy, Policy, Publisher
from cloche.grants.policy_file import parse_policy
from cloche.grants.trust import TierDecision, TrustForm, decide_tier, weigh_tier
from cloche.model import Digest, Tier, Trusted

DIGEST = Digest("ab" * 32)
PIN = MappingProxyType({DIGEST: Tier.TRUSTED})
UNPIN = MappingProxyType({DIGEST: Tier.UNTRUSTED})
ACME = MappingProxyType({"acme": Publisher("acme", (), ("acme/*",), Tier.TRUSTED)})
ELSEWHERE = MappingProxyType({"acme": Publisher("acme", (), ("acme-labs/*", "acme/xy"), Tier.TRUSTED)})
EXACT = MappingProxyType({"acme": Publisher("acme", (), ("acme/x",), Tier.TRUSTED)})
OTHER = MappingProxyType({"other": Publisher("other", (), ("other/*",), Tier.TRUSTED)})
STRANGER = MappingProxyType({"acme": Publisher("acme", (), ("acme/*",), Tier.UNTRUSTED)})
HELD = MappingProxyType({"acme/*": PluginPolicy("acme/*", tier=Tier.UNTRUSTED)})
FREE = MappingProxyType({"acme/x": PluginPolicy("acme/x", tier=Tier.TRUSTED)})

WORD = Trusted("reviewed")

CASES: list[tuple[dict[str, Any], Trusted | None, str | None, TrustForm | str]] = [
    ({}, None, None, TrustForm.NONE),
    ({}, WORD, None, TrustForm.CODE),
    ({"allow_in_code": False}, WORD, None, "trust.refused"),
    ({"allow_in_code": False}, None, None, TrustForm.NONE),
    ({"digests": PIN}, None, None, TrustForm.DIGEST),
    ({"digests": PIN, "allow_digests": False}, None, None, TrustForm.NONE),
    ({"digests": PIN, "allow_digests": False}, WORD, None, TrustForm.CODE),
    ({"digests": PIN, "allow_in_code": False}, WORD, None, TrustForm.DIGEST),
    ({"digests": PIN, "allow_digests": False, "allow_in_code": False}, WORD, None, "trust.refused"),
    ({"digests": UNPIN}, None, None, TrustForm.NONE),
    ({"digests": UNPIN}, WORD, None, "trust.refused"),
    ({"publishers": ACME}, None, "acme", TrustForm.PUBLISHER),
    ({"publishers": EXACT}, None, "acme", TrustForm.PUBLISHER),
    ({"publishers": ELSEWHERE}, None, "acme", TrustForm.NONE),
    ({"publishers": ACME}, None, None, "trust.refused"),
    ({"publishers": ACME}, None, "other", "trust.refused"),
    ({"publishers": ACME, "digests": PIN}, None, None, "trust.refused"),
    ({"publishers": ACME, "digests": PIN}, WORD, None, "trust.refused"),
    ({"publishers": EXACT}, WORD, None, "trust.refused"),
    ({"publishers": EXACT | OTHER}, WORD, "other", "trust.refused"),
    ({"publishers": STRANGER}, WORD, None, "trust.refused"),
    ({"publishers": ELSEWHERE}, WORD, None, TrustForm.CODE),
    ({"publishers": ELSEWHERE, "digests": PIN}, None, None, TrustForm.DIGEST),
    ({"publishers": STRANGER}, None, "acme", TrustForm.NONE),
    ({"publishers": ACME, "digests": UNPIN}, None, "acme", TrustForm.NONE),
    ({"plugins": HELD}, WORD, None, "trust.refused"),
    ({"plugins": HELD, "digests": PIN}, None, None, TrustForm.NONE),
    ({"plugins": FREE}, None, None, TrustForm.NONE),
    ({"plugins": FREE}, WORD, None, TrustForm.CODE),
]


@pytest.mark.parametrize(("policy", "trust", "publisher", "expected"), CASES, ids=range(len(CASES)))
@pytest.mark.parametrize("available", [True, False])
def test_every_combination_has_one_answer(
    policy: dict[str, Any], trust: Trusted | None, publisher: str | None, expected: TrustForm | str, available: bool
) -> None:
    """Only a form that the policy permits gives the trusted tier; without workers, the rest is an error."""
    if expected is TrustForm.NONE and not available:
        expected = "trust.untrusted-unavailable"
    if isinstance(expected, TrustForm):
        decision = decide_tier(Policy(**policy), DIGEST, trust, publisher, available, plugin="acme/x")
        assert decision.form is expected
        assert decision.tier is (Tier.UNTRUSTED if expected is TrustForm.NONE else Tier.TRUSTED)
        assert decision.reason
        return
    with pytest.raises(TrustError) as caught:
        decide_tier(Policy(**policy), DIGEST, trust, publisher, available, plugin="acme/x")
    assert (caught.value.code, caught.value.plugin) == (expected, "acme/x")


def test_the_refusal_names_the_ways_to_trust() -> None:
    """An operator sees the line to write, an embedder what to pass."""
    with pytest.raises(TrustError) as caught:
        decide_tier(Policy.empty(), DIGEST)
    said, _, lines = str(caught.value).partition("\n")
    pinned = parse_policy(lines.encode(), "policy.toml")
    assert pinned.digests == {DIGEST: Tier.TRUSTED}
    assert "trust=Trusted()" in said


def test_lines_for_a_policy_with_pins_do_not_open_their_table_again() -> None:
    """TOML allows a table once: where `[trust.digests]` stands already, only the pin is to be added."""
    pinned = f'format-version = 1\n[trust.digests]\n"sha256:{"0" * 64}" = "trusted"\n'
    with pytest.raises(TrustError) as caught:
        decide_tier(parse_policy(pinned.encode()), DIGEST)
    said, _, lines = str(caught.value).partition("\n")
    assert "merge into [trust.digests]" in said
    assert tomllib.loads(lines) == {f"sha256:{DIGEST}": "trusted"}


def test_forbidden_ways_are_not_offered() -> None:
    """What the policy forbids is no remedy."""
    with pytest.raises(TrustError) as caught:
        decide_tier(Policy(allow_in_code=False, allow_digests=False), DIGEST)
    assert "trust=Trusted()" not in str(caught.value)
    assert "[trust.digests]" not in str(caught.value)


@pytest.mark.parametrize("trust", [None, WORD])
def test_an_id_of_a_publisher_is_nobody_elses(trust: Trusted | None) -> None:
    """Pinned bytes and the embedder's word say nothing about a manifest that claims a publisher's id."""
    with pytest.raises(TrustError) as caught:
        decide_tier(Policy(publishers=ACME, digests=PIN), DIGEST, trust, untrusted_available=True, plugin="acme/vault")
    assert caught.value.code == "trust.refused"
    assert "the publisher acme" in str(caught.value)
    assert "give it another id, or take this one out of the namespaces of [publishers.acme]" in str(caught.value)


LIFTED = [
    ('[trust.digests]\n"sha256:{}" = "untrusted"\n', WORD),
    ('[plugins."*"]\ntier = "untrusted"\n[plugins."acme/*"]\ntier = "untrusted"\n', WORD),
    ('[plugins."*"]\ntier = "untrusted"\n[trust.digests]\n"sha256:{}" = "trusted"\n', None),
    ("[trust]\nallow-in-code = false\n", WORD),
    ("", None),
]


@pytest.mark.parametrize(("text", "trust"), LIFTED, ids=range(len(LIFTED)))
def test_what_is_offered_gives_the_trusted_tier(text: str, trust: Trusted | None) -> None:
    """The lines of a refusal, written over what the policy says of the same, are enough."""
    before = "format-version = 1\n" + text.format(DIGEST)
    tier = weigh_tier(parse_policy(before.encode()), DIGEST, trust, plugin="acme/x")
    assert tier.refusal is not None
    document = tomllib.loads(before)
    for change in tier.changes:
        table, way = document, tomllib.loads(f"[{change.table}]")
        while way:
            name, way = next(iter(way.items()))
            table = table.setdefault(name, {})
        table |= tomllib.loads(f"{change.key} = {json.dumps(change.value)}")
    changed = parse_policy("\n".join(f"{key} = {inline(value)}" for key, value in document.items()).encode())
    assert weigh_tier(changed, DIGEST, trust, plugin="acme/x").tier is Tier.TRUSTED


def inline(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {inline(item)}" for key, item in value.items()) + "}"
    return json.dumps(value)


class _Reasonable:
    reason = "because"


@pytest.mark.parametrize(
    "trust", [True, "yes", 1, Trusted, _Reasonable(), TierDecision(Tier.TRUSTED, TrustForm.CODE, "an older answer")]
)
def test_only_the_embedders_own_word_is_trust(trust: Any) -> None:
    """Something else that is true, or has a reason, vouches for nothing."""
    with pytest.raises(UsageError) as caught:
        decide_tier(Policy.empty(), DIGEST, trust, plugin="acme/x")
    assert caught.value.code == "usage.argument"
