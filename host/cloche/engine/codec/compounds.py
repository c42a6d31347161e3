"""Plans of types with parts: how a Python value comes apart into its parts and is put together. No carrier here."""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from typing import Any, cast

from cloche.engine.codec.budget import Budget, few
from cloche.engine.codec.numbers import items_of
from cloche.engine.codec.problem import ValueProblem, add_step, expected, listed
from cloche.lazy_numpy import numpy_type
from cloche.model import Err, Ok, Some
from cloche.values import Case, brief, class_for
from cloche.wit.names import pascal, snake
from cloche.wit.types import ListType, MapType, OptionType, RecordType, ResultType, TupleType, VariantType


def plain_of(plan: Any) -> Any:
    """The function that turns one value of a row's field into what numpy takes."""
    return plan.plain if isinstance(plan, RecordPlan | TuplePlan) else plan.check


class RecordPlan:
    """A record: its class, a mapping by WIT or Python names, any dataclass or numpy row with the same fields."""

    __slots__ = ("_get", "_known", "fields", "label", "names", "parts", "python", "type", "wit_names")

    def __init__(self, type_: RecordType, parts: tuple[Any, ...]) -> None:
        self.type = type_
        self.parts = parts
        self.label = type_.name.name
        self.python: Any = class_for(type_)
        self.wit_names = tuple(field.name for field in type_.fields)
        self.names = tuple(snake(name) for name in self.wit_names)
        self._known = {**dict(zip(self.wit_names, self.names, strict=True)), **{name: name for name in self.names}}
        self._get: Any = attrgetter(*self.names) if len(self.names) > 1 else None

    def split(self, value: object) -> tuple[Any, ...]:
        """The field values in order."""
        if type(value) is self.python:
            try:
                return self._get(value) if self._get is not None else (getattr(value, self.names[0]),)
            except AttributeError:
                raise ValueProblem(f"record {self.label} was made without {listed(self._unset(value))}") from None
        if isinstance(value, Mapping):
            return self._from_mapping(value)
        if hasattr(type(value), "__dataclass_fields__"):
            from dataclasses import fields  # noqa: PLC0415 - whoever made that class has imported it

            return self._from_mapping({field.name: getattr(value, field.name) for field in fields(cast("Any", value))})
        if isinstance(value, numpy_type("void")) and value.dtype.names is not None:
            return self._from_mapping({name: value[name] for name in value.dtype.names})
        raise expected(f"record {self.label} (its class, or a mapping with {listed(self.wit_names)})", value)

    def _unset(self, value: object) -> list[str]:
        return [name for name in self.names if not hasattr(value, name)]

    def _from_mapping(self, value: Mapping[Any, Any]) -> tuple[Any, ...]:
        given: dict[str, Any] = {}
        for key, item in value.items():
            name = self._known.get(key) if isinstance(key, str) else None
            if name is None:
                raise ValueProblem(f"record {self.label} has no field {brief(key)}; it has {listed(self.wit_names)}")
            if name in given:
                raise ValueProblem(f"record {self.label}: field {name!r} is given twice")
            given[name] = item
        missing = [wit for wit, name in zip(self.wit_names, self.names, strict=True) if name not in given]
        if missing:
            raise ValueProblem(f"record {self.label} lacks {listed(missing)}")
        return tuple(given[name] for name in self.names)

    def plain(self, value: object) -> tuple[Any, ...]:
        """The checked fields as numpy takes them; only for rows."""
        return _plain_parts(self.parts, self.split(value), self.names)

    def step(self, index: int) -> str:
        """The path step to field `index`."""
        return f".{self.names[index]}"


class TuplePlan:
    """A tuple: a tuple or list of exactly its length, or a numpy row."""

    __slots__ = ("label", "parts", "type")

    def __init__(self, type_: TupleType, parts: tuple[Any, ...]) -> None:
        self.type = type_
        self.parts = parts
        self.label = f"tuple of {len(parts)}"

    def split(self, value: object) -> tuple[Any, ...]:
        """The items in order."""
        count = len(self.parts)
        if isinstance(value, numpy_type("void")) and value.dtype.names is not None:
            value = tuple(value[name] for name in value.dtype.names)
        if isinstance(value, tuple | list) and len(given := few(value, count)) == count:
            return given
        raise expected(f"a tuple of {len(self.parts)}", value)

    def plain(self, value: object) -> tuple[Any, ...]:
        """The checked items as numpy takes them; only for rows."""
        return _plain_parts(self.parts, self.split(value), tuple(f"f{index}" for index in range(len(self.parts))))

    def step(self, index: int) -> str:
        """The path step to item `index`."""
        return f"[{index}]"


