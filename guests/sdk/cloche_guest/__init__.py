"""The Cloche guest SDK: what a Python plugin imports. Pure Python; it runs inside the component.

    from cloche_guest import config, export, log
    from wit_world import exports

    @export
    class Greeter(exports.Greeter):
        def greet(self, name: str) -> str:
            log.info("greeting", name=name)
            return f"{config.get('greeting', 'Hello')}, {name}!"

Every service works only when the plugin's world imports its interface and the operator grants it. Otherwise logging
and telemetry do nothing and configuration is empty, so that the same code runs in a smaller world; key-value storage
and the data directory raise `Unavailable` without the import, and `Denied` without the grant.
"""

from __future__ import annotations

from cloche_guest import config, data, keyvalue, log, telemetry
from cloche_guest.entry import at_start, export, fresh_random
from cloche_guest.errors import Denied, Err, Ok, ServiceError, Some, Unavailable
from cloche_guest.lifecycle import Health, InvalidConfig, Lifecycle, NotNow

__all__ = [
    "Denied",
    "Err",
    "Health",
    "InvalidConfig",
    "Lifecycle",
    "NotNow",
    "Ok",
    "ServiceError",
    "Some",
    "Unavailable",
    "at_start",
    "config",
    "data",
    "export",
    "fresh_random",
    "keyvalue",
    "log",
    "telemetry",
]
__version__ = "0.1.0"
