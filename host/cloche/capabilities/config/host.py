"""Host side of `wasi:config/store`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cloche.capabilities.api import HostInterface, Session
from cloche.capabilities.config.grant import INTERFACE, SCHEMA, ConfigRequest
from cloche.grants.schema import Params
from cloche.model import Ok
from cloche.resources import wit_dir


class ConfigHost:
    """`wasi:config/store` for one instance. Source: wit/deps/wasi-config/package.wit.

    A key that is not granted and a key that has no value look the same. Nothing here is logged.
    """

    def __init__(self, settings: Mapping[str, str], secrets: Mapping[str, str]) -> None:
        self._settings, self._secrets = settings, secrets

    def get(self, key: str) -> Ok[str | None]:
        """The setting or secret `key`, or None. Never fails."""
        return Ok(self._secrets.get(key, self._settings.get(key)))

    def get_all(self) -> Ok[list[tuple[str, str]]]:
        """All granted settings, sorted by key. Secrets are left out: a plugin may dump its settings."""
        return Ok(sorted(self._settings.items()))

    def close(self) -> None:
        """Forget the values."""
        self._settings, self._secrets = {}, {}

    def __repr__(self) -> str:
        return f"ConfigHost({len(self._settings)} settings, {len(self._secrets)} secrets)"


class Config:
    """The capability `wasi:config`."""

    schema = SCHEMA

    def wit(self) -> Path:
        """The directory of the WIT package."""
        return wit_dir() / "deps/wasi-config"

    def open(self, grant: Params, session: Session) -> Mapping[str, HostInterface]:
        """The host object for one instance: the granted keys that have a value."""
        assert isinstance(grant, ConfigRequest)
        settings = {key: session.config[key] for key in grant.keys if key in session.config}
        secrets = {key: session.secrets[key] for key in grant.secrets if key in session.secrets}
        return {INTERFACE: ConfigHost(settings, secrets)}
