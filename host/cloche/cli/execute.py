"""What `cloche exec` does. It starts in a tenth of a second, so it imports what each step needs when it needs it."""

from __future__ import annotations

import gc
import os
import stat
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from cloche.engine.compile import ProgressSink
    from cloche.script.result import ScriptResult

MAX_CODE_BYTES = 16 << 20
"""Longest script that is read from a file."""


class ExecRequest(NamedTuple):
    """The words of `cloche exec`. `file` is None with `code`."""

    file: str | None = None
    code: str | None = None
    arguments: tuple[str, ...] = ()
    fuel: str | None = None
    memory: str | None = None
    deadline: str | None = None
    mounts: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    image: str = "python"
    policy: str | None = None
    as_json: bool = False
    usage: bool = False


_VALUES = {
    "-c": "code",
    "--code": "code",
    "--fuel": "fuel",
    "--memory": "memory",
    "--deadline": "deadline",
    "--mount": "mounts",
    "--env": "environment",
    "--image": "image",
    "--policy": "policy",
}
_SWITCHES = {"--json": "as_json", "--usage": "usage"}


def parse(words: Sequence[str]) -> ExecRequest | None:
    """The request, where the words are in order; None for any others, which the whole command line then explains."""
    found: dict[str, Any] = {"mounts": (), "environment": ()}
    at = 0
    while at < len(words):
        word = words[at]
        name, joined, value = word.partition("=")
        if word in _SWITCHES:
            found[_SWITCHES[word]] = True
            at += 1
            continue
        if name not in _VALUES or (joined and not name.startswith("--")):
            break
        if not joined:
            at += 1
            if at == len(words):
                return None
            value = words[at]
        at += 1
        key = _VALUES[name]
        if key in ("mounts", "environment"):
            found[key] = (*found[key], value)
        elif key in found:
            return None
        else:
            found[key] = value
    rest = list(words[at:])
    if rest[:1] == ["--"]:
        del rest[0]
    elif rest and rest[0].startswith("-") and rest[0] != "-":
        return None
    if "code" not in found:
        if not rest or not rest[0]:
            return None
        found["file"] = rest.pop(0)
    return ExecRequest(**found, arguments=tuple(rest))


def perform(request: ExecRequest) -> int:
    """Run the script and return its exit status, or that of the limit that stopped it. Shows every error itself.

    Nothing outlives it: the worker is gone when it returns.
    """
    from cloche.errors import ClocheError

    gc.disable()  # the garbage of a tenth of a second
    _import_msgspec()
    try:
        result = _run(request)
    except ClocheError as error:
        from cloche.cli.errors import report

        return report(error, is_json=request.as_json)
    return _show(result, request)


def _run(request: ExecRequest) -> ScriptResult:
    from cloche.script.alone import run_alone

    code, name = _code(request)
    options: dict[str, Any] = {
        "name": name,
        "arguments": request.arguments,
        "stdin": _stdin(request),
        "environment": dict(map(_variable, request.environment)),
        "mounts": dict(map(_mount, request.mounts)),
    }
    options |= {key: text for key in ("fuel", "memory", "deadline") if (text := getattr(request, key)) is not None}
    return run_alone(request.image, code, options, policy=request.policy, progress=_progress(request))


def _import_msgspec() -> None:
    """It takes `typing_extensions` where that is, which imports half the standard library, and goes on without."""
    name = "typing_extensions"
    if name in sys.modules:
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        import msgspec  # noqa: F401
    finally:
        del sys.modules[name]


def _show(result: ScriptResult, request: ExecRequest) -> int:
    if request.as_json:
        from cloche.cli.render import write_json

        outcome = "ok" if result.ok else "exception" if result.traceback is not None else "exit"
        write_json({"outcome": outcome, **result.to_json()})
        return result.exit_status
    for text, stream in ((result.stdout, sys.stdout), (result.stderr, sys.stderr)):
        if text:
            stream.write(_shown(text) if stream.isatty() else text)
            stream.flush()
    if request.usage:
        from cloche.cli.render import stderr_console, usage_line

        stderr_console().print(usage_line(result.usage))
    return result.exit_status


def _shown(text: str) -> str:
    """Text for a terminal: what a script writes must not steer it."""
    from cloche.text import clean

    return clean(text)


def _code(request: ExecRequest) -> tuple[str, str]:
    """The script's text and its name. Raises: UsageError (`usage.not-found`, `usage.argument`)."""
    from cloche.errors import UsageError

    if request.code is not None:
        return request.code, "<string>"
    assert request.file is not None
    try:
        if request.file == "-":
            data, name = sys.stdin.buffer.read(MAX_CODE_BYTES + 1), "<stdin>"
        else:
            name = request.file
            with open(name, "rb") as file:  # noqa: PTH123 - a pipe will do, too
                data = file.read(MAX_CODE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"the script {request.file} cannot be read: {reason}", code="usage.not-found") from error
    if len(data) > MAX_CODE_BYTES:
        raise UsageError(f"the script {request.file} has more than {MAX_CODE_BYTES} bytes")
    try:
        return data.decode("utf-8-sig"), name
    except UnicodeDecodeError as error:
        raise UsageError(f"the script {request.file} is not UTF-8: {error}") from error


def _stdin(request: ExecRequest) -> bytes:
    """What comes in by a pipe or a file; nothing from a terminal, which nobody may be at."""
    if request.file == "-" or sys.stdin is None:
        return b""
    try:
        kind = os.fstat(0).st_mode
    except OSError:
        return b""
    return sys.stdin.buffer.read() if stat.S_ISFIFO(kind) or stat.S_ISREG(kind) else b""


def _variable(text: str) -> tuple[str, str]:
    """`NAME=VALUE`, or `NAME` for the value that it has here. Raises: UsageError (`usage.argument`)."""
    from cloche.errors import UsageError

    name, given, value = text.partition("=")
    if not name or (not given and name not in os.environ):
        raise UsageError(f"--env {text!r:.100}: expected NAME=VALUE, or the NAME of a variable that is set")
    return name, value if given else os.environ[name]


def _mount(text: str) -> tuple[str, str]:
    """`DIRECTORY:NAME[:rw]` as name and place. Raises: UsageError (`usage.argument`)."""
    from cloche.errors import UsageError

    path, mode = (text.removesuffix(":rw"), ":rw") if text.endswith(":rw") else (text.removesuffix(":ro"), "")
    place, _, name = path.rpartition(":")
    if not place or not name:
        raise UsageError(f"--mount {text!r:.200}: expected DIRECTORY:NAME or DIRECTORY:NAME:rw, as in data:/data")
    return name.removeprefix("/"), place + mode


def _progress(request: ExecRequest) -> Callable[[], AbstractContextManager[ProgressSink]]:
    """Shows what preparing the image is at, where that takes long."""

    def shown() -> AbstractContextManager[ProgressSink]:
        from cloche.cli.render import Screen

        return Screen(request.as_json).progress("preparing the sandbox for scripts")

    return shown
