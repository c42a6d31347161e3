"""Functions of the host, as a script sees them."""

import json

from componentize_py_types import Err
from wit_world.imports import functions as wit


class HostFunctionError(RuntimeError):
    """The host refused a call, in its own words."""


HostFunctionError.__module__ = "builtins"  # shown without a module, because there is none to import it from


class HostFunction:
    """One function of the host. Arguments and results are what JSON can express."""

    Error = HostFunctionError

    def __init__(self, name: str) -> None:
        self.__name__ = self.__qualname__ = name

    def __call__(self, /, *args: object, **kwargs: object) -> object:
        """Call the host. Raises: TypeError for arguments that are not JSON, HostFunctionError for its refusal."""
        try:
            arguments = json.dumps({"args": args, "kwargs": kwargs}, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise TypeError(f"{self.__name__}() takes what JSON can express: {error}") from None
        try:
            answer = wit.call(self.__name__, arguments)
        except Err as error:
            raise HostFunctionError(error.value) from None
        try:
            return json.loads(answer)
        except ValueError as error:
            raise HostFunctionError(f"the host's answer to {self.__name__}() is not JSON: {error}") from None

    def __repr__(self) -> str:
        return f"<function {self.__name__} of the host>"
