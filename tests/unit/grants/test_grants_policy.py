"""policy.toml: what is read, what is refused, how entries are layered, and that no secret ever shows."""

from __future__ import annotations

import base64
import contextlib
import sys
import traceback
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.errors import LimitError, ManifestError, UsageError
from cloche.grants import policy_file
from cloche.grants.layer import layer_policy
from cloche.grants.policy import COMMAND_LINE, Mount, MountMode, Policy, SecretRef, SecretSource
from cloche.grants.policy_file import parse_policy
from cloche.manifest.explain import DocumentError
from cloche.model import Digest, Tier

HEAD = "format-version = 1\n"
DIGEST = "0123456789abcdef" * 4
KEY = "ed25519:" + base64.b64encode(bytes(range(32))).decode()
OTHER_KEY = "ed25519:" + base64.b64encode(bytes(32)).decode()

FULL = f"""
format-version = 1
[defaults]
tier = "untrusted"
require-lockdown = "landlock"
limits = {{ fuel = "10G", memory = "256MiB", deadline = "30s" }}
[trust]
allow-in-code = false
allow-digests = true
[trust.digests]
"sha256:{DIGEST}" = "trusted"
[publishers.acme]
keys = ["{KEY}"]
namespaces = ["acme/*"]
tier = "trusted"
[plugins."acme/thumbnailer"]
allow."cloche:accel/tensor" = {{ devices = ["0"], gpu-memory = "256MiB" }}
allow."wasi:keyvalue" = true
deny = ["wasi:clocks"]
mounts.input = {{ path = "/srv/in", mode = "ro" }}
limits = {{ memory = "128MiB" }}
config = {{ quality = "80" }}
secrets = {{ token = {{ env = "ACME_TOKEN" }}, cert = {{ file = "/run/cert" }}, pin = {{ value = "hunter2" }} }}
tier = "untrusted"
"""


def parse(text: str) -> Policy:
    return parse_policy(text.encode())


def failure(text: str) -> DocumentError:
    with pytest.raises(DocumentError) as caught:
        parse(text)
    return caught.value


def test_a_full_policy_is_read_whole() -> None:
    """Every key of the format arrives in the value."""
    policy = parse(FULL)
    assert (policy.tier, policy.lockdown, policy.allow_in_code, policy.allow_digests) == (
        Tier.UNTRUSTED,
        frozenset({"landlock"}),
        False,
        True,
    )
    assert policy.limits == {"fuel": 10**10, "memory_bytes": 256 << 20, "deadline_ms": 30_000}
    assert policy.digests == {DIGEST: Tier.TRUSTED}
    acme = policy.publishers["acme"]
    assert (acme.keys, acme.namespaces, acme.tier) == ((KEY,), ("acme/*",), Tier.TRUSTED)
    plugin = policy.plugins["acme/thumbnailer"]
    assert plugin.allow == {
        "cloche:accel/tensor": {"devices": ("0",), "gpu-memory": "256MiB"},
        "wasi:keyvalue": {},
    }
    assert (plugin.deny, plugin.tier) == (("wasi:clocks",), Tier.UNTRUSTED)
    assert plugin.mounts == {"input": Mount("/srv/in", MountMode.READ_ONLY)}
    assert (plugin.limits, plugin.config) == ({"memory_bytes": 128 << 20}, {"quality": "80"})
    assert plugin.secrets == {
        "token": SecretRef(SecretSource.ENV, "ACME_TOKEN"),
        "cert": SecretRef(SecretSource.FILE, "/run/cert"),
        "pin": SecretRef(SecretSource.VALUE, "hunter2"),
    }


def test_the_empty_policy_allows_nothing_and_trusts_only_in_code() -> None:
    """Deny by default; an embedder's own word is the one thing that holds."""
    policy = Policy.empty()
    assert (policy.allow_in_code, policy.tier, policy.plugins, policy.digests) == (True, Tier.UNTRUSTED, {}, {})
    assert policy.lockdown == {"landlock", "seccomp"}
    assert parse(HEAD) == policy


