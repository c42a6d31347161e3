"""The grant decision: manifest and policy in, a reason for every yes and no out."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from cloche.errors import CapabilityError, UsageError
from cloche.grants.decide import GrantSet, decide
from cloche.grants.explain import to_json, to_lines
from cloche.grants.layer import layer_policy
from cloche.grants.limits import LimitSource
from cloche.grants.policy import Mount, MountMode, Policy
from cloche.grants.policy_file import parse_policy
from cloche.grants.schema import GrantSchema, NoParams, Params, Verdict
from cloche.grants.trust import TierDecision, TrustForm, weigh_tier
from cloche.grants.wasi import WASI_SCHEMAS, FilesystemGrant
from cloche.manifest.bare import bare_manifest
from cloche.manifest.explain import DocumentError
from cloche.manifest.limits import LIMIT_KEYS
from cloche.manifest.parse import parse_manifest
from cloche.model import BOUNDS, Digest, Limits, Tier
from cloche.version import WASI_VERSION

HEAD = 'format-version = 1\nid = "acme/hello"\nname = "Hello"\nversion = "1.2.3"\ncomponent.path = "x.wasm"\n'


class Access(StrEnum):
    LOOK = "look"
    TOUCH = "touch"


class StoreRequest(Params):
    """Strict tuples, enums and snake_case names, as a third party would write them without thinking of TOML."""

    names: tuple[str, ...] = ()
    max_read_bytes: int = Field(default=0, ge=0)
    access: Access = Access.LOOK


class StoreAllowance(Params):
    names: tuple[str, ...] = ()
    max_read_bytes: int = Field(default=1 << 40, ge=0)


def intersect_store(request: Params, allowance: Params) -> Verdict:
    assert isinstance(request, StoreRequest)
    assert isinstance(allowance, StoreAllowance)
    names = tuple(name for name in request.names if name in allowance.names)
    if not names:
        return Verdict(None, "no name is allowed")
    size = min(request.max_read_bytes, allowance.max_read_bytes)
    return Verdict(StoreRequest(names=names, max_read_bytes=size, access=request.access), f"names {', '.join(names)}")


STORE = GrantSchema(
    "acme:store", "1.2.0", "a store", ("acme:store/s@1.2.0",), StoreRequest, StoreAllowance, intersect_store
)
DRAFT = GrantSchema(
    "wasi:draft",
    "0.2.0-rc.1",
    "a draft",
    ("wasi:draft/d@0.2.0-rc.1",),
    NoParams,
    NoParams,
    lambda *_: Verdict(NoParams(), ""),
)
SCHEMAS = {schema.id: schema for schema in (*WASI_SCHEMAS, STORE, DRAFT)}
DEFAULTS = {"wasi:clocks", "wasi:io/poll", "wasi:random", "wasi:cli"}
TIER = TierDecision(Tier.TRUSTED, TrustForm.CODE, "a test says so")


def decided(manifest: str = "", policy: str = "", **more: Any) -> GrantSet:
    return decide(
        parse_manifest((HEAD + manifest).encode()),
        parse_policy(f"format-version = 1\n{policy}".encode()),
        Tier.TRUSTED,
        SCHEMAS,
        **more,
    )


def test_nothing_asked_gives_the_defaults_alone() -> None:
    """A bare component under the empty policy gets clocks, randomness and captured stdio, with the default limits."""
    grants = decide(bare_manifest(Digest("ab" * 32)), Policy.empty(), Tier.UNTRUSTED, SCHEMAS)
    assert {item.capability for item in grants.decisions} == DEFAULTS
    assert all(item.granted and not item.asked for item in grants.decisions)
    assert grants.limits == Limits()
    assert (grants.mounts, grants.config, grants.secrets, grants.notes) == ({}, {}, {}, ())
    assert grants.interfaces >= {f"wasi:clocks/wall-clock@{WASI_VERSION}", f"wasi:cli/stdout@{WASI_VERSION}"}
    assert not any("filesystem" in name or "sockets" in name for name in grants.interfaces)


STORE_ASKED = '[capabilities."acme:store"]\nversion = "^1.0"\nnames = ["a", "b"]\nmax-read-bytes = 100\n'
ALLOW_A = '[plugins."acme/hello"]\nallow."acme:store" = { names = ["a", "c"], max-read-bytes = 10 }\n'
ALLOW_B = '[plugins."acme/*"]\nallow."acme:store" = { names = ["a", "b"] }\n'

ANSWERS: list[tuple[str, str, bool, str, tuple[str, ...]]] = [
    (STORE_ASKED, "", False, "the policy does not allow it", ()),
    (STORE_ASKED, ALLOW_A, True, 'allowed by [plugins."acme/hello"] of the policy: names a', ("a",)),
    (STORE_ASKED, ALLOW_B, True, 'allowed by [plugins."acme/*"] of the policy: names a, b', ("a", "b")),
    (STORE_ASKED, ALLOW_B + ALLOW_A, True, 'allowed by [plugins."acme/hello"]', ("a",)),
    (STORE_ASKED, ALLOW_B + 'deny = ["acme:store"]\n', False, 'denied by [plugins."acme/*"]', ()),
    (STORE_ASKED, ALLOW_A + '[plugins."*"]\ndeny = ["acme:store"]\n', False, 'denied by [plugins."*"]', ()),
    (STORE_ASKED, '[plugins."acme/hello"]\nallow."acme:store" = true\n', False, "no name is allowed", ()),
    (STORE_ASKED, '[plugins."acme/hello"]\nallow."acme:stroe" = true\n', False, "it allows acme:stroe, which no", ()),
    (STORE_ASKED.replace("^1.0", "^2.0"), ALLOW_B, False, "asks for version ^2.0, installed is 1.2.0", ()),
    (STORE_ASKED.replace("^1.0", "^1.3"), ALLOW_B, False, "asks for version ^1.3, installed is 1.2.0", ()),
    (STORE_ASKED.replace("acme:store", "acme:stores"), ALLOW_B, False, "did you mean acme:store?", ()),
    (
        '[capabilities."wasi:draft"]\n',
        '[plugins."*"]\nallow."wasi:draft" = true\n',
        True,
        'allowed by [plugins."*"]',
        (),
    ),
    (
        '[capabilities."wasi:draft"]\nversion = "0.2.0-rc.1"\n',
        '[plugins."*"]\nallow."wasi:draft" = true\n',
        True,
        "",
        (),
    ),
    ('[capabilities."wasi:draft"]\nversion = "^0.2"\n', "", False, 'only its whole name: version = "0.2.0-rc.1"', ()),
    ('[capabilities."wasi:clocks"]\n', "", True, "a default grant", ()),
    (
        '[capabilities."wasi:clocks"]\nversion = "^0.2"\n',
        '[plugins."*"]\ndeny = ["wasi:clocks"]\n',
        False,
        "denied",
        (),
    ),
    ('[capabilities."wasi:sockets"]\n', "", False, "sockets cannot be granted in this version", ()),
    ('[capabilities."wasi:sockets"]\n', '[plugins."*"]\nallow."wasi:sockets" = true\n', False, "sockets cannot be", ()),
    ('[capabilities."wasi:filesystem"]\n', "", False, "it names no mount", ()),
    ('[capabilities."wasi:filesystem"]\nread = ["a"]\n', "", False, "binds no mount", ()),
]


@pytest.mark.parametrize(("manifest", "policy", "granted", "reason", "names"), ANSWERS, ids=range(len(ANSWERS)))
def test_every_answer_has_its_reason(
    manifest: str, policy: str, granted: bool, reason: str, names: tuple[str, ...]
) -> None:
    """Asked and allowed is granted; everything else is not, and the reason says which side it is."""
    grants = decided(manifest, policy)
    (decision,) = (item for item in grants.decisions if item.asked)
    assert decision.granted is granted
    assert reason in decision.reason
    assert (decision.params is not None) is granted
    assert grants.granted(decision.capability) == decision.params
    if names:
        assert isinstance(decision.params, StoreRequest)
        assert decision.params.names == names


def merged(policy: str, remedy: tuple[str, ...]) -> str:
    """The policy as it would be with the remedy written into it."""
    document = tomllib.loads(policy)
    added = tomllib.loads("\n".join(remedy))
    for pattern, entry in added["plugins"].items():
        target = document.setdefault("plugins", {}).setdefault(pattern, {})
        for key, value in entry.items():
            if isinstance(value, dict):
                target.setdefault(key, {}).update(value)
            else:
                target[key] = value
    lines = []
    for pattern, entry in document["plugins"].items():
        lines.append(f'[plugins."{pattern}"]')
        for key, value in entry.items():
            lines.append(f"{key} = {inline(value)}")
    return "\n".join(lines) + "\n"


def inline(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {inline(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(inline, value)) + "]"
    return json.dumps(value)


@pytest.mark.parametrize(
    ("manifest", "policy"),
    [(manifest, policy) for manifest, policy, *_ in ANSWERS]
    + [
        (
            '[capabilities."wasi:filesystem"]\nread = ["a"]\nwrite = ["b"]\n',
            '[plugins."*"]\nmounts.b = { path = "/b" }\n',
        ),
        (
            '[capabilities."wasi:clocks"]\n',
            '[plugins."*"]\ndeny = ["wasi:clocks"]\n[plugins."acme/*"]\ndeny = ["wasi:clocks"]\n',
        ),
        (STORE_ASKED, '[plugins."*"]\ndeny = ["wasi:cli", "acme:store"]\n'),
        (STORE_ASKED, ALLOW_A + 'deny = ["acme:store"]\n'),
    ],
)
def test_a_remedy_changes_the_answer(manifest: str, policy: str) -> None:
    """The lines that are offered, written into the policy, give more than before, and are not offered again."""
    (decision,) = (item for item in decided(manifest, policy).decisions if item.asked)
    if not decision.remedy:
        return
    (better,) = (item for item in decided(manifest, merged(policy, decision.remedy)).decisions if item.asked)
    assert better.granted
    assert better.params != decision.params
    assert better.remedy == ()


def test_what_would_not_help_is_not_offered() -> None:
    """Neither sockets, nor an unknown capability, nor a wrong version have a remedy in the policy."""
    for manifest in (
        '[capabilities."wasi:sockets"]\n',
        '[capabilities."no:such"]\n',
        STORE_ASKED.replace("^1.0", "^2.0"),
        '[capabilities."wasi:filesystem"]\n',
    ):
        (decision,) = (item for item in decided(manifest).decisions if item.asked)
        assert (decision.granted, decision.remedy) == (False, ())


def test_mounts_are_what_both_sides_name() -> None:
    """A mount is granted by name, writable only where it is asked for in write and bound rw."""
    grants = decided(
        '[capabilities."wasi:filesystem"]\nread = ["in", "shared", "nowhere"]\nwrite = ["out", "log"]\n',
        '[plugins."acme/hello"]\nmounts.in = { path = "/i" }\nmounts.shared = { path = "/s", mode = "rw" }\n'
        'mounts.out = { path = "/o", mode = "rw" }\nmounts.log = { path = "/l", mode = "ro" }\n'
        'mounts.unasked = { path = "/u", mode = "rw" }\n',
    )
    assert grants.mounts == {
        "in": Mount("/i", MountMode.READ_ONLY),
        "shared": Mount("/s", MountMode.READ_ONLY),
        "out": Mount("/o", MountMode.READ_WRITE),
        "log": Mount("/l", MountMode.READ_ONLY),
    }
    decision = grants.decision("wasi:filesystem")
    assert decision is not None
    assert "not bound by the operator: nowhere" in decision.reason
    assert "bound read-only though writing is asked for: log" in decision.reason
    assert decision.remedy == (
        '[plugins."acme/hello"]',
        'mounts.nowhere = { path = "/path/to/nowhere", mode = "ro" }',
        'mounts.log = { path = "/l", mode = "rw" }',
    )


def test_denied_directories_are_not_mounted() -> None:
    """A denial also takes the mounts away."""
    grants = decided(
        '[capabilities."wasi:filesystem"]\nread = ["in"]\n',
        '[plugins."acme/*"]\nmounts.in = { path = "/i" }\ndeny = ["wasi:filesystem"]\n',
    )
    assert (grants.mounts, grants.granted("wasi:filesystem")) == ({}, None)


NAMES = st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=4)


def toml_names(names: list[str]) -> str:
    return json.dumps(names)


@given(NAMES, NAMES, st.integers(0, 50), st.integers(0, 50), NAMES, NAMES, NAMES, st.booleans(), st.booleans())
def test_a_grant_never_exceeds_what_was_asked_or_allowed(
    asked: list[str],
    allowed: list[str],
    asked_bytes: int,
    allowed_bytes: int,
    read: list[str],
    write: list[str],
    writable: list[str],
    mentioned: bool,
    denied: bool,
) -> None:
    """Whatever both sides say, the result is inside both."""
    manifest = (
        f'[capabilities."acme:store"]\nnames = {toml_names(asked)}\nmax-read-bytes = {asked_bytes}\n'
        f'[capabilities."wasi:filesystem"]\nread = {toml_names(read)}\nwrite = {toml_names(write)}\n'
    )
    policy = '[plugins."acme/hello"]\n'
    if mentioned:
        policy += f'allow."acme:store" = {{ names = {toml_names(allowed)}, max-read-bytes = {allowed_bytes} }}\n'
    policy += "".join(
        f'mounts.{name} = {{ path = "/{name}", mode = "{"rw" if name in writable else "ro"}" }}\n'
        for name in set(allowed)
    )
    policy += 'deny = ["acme:store", "wasi:random"]\n' if denied else ""
    grants = decided(manifest, policy)
    store = grants.granted("acme:store")
    if store is not None:
        assert isinstance(store, StoreRequest)
        assert mentioned
        assert not denied
        assert set(store.names) <= set(asked) & set(allowed)
        assert store.max_read_bytes <= min(asked_bytes, allowed_bytes)
    files = grants.granted("wasi:filesystem")
    if files is not None:
        assert isinstance(files, FilesystemGrant)
        assert set(files.write) <= set(write) & set(allowed) & set(writable)
        assert set(files.read) <= (set(read) | set(write)) & set(allowed)
        assert not set(files.read) & set(files.write)
    assert {name for name, mount in grants.mounts.items() if mount.mode is MountMode.READ_WRITE} <= set(write)
    assert (grants.granted("wasi:random") is None) is denied


LIMIT_VALUES = {
    key: st.none() | st.integers(BOUNDS[limit.name].least, BOUNDS[limit.name].most) for key, limit in LIMIT_KEYS.items()
}
LIMIT_TABLES = st.fixed_dictionaries({}, optional=LIMIT_VALUES)


def limits_text(table: dict[str, int | None]) -> str:
    return "".join(
        f"limits.{key} = " + (f'"{value}ms"' if key == "deadline" else str(value)) + "\n"
        for key, value in table.items()
        if value is not None
    )


@given(LIMIT_TABLES, LIMIT_TABLES, LIMIT_TABLES)
def test_a_manifest_only_lowers_limits(
    wish: dict[str, int | None], defaults: dict[str, int | None], own: dict[str, int | None]
) -> None:
    """The result is the ceiling of the policy, or the wish where that is lower."""
    policy = "[defaults]\n" + limits_text(defaults) + '[plugins."acme/*"]\n' + limits_text(own)
    grants = decided(limits_text(wish), policy)
    for key, limit in LIMIT_KEYS.items():
        stated = [table[key] for table in (own, defaults) if table.get(key) is not None]
        ceiling = stated[0] if stated else BOUNDS[limit.name].default
        wished = wish.get(key)
        found = getattr(grants.limits, limit.name)
        assert ceiling is not None
        if key != "concurrency":
            assert found == (ceiling if wished is None else min(wished, ceiling))
        elif ceiling:
            assert 0 < found <= ceiling


@pytest.mark.parametrize(
    ("wish", "ceiling", "cores", "expected"),
    [
        (None, 0, 8, 0),
        (1, 0, None, 1),
        (4, 0, None, 0),
        (4, 0, 8, 4),
        (16, 0, 8, 0),
        (0, 4, 8, 4),
        (2, 4, 8, 2),
        (8, 4, 8, 4),
    ],
)
def test_concurrency_counts_cores(wish: int | None, ceiling: int, cores: int | None, expected: int) -> None:
    """Zero means one call for each core, so it is not the lowest number."""
    manifest = "" if wish is None else f"limits.concurrency = {wish}\n"
    grants = decided(manifest, f"[defaults]\nlimits.concurrency = {ceiling}\n", cores=cores)
    assert grants.limits.concurrency == expected


def test_each_limit_says_where_it_comes_from() -> None:
    """Built in, the policy's defaults, the plugin's entry, or the manifest."""
    grants = decided(
        'limits.fuel = 7\nlimits.memory = "512MiB"\n',
        '[defaults]\nlimits = { fuel = "1G", handles = 5 }\n[plugins."acme/*"]\nlimits = { memory = "128MiB" }\n',
    )
    found = {item.key: item for item in grants.limit_grants}
    assert list(found) == list(LIMIT_KEYS)
    assert {key: found[key].source for key in ("fuel", "memory", "handles", "queue")} == {
        "fuel": LimitSource.MANIFEST,
        "memory": LimitSource.POLICY_PLUGIN,
        "handles": LimitSource.POLICY_DEFAULTS,
        "queue": LimitSource.BUILT_IN,
    }
    assert found["memory"].remedy == ('[plugins."acme/hello"]', 'limits.memory = "512MiB"')
    assert found["fuel"].remedy == ()


@pytest.mark.parametrize(
    ("policy", "wish", "value", "source"),
    [
        ("", None, 7, LimitSource.MANIFEST),
        ("", 10**10, 10**10, LimitSource.COMMAND_LINE),
        ("", 10**12, 10**12, LimitSource.COMMAND_LINE),
        ("", 3, 3, LimitSource.COMMAND_LINE),
        ("[defaults]\nlimits.fuel = 100\n", 100, 100, LimitSource.COMMAND_LINE),
    ],
)
def test_the_command_lines_limit_stands_in_place_of_the_manifests(
    policy: str, wish: int | None, value: int, source: LimitSource
) -> None:
    """It may pass the author's number and the built-in default, which are no ceilings of the operator's."""
    manifest = parse_manifest((HEAD + "limits.fuel = 7\n").encode())
    before = parse_policy(f"format-version = 1\n{policy}".encode())
    layered = before if wish is None else layer_policy(before, manifest.id, limits={"fuel": wish})
    grants = decide(manifest, layered, Tier.TRUSTED, SCHEMAS)
    found = next(item for item in grants.limit_grants if item.key == "fuel")
    assert (found.value, found.source, grants.limits.fuel, found.remedy) == (value, source, value, ())
    assert ("the command line" in found.reason) is (wish is not None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("acme:stroe", "--allow acme:stroe: no capability of this name is installed; did you mean acme:store?"),
        ("zzz:zzz", "--allow zzz:zzz: no capability of this name is installed"),
        ("acme:store={ name = [] }", "--allow acme:store: name: unknown key; did you mean names?"),
        ("acme:store={ max-read-bytes = -1 }", "--allow acme:store: max-read-bytes = -1: expected at least 0"),
        ('wasi:filesystem={ read = ["in"] }', "bind directories with --mount NAME=PATH"),
    ],
)
def test_a_wrong_option_is_not_blamed_on_the_policy(text: str, words: str) -> None:
    """What `--allow` says wrongly is a wrong use of the command line, and names the option."""
    manifest = parse_manifest((HEAD + STORE_ASKED).encode())
    with pytest.raises(UsageError) as caught:
        decide(manifest, layer_policy(Policy.empty(), manifest.id, allow=[text]), Tier.TRUSTED, SCHEMAS)
    assert caught.value.code == "usage.argument"
    assert words in str(caught.value)
    assert "policy.toml" not in str(caught.value)


def test_what_the_command_line_gives_is_said_to_come_from_there() -> None:
    """Options show as such, and do not count as entries of the file."""
    manifest = parse_manifest((HEAD + STORE_ASKED + '[capabilities."wasi:draft"]\n').encode())
    allow = ['acme:store={ names = ["a"], max-read-bytes = 1 }', "wasi:filesystem"]
    grants = decide(manifest, layer_policy(Policy.empty(), manifest.id, allow=allow), Tier.TRUSTED, SCHEMAS)
    store = grants.decision("acme:store")
    assert store is not None
    assert store.reason == "allowed by the command line: names a"
    assert grants.notes == ("the command line allows wasi:filesystem, which the manifest does not ask for",)
    assert to_json(grants, TIER)["remedy"]["append"][:2] == ["format-version = 1", '[plugins."acme/hello"]']


def test_the_operators_config_wins() -> None:
    """The author's values are defaults; secrets come from the policy alone."""
    grants = decided(
        '[config]\na = "author"\nb = "author"\n',
        '[plugins."*"]\nconfig = { b = "operator" }\nsecrets.s = { value = "hunter2" }\n',
    )
    assert grants.config == {"a": "author", "b": "operator"}
    assert "hunter2" not in repr(grants) + repr(to_json(grants, TIER)) + "\n".join(to_lines(grants, TIER))


