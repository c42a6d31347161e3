"""A Python guest uses every capability through the engine, and the operator sees it in events, metrics and files."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cloche.app import Host
from cloche.errors import GuestError
from cloche.model import Trusted
from cloche.observe.events import EventKind
from cloche.observe.metrics import Metrics
from support.guests import built

pytestmark = pytest.mark.slow

MANIFEST = """
format-version = 1
id = "acme/services"
name = "Services"
version = "1.0.0"
description = "Uses every service."
license = "Apache-2.0"
instances = "pooled"
[component]
path = "services.wasm"
[capabilities."wasi:logging"]
[capabilities."wasi:config"]
keys = ["quality"]
secrets = ["token"]
[capabilities."wasi:keyvalue"]
[capabilities."cloche:host/data"]
bytes = "1KiB"
[capabilities."cloche:host/telemetry".instruments.pages]
kind = "counter"
[capabilities."cloche:host/telemetry".instruments.latency]
kind = "histogram"
buckets = [1, 2]
"""

POLICY = """
format-version = 1
[plugins."acme/services"]
config = { quality = "80", mode = "fast" }
secrets = { token = { env = "SERVICES_TEST_TOKEN" } }
allow."wasi:config" = { secrets = ["token"] }
allow."wasi:keyvalue" = { value-bytes = 100 }
allow."cloche:host/data" = { files = 2 }
allow."cloche:host/telemetry" = {}
"""


@dataclass
class Served:
    """A loaded plugin's services, and where to look for what they did."""

    call: Any
    host: Host
    metrics: Metrics
    home: Path


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The guest `noop` under a manifest and a policy of its own."""
    place = tmp_path_factory.mktemp("services")
    plugin, home = place / "plugin", place / "home"
    plugin.mkdir()
    shutil.copy(built("noop"), plugin / "services.wasm")
    (plugin / "plugin.toml").write_text(MANIFEST)
    (place / "policy.toml").write_text(POLICY)
    metrics = Metrics()
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("SERVICES_TEST_TOKEN", "t0p")
        with Host(policy=place / "policy.toml", home=home, sinks=[metrics]) as host:
            loaded = host.load(plugin, trust=Trusted("a test"))
            yield Served(loaded["cloche:noop/services"], host, metrics, home)


def refusal(call: Any, *arguments: Any) -> str:
    """The text of the error value that a call answers with."""
    with pytest.raises(GuestError) as refused:
        call(*arguments)
    return str(refused.value.payload)


def test_logging(served: Served) -> None:
    """A message arrives as an event with its plugin, capability and call, the text unchanged."""
    served.call.log("warning", "careful\n\x1b[31m")
    event = served.host.events.recent(kind=EventKind.LOG)[-1]
    assert (event.plugin, event.capability, event.data["level"]) == ("acme/services", "wasi:logging", "warn")
    assert event.data["untrusted"]["message"] == "careful\n\x1b[31m"
    assert event.call_id is not None


def test_config(served: Served) -> None:
    """Granted settings and secrets are read, others look absent."""
    assert [served.call.config(key) for key in ("quality", "mode", "token", "absent")] == ["80", None, "t0p", None]
    assert served.call.config_all() == [("quality", "80")]


def test_keyvalue(served: Served) -> None:
    """Values, numbers and refusals cross the boundary as they should."""
    served.call.put("default", "k", b"\x00v")
    assert served.call.fetch("default", "k") == b"\x00v"
    assert served.call.fetch("default", "absent") is None
    assert served.call.increment("default", "n", -5) == -5
    assert served.call.keys("default") == ["k", "n"]
    served.call.drop_key("default", "n")
    assert served.call.keys("default") == ["k"]
    assert "access denied" in refusal(served.call.fetch, "elsewhere", "k")
    assert "64 bits" in refusal(served.call.increment, "default", "k", 1)
    assert "at most 100" in refusal(served.call.put, "default", "k", b"x" * 101)


def test_data(served: Served) -> None:
    """Files, listings and refusals cross the boundary as they should, and the files lie in the plugin's storage."""
    served.call.write_data("a/b", b"xyz")
    assert served.call.read_data("a/b") == b"xyz"
    assert served.call.list_data("a") == ["b"]
    assert [path.read_bytes() for path in served.home.rglob("data/a/b")] == [b"xyz"]
    assert "invalid path" in refusal(served.call.read_data, "../a/b")
    assert "not found" in refusal(served.call.read_data, "absent")
    assert "quota exceeded" in refusal(served.call.write_data, "big", b"x" * 1025)
    served.call.remove_data("a/b")
    assert served.call.list_data("") == []


def test_telemetry(served: Served) -> None:
    """Declared instruments are counted, others refused, events kept."""
    assert served.call.count("pages", 2) is True
    assert served.call.observe("latency", 1.5) is True
    assert served.call.count("absent", 1) is False
    assert served.call.event("kind", "pay\nload") is True
    text = served.metrics.prometheus()
    assert 'cloche_counter_pages_total{plugin="acme/services"} 2' in text
    assert 'cloche_histogram_latency_bucket{plugin="acme/services",le="2.0"} 1' in text
    assert "absent" not in text
    event = served.host.events.recent(kind=EventKind.TELEMETRY)[-1]
    assert event.data["untrusted"] == {"kind": "kind", "payload": "pay\nload"}
