"""The composition: the one place that knows all rooms and hands each what it needs."""

from __future__ import annotations

import contextlib
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cloche.artifact import Artifact, component_ref, digest_of, read_artifact, read_component
from cloche.binary.plan import memory_plan
from cloche.build.builder import build_plugin
from cloche.build.settings import build_settings
from cloche.caches import Caches
from cloche.capabilities.api import Capability
from cloche.catalog import Catalog, build_catalog, installed_capabilities, interface_named
from cloche.config import Settings as HostSettings
from cloche.config import ensure_private_directory, read_secret
from cloche.engine.code import CodeStore
from cloche.engine.compile import Progress, ProgressSink
from cloche.engine.engine import Engine
from cloche.engine.instance import Settings, StoreBounds
from cloche.engine.interrupts import Interrupts
from cloche.engine.linker import CodeFiles, Linker
from cloche.engine.profile import Profile, stack_step
from cloche.engine.wasi import Mount
from cloche.errors import ClocheError, ContractError, ManifestError, RegistryError, UsageError
from cloche.grants.policy import MountMode, Policy
from cloche.grants.policy_file import parse_policy
from cloche.grants.trust import TierDecision, TrustForm, decide_tier
from cloche.lifecycle.performer import Life
from cloche.lifecycle.states import Event as LifeEvent
from cloche.loading import (
    Candidate,
    examine,
    exported_interfaces,
    granted_settings,
    host_imports,
    provided_interfaces,
)
from cloche.manifest.bare import bare_manifest
from cloche.manifest.parse import ensure_requirements
from cloche.manifest.value import Manifest
from cloche.model import PLUGIN_ID, Digest, Metering, PluginId, State, Tier, Trusted
from cloche.observe.events import Event, EventKind, Sink
from cloche.observe.stream import EventStream
from cloche.resources import wit_dir
from cloche.runtime.builtin import BuiltinBackend
from cloche.runtime.call import ComponentBackend
from cloche.runtime.functions import Backend
from cloche.runtime.hooks import LIFECYCLE, Hooks
from cloche.runtime.plugin import ExtensionPoint, Facts, Plugin
from cloche.runtime.services import Granted, Identity, Services
from cloche.storage import storage_directory
from cloche.version import VERSION
from cloche.wit.store import TypeStore

