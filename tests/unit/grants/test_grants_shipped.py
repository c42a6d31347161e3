"""The capabilities that ship, from the text of both files to the grant."""

from __future__ import annotations

from typing import Any

import pytest

from cloche.capabilities.config.grant import SCHEMA as CONFIG
from cloche.capabilities.data.grant import SCHEMA as DATA
from cloche.capabilities.keyvalue.grant import SCHEMA as KEYVALUE
from cloche.capabilities.logging.grant import SCHEMA as LOGGING
from cloche.capabilities.telemetry.grant import SCHEMA as TELEMETRY
from cloche.grants.decide import Decision, decide
from cloche.grants.policy_file import parse_policy
from cloche.grants.wasi import WASI_SCHEMAS
from cloche.manifest.explain import DocumentError
from cloche.manifest.parse import parse_manifest
from cloche.model import Tier
from cloche.version import WASI_VERSION

SCHEMAS = {schema.id: schema for schema in (*WASI_SCHEMAS, CONFIG, DATA, KEYVALUE, LOGGING, TELEMETRY)}
HEAD = 'format-version = 1\nid = "acme/hello"\nname = "Hello"\nversion = "1.2.3"\ncomponent.path = "x.wasm"\n'


def decision(capability: str, asked: str, policy: str = "") -> Decision:
    grants = decide(
        parse_manifest(f'{HEAD}[capabilities."{capability}"]\n{asked}\n'.encode()),
        parse_policy(f'format-version = 1\n[plugins."acme/hello"]\n{policy}\n'.encode()),
        Tier.TRUSTED,
        SCHEMAS,
    )
    found = grants.decision(capability)
    assert found is not None
    return found


INSTRUMENTS = 'instruments.hits = { kind = "counter", labels = { page = ["a", "b"] } }'

ALLOW_TELEMETRY = 'allow."cloche:host/telemetry"'

CASES: list[tuple[str, str, str, dict[str, Any] | None, str | None]] = [
    ("wasi:logging", 'level = "warn"', "", {"level": "warn"}, None),
    ("wasi:logging", 'level = "info"', 'allow."wasi:logging" = { level = "error" }', {"level": "error"}, "info"),
    ("wasi:logging", "lines-per-second = 9", "", {"lines-per-second": 9}, None),
    ("wasi:config", 'keys = ["a"]\nsecrets = ["t"]', "", {"keys": ("a",), "secrets": ()}, 'secrets = ["t"]'),
    ("wasi:config", 'secrets = ["t"]', 'allow."wasi:config" = { secrets = ["t", "u"] }', {"secrets": ("t",)}, None),
    ("wasi:keyvalue", "", "", None, 'allow."wasi:keyvalue" = true'),
    ("wasi:keyvalue", "", 'allow."wasi:keyvalue" = true', {"buckets": ("default",)}, None),
    (
        "wasi:keyvalue",
        'bytes = "1MiB"',
        'allow."wasi:keyvalue" = { bytes = "4KiB" }',
        {"bytes": 4096},
        'bytes = "1MiB"',
    ),
    ("wasi:keyvalue", 'version = "^0.2"', 'allow."wasi:keyvalue" = true', None, None),
    ("cloche:host/data", 'access = "read"', 'allow."cloche:host/data" = true', {"access": "read"}, None),
    ("cloche:host/data", "", 'allow."cloche:host/data" = { access = "read" }', {"access": "read"}, "= true"),
    ("cloche:host/telemetry", INSTRUMENTS, "", None, 'allow."cloche:host/telemetry" = true'),
    (
        "cloche:host/telemetry",
        INSTRUMENTS,
        'allow."cloche:host/telemetry" = { instruments = [] }',
        {"instruments": {}},
        "= true",
    ),
]


@pytest.mark.parametrize(("capability", "asked", "policy", "params", "remedy"), CASES, ids=range(len(CASES)))
def test_shipped_capabilities_are_decided(
    capability: str, asked: str, policy: str, params: dict[str, Any] | None, remedy: str | None
) -> None:
    """Kebab-case, arrays, sizes and words of the files reach the schema; the remedy offers what is still missing."""
    found = decision(capability, asked, policy)
    assert (found.params is None) is (params is None)
    if params is not None:
        assert found.params is not None
        dumped = found.params.model_dump(by_alias=True)
        assert {key: dumped[key] for key in params} == params
    assert bool(found.remedy) is (remedy is not None), found.remedy
    if remedy is not None:
        assert remedy in found.remedy[-1]


@pytest.mark.parametrize("version", ["^0.2.0", "^0.2.9", f"^{WASI_VERSION}", f"={WASI_VERSION}"])
def test_wasi_is_asked_for_at_the_engines_own_version(version: str) -> None:
    """A manifest may require the very WASI that the engine implements, or an older 0.2."""
    assert decision("wasi:random", f'version = "{version}"\nrequired = true').granted


@pytest.mark.parametrize(
    ("capability", "asked", "words"),
    [
        ("wasi:logging", 'levle = "warn"', "did you mean level?"),
        ("wasi:logging", 'level = "loud"', '"wasi:logging".level'),
        ("wasi:keyvalue", "value_byte = 1", "did you mean value-bytes?"),
        ("wasi:keyvalue", 'bytes = "1 parsec"', '"wasi:keyvalue".bytes'),
        ("cloche:host/telemetry", 'instruments.hits = { kind = "sundial" }', "instruments.hits.kind"),
        ("wasi:logging", 'level = "loud"', "expected 'trace', 'debug', 'info', 'warn', 'error' or 'critical'"),
        ("cloche:host/data", 'access = "own"', "expected 'read' or 'read-write'"),
        ("cloche:host/data", 'bytes = "1"', "bytes = '1': expected a size, written as \"256MiB\""),
        ("wasi:keyvalue", "requird = true", "requird: unknown key; did you mean required?"),
        ("wasi:keyvalue", 'verson = "1"', "verson: unknown key; did you mean version?"),
        ("wasi:clocks", "quick = true", "quick: unknown key; known here: required, version"),
        ("cloche:host/telemetry", 'instruments.A_B = { kind = "counter" }', "expected a name in lower-case kebab"),
        (
            "cloche:host/telemetry",
            'instruments.hits = { kind = "counter", unit = "a b" }',
            "unit = 'a b': expected at most 32 letters, digits and any of",
        ),
        (
            "cloche:host/telemetry",
            "instruments.hits = { knd = 1 }",
            "hits.knd: unknown key; did you mean kind?",
        ),
    ],
)
def test_their_mistakes_are_named(capability: str, asked: str, words: str) -> None:
    """A wrong parameter is named by its path in plugin.toml."""
    with pytest.raises(DocumentError) as caught:
        decision(capability, asked)
    assert words in str(caught.value)


@pytest.mark.parametrize(("key", "meant"), [("requird", "required"), ("verson", "version")])
def test_a_misspelt_key_of_a_capability_that_is_not_here_is_seen(key: str, meant: str) -> None:
    """Nobody checks its parameters; what is most probably one of the keys that all have is mentioned."""
    found = decision("nobody:here", f'more = 1\n{key} = "1"\n')
    assert (
        found.reason
        == f"no capability of this name is installed; its keys are not checked: is {key} meant to be {meant}?"
    )
    assert decision("nobody:here", "more = 1").reason == "no capability of this name is installed"
