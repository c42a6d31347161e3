"""What a policy says at the load of real components, and what `inspect` and `explain` show of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cloche import app
from cloche.app import Host
from cloche.errors import ClocheError
from cloche.grants.explain import to_lines
from cloche.grants.policy import Policy
from cloche.model import Tier
from cloche_accel.devices import Device, Devices
from support.binary_wat import parse
from support.wat_plugins import TRUSTED, events, open_host, write_plugin

ANSWER = """
(component
  (core module $m (func (export "answer") (result i32) (i32.const 42)))
  (core instance $i (instantiate $m))
  (func $answer (result u32) (canon lift (core func $i "answer")))
  (export "answer" (func $answer)))
"""
SLEEPY = """
(component
  (import "wasi:clocks/monotonic-clock@0.2.0" (instance (export "now" (func (result u64)))))
  (core module $m (func (export "answer") (result i32) (i32.const 42)))
  (core instance $i (instantiate $m))
  (func $answer (result u32) (canon lift (core func $i "answer")))
  (export "answer" (func $answer)))
"""


CLOCK = "wasi:clocks/monotonic-clock@0.2.0"


def refusal(act: Callable[[], object]) -> ClocheError:
    """The error that this raises."""
    with pytest.raises(ClocheError) as caught:
        act()
    return caught.value


def explained(host: Host, plugin: Path) -> str:
    """What `grants explain` says."""
    found = host.inspect(plugin)
    return "\n".join(to_lines(found.grants, found.tier))


def test_a_denial_of_nothing_stops_load_and_explanation(tmp_path: Path) -> None:
    """A denial that no capability answers to never leaves the plugin with what was meant to be denied."""
    plugin = write_plugin(tmp_path / "plugin", SLEEPY)
    for name in ("wasi:clock", "wasi:clocks/monotonic-clock"):
        with open_host(f'format-version = 1\n[plugins."acme/*"]\ndeny = ["{name}"]\n') as host:
            for act in (lambda: host.load(plugin, trust=TRUSTED), lambda: host.inspect(plugin)):
                error = refusal(act)
                assert error.code == "policy.value"
                assert f'plugins."acme/*".deny names {name}' in error.message
                assert "did you mean wasi:clocks?" in error.message


def test_denied_waiting_is_named_at_load_and_explained(tmp_path: Path) -> None:
    """The load says which entry refuses plugins that could sleep; the explanation says what would change it."""
    plugin = write_plugin(tmp_path / "plugin", SLEEPY)
    with open_host('format-version = 1\n[plugins."acme/*"]\ndeny = ["wasi:io/poll"]\n') as host:
        error = refusal(lambda: host.load(plugin, trust=TRUSTED))
        assert error.code == "grant.refused"
        assert 'denied by [plugins."acme/*"] of the policy' in error.message
        text = explained(host, plugin)
        assert 'wasi:io/poll  not granted (default): denied by [plugins."acme/*"] of the policy' in text
        assert "deny = []" in text
        host.load(write_plugin(tmp_path / "awake", ANSWER), trust=TRUSTED)


def test_a_guest_that_can_sleep_is_warned_of(tmp_path: Path) -> None:
    """Nothing wakes a trusted guest that waits in WASI: the operator hears of it before the first call."""
    sleepy = write_plugin(tmp_path / "sleepy", SLEEPY, plugin_id="acme/sleepy")
    awake = write_plugin(tmp_path / "awake", ANSWER, plugin_id="acme/awake")
    with open_host() as host:
        assert host.inspect(sleepy).report.warnings == ()  # a worker can be killed
        host.load(awake, trust=TRUSTED)
        assert events(host, "warning") == []
        host.load(sleepy, trust=TRUSTED)
        (warning,) = events(host, "warning")
        assert f"{CLOCK}: a guest can sleep in them" in warning["text"]


def test_what_the_policy_calls_untrusted_is_never_loaded_as_trusted(tmp_path: Path) -> None:
    """Not by its own word for a plugin or for bytes, whoever vouches, and with the code that says why."""
    plugin = write_plugin(tmp_path / "plugin", ANSWER)
    digest = hashlib.sha256(parse(ANSWER)).hexdigest()
    for said in (
        '[plugins."acme/*"]\ntier = "untrusted"\n',
        f'[trust.digests]\n"sha256:{digest}" = "untrusted"\n',
        f'[plugins."acme/test"]\ntier = "untrusted"\n[trust.digests]\n"sha256:{digest}" = "trusted"\n',
    ):
        with open_host(f"format-version = 1\n{said}") as host:
            assert refusal(lambda host=host: host.load(plugin, trust=TRUSTED)).code == "trust.refused"  # type: ignore[misc]
            assert host.plugins() == []
            assert host.load(plugin).tier is Tier.UNTRUSTED


@pytest.mark.parametrize("value", [-1, 0, True, 1.5, "1"])
@pytest.mark.parametrize("name", ["fuel", "stack_bytes"])
def test_odd_ceilings_of_a_policy_made_in_code_are_no_limits(tmp_path: Path, name: str, value: Any) -> None:
    """No file was parsed that would have refused them; a plugin is not loaded with what is no limit."""
    plugin = write_plugin(tmp_path / "plugin", ANSWER)
    with open_host(replace(Policy.empty(), limits={name: value})) as host:
        error = refusal(lambda: host.load(plugin, trust=TRUSTED))
        assert error.code == "limit.range"
        assert host.plugins() == []


def test_pinned_bytes_do_not_vouch_for_a_publishers_id(tmp_path: Path) -> None:
    """A stranger's manifest beside pinned bytes gets nothing of the publisher whose id it claims (H32)."""
    digest = hashlib.sha256(parse(ANSWER)).hexdigest()
    policy = f"""
        format-version = 1
        [trust.digests]
        "sha256:{digest}" = "trusted"
        [publishers.acme]
        keys = ["ed25519:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="]
        namespaces = ["acme/*"]
        tier = "trusted"
        [plugins."acme/vault"]
        mounts.vault = {{ path = "{tmp_path}", mode = "rw" }}
        secrets.token = {{ value = "hunter2" }}
        allow."wasi:config" = {{ secrets = ["token"] }}
    """
    asking = '[capabilities."wasi:config"]\nsecrets = ["token"]\n[capabilities."wasi:filesystem"]\nwrite = ["vault"]\n'
    stranger = write_plugin(tmp_path / "stranger", ANSWER, plugin_id="acme/vault", more=asking)
    honest = write_plugin(tmp_path / "honest", ANSWER, plugin_id="somebody/else")
    with open_host(policy) as host:
        for trust in (None, TRUSTED):
            error = refusal(lambda trust=trust: host.load(stranger, trust=trust))  # type: ignore[misc]
            assert (error.code, error.plugin) == ("trust.refused", "acme/vault")
        assert "untrusted: policy.toml gives this id to the publisher acme" in explained(host, stranger)
        assert host.load(honest).tier is Tier.TRUSTED


