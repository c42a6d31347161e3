"""The composition: the one place that knows all rooms and hands each what it needs."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from weakref import WeakSet

from cloche.artifact import Artifact, component_ref, digest_of, read_artifact, read_component
from cloche.binary.plan import memory_plan
from cloche.build.builder import build_plugin
from cloche.build.settings import build_settings
from cloche.caches import Caches
from cloche.capabilities.api import Capability
from cloche.catalog import Catalog, build_catalog, installed_capabilities, interface_named
from cloche.config import Settings as HostSettings
from cloche.config import ensure_private_directory
from cloche.engine.bounds import StoreBounds
from cloche.engine.cache_entry import EntryKey
from cloche.engine.code import CodeStore, NativeCode
from cloche.engine.compile import Progress, ProgressSink
from cloche.engine.engine import Engine
from cloche.engine.instance import Settings
from cloche.engine.interrupts import Interrupts
from cloche.engine.linker import CodeFiles, Linker
from cloche.engine.profile import Profile, stack_step
from cloche.engine.stacks import HEADROOM_BYTES
from cloche.engine.wasi import Mount
from cloche.errors import ClocheError, ContractError, RegistryError, UsageError
from cloche.grants.policy import MountMode, Policy
from cloche.grants.trust import TierDecision, TrustForm, decide_tier, weigh_tier
from cloche.lifecycle.performer import Life
from cloche.lifecycle.states import Event as LifeEvent
from cloche.loading import (
    Candidate,
    examine,
    exported_interfaces,
    granted_secrets,
    granted_settings,
    host_imports,
    provided_interfaces,
)
from cloche.manifest.bare import bare_manifest
from cloche.manifest.value import Manifest
from cloche.model import PLUGIN_ID, Digest, Metering, PluginId, State, Tier, Trusted
from cloche.observe.events import Event, EventKind, Sink
from cloche.observe.stream import EventStream
from cloche.policies import operator_policy, read_secret
from cloche.runtime.builtin import BuiltinBackend
from cloche.runtime.call import About, ComponentBackend, Housing
from cloche.runtime.functions import Backend
from cloche.runtime.hooks import LIFECYCLE, Hooks
from cloche.runtime.local import LocalHouse
from cloche.runtime.plugin import ExtensionPoint, Facts, Plugin
from cloche.runtime.services import Granted, Identity, Services
from cloche.storage import storage_directory
from cloche.wit.store import TypeStore
from cloche.worker.house import House
from cloche.worker.orders import Lodging
from cloche.worker.process import is_available
from cloche.worker.ready import ReadyWorkers
from cloche_accel.devices import find_devices

Source = str | Path

REMOTE_STACK_BYTES = 256 * 1024
"""What a call of a plugin in a worker takes of the calling thread's stack: only Python's own frames."""


class Host:
    """Loads plugins and calls them. A context manager; `close()` stops every plugin and frees everything.

    `policy` is a `Policy`, or a file to read; without one, the operator's own (`CLOCHE_POLICY`, or `policy.toml` in the
    home) or, where there is none, deny by default. `capabilities` are the embedder's own, beside the installed ones;
    `extension_points` directories of WIT packages that the embedder calls, beside ours. `home` is where caches and
    plugins' data live. `sinks` receive every event. Thread-safe. Added in 0.1.

    Raises: ManifestError (`policy.*`), CapabilityError (`capability.invalid`), RegistryError (`registry.io`).
    """

    def __init__(
        self,
        *,
        policy: Policy | Source | None = None,
        capabilities: Iterable[Capability] = (),
        extension_points: Iterable[Source] = (),
        home: Source | None = None,
        settings: HostSettings | None = None,
        sinks: Sequence[Sink] = (),
        metering: Metering = Metering.BOTH,
        tenant: str = "default",
    ) -> None:
        self.settings = settings or HostSettings.from_environment()
        self.home = ensure_private_directory(Path(home) if home is not None else self.settings.home)
        self.policy = policy if isinstance(policy, Policy) else _policy(policy, self.settings)
        self.events = EventStream(sinks)
        self._given = tuple(capabilities)
        self._points = tuple(Path(path) for path in extension_points)
        self._metering, self._tenant = metering, tenant
        self._types = TypeStore(self.home)
        self._interrupts = Interrupts()
        self._lock = threading.RLock()
        self._catalog: Catalog | None = None
        self._engines: dict[Profile, Engine] = {}
        self._codes: dict[Profile, CodeStore] = {}
        self._plugins: dict[str, Plugin] = {}
        self._houses: WeakSet[House] = WeakSet()
        self._ready = ReadyWorkers(self.settings.ready_workers)
        self._places = replace(self.settings, home=self.home)
        self._caches = Caches(self._places)
        self._caches_grew = False
        self._closed = False

    # -- plugins -----------------------------------------------------------------------------------------------------

    def load(self, source: Source, *, trust: Trusted | None = None, progress: ProgressSink | None = None) -> Plugin:
        """Load a plugin from a directory with plugin.toml or a `.wasm` file, and keep it under its id.

        Blocks: milliseconds when its code is cached, seconds when it is built or compiled; `progress` is told about
        anything over a second. `trust` is the embedder's own word that it may run in this process.

        Raises: ManifestError, ContractError, GrantError, TrustError, LimitError (`limit.memory` when its memories do
            not fit), EngineError; UsageError (`usage.argument`) when another plugin of this id is loaded.
        """
        self._ensure_open()
        with self._within_the_cap():
            artifact = read_artifact(Path(source), self._builder(progress))
            return self._load(artifact, trust, progress)

    def load_bytes(
        self,
        component: bytes | bytearray | memoryview,
        *,
        trust: Trusted | None = None,
        progress: ProgressSink | None = None,
    ) -> Plugin:
        """Load a bare component from memory; as `load` of a `.wasm` file. A buffer is copied before it is looked at."""
        self._ensure_open()
        if not isinstance(component, bytes | bytearray | memoryview):
            raise UsageError(f"a component is bytes, not {type(component).__name__}; `load` takes a path")
        component = bytes(component)
        digest = digest_of(component)
        manifest = bare_manifest(digest)
        with self._within_the_cap():
            return self._load(Artifact(manifest, component, digest, Path(f"/{manifest.id}")), trust, progress)

    def add_builtin(self, plugin_id: str, points: dict[str, object], *, version: str = "0.0.0") -> Plugin:
        """Add Python objects as a builtin plugin: extension point id → object with its functions as methods.

        Raises: UsageError (`usage.not-found` for an extension point that this host does not know, `usage.argument` for
            an id that is none or taken, or for nothing or the same twice to serve).
        """
        self._ensure_open()
        if not PLUGIN_ID.fullmatch(plugin_id):
            raise UsageError(f"{plugin_id!r} is no plugin id; write publisher/name in lower case")
        if not points:
            raise UsageError(f"plugin {plugin_id} serves no extension point", plugin=plugin_id)
        found: dict[str, ExtensionPoint] = {}
        backends: list[Backend] = []
        last = {id(subject): name for name, subject in points.items()}
        for name, subject in points.items():
            interface = interface_named(self.catalog.extension_points, name)
            if interface is None:
                known = ", ".join(sorted(item.id for item in self.catalog.extension_points))
                raise UsageError(f"there is no extension point {name}; known: {known}", code="usage.not-found")
            if interface.id in found:
                raise UsageError(f"plugin {plugin_id} serves {interface.id} twice", plugin=plugin_id)
            backend = BuiltinBackend(plugin_id, subject, interface, closes=last[id(subject)] == name)
            backends.append(backend)
            found[interface.id] = ExtensionPoint(backend, interface, interface.id)
        facts = Facts(PluginId(plugin_id), version, Tier.BUILTIN, Digest(""))
        return self._keep(Plugin(facts, found, backends, self._forget))

    def plugin(self, plugin_id: str) -> Plugin:
        """A loaded plugin. Raises: UsageError (`usage.not-found`)."""
        found = self._plugins.get(plugin_id)
        if found is None:
            loaded = ", ".join(sorted(self._plugins)) or "none"
            raise UsageError(f"no plugin {plugin_id} is loaded; loaded: {loaded}", code="usage.not-found")
        return found

    def plugins(self) -> list[Plugin]:
        """Every loaded plugin, by id."""
        with self._lock:
            return [self._plugins[name] for name in sorted(self._plugins)]

    def providers(self, extension_point: str) -> Iterator[Plugin]:
        """Every loaded plugin that serves `extension_point`, in order of their ids.

        With a version in the id: those that have all of that version. One that exports something else under the name
        is not among them; `plugin[...]` reaches it all the same.
        """
        return (plugin for plugin in self.plugins() if plugin.serves(extension_point))

    def unload(self, plugin_id: str) -> None:
        """Stop a plugin and forget it. Blocks for its running calls. Raises: UsageError (`usage.not-found`)."""
        self.plugin(plugin_id).close()

    # -- looking without loading -------------------------------------------------------------------------------------

    def inspect(self, source: Source, *, progress: ProgressSink | None = None) -> Candidate:
        """Everything that is decided about a plugin before its code runs: what `inspect` and `check` show.

        The tier is that of a load without `trust`; a tier that is refused does not hide the rest. A plugin with
        `source` is built first: for Python and JavaScript that runs its module level, in the build's own sandbox.
        Blocks as `load` without compiling. Raises what keeps it from being read at all; what does not fit stands in
        `report.findings`.
        """
        self._ensure_open()
        with self._within_the_cap():
            artifact = read_artifact(Path(source), self._builder(progress))
        tier = weigh_tier(self.policy, artifact.digest, untrusted_available=is_available(), plugin=artifact.manifest.id)
        return examine(artifact, self.policy, tier, self.catalog, self._types, _lacks_gpu)

    def tier_of(self, artifact: Artifact, trust: Trusted | None = None) -> TierDecision:
        """The tier that the policy gives. Raises: TrustError."""
        return decide_tier(
            self.policy, artifact.digest, trust, untrusted_available=is_available(), plugin=artifact.manifest.id
        )

    @property
    def catalog(self) -> Catalog:
        """The capabilities and extension points of this host, read on first use."""
        with self._lock:
            if self._catalog is None:
                self._catalog = build_catalog(installed_capabilities(), self._given, self._points, self._types)
            return self._catalog

    def lodging(
        self, candidate: Candidate, *, progress: ProgressSink | None = None, anew: bool = False
    ) -> tuple[Lodging, EntryKey]:
        """What a worker has to know to run `candidate`, and the cache's key of its code. Loads nothing.

        The caller closes the descriptors.

        Blocks as `load`. `anew` compiles even when its code is cached. Raises: as `load`.
        """
        code = self._code(profile := self._profile(candidate))
        with self._within_the_cap():
            digest = digest_of(candidate.runnable)
            if anew:
                code.forget(digest)
            native = code.native(candidate.runnable, digest, progress, whole=True)
        return self._lodging(candidate, profile, _store_bounds(candidate), _mounts(candidate), native), code.key(digest)

    @property
    def code(self) -> CodeStore:
        """The native-code cache of the usual profile."""
        return self._code(Profile(self._metering))

    # -- the end -----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Stop every plugin, then the engines. Blocks for running calls. Idempotent.

        Raises: UsageError (`usage.re-entry`) from inside a host call of one of the plugins; nothing is closed then.
        What a Ctrl-C cuts short is finished by closing once more.
        """
        plugins = self.plugins()
        for plugin in plugins:
            plugin.ensure_outside()
        with self._lock:
            self._closed = True
            engines, codes = list(self._engines.values()), list(self._codes.values())
        with contextlib.ExitStack() as steps:  # each is taken, whatever comes of the ones before (a Ctrl-C, say)
            steps.callback(self._interrupts.close)
            for engine in engines:
                steps.callback(self._close_engine, engine)
            for code in codes:
                steps.callback(code.close)
            steps.callback(self._ready.close)
            for plugin in plugins:
                steps.callback(plugin.close)

    def _close_engine(self, engine: Engine) -> None:
        if not engine.close() and engine.instances:
            text = f"{len(engine.instances)} instances were still busy when the host was closed; they are freed later"
            self._emit(EventKind.WARNING, {"text": text})

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        """Free what a host holds that nobody closed; no hook of a plugin is called then."""
        if getattr(self, "_closed", True) or sys.is_finalizing():
            return
        self._closed = True
        for house in list(self._houses):
            house.abandon()
        self._ready.abandon()
        for engine in self._engines.values():
            for instance in list(engine.instances.values()):
                instance.close()
        for code in self._codes.values():
            code.close()
        for engine in self._engines.values():
            engine.abandon()
        self._interrupts.close()
        warnings.warn("a cloche.Host was not closed; use `with` or call close()", ResourceWarning, stacklevel=1)

    # -- how a plugin is loaded --------------------------------------------------------------------------------------

    def _load(self, artifact: Artifact, trust: Trusted | None, progress: ProgressSink | None) -> Plugin:
        manifest = artifact.manifest
        life = Life(lambda before, event, after: self._report_state(manifest, before, event, after))
        with contextlib.ExitStack() as undo:
            undo.callback(lambda: None if life.state is State.STOPPED else life.apply(LifeEvent.FAIL))
            plugin = self._load_as(artifact, trust, progress, life, undo)
            undo.pop_all()
        return plugin

    def _load_as(
        self,
        artifact: Artifact,
        trust: Trusted | None,
        progress: ProgressSink | None,
        life: Life,
        undo: contextlib.ExitStack,
    ) -> Plugin:
        """Load it; `undo` takes back what was done when this raises."""
        manifest = artifact.manifest
        tier = self.tier_of(artifact, trust)
        life.apply(LifeEvent.VERIFY)
        candidate = examine(artifact, self.policy, tier, self.catalog, self._types, _lacks_gpu)
        self._report_grants(candidate)
        candidate.report.ensure_ok(manifest.id)
        bounds = _store_bounds(candidate)
        limits = candidate.grants.limits
        profile = self._profile(candidate)
        services = self._services(candidate)
        mounts = _mounts(candidate)
        lodge = self._lodged if tier.tier is Tier.UNTRUSTED else self._at_home
        try:
            house = lodge(candidate, profile, bounds, mounts, progress)
        except ContractError as error:
            if error.code != "component.malformed" or candidate.probe is None:
                raise
            candidate = candidate.unprobed()
            house = lodge(candidate, profile, bounds, mounts, progress)
        undo.callback(house.close)
        life.apply(LifeEvent.LOAD)
        exports = exported_interfaces(candidate.world)
        stack_needed = REMOTE_STACK_BYTES if tier.tier is Tier.UNTRUSTED else profile.stack_bytes + HEADROOM_BYTES
        backend = ComponentBackend(
            house,
            About(manifest.id, limits, mounts, self._interrupts, stack_needed),
            services,
            candidate.grants.instances,
            _hooks(candidate),
            granted_settings(candidate.grants),
            life,
            exports,
            self.events,
        )
        undo.callback(backend.close)
        facts = Facts(
            manifest.id, manifest.version, tier.tier, artifact.digest, manifest, candidate.grants, candidate.report
        )
        points = {name or "": ExtensionPoint(backend, interface, name) for name, interface in exports}
        return self._keep(Plugin(facts, points, [backend], self._forget))

    def _at_home(
        self,
        candidate: Candidate,
        profile: Profile,
        bounds: StoreBounds,
        mounts: tuple[Mount, ...],
        progress: ProgressSink | None,
    ) -> Housing:
        """Instances in this process."""
        code, engine = self._code(profile), self._engine(profile)
        digest = digest_of(candidate.runnable)
        linker, is_whole = self._linked(candidate, engine, code, digest, progress)
        settings = Settings(
            plugin=candidate.grants.plugin,
            limits=candidate.grants.limits,
            bounds=bounds,
            probe=candidate.probe,
            mounts=mounts,
        )
        newer = (lambda: None) if is_whole else self._newer(candidate, engine, code, digest)
        return LocalHouse(engine, linker, settings, newer)

    def _lodged(
        self,
        candidate: Candidate,
        profile: Profile,
        bounds: StoreBounds,
        mounts: tuple[Mount, ...],
        progress: ProgressSink | None,
    ) -> Housing:
        """Instances in a worker."""
        code = self._code(profile)
        grants = candidate.grants

        def tell(what: str, data: Mapping[str, object]) -> None:
            self._emit(EventKind.WORKER, {"event": what, **data}, grants.plugin)

        def lodge(native: NativeCode) -> Housing:
            house = House(self._lodging(candidate, profile, bounds, mounts, native), tell, self._ready)
            self._houses.add(house)
            self._ready.begin()
            return house

        return code.load(candidate.runnable, digest_of(candidate.runnable), lodge, progress)

    def _lodging(
        self,
        candidate: Candidate,
        profile: Profile,
        bounds: StoreBounds,
        mounts: tuple[Mount, ...],
        native: NativeCode,
    ) -> Lodging:
        grants = candidate.grants
        return Lodging(
            plugin=grants.plugin,
            profile=profile,
            component=native.component_fd,
            modules=native.modules,
            imports=host_imports(candidate.report, self.catalog.schemas),
            exports=exported_interfaces(candidate.world),
            limits=grants.limits,
            bounds=bounds,
            probe=candidate.probe,
            mounts=mounts,
            concurrency=grants.limits.concurrency or os.cpu_count() or 1,
            lockdown="+".join(sorted(self.policy.lockdown)) or "none",
        )

    def _profile(self, candidate: Candidate) -> Profile:
        return Profile(self._metering, stack_step(candidate.grants.limits.stack_bytes))

    def _linked(
        self, candidate: Candidate, engine: Engine, code: CodeStore, digest: Digest, progress: ProgressSink | None
    ) -> tuple[Linker, bool]:
        """A linker over the component's native code, and whether that is compiled as a whole."""

        def link(native: NativeCode) -> tuple[Linker, bool]:
            return self._link(candidate, engine, native), native.whole

        try:
            return code.load(candidate.runnable, digest, link, progress)
        except ClocheError as error:
            if error.code != "engine.compile" or not candidate.survey.may_cross_memories:
                raise
            raise ContractError(
                "it is composed of parts that hand strings or lists to each other, which needs several memories in one "
                "module, and this host keeps those off; build it as one component",
                code="contract.unsupported",
                plugin=candidate.artifact.manifest.id,
            ) from error

    def _link(self, candidate: Candidate, engine: Engine, native: NativeCode) -> Linker:
        files = CodeFiles(native.component_fd, native.modules)
        return Linker(engine, files, host_imports(candidate.report, self.catalog.schemas), wasi=True)

    def _newer(
        self, candidate: Candidate, engine: Engine, code: CodeStore, digest: Digest
    ) -> Callable[[], Linker | None]:
        """What gives a linker over code that the background compiled whole meanwhile, once; else None."""
        is_awaited = True

        def newer() -> Linker | None:
            nonlocal is_awaited
            if not is_awaited or digest not in code.compiled_whole:
                return None
            is_awaited = False
            return self._linked_anew(candidate, engine, code, digest)

        return newer

    def _linked_anew(self, candidate: Candidate, engine: Engine, code: CodeStore, digest: Digest) -> Linker | None:
        """A linker over the whole code in the cache; never compiles, never fails a call."""
        try:
            native = code.cached_whole(digest)
            if native is None:  # thrown out of the cache since; what there is goes on serving
                return None
            with native:
                return self._link(candidate, engine, native)
        except ClocheError as error:
            if error.code == "engine.cache":
                code.forget(digest)
            self._emit(EventKind.WARNING, {"text": f"code stays in parts: {error.message}"}, candidate.grants.plugin)
            return None

    def _services(self, candidate: Candidate) -> Services:
        manifest, tier, grants = candidate.artifact.manifest, candidate.tier, candidate.grants
        origin = (
            f"digest:{candidate.artifact.digest}"
            if tier.form is TrustForm.DIGEST
            else f"path:{candidate.artifact.origin}"
        )
        granted = {
            name: Granted(self.catalog.capabilities[name], decision.params)
            for decision in grants.decisions
            if (name := decision.capability) in self.catalog.capabilities and decision.params is not None
        }
        return Services(
            Identity(manifest.id, manifest.version, tier.tier),
            grants.limits,
            granted,
            provided_interfaces(candidate.report),
            storage_directory(self.home, self._tenant, origin, manifest.id),
            grants.config,
            {name: read_secret(name, reference) for name, reference in granted_secrets(grants).items()},
            self.events,
            is_heard=grants.granted("wasi:cli") is not None,
        )

    def _engine(self, profile: Profile) -> Engine:
        """What the instances of this process share."""
        with self._lock:
            self._ensure_open()
            found = self._engines.get(profile)
            if found is None:
                found = self._engines[profile] = Engine(profile, self._interrupts)
            return found

    def _code(self, profile: Profile) -> CodeStore:
        """Where native code is kept, for workers as for this process."""
        with self._lock:
            self._ensure_open()
            found = self._codes.get(profile)
            if found is None:
                self._interrupts.install()
                found = self._codes[profile] = CodeStore(
                    self.home,
                    profile,
                    emit=self._code_event,
                    max_bytes=self.settings.cache_bytes,
                    background=self.settings.background_compile,
                )
            return found

    def _builder(self, progress: ProgressSink | None) -> Callable[[Path, Manifest], bytes]:
        def build(directory: Path, manifest: Manifest) -> bytes:
            settings = build_settings(directory, manifest.id, component_ref(manifest))
            tell = None if progress is None else lambda text: progress(Progress("build", None, text))
            built = build_plugin(directory, settings, cache=self._places.build_cache, progress=tell)
            self._caches_grew |= not built.cached
            component = read_component(built.path)
            if digest_of(component) != built.digest:  # what was checked is not what was read
                raise ContractError(
                    f"the built component {built.path.name} changed on disk; build it again", code="component.build"
                )
            return component

        return build

    @contextlib.contextmanager
    def _within_the_cap(self) -> Iterator[None]:
        """When the block built or compiled something, bring all caches together back under their cap."""
        try:
            yield
        finally:
            if self._caches_grew:
                self._caches_grew = False
                try:
                    self._caches.gc()
                except RegistryError as error:
                    self._emit(EventKind.WARNING, {"text": error.message})

    def _forget(self, plugin: Plugin) -> None:
        """A plugin is closed: its id is free again."""
        with self._lock:
            if self._plugins.get(plugin.id) is plugin:
                del self._plugins[plugin.id]

    def _keep(self, plugin: Plugin) -> Plugin:
        with self._lock:
            self._ensure_open()
            if plugin.id in self._plugins:
                raise UsageError(f"a plugin {plugin.id} is already loaded; unload it first", plugin=plugin.id)
            self._plugins[plugin.id] = plugin
        return plugin

    def _report_state(self, manifest: Manifest, before: State, event: LifeEvent, after: State) -> None:
        self._emit(
            EventKind.STATE, {"before": before.value, "event": event.value}, manifest.id, manifest.version, after.value
        )

    def _report_grants(self, candidate: Candidate) -> None:
        plugin = candidate.grants.plugin
        for decision in candidate.grants.decisions:
            data = {"granted": decision.granted, "reason": decision.reason}
            self._emit(EventKind.GRANT, data, plugin, capability=decision.capability)
        for finding in candidate.report.warnings:
            self._emit(EventKind.WARNING, {"text": str(finding)}, plugin)

    def _code_event(self, kind: EventKind, data: Mapping[str, object]) -> None:
        self._caches_grew |= kind is EventKind.COMPILE
        self._emit(kind, data)

    def _emit(
        self,
        kind: EventKind,
        data: Mapping[str, object],
        plugin: str | None = None,
        version: str | None = None,
        state: str | None = None,
        capability: str | None = None,
    ) -> None:
        self.events(Event(kind, time.time(), plugin, version, None, state, capability, None, data))

    def _ensure_open(self) -> None:
        if self._closed:
            raise UsageError("the host is closed", code="usage.closed")


def _store_bounds(candidate: Candidate) -> StoreBounds:
    """Raises: LimitError (`limit.memory`)."""
    plan = memory_plan(candidate.survey, candidate.grants.limits.memory_bytes)
    return StoreBounds(plan.memory_size, plan.memories, plan.tables, plan.table_elements, plan.instances)


def _mounts(candidate: Candidate) -> tuple[Mount, ...]:
    return tuple(
        Mount(name, Path(mount.path), mount.mode is MountMode.READ_WRITE)
        for name, mount in candidate.grants.mounts.items()
    )


def _hooks(candidate: Candidate) -> Hooks:
    for interface in candidate.world.exports:
        if interface.id.partition("@")[0] == LIFECYCLE:
            return Hooks(interface.id, interface, candidate.grants.limits)
    return Hooks(None, None, candidate.grants.limits)


def _lacks_gpu() -> str:
    found = find_devices()
    return "" if found.devices else found.reason or "the driver lists none"


def _policy(source: Source | None, settings: HostSettings) -> Policy:
    return operator_policy(settings, None if source is None else Path(source))
