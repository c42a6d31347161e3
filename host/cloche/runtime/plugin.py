"""What an embedder holds: a plugin and its extension points."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from cloche.contract.providers import unversioned, version_of
from cloche.contract.report import Report
from cloche.contract.versions import is_provided_by, newest
from cloche.errors import UsageError
from cloche.grants.decide import GrantSet
from cloche.manifest.value import Manifest
from cloche.model import Limits, State, Tier
from cloche.runtime.functions import Backend, BoundFunction
from cloche.wit.names import snake, unique_names
from cloche.wit.types import Export, Function, FunctionKind, Interface


class ExtensionPoint:
    """An interface that a plugin exports: its functions are methods, in snake_case.

    A constructor is called by the resource's name (`point.counter(3)`), a static function is `point.counter_find(…)`;
    methods are called on the handle that a constructor returned. Of two functions with one Python name the later one in
    the WIT gets a `_` at its end, as does a function named like something of this object's own (`wit_`).
    """

    def __init__(self, backend: Backend, interface: Interface, export: str | None) -> None:
        self._backend, self._interface, self._export = backend, interface, export
        names = python_names(interface)
        self._functions = {names[function.name]: function for function in interface.functions}
        self._bound: dict[str, BoundFunction] = {}

    @property
    def wit(self) -> Interface:
        """The interface's WIT."""
        return self._interface

    def __dir__(self) -> list[str]:
        return sorted(self._functions)

    def __iter__(self) -> Iterator[BoundFunction]:
        return (self[name] for name in self._functions)

    def __repr__(self) -> str:
        return f"<extension point {self._interface.id}: {', '.join(self._functions)}>"

    def __getitem__(self, name: str) -> BoundFunction:
        """A function by its snake_case or WIT name. Raises: UsageError (`usage.not-found`)."""
        found = self._bound.get(name)
        if found is None:
            function = self._functions.get(name) or self._interface.by_name.get(name)
            if function is None:
                raise UsageError(
                    f"{self._interface.id} has no function {name!r}; it has {', '.join(sorted(self._functions))}",
                    code="usage.not-found",
                )
            found = self._bound[name] = BoundFunction(
                self._backend, Export(self._export, function), self._backend.limits
            )
        return found

    def __getattr__(self, name: str) -> BoundFunction:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            bound = self[name]
        except UsageError as error:
            raise AttributeError(str(error)) from None
        self.__dict__[name] = bound
        return bound


_RESERVED = frozenset(name for name in vars(ExtensionPoint) if not name.startswith("_"))


def python_names(interface: Interface) -> dict[str, str]:
    """The Python name of each function, by the name that stands in the component."""
    return unique_names(((function.name, _python_name(function)) for function in interface.functions), _RESERVED)


def _python_name(function: Function) -> str:
    name = snake(function.item_name)
    if function.resource is None or function.kind is FunctionKind.CONSTRUCTOR:
        return name
    return f"{snake(function.resource.name.name)}_{name}"


@dataclass(frozen=True)
class Facts:
    """What is known about a loaded plugin and does not change."""

    id: str
    version: str
    tier: Tier
    digest: str
    manifest: Manifest | None = None
    grants: GrantSet | None = None
    report: Report | None = None


class Plugin:
    """A loaded plugin. Index it with an interface's id, with or without version: `plugin["ns:pkg/iface"]`.

    Everything that it exports can be called so, whether the host knows the interface or not; `serves` says what fits an
    extension point of the host. Thread-safe. `close()` waits for running calls, then stops and frees everything.
    """

    def __init__(
        self,
        facts: Facts,
        points: Mapping[str, ExtensionPoint],
        backends: Sequence[Backend],
        forget: Callable[[Plugin], None],
    ) -> None:
        self._facts, self._points, self._backends = facts, dict(points), tuple(backends)
        self._forget = forget
        exports = None if facts.report is None else facts.report.exports
        # A builtin has no component to check: it serves what it was added for.
        self._bound = tuple(points) if exports is None else tuple(item.id for item in exports if item.extension_point)

    @property
    def id(self) -> str:
        """`publisher/name`."""
        return self._facts.id

    @property
    def version(self) -> str:
        """The manifest's version."""
        return self._facts.version

    @property
    def tier(self) -> Tier:
        """How far it is trusted."""
        return self._facts.tier

    @property
    def digest(self) -> str:
        """sha256 of the component's exact bytes."""
        return self._facts.digest

    @property
    def grants(self) -> GrantSet | None:
        """Every request with its answer and reason; None for a builtin."""
        return self._facts.grants

    @property
    def manifest(self) -> Manifest | None:
        """What the plugin says about itself; None for a builtin."""
        return self._facts.manifest

    @property
    def report(self) -> Report | None:
        """How its imports and exports were bound; None for a builtin."""
        return self._facts.report

    @property
    def limits(self) -> Limits:
        """The effective limits."""
        return self._backends[0].limits

    @property
    def state(self) -> State:
        """Where it is in its life."""
        return self._backends[0].state

    def interfaces(self) -> list[str]:
        """Ids of the exported interfaces; an empty string stands for functions at the component's root."""
        return sorted(self._points)

    def serves(self, extension_point: str) -> bool:
        """Does it export `extension_point` as the host knows it? With a version: that one, or a later one of its track.

        What only has the name is not served: another major, no version, functions missing or of other types.
        """
        return self._serving(extension_point) is not None

    def __contains__(self, interface: str) -> bool:
        return self._find(interface) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self.interfaces())

    def __getitem__(self, interface: str) -> ExtensionPoint:
        found = self._find(interface)
        if found is None:
            raise UsageError(
                f"plugin {self.id} has no {interface!r}; it exports {', '.join(self.interfaces()) or 'nothing'}",
                code="usage.not-found",
                plugin=self.id,
            )
        return found

    def __repr__(self) -> str:
        return f"<plugin {self.id} {self.version} {self.tier} {self.digest[:12]}>"

    def ensure_outside(self) -> None:
        """Raises: UsageError (`usage.re-entry`) when this thread serves a host call of this plugin right now."""
        for backend in self._backends:
            backend.ensure_outside()

    def close(self) -> None:
        """Stop the plugin and free everything. Idempotent. Raises: as `ensure_outside`."""
        self.ensure_outside()
        with ExitStack() as steps:  # each is closed, whatever comes of the ones before
            for backend in reversed(self._backends):
                steps.callback(backend.close)
        self._forget(self)

    def health(self) -> Any:
        """Ask the plugin how it is: its `status`, or None when it does not export `cloche:plugin/lifecycle`. Blocking.

        Raises: GuestError when it answers with an error; what a call raises.
        """
        return self._backends[0].health()

    def reset(self) -> None:
        """End a quarantine: a `single` plugin that was restarted too often may be started again."""
        for backend in self._backends:
            backend.reset()

    def __enter__(self) -> Plugin:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _serving(self, wanted: str) -> str | None:
        """The newest export that fits an extension point of this name, in a version that can stand in for this one."""
        version = version_of(wanted)
        named = (export for export in self._bound if unversioned(export) == unversioned(wanted))
        return newest(one for one in named if version is None or is_provided_by(version, version_of(one)))

    def _find(self, interface: str) -> ExtensionPoint | None:
        """The very export; else one that serves this extension point; else, without a version, the newest so named."""
        exact = self._points.get(interface)
        if exact is not None:
            return exact
        found = self._serving(interface)
        if found is None and version_of(interface) is None:
            found = newest(name for name in self._points if unversioned(name) == interface)
        return None if found is None else self._points[found]
