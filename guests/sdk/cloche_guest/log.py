"""Log messages through `wasi:logging`. Without that import in the world, messages are dropped.

    log.info("fetched", rows=12)            # directly
    log.install()                           # at module level: the standard `logging` goes to the host, too

The host adds the plugin's id, version and call, and keeps to its limit of lines per second.
"""

from __future__ import annotations

import logging

from cloche_guest.bindings import imported
from cloche_guest.lowering import shown

_host = imported("logging", "wasi_logging_logging", having="log", standard=True)


def is_available() -> bool:
    """Whether the plugin's world imports `wasi:logging/logging`."""
    return _host is not None


def trace(message: str, /, *, context: str = "", **fields: object) -> None:
    """Values of variables and the flow of control."""
    _write("TRACE", context, message, fields)


def debug(message: str, /, *, context: str = "", **fields: object) -> None:
    """Of interest to someone who debugs the plugin."""
    _write("DEBUG", context, message, fields)


def info(message: str, /, *, context: str = "", **fields: object) -> None:
    """Of interest to someone who watches the plugin."""
    _write("INFO", context, message, fields)


def warning(message: str, /, *, context: str = "", **fields: object) -> None:
    """Something looks hazardous."""
    _write("WARN", context, message, fields)


def error(message: str, /, *, context: str = "", **fields: object) -> None:
    """Something went wrong."""
    _write("ERROR", context, message, fields)


def critical(message: str, /, *, context: str = "", **fields: object) -> None:
    """The plugin cannot go on."""
    _write("CRITICAL", context, message, fields)


class Handler(logging.Handler):
    """Sends records of the standard `logging` to the host; the logger's name is the context."""

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record, with its traceback where it has one."""
        try:
            _write(_level(record.levelno), record.name, self.format(record), {})
        except Exception:
            self.handleError(record)


def install(level: int = logging.INFO) -> None:
    """Send everything from `level` up that the standard `logging` gets to the host. Call it at module level."""
    root = logging.getLogger()
    if not any(isinstance(handler, Handler) for handler in root.handlers):
        root.addHandler(Handler())
    root.setLevel(level)


def _level(number: int) -> str:
    for name, least in (("CRITICAL", 50), ("ERROR", 40), ("WARN", 30), ("INFO", 20), ("DEBUG", 10)):
        if number >= least:
            return name
    return "TRACE"


def _write(level: str, context: str, message: str, fields: dict[str, object]) -> None:
    if _host is not None:
        words = "".join(f" {name}={value!r}" for name, value in fields.items())
        _host.log(getattr(_host.Level, level), shown(context), shown(message) + shown(words))