def _plain_parts(parts: tuple[Any, ...], values: Any, names: tuple[str, ...]) -> tuple[Any, ...]:
    made: list[Any] = []
    try:
        for part, value in zip(parts, values, strict=True):
            made.append(plain_of(part)(value))
    except Exception as error:
        add_step(error, f".{names[len(made)]}")
        raise
    return tuple(made)


class ListPlan:
    """A list of anything else: any sized sequence in, a list out."""

    __slots__ = ("element", "type")

    def __init__(self, type_: ListType, element: Any) -> None:
        self.type = type_
        self.element = element

    def items(self, value: object, budget: Budget, size: int) -> tuple[Any, ...]:
        """A copy of the items, `size` bytes each. Raises: TooLarge for more than the budget has left."""
        return items_of(value, "list", budget, size)


class MapPlan:
    """A map: any mapping in, a dict out; of keys that a guest repeats the last one counts."""

    __slots__ = ("key", "type", "value")

    def __init__(self, type_: MapType, key: Any, value: Any) -> None:
        self.type = type_
        self.key = key
        self.value = value

    def items(self, value: object, budget: Budget, size: int) -> tuple[tuple[Any, Any], ...]:
        """A copy of the pairs, `size` bytes each. Raises: TooLarge for more than the budget has left."""
        if not isinstance(value, Mapping):
            raise expected("map (a mapping)", value)
        return budget.copy(value.items(), size)


class OptionPlan:
    """An option: None, or the value; where the payload is itself an option the value stands in `Some`."""

    __slots__ = ("nested", "payload", "type")

    def __init__(self, type_: OptionType, payload: Any) -> None:
        self.type = type_
        self.payload = payload
        self.nested = isinstance(type_.payload, OptionType)

    def some(self, value: object) -> Any:
        """The payload of a value that is not None."""
        if isinstance(value, Some):
            return value.value
        if self.nested:
            raise expected("None or Some(...), because the payload is itself an option", value)
        return value


class VariantPlan:
    """A variant: an instance of one of its case classes, `Case(name, payload)`, `{name: payload}`, or a bare name."""

    __slots__ = ("_by_class", "_by_name", "classes", "label", "names", "parts", "python", "type")

    def __init__(self, type_: VariantType, parts: tuple[Any | None, ...]) -> None:
        self.type = type_
        self.parts = parts
        self.label = type_.name.name
        self.names = tuple(case.name for case in type_.cases)
        self.python: Any = class_for(type_)
        self.classes: tuple[Any, ...] = tuple(getattr(self.python, pascal(name)) for name in self.names)
        self._by_class = {made: index for index, made in enumerate(self.classes)}
        self._by_name = {name: index for index, name in enumerate(self.names)}

    def split(self, value: object) -> tuple[int, Any]:
        """The index of the case, and its payload (None without)."""
        index = self._by_class.get(type(value))
        if index is not None:
            return index, value.value  # type: ignore[attr-defined]
        name: object = None
        payload: object = None
        if isinstance(value, Case):
            name, payload = value.name, value.payload
        elif isinstance(value, str):
            name = value
        elif isinstance(value, Mapping) and len(value) == 1:
            name, payload = next(iter(value.items()))
        index = self._by_name.get(name) if isinstance(name, str) else None
        if index is None:
            raise expected(f"a case of variant {self.label} ({listed(self.names)})", value)
        part = self.parts[index]
        if part is None and payload is not None:
            raise ValueProblem(f"case {name!r} of variant {self.label} has no payload")
        if part is not None and payload is None and not isinstance(part, OptionPlan):
            raise ValueProblem(f"case {name!r} of variant {self.label} needs a payload")
        return index, payload

    def make(self, index: int, payload: Any) -> Any:
        """The value of one case."""
        return self.classes[index]() if self.parts[index] is None else self.classes[index](payload)


class ResultPlan:
    """A result inside values: `Ok(value)` or `Err(value)`; None for a case without payload."""

    __slots__ = ("err", "ok", "type")

    def __init__(self, type_: ResultType, ok: Any | None, err: Any | None) -> None:
        self.type = type_
        self.ok = ok
        self.err = err

    def split(self, value: object) -> tuple[bool, Any]:
        """Whether it is Ok, and the payload."""
        if isinstance(value, Ok | Err):
            is_ok, payload = isinstance(value, Ok), value.value
            if (self.ok if is_ok else self.err) is None and payload is not None:
                word = "Ok" if is_ok else "Err"
                raise ValueProblem(f"{word} carries no payload here: write {word}(None)")
            return is_ok, payload
        raise expected("Ok(...) or Err(...)", value)
