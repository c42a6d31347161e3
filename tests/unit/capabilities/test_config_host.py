"""`wasi:config/store`: only granted keys are visible, and secrets stay out of everything but `get`."""

from __future__ import annotations

import pytest

from cloche.capabilities.config.grant import INTERFACE, ConfigRequest
from cloche.capabilities.config.host import Config, ConfigHost
from support.capability_rig import Rig, ok


def host(keys: tuple[str, ...], secrets: tuple[str, ...]) -> tuple[ConfigHost, Rig]:
    """The host object of a plugin with two settings and two secrets."""
    rig = Rig(config={"quality": "80", "mode": "fast"}, secrets={"token": "t0p", "key": "k3y"})
    opened = Config().open(ConfigRequest(keys=keys, secrets=secrets), rig.session())[INTERFACE]
    assert isinstance(opened, ConfigHost)
    return opened, rig


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("quality", "80"),
        ("mode", None),
        ("token", "t0p"),
        ("key", None),
        ("", None),
        ("Quality", None),
        ("absent", None),
    ],
)
def test_get_shows_granted_keys_only(key: str, expected: str | None) -> None:
    """A key that is not granted looks like one that has no value."""
    opened, _ = host(("quality", "absent"), ("token",))
    assert ok(opened.get(key)) == expected


def test_a_secret_is_not_reached_through_keys() -> None:
    """Granting the name of a secret as a setting shows nothing."""
    opened, _ = host(("token",), ())
    assert ok(opened.get("token")) is None


def test_get_all_leaves_secrets_out() -> None:
    """All settings, sorted, without secrets."""
    opened, _ = host(("quality", "mode"), ("token",))
    assert ok(opened.get_all()) == [("mode", "fast"), ("quality", "80")]


def test_nothing_shows_a_secret() -> None:
    """Neither the object's repr nor any event holds a value."""
    opened, rig = host(("quality",), ("token",))
    opened.get("token")
    opened.get_all()
    assert "t0p" not in repr(opened)
    assert rig.events == []
    opened.close()
    assert ok(opened.get("token")) is None