BAD = [
    ("", "policy.version", "format-version"),
    ("format-version = 0\n", "policy.version", "format-version"),
    ("format-version = 2\n", "policy.version", "format-version"),
    ("format-version = true\n", "policy.version", "format-version"),
    ("format-version = ", "policy.syntax", "not valid TOML"),
    (HEAD + "a." * 9999 + "a = 1", "policy.syntax", "dotted"),
    (HEAD + "#" * 300_000, "policy.syntax", "at most"),
    (HEAD + "[default]\n", "policy.unknown-key", "did you mean defaults?"),
    (HEAD + "[defaults]\nlockdown = 1\n", "policy.unknown-key", "did you mean require-lockdown?"),
    (HEAD + "[trust]\nallow_in_code = true\n", "policy.unknown-key", "did you mean allow-in-code?"),
    (
        HEAD + '[plugins."a/b"]\nalow = {}\n',
        "policy.unknown-key",
        'plugins."a/b".alow: unknown key; did you mean allow?',
    ),
    (HEAD + '[plugins."a/b".mounts.x]\npth = "/x"\n', "policy.value", "mounts.x.path is missing"),
    (HEAD + '[defaults]\ntier = "trusted"\n', "policy.value", "defaults.tier"),
    (HEAD + '[defaults]\ntier = "builtin"\n', "policy.value", "defaults.tier"),
    (HEAD + '[defaults]\nrequire-lockdown = "seccomp+landlock"\n', "policy.value", "defaults.require-lockdown"),
    (HEAD + '[trust]\nallow-digests = "yes"\n', "policy.value", "true or false"),
    (HEAD + "[trust]\nallow-digests = 1\n", "policy.value", "true or false"),
    (HEAD + f'[trust.digests]\n"{DIGEST}" = "trusted"\n', "policy.value", "sha256:"),
    (HEAD + f'[trust.digests]\n"sha256:{DIGEST.upper()}" = "trusted"\n', "policy.value", "lower-case"),
    (HEAD + f'[trust.digests]\n"sha256:{DIGEST}" = true\n', "policy.value", "'trusted' or 'untrusted'"),
    (HEAD + "[publishers.Acme]\nkeys = []\n", "policy.value", "publishers.Acme"),
    (HEAD + "[publishers.acme]\nkeys = []\n", "policy.value", "publishers.acme.keys"),
    (HEAD + '[publishers.acme]\nkeys = ["rsa:AAAA"]\n', "policy.value", "publishers.acme.keys[0]"),
    (HEAD + '[publishers.acme]\nkeys = ["ed25519:AAAA"]\n', "policy.value", "base64 of 32 bytes"),
    (HEAD + f'[publishers.acme]\nkeys = ["{KEY[:-2]}9="]\n', "policy.value", "base64 of 32 bytes"),
    (HEAD + f'[publishers.acme]\nkeys = ["{KEY}"]\nnamespaces = ["*"]\n', "policy.value", "nobody owns"),
    (HEAD + f'[publishers.acme]\nkeys = ["{KEY}"]\nnamespaces = ["local/*"]\n', "policy.value", "nobody owns"),
    (HEAD + '[plugins."acme/*/x"]\n', "policy.value", "plugin id"),
    (HEAD + '[plugins."ac*"]\n', "policy.value", "plugin id"),
    (HEAD + '[plugins."Acme/x"]\n', "policy.value", "plugin id"),
    (HEAD + '[plugins."\u0430cme/*"]\n', "policy.value", '"\\u0430cme/*"'),
    (HEAD + '[plugins."a/b"]\nallow."wasi:keyvalue" = false\n', "policy.value", "put its id into deny"),
    (HEAD + '[plugins."a/b"]\nallow."wasi:keyvalue" = 1\n', "policy.value", "true or a table"),
    (HEAD + '[plugins."a/b"]\nallow."wasi:keyvalue@1.0.0" = true\n', "policy.value", "without version"),
    (HEAD + '[plugins."a/b"]\nallow = ["wasi:keyvalue"]\n', "policy.value", "a table"),
    (HEAD + '[plugins."a/b"]\ndeny = "wasi:clocks"\n', "policy.value", "an array"),
    (HEAD + '[plugins."a/b"]\ndeny = ["wasi"]\n', "policy.value", "deny[0]"),
    (HEAD + '[plugins."a/b"]\nmounts.x = { path = "srv" }\n', "policy.value", "absolute"),
    (HEAD + '[plugins."a/b"]\nmounts.x = { path = "/srv/../etc" }\n', "policy.value", "without '..'"),
    (HEAD + '[plugins."a/b"]\nmounts.x = { path = "/srv", mode = "wr" }\n', "policy.value", "'ro' or 'rw'"),
    (HEAD + '[plugins."a/b"]\nmounts."../x" = { path = "/srv" }\n', "policy.value", "kebab"),
    (HEAD + '[plugins."a/b"]\nlimits.fuel = nan\n', "policy.value", "limits.fuel"),
    (HEAD + '[plugins."a/b"]\nlimits.fuel = true\n', "policy.value", "limits.fuel"),
    (HEAD + '[plugins."a/b"]\nlimits.fuel = -1\n', "policy.value", "limits.fuel"),
    (HEAD + '[plugins."a/b"]\nlimits.fuel = 0\n', "policy.value", "limits.fuel"),
    (HEAD + '[plugins."a/b"]\nlimits.fuel = 18446744073709551616\n', "policy.value", "limits.fuel"),
    (HEAD + '[defaults]\nlimits = { memory = "1" }\n', "policy.value", "defaults.limits.memory"),
    (HEAD + '[plugins."a/b"]\nsecrets.t = { env = "1X" }\n', "policy.value", "secrets.t.env"),
    (HEAD + '[plugins."a/b"]\nsecrets.t = {}\n', "policy.value", "exactly one"),
    (HEAD + '[plugins."a/b"]\nsecrets.t = { env = "X", file = "/x" }\n', "policy.value", "exactly one"),
    (HEAD + '[plugins."a/b"]\nconfig.t = "1"\nsecrets.t = { env = "X" }\n', "policy.value", "config does not have"),
    (HEAD + '[plugins."a/b"]\nallow."x:y" = { n = nan }\n', "policy.value", 'allow."x:y".n'),
]