Source = str | Path


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
        self.policy = policy if isinstance(policy, Policy) else _read_policy(policy, self.settings)
        self.events = EventStream(sinks)
        self._given = tuple(capabilities)
        self._points = tuple(Path(path) for path in extension_points)
        self._metering, self._tenant = metering, tenant
        self._types = TypeStore(self.home)
        self._interrupts = Interrupts()
        self._lock = threading.RLock()
        self._catalog: Catalog | None = None
        self._engines: dict[Profile, tuple[Engine, CodeStore]] = {}
        self._plugins: dict[str, Plugin] = {}
        self._compiled_whole: set[str] = set()
        self._caches = Caches(replace(self.settings, home=self.home))
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
        self, component: bytes, *, trust: Trusted | None = None, progress: ProgressSink | None = None
    ) -> Plugin:
        """Load a bare component from memory; as `load` of a `.wasm` file."""
        self._ensure_open()
        digest = digest_of(component)
        manifest = bare_manifest(digest)
        with self._within_the_cap():
            return self._load(Artifact(manifest, component, digest, Path(f"/{manifest.id}")), trust, progress)

    def add_builtin(self, plugin_id: str, points: dict[str, object], *, version: str = "0.0.0") -> Plugin:
        """Add Python objects as a builtin plugin: extension point id → object with its functions as methods.

        Raises: UsageError (`usage.not-found` for an extension point that this host does not know, `usage.argument` for
            an id that is none or taken, or for nothing to serve).
        """
        self._ensure_open()
        if not PLUGIN_ID.fullmatch(plugin_id):
            raise UsageError(f"{plugin_id!r} is no plugin id; write publisher/name in lower case")
        if not points:
            raise UsageError(f"plugin {plugin_id} serves no extension point", plugin=plugin_id)
        found: dict[str, ExtensionPoint] = {}
        backends: list[Backend] = []
        for name, subject in points.items():
            interface = interface_named(self.catalog.extension_points, name)
            if interface is None:
                known = ", ".join(sorted(item.id for item in self.catalog.extension_points))
                raise UsageError(f"there is no extension point {name}; known: {known}", code="usage.not-found")
            backend = BuiltinBackend(plugin_id, subject)
            backends.append(backend)
            found[interface.id] = ExtensionPoint(backend, interface, interface.id)
        facts = Facts(PluginId(plugin_id), version, Tier.BUILTIN, Digest(""))
        return self._keep(Plugin(facts, found, backends))

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
        """Every loaded plugin that exports `extension_point`, in order of their ids."""
        return (plugin for plugin in self.plugins() if extension_point in plugin)

    def unload(self, plugin_id: str) -> None:
        """Stop a plugin and forget it. Blocks for its running calls. Raises: UsageError (`usage.not-found`)."""
        plugin = self.plugin(plugin_id)
        plugin.ensure_outside()
        with self._lock:
            self._plugins.pop(plugin_id, None)
        plugin.close()

    # -- looking without loading -------------------------------------------------------------------------------------

    def inspect(self, source: Source, *, progress: ProgressSink | None = None) -> Candidate:
        """Everything that is decided about a plugin before its code runs: what `inspect` and `check` show.

        As if it were trusted, so that the tier does not hide the rest. A plugin with `source` is built first: for
        Python and JavaScript that runs its module level, in the build's own sandbox. Blocks as `load` without
        compiling. Raises what keeps it from being read at all; what does not fit stands in `report.findings`.
        """
        self._ensure_open()
        with self._within_the_cap():
            artifact = read_artifact(Path(source), self._builder(progress))
        return examine(artifact, self.policy, Tier.TRUSTED, self.catalog, self._types)

    def tier_of(self, artifact: Artifact, trust: Trusted | None = None) -> TierDecision:
        """The tier that the policy gives. Raises: TrustError."""
        return decide_tier(self.policy, artifact.digest, trust, plugin=artifact.manifest.id)

    @property
    def catalog(self) -> Catalog:
        """The capabilities and extension points of this host, read on first use."""
        with self._lock:
            if self._catalog is None:
                self._catalog = build_catalog(
                    installed_capabilities(), self._given, [wit_dir(), *self._points], self._types
                )
            return self._catalog

    @property
    def code(self) -> CodeStore:
        """The native-code cache of the usual profile."""
        return self._engine(Profile(self._metering))[1]

    # -- the end -----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Stop every plugin, then the engines. Blocks for running calls. Idempotent.

        Raises: UsageError (`usage.re-entry`) from inside a host call of one of the plugins; nothing is closed then.
        """
        for plugin in self.plugins():
            plugin.ensure_outside()
        with self._lock:
            if self._closed:
                return
            self._closed = True
            plugins, self._plugins = list(self._plugins.values()), {}
            engines, self._engines = list(self._engines.values()), {}
        with contextlib.ExitStack() as steps:  # each is taken, whatever comes of the ones before (a Ctrl-C, say)
            steps.callback(self._interrupts.close)
            for engine, code in engines:
                steps.callback(self._close_engine, engine)
                steps.callback(code.close)
            for plugin in plugins:
                steps.callback(plugin.close)

    def _close_engine(self, engine: Engine) -> None:
        if not engine.close():
            text = f"{len(engine.instances)} instances were still busy when the host was closed; they are not freed"
            self._emit(EventKind.WARNING, {"text": text})

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- how a plugin is loaded --------------------------------------------------------------------------------------

    def _load(self, artifact: Artifact, trust: Trusted | None, progress: ProgressSink | None) -> Plugin:
        manifest = artifact.manifest
        life = Life(lambda before, event, after: self._report_state(manifest, before, event, after))
        ensure_requirements(manifest, VERSION, sys.platform, platform.machine())
        tier = self.tier_of(artifact, trust)
        life.apply(LifeEvent.VERIFY)
        candidate = examine(artifact, self.policy, tier.tier, self.catalog, self._types)
        self._report_grants(candidate)
        candidate.grants.ensure_required()
        candidate.report.ensure_ok(manifest.id)
        plan = memory_plan(candidate.survey, candidate.grants.limits.memory_bytes)
        limits = candidate.grants.limits
        profile = Profile(self._metering, stack_step(limits.stack_bytes))
        engine, code = self._engine(profile)
        digest = digest_of(candidate.runnable)
        linker, whole = self._link(candidate, engine, code, digest, progress)

        def newer() -> Linker | None:
            nonlocal whole
            if whole or digest not in self._compiled_whole:
                return None
            newer_linker, whole = self._link(candidate, engine, code, digest, None)
            return newer_linker

        life.apply(LifeEvent.LOAD)
        settings = Settings(
            plugin=manifest.id,
            limits=limits,
            bounds=StoreBounds(plan.memory_size, plan.memories, plan.tables, plan.table_elements, plan.instances),
            probe=candidate.probe,
            mounts=tuple(
                Mount(name, Path(mount.path), mount.mode is MountMode.READ_WRITE)
                for name, mount in candidate.grants.mounts.items()
            ),
        )
        exports = exported_interfaces(candidate.world)
        backend = ComponentBackend(
            engine,
            linker,
            settings,
            self._services(candidate, tier),
            candidate.grants.instances,
            _hooks(candidate),
            granted_settings(candidate.grants),
            life,
            exports,
            self.events,
            newer,
        )
        facts = Facts(
            manifest.id, manifest.version, tier.tier, artifact.digest, manifest, candidate.grants, candidate.report
        )
        points = {name or "": ExtensionPoint(backend, interface, name) for name, interface in exports}
        try:
            return self._keep(Plugin(facts, points, [backend]))
        except BaseException:
            backend.close()
            raise

    def _link(
        self, candidate: Candidate, engine: Engine, code: CodeStore, digest: Digest, progress: ProgressSink | None
    ) -> tuple[Linker, bool]:
        """A linker over the component's native code, and whether that is compiled as a whole."""
        try:
            with code.native(candidate.runnable, digest, progress) as native:
                files = CodeFiles(native.component_fd, native.modules)
                imports = host_imports(candidate.report, self.catalog.schemas)
                return Linker(engine, files, imports, wasi=True), native.whole
        except ClocheError as error:
            if error.code != "engine.compile" or not candidate.survey.may_cross_memories:
                raise
            raise ContractError(
                "it is composed of parts that hand strings or lists to each other, which needs several memories in one "
                "module, and this host keeps those off; build it as one component",
                code="contract.unsupported",
                plugin=candidate.artifact.manifest.id,
            ) from error

    def _services(self, candidate: Candidate, tier: TierDecision) -> Services:
        manifest, grants = candidate.artifact.manifest, candidate.grants
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
            {name: read_secret(name, reference) for name, reference in grants.secrets.items()},
            self.events,
            is_heard=grants.granted("wasi:cli") is not None,
        )

    def _engine(self, profile: Profile) -> tuple[Engine, CodeStore]:
        with self._lock:
            self._ensure_open()
            found = self._engines.get(profile)
            if found is None:
                self._interrupts.install()
                engine = Engine(profile, self._interrupts)
                code = CodeStore(
                    self.home,
                    profile,
                    emit=self._code_event,
                    max_bytes=self.settings.cache_bytes,
                    background=self.settings.background_compile,
                )
                found = self._engines[profile] = (engine, code)
            return found

    def _builder(self, progress: ProgressSink | None) -> Callable[[Path, Manifest], bytes]:
        def build(directory: Path, manifest: Manifest) -> bytes:
            settings = build_settings(directory, manifest.id, component_ref(manifest))
            tell = None if progress is None else lambda text: progress(Progress("build", None, text))
            built = build_plugin(directory, settings, cache=self.home / "cache" / "build", progress=tell)
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
        if kind is EventKind.COMPILE and data.get("background"):
            self._compiled_whole.add(str(data["digest"]))
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


def _hooks(candidate: Candidate) -> Hooks:
    for interface in candidate.world.exports:
        if interface.id.partition("@")[0] == LIFECYCLE:
            return Hooks(interface.id, interface, candidate.grants.limits)
    return Hooks(None, None, candidate.grants.limits)


def _read_policy(source: Source | None, settings: HostSettings) -> Policy:
    path = Path(source) if source is not None else settings.policy_file()
    if path is None:
        return Policy.empty()
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ManifestError(f"the policy {path} cannot be read: {error.strerror}", code="policy.syntax") from error
    return parse_policy(data, str(path))
