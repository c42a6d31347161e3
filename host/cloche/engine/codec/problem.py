"""What is wrong with one value, and where inside it; turned into a public error at the codec's edge."""

from __future__ import annotations

from collections.abc import Sequence

from cloche.errors import ClocheError
from cloche.values import brief

MAX_WORDS = 200
"""Most of a foreign error's own text that is quoted, in characters."""
MAX_LISTED = 16
"""Most names of a type that a message lists."""


class ValueProblem(Exception):
    """A value that does not fit its type. `steps` lead to it, innermost first; each level adds its own."""

    def __init__(self, text: str, code: str = "usage.value") -> None:
        super().__init__(text)
        self.text = text
        self.code = code
        self.steps: list[str] = []

    @property
    def path(self) -> str:
        """The steps from the outside in, as `.items[3].size`."""
        return "".join(reversed(self.steps))


class TooLarge(ValueProblem):
    """More canonical-ABI bytes than allowed, or (with a text of its own) more engine values than fit the host."""

    def __init__(self, text: str = "") -> None:
        super().__init__(text, "limit.payload")


class InvalidValue(Exception):
    """The engine handed over a value of another kind or shape than the type says."""


def problem_in(error: BaseException) -> ValueProblem | None:
    """The problem that `error` is, or that the code of somebody's value made by raising it while it was read.

    None for what speaks for itself: our own errors, lack of memory, and what is no Exception.
    """
    if isinstance(error, ValueProblem):
        return error
    if isinstance(error, InvalidValue | ClocheError | MemoryError) or not isinstance(error, Exception):
        return None
    try:
        words = f": {error}"[:MAX_WORDS].rstrip(": ")
    except Exception:  # its own text may fail as well
        words = ""
    problem = ValueProblem(f"reading it failed with {type(error).__name__}{words}")
    problem.__cause__ = error
    return problem


def add_step(error: Exception, step: str) -> None:
    """Add a step to the path of the problem in `error`. Raises: ValueProblem in place of what foreign code raised."""
    problem = problem_in(error)
    if problem is not None:
        problem.steps.append(step)
        if problem is not error:
            raise problem from error


def expected(what: str, value: object) -> ValueProblem:
    """The problem `expected <what>, got <value>`, the value shortened."""
    shown, kind = brief(value), type(value).__name__
    if value is None or isinstance(value, bool | int | float | str) or shown == f"<{kind}>":
        return ValueProblem(f"expected {what}, got {shown}")
    return ValueProblem(f"expected {what}, got {shown} ({kind})")


def listed(names: Sequence[str]) -> str:
    """The names of a type for a message, not all of very many."""
    return ", ".join(names[:MAX_LISTED]) + (f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else "")
