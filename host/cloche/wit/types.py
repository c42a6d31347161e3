"""The component model's types as frozen, hashable values, and the functions, interfaces and worlds made of them.

Source: component-model WIT.md and Explainer.md. The same values describe our own WIT and a stranger's component, so
that the contract check can compare them and the codec can compile them. Type aliases are resolved away; named types
keep the interface that owns them, because identity of a resource is nominal while everything else is structural.
"""

from __future__ import annotations

from enum import StrEnum
from functools import cached_property

from cloche.frozen import dataclass, field


class Prim(StrEnum):
    """The primitive value types."""

    BOOL = "bool"
    S8 = "s8"
    U8 = "u8"
    S16 = "s16"
    U16 = "u16"
    S32 = "s32"
    U32 = "u32"
    S64 = "s64"
    U64 = "u64"
    F32 = "f32"
    F64 = "f64"
    CHAR = "char"
    STRING = "string"


@dataclass(frozen=True, slots=True)
class TypeName:
    """Where a named type is declared: interface id (`ns:pkg/iface@1.2.3`, or None at the root of a world) and name."""

    interface: str | None
    name: str

    def __str__(self) -> str:
        return f"{self.interface}.{self.name}" if self.interface else self.name


@dataclass(frozen=True, slots=True)
class ListType:
    """`list<element>`, or `list<element, length>` when `length` is not None."""

    element: Type
    length: int | None = None


@dataclass(frozen=True, slots=True)
class OptionType:
    """`option<payload>`."""

    payload: Type


@dataclass(frozen=True, slots=True)
class ResultType:
    """`result<ok, err>`; None where a case has no payload."""

    ok: Type | None
    err: Type | None


@dataclass(frozen=True, slots=True)
class TupleType:
    """`tuple<items…>`."""

    items: tuple[Type, ...]


@dataclass(frozen=True, slots=True)
class MapType:
    """`map<key, value>`."""

    key: Type
    value: Type


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a record, named in kebab-case."""

    name: str
    type: Type


@dataclass(frozen=True, slots=True)
class RecordType:
    """A record. Two records are the same type when fields agree; `name` only labels the generated class."""

    name: TypeName
    fields: tuple[Field, ...]


@dataclass(frozen=True, slots=True)
class Case:
    """One case of a variant, named in kebab-case; `type` is None without payload."""

    name: str
    type: Type | None


@dataclass(frozen=True, slots=True)
class VariantType:
    """A variant."""

    name: TypeName
    cases: tuple[Case, ...]


@dataclass(frozen=True, slots=True)
class EnumType:
    """An enum; cases in kebab-case, in order."""

    name: TypeName
    cases: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FlagsType:
    """A set of flags; names in kebab-case, in bit order."""

    name: TypeName
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ResourceType:
    """A resource type; its identity is its name."""

    name: TypeName


@dataclass(frozen=True, slots=True)
class OwnType:
    """`own<resource>`: the receiver may drop it."""

    resource: ResourceType


@dataclass(frozen=True, slots=True)
class BorrowType:
    """`borrow<resource>`: usable during the call only."""

    resource: ResourceType


@dataclass(frozen=True, slots=True)
class StreamType:
    """`stream<element>`; refused by the contract check."""

    element: Type | None


@dataclass(frozen=True, slots=True)
class FutureType:
    """`future<payload>`; refused by the contract check."""

    payload: Type | None


@dataclass(frozen=True, slots=True)
class ErrorContextType:
    """`error-context`; refused by the contract check."""


Type = (
    Prim
    | ListType
    | OptionType
    | ResultType
    | TupleType
    | MapType
    | RecordType
    | VariantType
    | EnumType
    | FlagsType
    | OwnType
    | BorrowType
    | StreamType
    | FutureType
    | ErrorContextType
)
"""A value type. `ResourceType` itself is not one: values are `own` or `borrow` of it."""


class FunctionKind(StrEnum):
    """How a function belongs to its interface."""

    FREE = "free"
    METHOD = "method"
    STATIC = "static"
    CONSTRUCTOR = "constructor"


@dataclass(frozen=True, slots=True)
class Param:
    """One parameter, named in kebab-case. A method's first parameter is its `self`, a borrow."""

    name: str
    type: Type


@dataclass(frozen=True, slots=True)
class Function:
    """A function: `name` as it stands in the component (`greet`, `[method]bucket.get`, `[constructor]bucket`)."""

    name: str
    kind: FunctionKind
    params: tuple[Param, ...]
    result: Type | None
    resource: ResourceType | None = None
    is_async: bool = False
    docs: str = field(default="", compare=False)

    @property
    def types(self) -> tuple[Type, ...]:
        """Those of its parameters, and of its result where it has one."""
        own = tuple(param.type for param in self.params)
        return own if self.result is None else (*own, self.result)

    @property
    def item_name(self) -> str:
        """The last word of the name: `get` of `[method]bucket.get`, `bucket` of `[constructor]bucket`."""
        return self.name.rsplit("]", 1)[-1].rsplit(".", 1)[-1]


@dataclass(frozen=True, slots=True, eq=False)
class Export:
    """One function that a component exports: in an interface, or at the root (None). Equal only to itself.

    Identity makes it the cheapest key there is: every call looks its function up by it.
    """

    interface: str | None
    function: Function

    @property
    def label(self) -> str:
        """`interface.function`, for messages."""
        return f"{self.interface}.{self.function.name}" if self.interface else self.function.name


@dataclass(frozen=True)
class Interface:
    """A named group of types and functions. `id` is `ns:pkg/name@version`, or a plain name for an inline interface."""

    id: str
    functions: tuple[Function, ...] = ()
    types: tuple[tuple[str, Type | ResourceType], ...] = ()
    docs: str = field(default="", compare=False)

    @cached_property
    def by_name(self) -> dict[str, Function]:
        """Functions by the name that stands in the component."""
        return {function.name: function for function in self.functions}


@dataclass(frozen=True)
class World:
    """What a component imports and exports: interfaces by id, and functions and types directly at the root."""

    name: str
    imports: tuple[Interface, ...] = ()
    exports: tuple[Interface, ...] = ()
    import_functions: tuple[Function, ...] = ()
    export_functions: tuple[Function, ...] = ()
    import_types: tuple[tuple[str, Type | ResourceType], ...] = ()
    export_types: tuple[tuple[str, Type | ResourceType], ...] = ()


@dataclass(frozen=True, slots=True)
class InterfaceId:
    """`ns:pkg/name@version` taken apart. `version` is None when the id carries none."""

    namespace: str
    package: str
    name: str
    version: str | None

    @classmethod
    def parse(cls, text: str) -> InterfaceId | None:
        """Take `text` apart; None when it is not of the form `ns:pkg/name[@version]`."""
        path, _, version = text.partition("@")
        head, slash, name = path.partition("/")
        namespace, colon, package = head.partition(":")
        if not (slash and colon and namespace and package and name):
            return None
        return cls(namespace, package, name, version or None)

    @property
    def unversioned(self) -> str:
        """`ns:pkg/name`."""
        return f"{self.namespace}:{self.package}/{self.name}"

    def __str__(self) -> str:
        return self.unversioned + (f"@{self.version}" if self.version else "")
