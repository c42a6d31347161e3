"""The JSON that `wasm-tools component wit --json` prints, turned into our own types. Pure; hostile input expected.

The document is wit-parser's `Resolve`: tables of packages, worlds, interfaces and types that refer to each other by
index. Type aliases are resolved away; a type that was brought in with `use` keeps the name of the interface that
declares it. Nothing here trusts the order of the tables, the depth of a type or the size that it unfolds to.
"""

from __future__ import annotations

from dataclasses import dataclass

from cloche.errors import ContractError
from cloche.wit.document import Document
from cloche.wit.types import Function, FunctionKind, Interface, Param, ResourceType, Type, World
from cloche.wit.typetable import TypeTable

MAX_INTERFACES = 1_000
MAX_FUNCTIONS = 10_000
MAX_PARAMETERS = 1_000

_COMPONENT_PACKAGE = "root:component"
_KINDS: dict[str, tuple[FunctionKind, bool]] = {
    "freestanding": (FunctionKind.FREE, False),
    "method": (FunctionKind.METHOD, False),
    "static": (FunctionKind.STATIC, False),
    "constructor": (FunctionKind.CONSTRUCTOR, False),
    "async-freestanding": (FunctionKind.FREE, True),
    "async-method": (FunctionKind.METHOD, True),
    "async-static": (FunctionKind.STATIC, True),
}


@dataclass(frozen=True)
class Package:
    """A WIT package: its interfaces and worlds, and the interfaces of every package that it depends on."""

    name: str
    interfaces: tuple[Interface, ...]
    worlds: tuple[World, ...]
    dependencies: tuple[Interface, ...] = ()


def resolve_component(document: bytes) -> World:
    """The world of a component: everything it imports and exports. Pure.

    Raises: ContractError: `component.malformed` when the document describes a WIT package instead of a component,
        `contract.inspect` when it goes beyond a bound of these modules, or is not such a document. Added in 0.1.
    """
    return _Resolver(Document(document, "contract.inspect", "The component's types cannot be read")).component()


def resolve_package(document: bytes) -> Package:
    """The WIT package that was read (the last one of the document), with those that it depends on. Pure.

    Raises: ContractError (`contract.wit`) as for `resolve_component`. Added in 0.1.
    """
    return _Resolver(Document(document, "contract.wit", "The WIT package cannot be read")).package()