def test_what_is_required_and_refused_says_what_would_help() -> None:
    """Each such capability has its reason, and the lines that would grant it where there are any."""
    grants = decided(STORE_ASKED + "required = true\n" + '[capabilities."wasi:sockets"]\nrequired = true\n')
    store, sockets = (grants.decision(name) for name in ("acme:store", "wasi:sockets"))
    assert store is not None
    assert sockets is not None
    assert (store.required, store.granted, sockets.required, sockets.granted) == (True, False, True, False)
    assert 'allow."acme:store" = { names = ["a", "b"], max-read-bytes = 100 }' in store.remedy
    assert ("sockets cannot be granted" in sockets.reason, sockets.remedy) == (True, ())


BAD_PARAMS = [
    ("max-read-byte = 1", "manifest.unknown-key", "did you mean max-read-bytes?"),
    ("max-read-bytes = -1", "manifest.value", 'capabilities."acme:store".max-read-bytes = -1'),
    ('max-read-bytes = "1"', "manifest.value", "max-read-bytes"),
    ("max-read-bytes = true", "manifest.value", "max-read-bytes"),
    ("names = [1]", "manifest.value", "names"),
    ('names = "a"', "manifest.value", "names"),
    ('access = "own"', "manifest.value", "access"),
    ("max-read-bytes = 1\nmax_read_bytes = 2", "manifest.unknown-key", "max-read-bytes"),
]


