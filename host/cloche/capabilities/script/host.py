"""Host side of `cloche:script/functions`: Python functions that a script may call, with JSON in between."""

from __future__ import annotations

import inspect
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from cloche.capabilities.api import EventKind, HostInterface, Session
from cloche.capabilities.script.grant import INTERFACE, SCHEMA, ScriptParams
from cloche.errors import ClocheError, UsageError, hides_ctrl_c
from cloche.grants.schema import Params
from cloche.model import Err, Ok
from cloche.resources import wit_dir
from cloche.text import show

MAX_REFUSAL_CHARACTERS = 2000
"""Longest text that a script is told when a function refuses it."""


class FunctionError(Exception):
    """Raised by a function that a script calls, to tell the script what is wrong: its text is all that gets there.

    Of any other exception the script is told the type alone. Added in 0.1.
    """


@dataclass(frozen=True, slots=True)
class Quota:
    """A function that each script may call at most `calls` times: `functions={"fetch": Quota(fetch, 10)}`."""

    function: Callable[..., object]
    calls: int


class Functions:
    """Functions of the application, checked and described once. Immutable; from any thread.

    Arguments are checked against the function's annotations, as JSON and strictly: a list fits `tuple[int, ...]` and a
    text fits `datetime`, a text does not fit `int`. What has no annotation takes anything. Added in 0.1.

    Raises: UsageError (`usage.argument`) for what is no function, a name that is none in Python, a coroutine function,
        and annotations that cannot be read.
    """

    def __init__(self, functions: Mapping[str, Callable[..., object] | Quota]) -> None:
        self._functions = {name: _Function(name, function) for name, function in functions.items()}

    @property
    def names(self) -> tuple[str, ...]:
        """Their names, in the order in which they were given."""
        return tuple(self._functions)

    def session(
        self, names: Iterable[str] | None = None, failed: Callable[[str, Exception], None] = lambda *_: None
    ) -> FunctionsSession:
        """The functions for one script, with quotas of their own; only those in `names` (None: all).

        `failed` is told of each exception that the application did not mean for the script.
        """
        wanted = self._functions if names is None else {name: self._functions[name] for name in names}
        return FunctionsSession(wanted, failed)


class FunctionsSession:
    """`cloche:script/functions` for one script or instance. Source: wit/script/functions.wit."""

    def __init__(self, functions: Mapping[str, _Function], failed: Callable[[str, Exception], None]) -> None:
        self._functions, self._failed = functions, failed
        self._left = {name: function.calls for name, function in functions.items() if function.calls is not None}
        self._lock = threading.Lock()

    def call(self, name: str, arguments: str) -> Ok[str] | Err[str]:
        """Call the function `name`. Blocks as long as it does; what it refuses is an error value, never a trap."""
        function = self._functions.get(name)
        if function is None:
            known = ", ".join(self._functions) or "none"
            return Err(f"there is no function {show(name)}; there are: {known}")
        with self._lock:
            left = self._left.get(name)
            if left == 0:
                return Err(f"{name}() may be called {function.calls} times by one script")
            if left is not None:
                self._left[name] = left - 1
        try:
            return Ok(function.call(arguments))
        except FunctionError as refusal:
            return Err(str(refusal)[:MAX_REFUSAL_CHARACTERS])
        except ClocheError:
            raise
        except Exception as error:
            if hides_ctrl_c(error):
                raise KeyboardInterrupt from error
            self._failed(name, error)
            return Err(f"{name}() failed in the application ({type(error).__name__})")

    def close(self) -> None:
        """Nothing to release."""


