"""What is wrong with one value, and where inside it; turned into a public error at the codec's edge."""

from __future__ import annotations

from cloche.values import brief


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
    """More canonical-ABI bytes than allowed, or (with a text of its own) a list longer than fits the host."""

    def __init__(self, text: str = "") -> None:
        super().__init__(text, "limit.payload")


class InvalidValue(Exception):
    """The engine handed over a value of another kind or shape than the type says."""


def expected(what: str, value: object) -> ValueProblem:
    """The problem `expected <what>, got <value>`, the value shortened."""
    shown = brief(value)
    kind = type(value).__name__
    if value is None or isinstance(value, bool | int | float | str):
        return ValueProblem(f"expected {what}, got {shown}")
    return ValueProblem(f"expected {what}, got {shown} ({kind})")