@pytest.mark.parametrize(("line", "code", "words"), BAD_PARAMS)
def test_parameters_are_checked_by_the_capability(line: str, code: str, words: str) -> None:
    """Wrong parameters are the author's error, named by file and key."""
    with pytest.raises(DocumentError) as caught:
        decided(f'[capabilities."acme:store"]\n{line}\n')
    assert (caught.value.code, caught.value.plugin) == (code, "acme/hello")
    assert str(caught.value).startswith("plugin.toml: ")
    assert words in str(caught.value)


def test_the_policys_parameters_are_checked_too() -> None:
    """Wrong parameters of the operator name the policy; directories are bound by mounts alone."""
    for line, code in (
        ('allow."acme:store" = { name = ["a"] }', "policy.unknown-key"),
        ('allow."acme:store" = { names = "a" }', "policy.value"),
        ('allow."wasi:filesystem" = { read = ["a"] }', "policy.value"),
        ('allow."wasi:clocks" = { x = 1 }', "policy.unknown-key"),
    ):
        with pytest.raises(DocumentError) as caught:
            decided(STORE_ASKED, f'[plugins."acme/*"]\n{line}\n')
        assert caught.value.code == code
        assert 'plugins."acme/*".allow.' in str(caught.value)


def test_tables_from_toml_fit_strict_models() -> None:
    """Arrays become tuples, words become enums, kebab-case finds snake_case."""
    grants = decided(STORE_ASKED + 'access = "touch"\n', ALLOW_B)
    assert grants.granted("acme:store") == StoreRequest(names=("a", "b"), max_read_bytes=100, access=Access.TOUCH)


