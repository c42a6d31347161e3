"""The tier of an artifact: three forms of trust, never a promotion."""

from __future__ import annotations

import tomllib
from types import MappingProxyType
from typing import Any

import pytest

from cloche.errors import TrustError
from cloche.grants.policy import PluginPolicy, Policy, Publisher
from cloche.grants.policy_file import parse_policy
from cloche.grants.trust import TrustForm, decide_tier
from cloche.model import Digest, Tier, Trusted

DIGEST = Digest("ab" * 32)
PIN = MappingProxyType({DIGEST: Tier.TRUSTED})
UNPIN = MappingProxyType({DIGEST: Tier.UNTRUSTED})
ACME = MappingProxyType({"acme": Publisher("acme", (), ("acme/*",), Tier.TRUSTED)})
ELSEWHERE = MappingProxyType({"acme": Publisher("acme", (), ("acme-labs/*", "acme/xy"), Tier.TRUSTED)})
EXACT = MappingProxyType({"acme": Publisher("acme", (), ("acme/x",), Tier.TRUSTED)})
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
    ({"publishers": ACME}, None, None, TrustForm.NONE),
    ({"publishers": ACME}, None, "other", TrustForm.NONE),
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
    with pytest.raises(TrustError) as caught:
        decide_tier(Policy(digests={Digest("0" * 64): Tier.TRUSTED}), DIGEST)
    said, _, lines = str(caught.value).partition("\n")
    assert "under [trust.digests]" in said
    assert tomllib.loads(lines) == {f"sha256:{DIGEST}": "trusted"}


def test_forbidden_ways_are_not_offered() -> None:
    """What the policy forbids is no remedy."""
    with pytest.raises(TrustError) as caught:
        decide_tier(Policy(allow_in_code=False, allow_digests=False), DIGEST)
    assert "trust=Trusted()" not in str(caught.value)
    assert "[trust.digests]" not in str(caught.value)