@pytest.mark.parametrize(("text", "code", "words"), BAD, ids=range(len(BAD)))
def test_wrong_policies_are_refused_in_words(text: str, code: str, words: str) -> None:
    """Each wrong policy has its code and a message with the file and what was expected."""
    error = failure(text)
    assert error.code == code
    assert str(error).startswith("policy.toml: ")
    assert words in str(error)


@pytest.mark.parametrize(
    ("first", "second", "refused"),
    [
        (f'keys = ["{KEY}"]', f'keys = ["{KEY}"]', True),
        (f'keys = ["{KEY}"]\nnamespaces = ["acme/*"]', f'keys = ["{OTHER_KEY}"]\nnamespaces = ["acme/*"]', True),
        (f'keys = ["{KEY}"]\nnamespaces = ["acme/*"]', f'keys = ["{OTHER_KEY}"]\nnamespaces = ["acme/x"]', True),
        (f'keys = ["{KEY}"]\nnamespaces = ["acme/x"]', f'keys = ["{OTHER_KEY}"]\nnamespaces = ["acme/x"]', True),
        (f'keys = ["{KEY}"]\nnamespaces = ["acme/x"]', f'keys = ["{OTHER_KEY}"]\nnamespaces = ["acme/y"]', False),
        (f'keys = ["{KEY}", "{KEY}"]', f'keys = ["{OTHER_KEY}"]\nnamespaces = ["b/*", "b/x"]', False),
    ],
)
def test_a_name_belongs_to_one_publisher(first: str, second: str, refused: bool) -> None:
    """Two publishers with one key, or with a plugin id in common, are an error."""
    text = f"{HEAD}[publishers.one]\n{first}\n[publishers.two]\n{second}\n"
    if refused:
        assert "publishers.two" in str(failure(text))
    else:
        assert list(parse(text).publishers) == ["one", "two"]