@pytest.mark.parametrize(
    "change",
    [
        {"intersect": lambda *_: 1 / 0},
        {"intersect": lambda *_: "".index("absent")},
        {"intersect": lambda *_: True},
        {"intersect": lambda *_: Verdict("all", "")},  # type: ignore[arg-type]
        {"version": "one"},
    ],
)
def test_a_broken_capability_package_is_named(change: dict[str, Any]) -> None:
    """A failing schema is the package's fault, not a grant."""
    schemas = {STORE.id: dataclasses.replace(STORE, **change)}
    manifest = parse_manifest((HEAD + STORE_ASKED).encode())
    with pytest.raises(CapabilityError) as caught:
        decide(manifest, Policy.empty(), Tier.TRUSTED, schemas)
    assert caught.value.code == "capability.invalid"
    assert "acme:store" in str(caught.value)


def test_an_allowance_that_nobody_asked_for_is_noted() -> None:
    """The operator sees a capability that the plugin's own entry allows in vain; wide entries are not blamed."""
    grants = decided(
        STORE_ASKED,
        '[plugins."acme/hello"]\nallow."wasi:draft" = true\nallow."acme:stores" = true\n'
        '[plugins."*"]\nallow."x:y" = true\n',
    )
    assert grants.notes == (
        "policy.toml allows wasi:draft, which the manifest does not ask for",
        "policy.toml allows acme:stores, which the manifest does not ask for; it asks for acme:store",
    )


