"""What the grant schemas of our capabilities accept, and that a grant never exceeds the request or the allowance."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cloche.capabilities.config.grant import SCHEMA as CONFIG
from cloche.capabilities.config.grant import ConfigAllowance, ConfigRequest
from cloche.capabilities.data.grant import SCHEMA as DATA
from cloche.capabilities.data.grant import Access, DataParams
from cloche.capabilities.keyvalue.grant import SCHEMA as KEYVALUE
from cloche.capabilities.keyvalue.grant import KeyValueAllowance, KeyValueRequest
from cloche.capabilities.logging.grant import SCHEMA as LOGGING
from cloche.capabilities.logging.grant import Level, LoggingParams
from cloche.capabilities.telemetry.grant import EVENTS_PER_SECOND, MAX_SERIES, TelemetryAllowance, TelemetryRequest
from cloche.capabilities.telemetry.grant import SCHEMA as TELEMETRY
from cloche.grants.schema import GrantSchema

ALL = [LOGGING, CONFIG, KEYVALUE, DATA, TELEMETRY]
names = st.lists(st.sampled_from(["a", "b", "c", "d"]), unique=True)
maybe = st.none() | st.integers(0, 100)


def within(granted: int | None, *bounds: int | None) -> bool:
    """Whether a granted bound is as strict as each bound that is set."""
    return all(bound is None or (granted is not None and granted <= bound) for bound in bounds)


@pytest.mark.parametrize("schema", ALL, ids=lambda schema: schema.id)
def test_defaults_intersect(schema: GrantSchema) -> None:
    """A manifest and a policy that only name the capability agree on its defaults."""
    verdict = schema.intersect(schema.request(), schema.allowance())
    assert verdict.granted == schema.request()
    assert verdict.reason


def test_only_harmless_capabilities_are_default() -> None:
    """Without a word from the operator a plugin gets its log and the settings that the operator gave it."""
    assert {schema.id for schema in ALL if schema.default} == {"wasi:logging", "wasi:config"}


@given(st.sampled_from(Level), maybe, st.sampled_from(Level), maybe)
def test_logging_takes_the_stricter(asked: Level, asked_rate: Any, allowed: Level, allowed_rate: Any) -> None:
    """The granted level is at least both, the rate at most both."""
    verdict = LOGGING.intersect(
        LoggingParams(level=asked, lines_per_second=asked_rate),
        LoggingParams(level=allowed, lines_per_second=allowed_rate),
    )
    granted = verdict.granted
    assert isinstance(granted, LoggingParams)
    assert granted.level.rank == max(asked.rank, allowed.rank)
    assert within(granted.lines_per_second, asked_rate, allowed_rate)


@given(names, st.none() | names, names)
def test_config_takes_what_both_name(asked: list[str], allowed: list[str] | None, secrets: list[str]) -> None:
    """Granted keys are asked for and allowed; a secret that the policy does not name is never granted."""
    request = ConfigRequest(keys=tuple(asked), secrets=("s1", "s2"))
    allowance = ConfigAllowance(keys=None if allowed is None else tuple(allowed), secrets=(*secrets, "s2"))
    granted = CONFIG.intersect(request, allowance).granted
    assert isinstance(granted, ConfigRequest)
    assert set(granted.keys) == set(asked) & set(asked if allowed is None else allowed)
    assert granted.secrets == ("s2",)


@given(names, maybe, maybe, st.none() | names, maybe, maybe)
def test_keyvalue_takes_the_lower(
    asked: list[str], asked_bytes: Any, asked_keys: Any, allowed: list[str] | None, max_bytes: Any, max_keys: Any
) -> None:
    """Granted buckets are asked for and allowed, bounds at most both; without a bucket nothing is granted."""
    request = KeyValueRequest(buckets=tuple(asked), bytes=asked_bytes, keys=asked_keys)
    allowance = KeyValueAllowance(
        buckets=None if allowed is None else tuple(allowed), bytes=max_bytes, keys=max_keys, value_bytes=max_bytes
    )
    granted = KEYVALUE.intersect(request, allowance).granted
    expected = [name for name in asked if allowed is None or name in allowed]
    if not expected:
        assert granted is None
        return
    assert isinstance(granted, KeyValueRequest)
    assert list(granted.buckets) == expected
    assert within(granted.bytes, asked_bytes, max_bytes)
    assert within(granted.keys, asked_keys, max_keys)
    assert within(granted.value_bytes, max_bytes)


@given(st.sampled_from(Access), maybe, st.sampled_from(Access), maybe)
def test_data_takes_the_weaker(asked: Access, asked_bytes: Any, allowed: Access, max_bytes: Any) -> None:
    """Writing is granted only when both sides say so, bounds at most both."""
    granted = DATA.intersect(
        DataParams(access=asked, bytes=asked_bytes), DataParams(access=allowed, bytes=max_bytes, files=5)
    ).granted
    assert isinstance(granted, DataParams)
    assert (granted.access is Access.READ_WRITE) == (asked is allowed is Access.READ_WRITE)
    assert within(granted.bytes, asked_bytes, max_bytes)
    assert within(granted.files, 5)


@given(names, st.none() | names, st.integers(0, 50), maybe)
def test_telemetry_takes_what_both_name(asked: list[str], allowed: list[str] | None, rate: int, max_rate: Any) -> None:
    """Granted instruments are asked for and allowed, exactly as declared; rates at most both, or the usual ones."""
    request = TelemetryRequest.model_validate(
        {"instruments": {name: {"kind": "counter"} for name in asked}, "events-per-second": rate}
    )
    said = {} if max_rate is None else {"events-per-second": max_rate}
    allowance = TelemetryAllowance.model_validate({"instruments": None if allowed is None else tuple(allowed), **said})
    granted = TELEMETRY.intersect(request, allowance).granted
    assert isinstance(granted, TelemetryRequest)
    assert set(granted.instruments) == set(asked) & set(asked if allowed is None else allowed)
    assert all(granted.instruments[name] == request.instruments[name] for name in granted.instruments)
    assert within(granted.events_per_second, rate, EVENTS_PER_SECOND if max_rate is None else max_rate)


def test_telemetry_rates_are_the_operators() -> None:
    """Without a word on rates in the policy, a plugin gets the usual ones however much it asks for."""
    request = TelemetryRequest.model_validate({"values-per-second": 10**9, "events-per-second": 10**9})
    verdict = TELEMETRY.intersect(request, TelemetryAllowance())
    assert isinstance(verdict.granted, TelemetryRequest)
    assert (verdict.granted.values_per_second, verdict.granted.events_per_second) == (1000, 20)
    assert "at most 1000 values and 20 events per second" in verdict.reason


@pytest.mark.parametrize(
    ("schema", "table"),
    [
        (LOGGING, {"level": "warn", "lines-per-second": 5}),
        (CONFIG, {"keys": ["quality"], "secrets": ["token"]}),
        (KEYVALUE, {"buckets": ["default", "cache"], "bytes": "1MiB", "keys": 10, "value-bytes": "64Ki"}),
        (DATA, {"access": "read", "bytes": "64MiB", "files": 3}),
        (
            TELEMETRY,
            {
                "events-per-second": 3,
                "instruments": {
                    "pages": {"kind": "counter", "unit": "pages", "help": "Pages.", "labels": {"format": ["html"]}},
                    "latency": {"kind": "histogram", "buckets": [0.1, 1, 10]},
                },
            },
        ),
    ],
    ids=lambda value: getattr(value, "id", ""),
)
def test_toml_tables_are_accepted(schema: GrantSchema, table: dict[str, Any]) -> None:
    """Values as TOML gives them (lists, sizes as text, kebab-case keys) make a request."""
    assert isinstance(schema.request.model_validate(table), schema.request)


@pytest.mark.parametrize(
    ("schema", "table", "told"),
    [
        (LOGGING, {"level": "loud"}, "level"),
        (LOGGING, {"lines-per-second": -1}, "lines-per-second"),
        (LOGGING, {"lines-per-second": True}, "lines-per-second"),
        (LOGGING, {"lines-per-second": "5"}, "lines-per-second"),
        (CONFIG, {"keys": "quality"}, "keys"),
        (CONFIG, {"keys": ["a"], "secrets": ["a"]}, "both"),
        (CONFIG, {"keys": [1]}, "keys"),
        (KEYVALUE, {"bytes": "1 parsec"}, "bytes"),
        (KEYVALUE, {"buckets": ["x" * 129]}, "buckets"),
        (DATA, {"access": "write"}, "access"),
        (DATA, {"bytes": 2**60}, "bytes"),
        (DATA, {"byts": 1}, "byts"),
        (TELEMETRY, {"instruments": {"Pages": {"kind": "counter"}}}, "instruments"),
        (TELEMETRY, {"instruments": {"pages": {"kind": "timer"}}}, "kind"),
        (TELEMETRY, {"instruments": {"pages": {"kind": "counter", "buckets": [1.0]}}}, "no buckets"),
        (TELEMETRY, {"instruments": {"t": {"kind": "histogram", "buckets": [2.0, 1.0]}}}, "larger"),
        (TELEMETRY, {"instruments": {"t": {"kind": "histogram", "buckets": [float("nan")]}}}, "finite"),
        (TELEMETRY, {"instruments": {"t": {"kind": "counter", "labels": {"plugin": ["x"]}}}}, "plugin"),
        (TELEMETRY, {"instruments": {"t": {"kind": "counter", "labels": {"le": ["x"]}}}}, "le"),
        (TELEMETRY, {"instruments": {"t": {"kind": "counter", "unit": "a\nb"}}}, "unit"),
    ],
)
def test_bad_tables_are_refused(schema: GrantSchema, table: dict[str, Any], told: str) -> None:
    """A wrong value is refused, and the text names the key or the reason."""
    with pytest.raises(ValidationError) as refused:
        schema.request.model_validate(table)
    assert told in str(refused.value)


def test_series_are_counted_before_anything_runs() -> None:
    """Labels whose values multiply beyond the bound are refused as a whole."""
    values = [str(number) for number in range(31)]
    table = {"instruments": {"t": {"kind": "counter", "labels": {"a": values, "b": values}}}}
    with pytest.raises(ValidationError, match=f"at most {MAX_SERIES} series, and these instruments make 1024"):
        TelemetryRequest.model_validate(table)
