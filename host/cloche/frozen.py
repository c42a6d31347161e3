"""`dataclass` for frozen classes, without what makes the standard library's dear: 10 ms to import, 0.5 ms a class.

That is more than all the rest of a worker's start. What is made here is a dataclass to whoever asks (`fields`,
`replace`, `is_dataclass`, a dataclass derived from it): the answer is made when the question comes. Frozen classes
only, with defaults, `field` and `__post_init__`, all of whose fields are arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from keyword import iskeyword
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

T = TypeVar("T")

_NONE = object()


class _Field:
    """What `field` gives: as in `dataclasses`."""

    __slots__ = ("compare", "default", "factory", "kind", "name", "shown")

    def __init__(
        self,
        *,
        default: Any = _NONE,
        default_factory: Any = _NONE,
        compare: bool = True,
        repr: bool = True,  # noqa: A002 - its name there
    ) -> None:
        self.default, self.factory = default, default_factory
        self.compare, self.shown = compare, repr
        self.name: str = ""
        self.kind: Any = None


def _dataclass(
    *,
    frozen: bool,
    slots: bool = False,
    eq: bool = True,
    repr: bool = True,  # noqa: A002 - its name there
) -> Callable[[type], type]:
    assert frozen

    def decorate(bare: type) -> type:
        fields = _fields_of(bare)
        made = _with_slots(bare, fields) if slots else bare
        methods: dict[str, Any] = {
            "__init__": _first_init(made, fields),
            "__setattr__": _refuse,
            "__delattr__": _refuse,
            "__match_args__": tuple(field.name for field in fields),
            "_frozen_fields": fields,
        }
        if eq:
            methods["__eq__"], methods["__hash__"] = _comparison([field.name for field in fields if field.compare])
        if repr:
            methods["__repr__"] = _shown
        if slots:
            methods |= {"__getstate__": _state, "__setstate__": _set_state}
        for name, value in methods.items():
            if name not in bare.__dict__:
                setattr(made, name, value)
        for name in ("__dataclass_fields__", "__dataclass_params__", "__signature__"):
            setattr(made, name, _Asked(made, name, eq=eq, repr=repr))
        return made

    return decorate


def _fields_of(bare: type) -> tuple[_Field, ...]:
    """Those of its bases, then its own."""
    found: dict[str, _Field] = {}
    for base in bare.__mro__[-1:0:-1]:
        found |= {field.name: field for field in base.__dict__.get("_frozen_fields", ())}
    for name, kind in bare.__annotations__.items():
        if str(kind).startswith("ClassVar"):
            continue
        if not name.isidentifier() or iskeyword(name):
            raise TypeError(f"{name!r} cannot name a field")
        given = _NONE if name in bare.__dict__.get("__slots__", ()) else bare.__dict__.get(name, _NONE)
        made = given if isinstance(given, _Field) else _Field(default=given)
        made.name, made.kind = name, kind
        found[name] = made
    return tuple(found.values())


def _first_init(made: Any, fields: tuple[_Field, ...]) -> Any:
    """Puts the real one into its place when it is called: many classes are never used in one process."""

    def init(self: Any, *args: Any, **options: Any) -> None:
        made.__init__ = real = _init(fields, hasattr(made, "__post_init__"))
        real(self, *args, **options)

    return init


def _init(fields: tuple[_Field, ...], has_more: bool) -> Any:
    """As quick as one written by hand. No argument can have the name of what is used inside."""
    namespace: dict[str, Any] = {"_set": object.__setattr__, "_none": _NONE}
    arguments, lines = ["_self"], []
    for field in fields:
        name, value = field.name, field.name
        if field.factory is not _NONE:
            namespace[f"_make_{name}"] = field.factory
            arguments.append(f"{name}=_none")
            value = f"_make_{name}() if {name} is _none else {name}"
        elif field.default is not _NONE:
            namespace[f"_default_{name}"] = field.default
            arguments.append(f"{name}=_default_{name}")
        else:
            arguments.append(name)
        lines.append(f" _set(_self, {name!r}, {value})\n")
    lines.append(" _self.__post_init__()\n" if has_more else " pass\n")
    exec(f"def __init__({', '.join(arguments)}):\n{''.join(lines)}", namespace)  # noqa: S102 - the names are checked
    return namespace["__init__"]


def _comparison(names: list[str]) -> tuple[Any, Any]:
    """`__eq__` and `__hash__` by the values of these fields."""
    if not names:
        values: Any = lambda _: ()  # noqa: E731
    else:
        values = attrgetter(*names, *(names if len(names) == 1 else ()))  # a tuple also for one

    def equal(self: object, other: object) -> Any:
        return values(self) == values(other) if type(other) is type(self) else NotImplemented

    return equal, lambda self: hash(values(self))


def _with_slots(bare: type, fields: tuple[_Field, ...]) -> type:
    """The class once more, with places for its own fields."""
    namespace = dict(bare.__dict__)
    own = tuple(field.name for field in fields if field.name in bare.__annotations__)
    for name in (*own, "__dict__", "__weakref__"):
        namespace.pop(name, None)
    namespace["__slots__"] = own
    made = type(bare)(bare.__name__, bare.__bases__, namespace)
    made.__qualname__ = bare.__qualname__
    return made


def _refuse(_self: object, name: str, *value: object) -> None:
    from dataclasses import FrozenInstanceError  # noqa: PLC0415 - only those who do wrong need it

    raise FrozenInstanceError(f"cannot {'assign to' if value else 'delete'} field {name!r}")


def _shown(self: Any) -> str:
    fields = ", ".join(f"{field.name}={getattr(self, field.name)!r}" for field in self._frozen_fields if field.shown)
    return f"{type(self).__qualname__}({fields})"


def _state(self: Any) -> list[Any]:
    return [getattr(self, field.name) for field in self._frozen_fields]


def _set_state(self: Any, state: list[Any]) -> None:
    for field, value in zip(self._frozen_fields, state, strict=True):
        object.__setattr__(self, field.name, value)


class _Asked:
    """What `dataclasses` looks for in a class, made when it does so."""

    __slots__ = ("_name", "_of", "_options")

    def __init__(self, of: Any, name: str, **options: Any) -> None:
        self._of, self._name, self._options = of, name, options

    def __get__(self, instance: object, owner: Any) -> Any:
        import dataclasses  # noqa: PLC0415 - whoever asks has imported these
        from inspect import signature  # noqa: PLC0415

        if self._name == "__signature__" and owner.__init__ is not self._of.__init__:
            raise AttributeError(self._name)

        def told(field: _Field) -> tuple[str, Any, Any]:
            given: dict[str, Any] = {"compare": field.compare, "repr": field.shown}
            if field.default is not _NONE:
                given["default"] = field.default
            if field.factory is not _NONE:
                given["default_factory"] = field.factory
            return field.name, field.kind, dataclasses.field(**given)

        fields = [told(field) for field in self._of._frozen_fields]
        twin = dataclasses.make_dataclass(self._of.__name__, fields, frozen=True, **self._options)
        if self._name == "__signature__":
            return signature(twin)
        setattr(self._of, self._name, getattr(twin, self._name))
        return getattr(twin, self._name)


def _replace(value: Any, /, **changes: Any) -> Any:
    """The same but for `changes`. Raises: as making it does."""
    return type(value)(**{**as_dict(value), **changes})


def as_dict(value: Any) -> dict[str, Any]:
    """Its fields by name, as they are."""
    return {field.name: getattr(value, field.name) for field in value._frozen_fields}


if TYPE_CHECKING:
    from dataclasses import dataclass, field, replace
else:
    dataclass, field, replace = _dataclass, _Field, _replace

__all__ = ["as_dict", "dataclass", "field", "replace"]
