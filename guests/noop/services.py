"""Every service of the host, as a test would use it."""

from wit_world import exports

from cloche_guest import (
    Err,
    Health,
    InvalidConfig,
    Lifecycle,
    NotNow,
    ServiceError,
    config,
    data,
    keyvalue,
    log,
    telemetry,
)

history: list[str] = []
settings: dict[str, str] = {}


class Services(exports.Services):
    """The interface `services`."""

    def log(self, level: str, message: str) -> None:
        getattr(log, level)(message, context="noop")

    def config(self, key: str) -> str | None:
        return _told(lambda: config.get(key))

    def config_all(self) -> list[tuple[str, str]]:
        return _told(lambda: list(config.get_all().items()))

    def put(self, bucket: str, key: str, value: bytes) -> None:
        _told(lambda: keyvalue.open(bucket).__setitem__(key, value))

    def fetch(self, bucket: str, key: str) -> bytes | None:
        return _told(lambda: keyvalue.open(bucket).get(key))

    def drop_key(self, bucket: str, key: str) -> None:
        _told(lambda: keyvalue.open(bucket).__delitem__(key))

    def keys(self, bucket: str) -> list[str]:
        return _told(lambda: sorted(keyvalue.open(bucket)))

    def increment(self, bucket: str, key: str, delta: int) -> int:
        return _told(lambda: keyvalue.open(bucket).increment(key, delta))

    def write_data(self, path: str, contents: bytes) -> None:
        _told(lambda: data.write(path, contents))

    def read_data(self, path: str) -> bytes:
        return _told(lambda: data.read(path))

    def list_data(self, path: str) -> list[str]:
        return _told(lambda: [entry.name for entry in data.list_directory(path)])

    def remove_data(self, path: str) -> None:
        _told(lambda: data.remove(path))

    def count(self, name: str, increment: int) -> bool:
        return telemetry.count(name, increment)

    def observe(self, name: str, value: float) -> bool:
        return telemetry.observe(name, value)

    def event(self, kind: str, payload: str) -> bool:
        return telemetry.event(kind, payload)

    def history(self) -> list[str]:
        return history


class Life(Lifecycle):
    """Remembers what it was told; the configuration key `on-initialize` makes it refuse."""

    def on_initialize(self, config: dict[str, str]) -> None:
        history.append("initialize")
        settings.update(config)
        wish = config.get("on-initialize", "")
        if wish == "invalid":
            raise InvalidConfig("on-initialize is invalid")
        if wish == "unavailable":
            raise NotNow("on-initialize is unavailable")
        if wish == "trap":
            raise RuntimeError("on-initialize is trap")

    def on_start(self) -> None:
        history.append("start")

    def on_stop(self) -> None:
        history.append("stop")

    def on_health(self) -> Health:
        history.append("health")
        state = settings.get("health", "ok")
        return Health(state, "" if state == "ok" else f"health is {state}")


def _told(function):
    try:
        return function()
    except (ServiceError, LookupError, OSError) as error:
        raise Err(f"{type(error).__name__}: {error}") from None
