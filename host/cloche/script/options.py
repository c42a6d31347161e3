"""What a caller may say about a script, read and checked once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from cloche.engine.wasi import Mount
from cloche.errors import LimitError, UsageError
from cloche.quantities import QuantityError, parse_count, parse_duration_ms, parse_fuel, parse_size
from cloche.script.box import Script
from cloche.script.kit import FILES, FUNCTIONS, WORKSPACE, Kit
from cloche.text import show

if TYPE_CHECKING:
    from cloche.capabilities.script.host import Functions, Quota

_LIMITS: Mapping[str, tuple[str, Callable[..., int]]] = {
    "fuel": ("fuel", parse_fuel),
    "deadline": ("deadline_ms", parse_duration_ms),
    "memory": ("memory_bytes", parse_size),
    "output": ("output_bytes", parse_size),
    "host_calls": ("host_calls", parse_count),
    "host_bytes": ("host_call_bytes", parse_size),
    "data": ("data_bytes", parse_size),
}


class CallOptions(TypedDict, total=False):
    """Of each script, also in a session.

    `name` stands in tracebacks and is `__file__`. `arguments` are `sys.argv[1:]`; `stdin` is bytes or text;
    `environment` the whole environment. `fuel`, `deadline` (seconds, or text such as "500ms"), `output` (stdout and
    stderr together), `host_calls` and `host_bytes` are limits.
    """

    name: str
    arguments: Sequence[str]
    stdin: bytes | str
    environment: Mapping[str, str]
    fuel: int | str
    deadline: float | str
    output: int | str
    host_calls: int | str
    host_bytes: int | str


class SessionOptions(TypedDict, total=False):
    """Of a sandbox.

    `functions` are those of the application that the script may call, by the names of its globals; see
    `capabilities.script.host.Functions`. `mounts` are directories that the script sees as `/NAME`: `"/srv/data"`
    read-only, `"/srv/data:rw"` also writable. With `files`, by relative paths, it starts in the directory `/work` of
    its own, where they lie. `memory` limits its memory, `data` what its own files may hold.
    """

    functions: Mapping[str, Callable[..., object] | Quota]
    mounts: Mapping[str, str | Path]
    files: Mapping[str, bytes | str]
    memory: int | str
    data: int | str


class ScriptOptions(CallOptions, SessionOptions, total=False):
    """Of one script in a sandbox of its own."""


class Request:
    """One script, or session, with everything that it was given. Raises: UsageError, LimitError, GrantError."""

    def __init__(self, kit: Kit, code: str, options: ScriptOptions) -> None:
        self.kit, self.plugin = kit, kit.lodging.plugin
        self.limits = kit.limits(wishes(options))
        self.files = options.get("files")
        self.mounts = tuple(_mount(name, place) for name, place in options.get("mounts", {}).items())
        if self.mounts or self.files is not None:
            kit.ensure_granted(FILES)
        self.failures: list[Exception] = []
        self.call: Callable[[str, str], object] | None = None
        functions = _functions(kit, options.get("functions"))
        if functions is not None:
            self.call = functions.session(failed=lambda _, error: self.failures.append(error)).call
        self.names = () if functions is None else functions.names
        self.script = script(code, options, self.names, None if self.files is None else f"/{WORKSPACE}")


def ensure_known(options: Mapping[str, object], known: type) -> None:
    """Raises: UsageError (`usage.argument`) for an option that is not in the typed dictionary `known`."""
    names = list(known.__annotations__)
    for name in options:
        if name not in names:
            raise UsageError(f"unknown option {name!r}; known: {', '.join(names)}")


def script(code: str, options: CallOptions, functions: Sequence[str], directory: str | None) -> Script:
    """The script itself. Raises: UsageError (`usage.argument`)."""
    if not isinstance(code, str):
        raise UsageError(f"a script is text, not {type(code).__name__}")
    stdin = options.get("stdin", b"")
    arguments, environment = options.get("arguments", ()), options.get("environment", {})
    if isinstance(arguments, str):
        raise UsageError("arguments are a list of texts, not one text")
    return Script(
        code=code,
        name=options.get("name", "script.py"),
        arguments=tuple(arguments),
        stdin=stdin.encode() if isinstance(stdin, str) else bytes(stdin),
        environment=tuple(environment.items()),
        functions=functions,
        directory=directory,
    )


def wishes(options: Mapping[str, object]) -> dict[str, int]:
    """The limits among the options, by the names of `model.BOUNDS`. Raises: LimitError (`limit.range`)."""
    found: dict[str, int] = {}
    for name, (limit, parse) in _LIMITS.items():
        value = options.get(name)
        if value is not None:
            try:
                # Text needs a unit: "1" is nearly always a mistake.
                found[limit] = parse(value, unit_required=True) if isinstance(value, str) else parse(value)
            except QuantityError as error:
                raise LimitError(f"option {name}: {error}", code="limit.range") from error
    return found


def _functions(kit: Kit, given: Mapping[str, Callable[..., object] | Quota] | None) -> Functions | None:
    if not given:
        return None
    from cloche.capabilities.script.host import Functions  # noqa: PLC0415 - only who hands over some pays for it

    kit.ensure_granted(FUNCTIONS)
    return Functions(given)


def _mount(name: str, place: str | Path) -> Mount:
    """Raises: UsageError (`usage.argument`)."""
    from cloche.manifest.schema import check_mount_name  # noqa: PLC0415 - it reads a schema, which takes time

    text = str(place)
    path = text.removesuffix(":rw").removesuffix(":ro")
    try:
        check_mount_name(name)
    except ValueError as error:
        raise UsageError(f"mount {show(name)}: the name must be {error}") from None
    if name == WORKSPACE:
        raise UsageError(f"mount {WORKSPACE!r}: the name is that of the script's own files; choose another")
    try:
        found = Path(path).resolve(strict=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise UsageError(f"mount {name}: {show(path)} cannot be bound: {error}") from error
    if not (path and found.is_dir()):
        raise UsageError(f"mount {name}: {show(path)} is not a directory")
    return Mount(name, found, text.endswith(":rw"))