GOLDEN = """\
acme/hello (trusted, instances per-call)

tier
  trusted: a test says so

capabilities
  acme:store  granted (asked): allowed by [plugins."acme/hello"] of the policy: names a
    to change this, write in policy.toml:
      [plugins."acme/hello"]
      allow."acme:store" = { names = ["a", "b"], max-read-bytes = 100 }
  wasi:filesystem  REFUSED (required): the policy binds no mount for this plugin
    to change this, write in policy.toml:
      [plugins."acme/hello"]
      mounts.in = { path = "/path/to/in", mode = "ro" }
  wasi:clocks  granted (default): a default grant
  wasi:io/poll  granted (default): a default grant
  wasi:random  not granted (default): denied by [plugins."*"] of the policy
    to change this, write in policy.toml:
      [plugins."*"]
      deny = []
  wasi:cli  granted (default): a default grant

limits
  fuel             7M  asked for by the manifest; the built-in default would give 10G
  memory       128MiB  [defaults] of policy.toml; the manifest asks for 1GiB
    to change this, write in policy.toml:
      [plugins."acme/hello"]
      limits.memory = "1GiB"
  deadline        30s  the built-in default
  stack        512KiB  the built-in default
  payload       64MiB  the built-in default
  output         1MiB  the built-in default
  log-lines       200  the built-in default
  host-calls   10_000  the built-in default
  host-bytes    64MiB  the built-in default
  handles       1_000  the built-in default
  data          64MiB  the built-in default
  files         1_000  the built-in default
  concurrency   cores  the built-in default
  queue            64  the built-in default
  restarts          5  the built-in default

config
  quality = '80'

secrets
  pin = value (hidden)
  token = env ACME_TOKEN

to change all of this, merge into [plugins."acme/hello"] of policy.toml, which is there already:
  allow."acme:store" = { names = ["a", "b"], max-read-bytes = 100 }
  mounts.in = { path = "/path/to/in", mode = "ro" }
  limits.memory = "1GiB"
and merge into [plugins."*"] of policy.toml, which is there already:
  deny = []"""


