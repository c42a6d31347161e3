"""Ordinary usage of the public API. It is not run: `./dev check` asks the type checker whether it holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import assert_type

import cloche


def load_and_call(directory: Path) -> str:
    """The first page of the documentation."""
    with cloche.Host(policy="policy.toml", extension_points=["wit/"]) as host:
        plugin = host.load(directory, trust=cloche.Trusted("written by us"))
        greeter = plugin["cloche:example/greeter"]
        answer: str = greeter.greet("Ada")
        outcome = greeter.greet.options(fuel=10**8, deadline=0.5).call("Ada")
        assert_type(outcome.usage, cloche.Usage)
        assert_type(outcome.usage.fuel, int | None)
        return answer + str(outcome.value)


async def call_without_blocking(host: cloche.Host) -> cloche.Usage:
    """The same from asyncio."""
    outcome = await host.plugin("acme/hello")["cloche:example/greeter"].greet.call_async("Ada")
    return outcome.usage


def every_provider(host: cloche.Host) -> list[str]:
    """All plugins that offer an extension point."""
    return [f"{plugin.id} {plugin.version} {plugin.tier}" for plugin in host.providers("cloche:example/greeter")]


def handle_errors(host: cloche.Host) -> tuple[str, int]:
    """Each error has a code; some carry more."""
    try:
        host.load("plugin.wasm")
    except cloche.ContractError as error:
        return "; ".join(error.findings), error.exit_status
    except cloche.GuestTrap as error:
        return error.traceback or error.kind, error.exit_status
    except cloche.LimitError as error:
        assert_type(error.usage, cloche.Usage | None)
        return error.code, error.exit_status
    except cloche.ClocheError as error:
        assert_type(error.blame, cloche.Blame)
        return error.message, error.exit_status
    return "", 0


def match_values(value: object) -> str:
    """Values of variants, results and options are matched."""
    match value:
        case cloche.Case(name="circle", payload=float(radius)):
            return f"circle {radius}"
        case cloche.Ok(value=inner) | cloche.Some(value=inner):
            return str(inner)
        case cloche.Err(value=reason):
            return f"failed: {reason}"
        case _:
            return "something else"


def watch(events: list[cloche.Event]) -> cloche.Host:
    """Every event goes to the embedder's own sink."""

    def sink(event: cloche.Event) -> None:
        if event.kind is cloche.EventKind.TRAP:
            events.append(event)

    return cloche.Host(sinks=[sink], metering=cloche.Metering.BOTH)


def builtin_plugin(host: cloche.Host) -> cloche.Plugin:
    """A Python object behind the protocol of an extension point."""

    class Greeter:
        def greet(self, name: str) -> str:
            return f"Hello, {name}!"

    return host.add_builtin("acme/builtin", {"cloche:example/greeter": Greeter()})


class ClockHost:
    """The host side of an embedder's own interface, for one plugin instance."""

    def __init__(self, emit: cloche.Session) -> None:
        self._session = emit

    def now(self) -> int:
        """A function of the interface."""
        self._session.emit(cloche.EventKind.LOG, {"asked": "now"})
        return 0

    def close(self) -> None:
        """Nothing is held."""


class ClockCapability:
    """An embedder's own capability, as a third party's package would have it."""

    schema = cloche.GrantSchema(
        id="acme:clock",
        version="1.0.0",
        summary="Tells the time of the farm.",
        interfaces=("acme:clock/wall@1.0.0",),
        request=cloche.NoParams,
        allowance=cloche.NoParams,
        intersect=lambda request, allowance: cloche.Verdict(request, "asked and allowed"),
    )

    def wit(self) -> Path:
        """Where the interface is declared."""
        return Path("wit/clock")

    def open(self, grant: cloche.Params, session: cloche.Session) -> Mapping[str, cloche.HostInterface]:
        """Host objects for one instance."""
        return {"acme:clock/wall@1.0.0": ClockHost(session)}


def with_capability() -> cloche.Host:
    """A capability is handed over in code."""
    capability: cloche.Capability = ClockCapability()
    return cloche.Host(capabilities=[capability])