def test_only_granted_secrets_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret that cannot be read concerns those that are granted it; one that is not bound is mentioned."""
    monkeypatch.delenv("TEST_SECRET_THAT_IS_UNSET", raising=False)
    policy = """
        format-version = 1
        [plugins."*"]
        secrets.token = { env = "TEST_SECRET_THAT_IS_UNSET" }
        allow."wasi:config" = { secrets = ["token", "nope"] }
    """
    asking = '[capabilities."wasi:config"]\nsecrets = ["{}"]\n'
    modest = write_plugin(tmp_path / "modest", ANSWER, plugin_id="acme/modest")
    unbound = write_plugin(tmp_path / "unbound", ANSWER, plugin_id="acme/unbound", more=asking.format("nope"))
    greedy = write_plugin(tmp_path / "greedy", ANSWER, plugin_id="acme/greedy", more=asking.format("token"))
    with open_host(policy) as host:
        assert host.load(modest, trust=TRUSTED)[""].answer() == 42
        assert host.load(unbound, trust=TRUSTED)[""].answer() == 42
        error = refusal(lambda: host.load(greedy, trust=TRUSTED))
        assert (error.code, "TEST_SECRET_THAT_IS_UNSET" in error.message) == ("grant.refused", True)
        assert "grants the secret 'nope', and policy.toml binds none of that name" in explained(host, unbound)
        assert "notes" not in explained(host, greedy)


@pytest.mark.parametrize("has_gpu", [True, False])
def test_a_plugin_that_needs_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_gpu: bool) -> None:
    """The driver is asked only for a plugin that requires a GPU, and what it says decides."""
    asked = []

    def find() -> Devices:
        asked.append(True)
        return Devices("1.0", (Device(0, "a GPU", 1 << 30),)) if has_gpu else Devices(None, (), "no driver is loaded")

    monkeypatch.setattr(app, "find_devices", find)
    with open_host() as host:
        host.load(write_plugin(tmp_path / "plain", ANSWER, plugin_id="acme/plain"), trust=TRUSTED)
        assert not asked
        plugin = write_plugin(tmp_path / "gpu", ANSWER, more="[requires]\ngpu = true\n")
        if has_gpu:
            host.load(plugin, trust=TRUSTED)
        else:
            error = refusal(lambda: host.load(plugin, trust=TRUSTED))
            assert error.code == "manifest.requires"
            assert "gpu = true, and no usable GPU was found (no driver is loaded)" in error.message
        assert asked == [True]