def test_the_explanation_reads_like_this() -> None:
    """The whole text of `cloche grants explain`, and the same as values."""
    grants = decided(
        STORE_ASKED
        + '[capabilities."wasi:filesystem"]\nrequired = true\nread = ["in"]\n'
        + '[limits]\nfuel = "7M"\nmemory = "1GiB"\n[config]\nquality = "80"\n',
        '[defaults]\nlimits.memory = "128MiB"\n[plugins."*"]\ndeny = ["wasi:random"]\n'
        + ALLOW_A
        + 'secrets = { pin = { value = "hunter2" }, token = { env = "ACME_TOKEN" } }\n',
    )
    assert "\n".join(to_lines(grants, TIER)) == GOLDEN
    values = json.loads(json.dumps(to_json(grants, TIER)))
    assert values["capabilities"][0]["params"] == {"names": ["a"], "max_read_bytes": 10, "access": "look"}
    assert values["secrets"] == {"pin": {"value": "(hidden)"}, "token": {"env": "ACME_TOKEN"}}
    assert values["remedy"]["within"]['plugins."*"'] == ["deny = []"]
    assert values["trust"] == {"form": "code", "reason": "a test says so", "refused": None, "advice": "", "remedy": []}
    assert values["limits"][1]["remedy"] == ['[plugins."acme/hello"]', 'limits.memory = "1GiB"']


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("wasi:clock", "wasi:clocks"),
        ("wasi:clocks/wall-clock", "wasi:clocks"),
        ("wasi:clocks/monotonic-clock", "wasi:clocks"),
        ("wasi:cli/environment", "wasi:cli"),
        ("acme:stores", "acme:store"),
        ("acme:store/s", "acme:store"),
        ("wasi:io/pol", "wasi:io/poll"),
        ("zzz:zzz", "known here: acme:store"),
    ],
)
def test_a_denial_of_nothing_is_an_error(name: str, meant: str) -> None:
    """A misspelt denial would deny nothing: it is named with its entry, and with the capability that was meant."""
    for pattern in ("*", "acme/*", "acme/hello"):
        with pytest.raises(DocumentError) as caught:
            decided(policy=f'[plugins."{pattern}"]\ndeny = ["wasi:random", "{name}"]\n')
        assert caught.value.code == "policy.value"
        assert str(caught.value).startswith(f'policy.toml: plugins."{pattern}".deny names {name}, ')
        assert meant in str(caught.value)
    decided(policy=f'[plugins."acme/other"]\ndeny = ["{name}"]\n')