class ScriptFunctions:
    """The capability `cloche:script` with functions of the application: `Host(capabilities=[ScriptFunctions({…})])`.

    Each is a Python function, or a `Quota` of one. A plugin calls those that its manifest asks for and the operator
    allows; quotas count for each instance. Raises: as `Functions`. Added in 0.1.
    """

    schema = SCHEMA

    def __init__(self, functions: Mapping[str, Callable[..., object] | Quota] | None = None) -> None:
        self._functions = Functions(functions or {})

    def wit(self) -> Path:
        """The directory of the WIT package."""
        return wit_dir() / "script"

    def open(self, grant: Params, session: Session) -> Mapping[str, HostInterface]:
        """The functions, for one instance."""
        assert isinstance(grant, ScriptParams)
        names = self._functions.names
        granted = names if grant.functions is None else [name for name in names if name in grant.functions]

        def failed(name: str, error: Exception) -> None:
            data = {"code": "capability.backend", "message": f"the function {name} failed", "cause": f"{error!r:.2000}"}
            session.emit(EventKind.BACKEND_ERROR, data)

        return {INTERFACE: self._functions.session(granted, failed)}


class _Function:
    """One function, with what checks its arguments."""

    def __init__(self, name: str, given: Callable[..., object] | Quota) -> None:
        self.calls = given.calls if isinstance(given, Quota) else None
        function = given.function if isinstance(given, Quota) else given
        if not callable(function) or inspect.iscoroutinefunction(function):
            what = "a coroutine function" if callable(function) else f"{type(function).__name__}"
            raise UsageError(f"function {name!r} must be a plain function, not {what}")
        if not name.isidentifier():
            raise UsageError(f"function {name!r} cannot be called that: it becomes a global of the script")
        if self.calls is not None and (type(self.calls) is not int or self.calls < 0):
            raise UsageError(f"the quota of function {name!r} must be a number of calls, not {self.calls!r}")
        from pydantic import TypeAdapter  # noqa: PLC0415 - only who hands over functions pays for it

        self._name, self._function = name, function
        try:
            self._signature = inspect.signature(function)
            hints = get_type_hints(function, include_extras=True)
            self._checks = {
                parameter: TypeAdapter(hints[parameter]).validate_json
                for parameter in self._signature.parameters
                if parameter in hints
            }
        except Exception as error:
            raise UsageError(f"the annotations of function {name!r} cannot be read: {error}") from error

    def call(self, arguments: str) -> str:
        """From JSON to JSON. Raises: FunctionError for arguments that do not fit; what the function raises."""
        args, kwargs = self._read(arguments)
        try:
            bound = self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise FunctionError(f"{self._name}(): {error}") from None
        kinds = self._signature.parameters
        for parameter, value in bound.arguments.items():
            check = self._checks.get(parameter)
            if check is not None:
                bound.arguments[parameter] = self._checked(parameter, kinds[parameter].kind, value, check)
        answer = self._function(*bound.args, **bound.kwargs)
        return json.dumps(answer, allow_nan=False)

    def _read(self, arguments: str) -> tuple[list[Any], dict[str, Any]]:
        try:
            given = json.loads(arguments)
            args, kwargs = given["args"], given["kwargs"]
            if isinstance(args, list) and isinstance(kwargs, dict):
                return args, kwargs
        except (ValueError, KeyError, TypeError, RecursionError):
            pass
        raise FunctionError(f'{self._name}(): the arguments are no JSON object with "args" and "kwargs"')

    def _checked(self, parameter: str, kind: Any, value: Any, check: Callable[..., Any]) -> Any:
        from pydantic import ValidationError  # noqa: PLC0415 - it is imported by now

        def one(item: Any) -> Any:
            return check(json.dumps(item), strict=True)

        try:
            if kind is inspect.Parameter.VAR_POSITIONAL:
                return tuple(map(one, value))
            if kind is inspect.Parameter.VAR_KEYWORD:
                return {name: one(item) for name, item in value.items()}
            return one(value)
        except ValidationError as error:
            raise FunctionError(f"{self._name}(): {parameter}: {'; '.join(_problems(error))}") from None


def _problems(error: Any) -> Iterator[str]:
    for problem in error.errors(include_url=False, include_context=False, include_input=False)[:5]:
        place = "".join(f"[{part!r}]" for part in problem["loc"])
        yield f"{place + ': ' if place else ''}{problem['msg']}"