class _Resolver:
    """The worlds, interfaces and functions of one document."""

    def __init__(self, document: Document) -> None:
        self._doc = document
        root = document.root
        self._packages = [
            document.table(package, "a package")
            for package in document.entries(root.get("packages"), "packages", MAX_INTERFACES)
        ]
        self._worlds = document.entries(root.get("worlds"), "worlds", MAX_INTERFACES)
        self._raw = document.entries(root.get("interfaces"), "interfaces", MAX_INTERFACES)
        self._done: dict[int, Interface] = {}
        self._functions = 0
        self._ids = self._interface_ids()
        self._types = TypeTable(document, self._ids)

    def component(self) -> World:
        """The only world of the document."""
        names = [package.get("name") for package in self._packages]
        if len(self._worlds) != 1 or _COMPONENT_PACKAGE not in names:
            raise ContractError(
                "The file is an encoded WIT package, which holds only types, not a component. Build the component.",
                code="component.malformed",
            )
        return self._world(0)

    def package(self) -> Package:
        """The last package and its dependencies."""
        if not self._packages:
            self._doc.fail("it holds no package")
        *others, last = self._packages
        worlds = self._doc.table(last.get("worlds", {}), "a package's worlds").values()
        return Package(
            name=self._doc.name(last.get("name"), "a package"),
            interfaces=self._declared(last),
            worlds=tuple(self._world(self._doc.index(index, self._worlds, "a world")) for index in worlds),
            dependencies=tuple(interface for package in others for interface in self._declared(package)),
        )

    def _declared(self, package: dict[str, object]) -> tuple[Interface, ...]:
        indices = self._doc.table(package.get("interfaces", {}), "a package's interfaces").values()
        return tuple(self._interface(self._doc.index(index, self._raw, "an interface")) for index in indices)

    def _interface_ids(self) -> dict[int, str]:
        ids: dict[int, str] = {}
        for package in self._packages:
            path, at, version = self._doc.name(package.get("name"), "a package").partition("@")
            for name, index in self._doc.table(package.get("interfaces", {}), "its interfaces").items():
                number = self._doc.index(index, self._raw, "an interface")
                ids[number] = f"{path}/{self._doc.name(name, 'an interface')}{at}{version}"
        for raw in self._worlds:
            world = self._doc.table(raw, "a world")
            for side in ("imports", "exports"):
                for key, item in self._doc.table(world.get(side, {}), f"a world's {side}").items():
                    if (found := self._item_interface(item)) is not None:
                        ids.setdefault(found, self._doc.name(key, "an interface"))
        return ids

    def _item_interface(self, item: object) -> int | None:
        kind = self._doc.table(item, "an item of a world").get("interface")
        if kind is None:
            return None
        return self._doc.index(self._doc.table(kind, "an interface").get("id"), self._raw, "an interface")

    def _world(self, number: int) -> World:
        world = self._doc.table(self._worlds[number], "a world")
        sides: dict[str, tuple[list[Interface], list[Function], list[tuple[str, Type | ResourceType]]]] = {}
        for side in ("imports", "exports"):
            interfaces, functions, types = sides[side] = ([], [], [])
            for key, raw in self._doc.table(world.get(side, {}), f"a world's {side}").items():
                item = self._doc.table(raw, "an item of a world")
                if (index := self._item_interface(item)) is not None:
                    interfaces.append(self._named(key, index))
                elif "function" in item:
                    functions.append(self._function(key, item["function"]))
                elif "type" in item:
                    types.append((self._doc.name(key, "a type"), self._types.declared(item["type"])))
                else:
                    self._doc.fail(f"`{key:.80}` of the world is neither an interface, a function nor a type")
        return World(
            name=self._doc.name(world.get("name"), "a world"),
            imports=tuple(sides["imports"][0]),
            exports=tuple(sides["exports"][0]),
            import_functions=tuple(sides["imports"][1]),
            export_functions=tuple(sides["exports"][1]),
            import_types=tuple(sides["imports"][2]),
            export_types=tuple(sides["exports"][2]),
        )

    def _named(self, key: str, number: int) -> Interface:
        """The interface as the world calls it: by its id where the key is the tool's own, else by the key."""
        interface = self._interface(number)
        if key == f"interface-{number}" and "/" in interface.id:
            return interface
        name = self._doc.name(key, "an interface")
        if interface.id == name:
            return interface
        return Interface(name, interface.functions, interface.types, interface.docs)

    def _interface(self, number: int) -> Interface:
        done = self._done.get(number)
        if done is not None:
            return done
        raw = self._doc.table(self._raw[number], "an interface")
        identity = self._ids.get(number)
        if identity is None:
            self._doc.fail(f"interface {number} belongs to no package or world")
        types = self._doc.table(raw.get("types", {}), f"the types of `{identity}`")
        functions = self._doc.table(raw.get("functions", {}), f"the functions of `{identity}`")
        interface = Interface(
            id=identity,
            functions=tuple(self._function(name, function) for name, function in functions.items()),
            types=tuple((self._doc.name(name, "a type"), self._types.declared(index)) for name, index in types.items()),
            docs=self._doc.docs(raw),
        )
        self._done[number] = interface
        return interface

    def _function(self, key: str, raw: object) -> Function:
        self._functions += 1
        if self._functions > MAX_FUNCTIONS:
            self._doc.fail(f"it has more than {MAX_FUNCTIONS} functions")
        function = self._doc.table(raw, "a function")
        name = self._doc.name(function.get("name"), "a function")
        if name != key:
            self._doc.fail(f"function `{name}` stands under the name `{key:.80}`")
        kind, is_async, resource = self._kind(name, function.get("kind"))
        params = []
        for item in self._doc.entries(function.get("params"), f"the parameters of `{name}`", MAX_PARAMETERS):
            param = self._doc.table(item, f"a parameter of `{name}`")
            params.append(Param(self._doc.name(param.get("name"), "a parameter"), self._types.value(param.get("type"))))
        result = function.get("result")
        return Function(
            name=name,
            kind=kind,
            params=tuple(params),
            result=None if result is None else self._types.value(result),
            resource=resource,
            is_async=is_async,
            docs=self._doc.docs(function),
        )

    def _kind(self, name: str, raw: object) -> tuple[FunctionKind, bool, ResourceType | None]:
        pair: tuple[str, object] = (
            (raw, None) if isinstance(raw, str) else self._doc.single(raw, f"the kind of `{name}`")
        )
        word, index = pair
        if word not in _KINDS:
            self._doc.fail(f"function `{name}` is of the unknown kind `{word:.80}`")
        kind, is_async = _KINDS[word]
        if kind is FunctionKind.FREE:
            return kind, is_async, None
        return kind, is_async, self._types.resource(index, f"function `{name}`")