def test_every_denial_of_nothing_is_named() -> None:
    """All entries that concern the plugin at once."""
    with pytest.raises(DocumentError) as caught:
        decided(policy='[plugins."*"]\ndeny = ["a:b", "wasi:cli"]\n[plugins."acme/hello"]\ndeny = ["c:d"]\n')
    assert len(caught.value.problems) == 2


def test_denied_waiting_has_an_answer_of_its_own() -> None:
    """Who denies `wasi:io/poll` sees it in the explanation, with the entry and what would change it."""
    assert f"wasi:io/poll@{WASI_VERSION}" in decided().interfaces
    grants = decided(policy='[plugins."acme/*"]\ndeny = ["wasi:io/poll", "wasi:cli"]\n')
    decision = grants.decision("wasi:io/poll")
    assert decision is not None
    assert (decision.granted, decision.reason) == (False, 'denied by [plugins."acme/*"] of the policy')
    assert decision.remedy == ('[plugins."acme/*"]', 'deny = ["wasi:cli"]')


SEVERAL = (
    STORE_ASKED
    + "required = true\n"
    + '[capabilities."wasi:filesystem"]\nrequired = true\nread = ["in", "out"]\nwrite = ["out"]\n'
    + '[capabilities."wasi:draft"]\nrequired = true\n[capabilities."wasi:clocks"]\nrequired = true\n'
    + '[limits]\nmemory = "1GiB"\nhandles = 2000\n'
)
DENIALS = '[plugins."*"]\ndeny = ["wasi:clocks", "wasi:random", "acme:store", "wasi:cli"]\n'
DIGEST = Digest("cd" * 32)