def test_many_namespaces_cost_work_in_proportion() -> None:
    """Twice as many publishers and namespaces take about twice as many steps, not four times."""

    def steps(publishers: int) -> int:
        text = HEAD + "".join(
            f'[publishers.p{number}]\nkeys = ["ed25519:{base64.b64encode(number.to_bytes(32, "big")).decode()}"]\n'
            f"namespaces = [{', '.join(f'{chr(34)}a{number}-{index}/x{chr(34)}' for index in range(20))}]\n"
            for number in range(publishers)
        )
        count = 0

        def counted(frame: FrameType, event: str, argument: object) -> Any:
            nonlocal count
            if frame.f_code.co_filename != policy_file.__file__:
                return None
            count += event == "line"
            return counted

        before = sys.gettrace()
        sys.settrace(counted)
        try:
            parse(text)
        finally:
            sys.settrace(before)
        return count

    assert steps(100) < 3 * steps(50)


@pytest.mark.parametrize(
    "secret",
    [
        'secrets = { t = "hunter2" }',
        'secrets = "hunter2"',
        'secrets.t = { env = "hunter2 " }',
        'secrets.t = { file = "hunter2" }',
        'secrets.t = { value = ["hunter2"] }',
        'secrets.t = { valeu = "hunter2" }',
        'secrets.t = { value = "hunter2", env = "X" }',
        'secrets.t = { value = "hunter2\\u0000" }',
        'secret.t = "hunter2\\u0000"',
        'secrts.t = { value = "hunter2\\u0007" }',
        'token = { value = "hunter2\\u0007" }',
        'mounts.token = { value = "hunter2\\u0007" }',
        'config.token = { value = "hunter2\\u0007" }',
        'allow."a:b" = { token = "hunter2\\u0007" }',
        '[tokens]\nt = "hunter2\\u0007"',
    ],
)
def test_no_message_shows_a_secret(secret: str) -> None:
    """Neither the error, nor its JSON, nor its traceback holds what may be a secret."""
    error = failure(f'{HEAD}[plugins."a/b"]\n{secret}\n')
    shown = "".join(traceback.format_exception(error)) + repr(error) + repr(error.to_json())
    assert "hunter2" not in shown


def test_no_repr_shows_a_secret() -> None:
    """A policy can be logged."""
    text = repr(parse(FULL))
    assert "hunter2" not in text
    assert "ACME_TOKEN" in text


LAYERED = (
    HEAD
    + """
[defaults]
limits = { fuel = 1000, memory = "64MiB", handles = 5 }
[plugins."*"]
allow."wasi:keyvalue" = { a = 1 }
allow."wasi:logging" = true
deny = ["wasi:clocks"]
limits = { memory = "32MiB" }
config = { a = "all", b = "all" }
mounts.m = { path = "/all", mode = "rw" }
[plugins."acme/*"]
allow."wasi:keyvalue" = { a = 2 }
deny = ["wasi:random"]
limits = { handles = 6 }
config = { b = "acme" }
secrets.s = { env = "ACME" }
tier = "untrusted"
[plugins."acme/x"]
allow."wasi:keyvalue" = { a = 3 }
limits = { fuel = 2000 }
config = { c = "x" }
mounts.m = { path = "/x" }
secrets.s = { env = "X" }
tier = "trusted"
"""
)


def test_narrow_entries_win_over_wide_ones() -> None:
    """`*`, then the publisher, then the plugin: the same key is replaced, denials add up, the lowest tier stays."""
    rules = parse(LAYERED).rules_for("acme/x")
    assert (rules.allow["wasi:keyvalue"].value, rules.allow["wasi:keyvalue"].pattern) == ({"a": 3}, "acme/x")
    assert rules.allow["wasi:logging"].pattern == "*"
    assert {key: source.pattern for key, source in rules.deny.items()} == {"wasi:clocks": "*", "wasi:random": "acme/*"}
    assert {key: (source.value, source.pattern) for key, source in rules.limits.items()} == {
        "fuel": (2000, "acme/x"),
        "memory_bytes": (32 << 20, "*"),
        "handles": (6, "acme/*"),
    }
    assert rules.config == {"a": "all", "b": "acme", "c": "x"}
    assert rules.mounts["m"].value == Mount("/x", MountMode.READ_ONLY)
    assert rules.secrets["s"].text == "X"
    assert rules.tier is not None
    assert (rules.tier.value, rules.tier.pattern) == (Tier.UNTRUSTED, "acme/*")


