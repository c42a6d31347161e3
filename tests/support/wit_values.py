"""Builders of WIT values with defaults, and a strategy that makes any type."""

from __future__ import annotations

from hypothesis import strategies as st

from cloche.wit.types import (
    BorrowType,
    Case,
    EnumType,
    ErrorContextType,
    Field,
    FlagsType,
    Function,
    FunctionKind,
    FutureType,
    Interface,
    ListType,
    MapType,
    OptionType,
    OwnType,
    Param,
    Prim,
    RecordType,
    ResourceType,
    ResultType,
    StreamType,
    TupleType,
    Type,
    TypeName,
    VariantType,
)


def resource(name: str = "bucket", interface: str | None = "wasi:keyvalue/store@0.2.0") -> ResourceType:
    """A resource type."""
    return ResourceType(TypeName(interface, name))


def record(*fields: tuple[str, Type], name: str = "rec") -> RecordType:
    """A record of these fields."""
    return RecordType(TypeName("a:b/c", name), tuple(Field(*field) for field in fields))


def variant(*cases: tuple[str, Type | None], name: str = "var") -> VariantType:
    """A variant of these cases."""
    return VariantType(TypeName("a:b/c", name), tuple(Case(*case) for case in cases))


def enum(*cases: str, name: str = "en") -> EnumType:
    """An enum of these cases."""
    return EnumType(TypeName("a:b/c", name), cases)


def flags(*names: str, name: str = "fl") -> FlagsType:
    """A set of these flags."""
    return FlagsType(TypeName("a:b/c", name), names)


def function(
    name: str = "f", params: tuple[tuple[str, Type], ...] = (), result: Type | None = None, *, is_async: bool = False
) -> Function:
    """A free function."""
    return Function(name, FunctionKind.FREE, tuple(Param(*param) for param in params), result, is_async=is_async)


def interface(
    identity: str, *functions: Function, types: tuple[tuple[str, Type | ResourceType], ...] = ()
) -> Interface:
    """An interface of these functions and types."""
    return Interface(identity, functions, types)


_NAMES = st.sampled_from(["a", "b", "c-d", "e1"])
_LABELS = st.lists(_NAMES, min_size=1, max_size=3, unique=True).map(tuple)
_RESOURCES = st.builds(resource, _NAMES, st.sampled_from([None, "a:b/c@1.0.0", "a:b/d@1.0.0"]))
_LEAVES: st.SearchStrategy[Type] = st.one_of(
    st.sampled_from(list(Prim)),
    st.builds(lambda labels: enum(*labels), _LABELS),
    st.builds(lambda labels: flags(*labels), _LABELS),
    st.builds(OwnType, _RESOURCES),
    st.builds(BorrowType, _RESOURCES),
    st.just(ErrorContextType()),
)


def _larger(inner: st.SearchStrategy[Type]) -> st.SearchStrategy[Type]:
    maybe = st.none() | inner
    return st.one_of(
        st.builds(ListType, inner, st.sampled_from([None, 2, 3])),
        st.builds(OptionType, inner),
        st.builds(ResultType, maybe, maybe),
        st.builds(lambda items: TupleType(tuple(items)), st.lists(inner, max_size=3)),
        st.builds(MapType, inner, inner),
        st.builds(StreamType, maybe),
        st.builds(FutureType, maybe),
        st.builds(lambda labels, a: record(*((label, a) for label in labels)), _LABELS, inner),
        st.builds(lambda labels, a: variant(*((label, a) for label in labels)), _LABELS, maybe),
    )


any_type: st.SearchStrategy[Type] = st.recursive(_LEAVES, _larger, max_leaves=12)
"""Any type at all, a few levels deep."""