def pasted(text: str, remedy: dict[str, Any]) -> str:
    """A policy's text with a remedy as an operator pastes it: the end is appended, tables get their lines in place."""
    lines = text.splitlines()
    for table, added in remedy["within"].items():
        start = lines.index(f"[{table}]") + 1
        end = next((at for at in range(start, len(lines)) if lines[at].startswith("[")), len(lines))
        keys = {line.partition(" = ")[0] for line in added}
        lines[start:end] = [*(line for line in lines[start:end] if line.partition(" = ")[0] not in keys), *added]
    return "\n".join([*lines, *remedy["append"]]) + "\n"


@pytest.mark.parametrize(
    "policy",
    [
        None,
        "format-version = 1\n",
        "format-version = 1\n" + DENIALS,
        "format-version = 1\n" + DENIALS + ALLOW_A,
        f'format-version = 1\n[trust.digests]\n"sha256:{"00" * 32}" = "trusted"\n[plugins."acme/hello"]\n'
        + 'deny = ["wasi:clocks", "acme:store"]\ntier = "untrusted"\n' + DENIALS,
    ],
    ids=range(5),
)  # fmt: skip
def test_all_that_is_offered_can_be_pasted_at_once(policy: str | None) -> None:
    """Several refusals, one block: with it in the policy everything is granted, and nothing more is offered."""
    manifest = parse_manifest((HEAD + SEVERAL).encode())
    before = Policy.empty() if policy is None else parse_policy(policy.encode())
    tier = weigh_tier(before, DIGEST, plugin=manifest.id)
    grants = decide(manifest, before, Tier.TRUSTED, SCHEMAS)
    assert (tier.tier, len([item for item in grants.decisions if item.required and not item.granted]) > 1) == (
        Tier.UNTRUSTED,
        True,
    )
    after = parse_policy(pasted(policy or "", to_json(grants, tier)["remedy"]).encode())
    assert weigh_tier(after, DIGEST, plugin=manifest.id).tier is Tier.TRUSTED
    better = decide(manifest, after, Tier.TRUSTED, SCHEMAS)
    assert all(item.granted for item in better.decisions)
    assert (better.limits.memory_bytes, better.limits.handles) == (1 << 30, 2000)
    assert not any(to_json(better, weigh_tier(after, DIGEST, plugin=manifest.id))["remedy"].values())


def test_what_is_missing_is_said_all_at_once() -> None:
    """Everything that is required in vain becomes one piece of policy, whole where there is none yet."""
    manifest = parse_manifest((HEAD + SEVERAL).encode())
    missing = decide(manifest, Policy.empty(), Tier.TRUSTED, SCHEMAS).missing()
    assert missing.within == {}
    after = decide(manifest, parse_policy("\n".join(missing.append).encode()), Tier.TRUSTED, SCHEMAS)
    assert not [item.capability for item in after.decisions if item.required and not item.granted]
    assert (after.missing().append, after.missing().lines("to grant it,")) == ((), [])


def test_the_explanation_shows_the_tier_that_a_load_would_have() -> None:
    """A plugin that nobody vouches for, or that the policy holds back, is not called trusted, and the rest is shown."""
    for policy, words in (
        ("", "untrusted: nobody vouches for it, and this system has no worker"),
        ('[plugins."*"]\ntier = "untrusted"\n', "untrusted: nobody vouches for it"),
        (f'[trust.digests]\n"sha256:{DIGEST}" = "trusted"\n', "trusted: policy.toml trusts sha256:"),
        (
            f'[trust.digests]\n"sha256:{DIGEST}" = "trusted"\n[plugins."*"]\ntier = "untrusted"\n',
            'untrusted: policy.toml says [plugins."*"] tier = "untrusted"',
        ),
    ):
        grants = decided(policy=policy)
        tier = weigh_tier(grants.policy, DIGEST, plugin=grants.plugin)
        text = "\n".join(to_lines(grants, tier))
        assert f"tier\n  {words}" in text
        assert text.startswith(f"acme/hello ({tier.tier}, ")
        assert "wasi:clocks  granted" in text
        assert ("not loaded (trust.untrusted-unavailable)" in text) is (tier.tier is Tier.UNTRUSTED)