def test_patterns_do_not_reach_further_than_they_say() -> None:
    """`acme/*` is not for `acme-labs/x`, and an id is not a prefix."""
    rules = parse(LAYERED).rules_for("acme-labs/x")
    assert rules.allow["wasi:keyvalue"].pattern == "*"
    assert parse(LAYERED).rules_for("acme/xy").allow["wasi:keyvalue"].pattern == "acme/*"


def test_the_command_line_adds_to_one_plugin() -> None:
    """Options win over the file for this plugin, and leave the policy and the others alone."""
    policy = parse(LAYERED)
    layered = layer_policy(
        policy,
        "acme/y",
        allow=["wasi:keyvalue", 'wasi:filesystem={ read = ["in"] }', 'a:b={"n": 1}', "c:d=true"],
        config=["b=1=2", "d="],
        mounts={"in": Mount("/in")},
        limits={"fuel": 7},
    )
    rules = layered.rules_for("acme/y")
    assert {key: source.value for key, source in rules.allow.items() if source.pattern == COMMAND_LINE} == {
        "wasi:keyvalue": {},
        "wasi:filesystem": {"read": ("in",)},
        "a:b": {"n": 1},
        "c:d": {},
    }
    assert (rules.config["b"], rules.config["d"]) == ("1=2", "")
    assert (rules.mounts["in"].value, rules.wishes, rules.limits["fuel"].value) == (Mount("/in"), {"fuel": 7}, 1000)
    assert "wasi:clocks" in rules.deny
    assert policy == parse(LAYERED)
    assert layered.rules_for("acme/x") == policy.rules_for("acme/x")


ODD_ALLOW = [
    "",
    "wasi",
    "wasi:x@1.0.0",
    "a:b=",
    "a:b=1",
    "a:b=[1]",
    "a:b={",
    "a:b={}\nc = 1",
    'a:b={"n": NaN}',
    "a:b={n = inf}",
    "a:b={d = 1979-05-27}",
    "a:b=" + "{a=" * 30 + "1" + "}" * 30,
    "a:b=" + "[" * 9999,
    "a:b={x=" + "9" * 9000 + "}",
]


@pytest.mark.parametrize("text", ODD_ALLOW, ids=range(len(ODD_ALLOW)))
def test_odd_allow_options_are_usage_errors(text: str) -> None:
    """A --allow that cannot be read names itself."""
    with pytest.raises(UsageError, match="--allow"):
        layer_policy(Policy.empty(), "a/b", allow=[text])


@pytest.mark.parametrize("text", ["", "x", "=1", "a b=1"])
def test_odd_config_options_are_usage_errors(text: str) -> None:
    """A --config without key or value names itself."""
    with pytest.raises(UsageError, match="--config"):
        layer_policy(Policy.empty(), "a/b", config=[text])


@pytest.mark.parametrize(
    ("plugin", "limits", "words"),
    [
        ("a/b", {"fuel": -1}, "must be an integer"),
        ("a/b", {"fuel": 1001}, "--fuel 1_001 is more than the 1K that [defaults] of policy.toml allows"),
        ("a/b", {"memory_bytes": 64 << 20}, 'the 32MiB that [plugins."*"] of policy.toml allows'),
        ("acme/x", {"fuel": 2001}, 'the 2K that [plugins."acme/x"] of policy.toml allows'),
    ],
)
def test_limits_from_the_command_line_are_checked(plugin: str, limits: dict[str, int], words: str) -> None:
    """A number out of range, or above a ceiling that the policy sets, is refused and not cut."""
    with pytest.raises(LimitError) as caught:
        layer_policy(parse(LAYERED), plugin, limits=limits)
    assert (caught.value.code, words in str(caught.value)) == ("limit.range", True), str(caught.value)
    layer_policy(parse(LAYERED), plugin, limits={"fuel": 1000, "memory_bytes": 32 << 20, "handles": 1})


@given(st.binary(max_size=200))
def test_any_bytes_give_a_policy_or_a_policy_error(data: bytes) -> None:
    """Nothing else ever comes out of the parser."""
    for candidate in (data, HEAD.encode() + data):
        with contextlib.suppress(ManifestError):
            parse_policy(candidate)


def test_digests_are_kept_without_their_prefix() -> None:
    """A pin is found by the digest as the rest of the host writes it."""
    assert Digest(DIGEST) in parse(FULL).digests
