"""Base class for plugins that export `cloche:plugin/lifecycle`.

    @export
    class Lifecycle(cloche_guest.Lifecycle):
        def on_initialize(self, config: dict[str, str]) -> None:
            if "quality" not in config:
                raise InvalidConfig("quality is missing")

componentize-py looks for a class of the name `Lifecycle` in the plugin's main module. Every hook may be left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from cloche_guest.bindings import exported
from cloche_guest.errors import Err, ServiceError
from cloche_guest.lowering import shown

T = TypeVar("T")

_wit = exported("lifecycle")


class InvalidConfig(Exception):
    """A configuration value is missing or wrong; the text names it. Trying again will not help."""


class NotNow(Exception):
    """Something that the plugin needs is not there now; trying again later may help."""


@dataclass(frozen=True)
class Health:
    """How well the plugin can work: `ok`, `degraded` (the text says what does not work) or `failing`."""

    state: str = "ok"
    text: str = ""

    @classmethod
    def ok(cls) -> Health:
        """Everything works."""
        return cls()

    @classmethod
    def degraded(cls, text: str) -> Health:
        """Some of it works; `text` says what does not."""
        return cls("degraded", text)

    @classmethod
    def failing(cls, text: str) -> Health:
        """Nothing works; the host restarts the plugin."""
        return cls("failing", text)


class Lifecycle:
    """What the host tells a plugin about its own life. Override the hooks; the four other methods are the WIT's.

    A hook may raise InvalidConfig or NotNow; a ServiceError becomes an error value, too. Any other exception is a trap.
    """

    def on_initialize(self, config: dict[str, str]) -> None:
        """Once on a new instance, before any other function. `config` holds the operator's settings without secrets."""

    def on_start(self) -> None:
        """Once after `on_initialize`, only with `instances = "single"`."""

    def on_stop(self) -> None:
        """Once when the last call has ended, only with `instances = "single"`."""

    def on_health(self) -> Health:
        """Between other calls, only with `instances = "single"`; should answer quickly."""
        return Health.ok()

    def initialize(self, config: Iterable[tuple[str, str]]) -> None:
        """WIT `initialize`."""
        _answer(self.on_initialize, dict(config))

    def start(self) -> None:
        """WIT `start`."""
        _answer(self.on_start)

    def stop(self) -> None:
        """WIT `stop`."""
        _answer(self.on_stop)

    def health(self) -> Any:
        """WIT `health`."""
        health = _answer(self.on_health)
        if health.state == "ok":
            return _wit.Status_Ok()
        return {"degraded": _wit.Status_Degraded, "failing": _wit.Status_Failing}[health.state](shown(health.text))


def _answer(hook: Callable[..., T], *args: Any) -> T:
    try:
        return hook(*args)
    except InvalidConfig as error:
        raise Err(_wit.Error_InvalidConfig(shown(error))) from None
    except NotNow as error:
        raise Err(_wit.Error_Unavailable(shown(error))) from None
    except ServiceError as error:
        raise Err(_wit.Error_Other(shown(error))) from None
