"""From the bytes of a component to native code that may be loaded: the cache, the compiler and the shared modules.

A large component is first served in parts, whose shared ones are usually compiled already, and compiled whole in the
background; later requests get the whole one, of which instances are made faster
(docs/decisions/0009-shared-modules.md).
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from cloche.confine.level import FULL, Level
from cloche.confine.limits import ChildLimits
from cloche.confine.memory import new_memory_file
from cloche.confine.shortage import shortage
from cloche.engine import sealed
from cloche.engine.cache import DEFAULT_MAX_BYTES, NativeCache
from cloche.engine.cache_entry import CacheEntry, EntryKey, target
from cloche.engine.compile import (
    COMPILE_LIMITS,
    PROGRESS_EVERY_MS,
    QUIET_MS,
    CodeKind,
    Progress,
    ProgressSink,
    compile_code,
    ensure_compilable,
)
from cloche.engine.ffi import library
from cloche.engine.installed import engine_build
from cloche.engine.modules import SPLIT_LEAST_BYTES, Split, SplitError, split_component
from cloche.engine.profile import Profile
from cloche.errors import ClocheError, ContractError, EngineError, RegistryError
from cloche.model import MIB, Digest
from cloche.observe.events import EventKind

T = TypeVar("T")

Emit = Callable[[EventKind, Mapping[str, object]], None]
"""Takes events: on the caller's thread, or on the background's."""

COMPILES_AT_ONCE = max(2, os.cpu_count() or 1)
"""Compile children of one store that requests may run at once, each with up to a gigabyte; more requests *wait*."""

_SPLIT = "split"
_SHARED_BYTES = 64 * MIB  # native code of modules kept open, so that plugins share memory and not only disk
_BACKGROUND_NICE = 10
_BACKGROUND_PATIENCE = 4  # times the wall limit: it runs at low priority
_MAX_WALL_MS = 24 * 3600 * 1000
_SLOT_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class _Parts:
    """How a component was taken apart: what is left of it, and the modules that it imports by name."""

    rest: Digest
    modules: tuple[tuple[str, Digest], ...]


class NativeCode:
    """Sealed descriptors of verified native code; close it once everything is loaded from them.

    `modules` are the core modules that the component imports from the linker's root, by name; none when `whole`.
    `compiled` counts the children that compiled something for this request. Added in 0.1.
    """

    __slots__ = ("compiled", "component_fd", "modules", "wall_ms", "whole")

    def __init__(
        self, component_fd: int, modules: tuple[tuple[str, int], ...], *, compiled: int, wall_ms: float
    ) -> None:
        self.component_fd, self.modules = component_fd, modules
        self.whole = not modules
        self.compiled, self.wall_ms = compiled, wall_ms

    def close(self) -> None:
        """Close every descriptor; loaded code stays. Idempotent."""
        descriptors = [self.component_fd, *(descriptor for _, descriptor in self.modules)]
        self.component_fd, self.modules = -1, ()
        for descriptor in descriptors:
            if descriptor >= 0:
                os.close(descriptor)

    def __enter__(self) -> NativeCode:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class CodeStore:
    """Native code of one profile. Safe for many threads and processes on one home. Close it when done.

    `background` False never compiles more than was asked for. Added in 0.1.
    """

    def __init__(
        self,
        home: Path,
        profile: Profile,
        *,
        emit: Emit,
        max_bytes: int = DEFAULT_MAX_BYTES,
        limits: ChildLimits = COMPILE_LIMITS,
        background: bool = True,
    ) -> None:
        self._profile, self._emit, self._limits = profile, emit, limits
        self._warned: set[str] = set()
        self._cache = NativeCache(home / "cache" / "native", max_bytes=max_bytes, warn=self._warn)
        library()  # now, while there are descriptors: what it lacks later must not be its fault
        self._target, self._engine_build = target(), engine_build()
        self._slots = threading.BoundedSemaphore(COMPILES_AT_ONCE)
        self._shared = _SharedCode()
        self.compiled_whole: set[Digest] = set()
        """Components that were served in parts, and of which the background has put the whole code into the cache."""
        self._background = _Background(self._compile_whole, self._warn) if background else None

    def native(
        self, component: bytes, digest: Digest, progress: ProgressSink | None = None, *, whole: bool = False
    ) -> NativeCode:
        """Verified native code for `component`, whose sha256 is `digest`; from the cache or compiled now.

        With `whole` it is never served in parts. Blocks: 50 ms from the cache, seconds when it is compiled; waits
        while another process compiles the same. `progress` is told about anything that takes over a second.

        Raises: as `compile_code`; a cache that cannot be used is an event, not an error.
        """
        ensure_compilable(component, digest, CodeKind.COMPONENT)
        job = _Job(progress)
        found = self._cache.load(self._key(digest, CodeKind.COMPONENT))
        modules: tuple[tuple[str, int], ...] = ()
        if found is None and not whole:
            parts = self._in_parts(component, digest, job)
            if parts is not None:
                found, modules = parts
        if found is None:
            found = self._obtain(digest, component, CodeKind.COMPONENT, job)
            if job.why_whole:
                self._warn(f"component {digest[:12]} was compiled whole, which takes longer: {job.why_whole}")
        code = NativeCode(found, modules, compiled=job.compiled, wall_ms=job.wall_ms)
        try:
            if modules and job.is_kept and self._background is not None:
                self._background.add(digest, component)
            facts = {"digest": digest, "hit": job.compiled == 0, "whole": code.whole, "wall_ms": round(code.wall_ms, 1)}
            self._emit(EventKind.CACHE, facts)
        except BaseException:
            code.close()
            raise
        return code

    def key(self, digest: Digest) -> EntryKey:
        """What the native code of a whole component is known by in the cache."""
        return self._key(digest, CodeKind.COMPONENT)

    def cached_whole(self, digest: Digest) -> NativeCode | None:
        """Verified native code of the whole component from the cache, or None; never compiles. Blocks on the disk."""
        started = time.monotonic()
        found = self._cache.load(self._key(digest, CodeKind.COMPONENT))
        wall_ms = (time.monotonic() - started) * 1000
        return None if found is None else NativeCode(found, (), compiled=0, wall_ms=wall_ms)

    def load(
        self,
        component: bytes,
        digest: Digest,
        use: Callable[[NativeCode], T],
        progress: ProgressSink | None = None,
    ) -> T:
        """What `use` makes of the component's native code, which is closed afterwards. Blocks as `native`.

        Code that verified and that the engine refuses (`engine.cache`) is forgotten and compiled once more.
        Raises: as `native` and `use`.
        """
        try:
            with self.native(component, digest, progress) as code:
                return use(code)
        except EngineError as error:
            if error.code != "engine.cache":
                raise
            self._warn(f"component {digest[:12]} is compiled again: {error.message}")
        self.forget(digest)
        with self.native(component, digest, progress) as code:
            return use(code)

    def forget(self, digest: Digest) -> None:
        """Remove the code of one component with all its parts, also those that others share."""
        parts = self._known_parts(digest)
        keys = [self._key(digest, CodeKind.COMPONENT), self._key(digest, _SPLIT)]
        if parts is not None:
            keys.append(self._key(parts.rest, CodeKind.COMPONENT))
            for _, module in parts.modules:
                keys.append(self._key(module, CodeKind.MODULE))
                self._shared.drop(module)
        for key in keys:
            self._cache.remove(key)

    def entries(self) -> tuple[CacheEntry, ...]:
        """Everything in the cache, also of other profiles. Raises: RegistryError (`registry.io`)."""
        return self._cache.entries()

    def gc(self, max_bytes: int | None = None) -> int:
        """Remove the least recently used entries above `max_bytes`; bytes freed. Raises: RegistryError."""
        return self._cache.gc(max_bytes)

    def clear(self) -> int:
        """Remove every entry; bytes freed. Raises: RegistryError (`registry.io`)."""
        return self._cache.clear()

    def wait(self, timeout_s: float) -> bool:
        """Block until the background has nothing to do; False when it still has after `timeout_s` seconds."""
        return self._background is None or self._background.wait(timeout_s)

    def close(self) -> None:
        """Stop the background and reap its child; descriptors that were handed out stay. Idempotent."""
        if self._background is not None:
            self._background.close()
        self._shared.close()

    def _in_parts(self, component: bytes, digest: Digest, job: _Job) -> tuple[int, tuple[tuple[str, int], ...]] | None:
        if len(component) < SPLIT_LEAST_BYTES:
            return None
        known = self._known_parts(digest)
        if known is not None:
            found = self._load_parts(known)
            if found is not None:
                return found
        split = self._split(component, job)
        if split is None:
            return None
        with contextlib.ExitStack() as held:
            modules = []
            for number, module in enumerate(split.modules, 1):
                job.part = f"part {number} of {len(split.modules) + 1}: "
                descriptor = self._shared.get(module.digest)
                if descriptor is None:
                    descriptor = self._obtain(module.digest, module.data, CodeKind.MODULE, job)
                    self._shared.put(module.digest, descriptor)
                held.callback(os.close, descriptor)
                modules.append((module.name, descriptor))
            job.part = f"part {len(split.modules) + 1} of {len(split.modules) + 1}: "
            try:
                rest = self._obtain(split.rest_digest, split.rest, CodeKind.COMPONENT, job)
            except ContractError as error:
                if error.code != "component.malformed":
                    raise
                return None  # the whole component says what is wrong with it, if anything is
            finally:
                job.part = ""
            held.callback(os.close, rest)
            self._keep_parts(digest, _Parts(split.rest_digest, tuple((m.name, m.digest) for m in split.modules)))
            held.pop_all()
        return rest, tuple(modules)

    def _split(self, component: bytes, job: _Job) -> Split | None:
        try:
            with self._cache.workspace() as directory:
                return split_component(component, directory)
        except (SplitError, OSError) as error:
            job.why_whole = f"it cannot be taken apart: {error}"
        except RegistryError as error:
            job.why_whole = error.message
        return None

    def _load_parts(self, parts: _Parts) -> tuple[int, tuple[tuple[str, int], ...]] | None:
        """Every part from the cache, or None when one is not there any more."""
        with contextlib.ExitStack() as held:
            modules = []
            for name, digest in parts.modules:
                descriptor = self._shared.get(digest)
                if descriptor is None:
                    descriptor = self._cache.load(self._key(digest, CodeKind.MODULE))
                    if descriptor is None:
                        return None
                    self._shared.put(digest, descriptor)
                held.callback(os.close, descriptor)
                modules.append((name, descriptor))
            rest = self._cache.load(self._key(parts.rest, CodeKind.COMPONENT))
            if rest is None:
                return None
            held.pop_all()
        return rest, tuple(modules)

    def _known_parts(self, digest: Digest) -> _Parts | None:
        """How this component was taken apart before; authenticated like code."""
        descriptor = self._cache.load(self._key(digest, _SPLIT))
        if descriptor is None:
            return None
        try:
            with sealed.contents(descriptor) as data:
                index = json.loads(bytes(data))
        finally:
            os.close(descriptor)
        return _Parts(index["rest"], tuple((name, module) for name, module in index["modules"]))

    def _keep_parts(self, digest: Digest, parts: _Parts) -> None:
        try:
            descriptor = new_memory_file("cloche-split")
            try:
                os.write(descriptor, json.dumps(dataclasses.asdict(parts)).encode())
                sealed.seal(descriptor)
                self._cache.store(self._key(digest, _SPLIT), descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            self._warn(f"how component {digest[:12]} was taken apart is not cached: {error.strerror or error}")

    def _obtain(
        self,
        digest: Digest,
        data: bytes,
        kind: CodeKind,
        job: _Job,
        *,
        limits: ChildLimits | None = None,
        nice: int = 0,
        cancelled: Callable[[], bool] | None = None,
    ) -> int:
        """From the cache, or compiled under the entry's lock and kept."""
        key = self._key(digest, kind)
        found = self._cache.load(key)
        if found is not None:
            return found
        with self._cache.lock(key, waiting=job.waiting, cancelled=cancelled):
            found = self._cache.load(key)  # by the process that we waited for
            if found is not None:
                return found
            if hashlib.sha256(data).hexdigest() != digest:
                raise EngineError(f"{kind} {digest[:12]} has another digest than its name says")
            started = time.monotonic()
            with self._slot(job, cancelled) if nice == 0 else contextlib.nullcontext():
                found = compile_code(
                    data,
                    digest,
                    kind,
                    self._profile,
                    limits=limits or self._limits,
                    nice=nice,
                    progress=job.tell,
                    cancelled=cancelled,
                    confined=self._look_at,
                )
            job.compiled += 1
            wall_ms = round((time.monotonic() - started) * 1000, 1)
            try:
                kept = self._cache.store(key, found)
                job.is_kept = kept and job.is_kept
                self._emit(
                    EventKind.COMPILE,
                    {
                        "digest": digest,
                        "kind": kind.value,
                        "wall_ms": wall_ms,
                        "wasm_bytes": len(data),
                        "native_bytes": os.fstat(found).st_size,
                        "background": nice > 0,
                        "kept": kept,
                    },
                )
            except BaseException:
                os.close(found)
                raise
        return found

    @contextlib.contextmanager
    def _slot(self, job: _Job, cancelled: Callable[[], bool] | None) -> Iterator[None]:
        """One of the compiles that may run at once. *Waits*, and tells so."""
        started = time.monotonic()
        while not self._slots.acquire(timeout=_SLOT_POLL_SECONDS):
            if cancelled is not None and cancelled():
                raise EngineError("compiling was cancelled while it waited for others", code="usage.interrupted")
            job.wait_for("one of the components that compile now", time.monotonic() - started)
        try:
            yield
        finally:
            self._slots.release()

    def _look_at(self, level: Level) -> None:
        """Tell once when a child that compiles is confined by less than it should be."""
        if not level.meets(FULL):
            self._warn(
                f"components are compiled in processes that only {level.word} confines, not {FULL}; "
                "`cloche doctor` says what to do"
            )

    def _compile_whole(self, digest: Digest, component: bytes, cancelled: Callable[[], bool]) -> None:
        limits = dataclasses.replace(
            self._limits, wall_ms=min(self._limits.wall_ms * _BACKGROUND_PATIENCE, _MAX_WALL_MS)
        )
        job = _Job(None)
        os.close(
            self._obtain(
                digest,
                component,
                CodeKind.COMPONENT,
                job,
                limits=limits,
                nice=_BACKGROUND_NICE,
                cancelled=cancelled,
            )
        )
        if job.is_kept:
            self.compiled_whole.add(digest)

    def _key(self, digest: Digest, kind: str) -> EntryKey:
        return EntryKey(digest, str(kind), self._engine_build, self._profile.key(), self._target)

    def _warn(self, text: str) -> None:
        """One event for each text."""
        if text in self._warned:
            return
        self._warned.add(text)
        self._emit(EventKind.WARNING, {"text": text, "subject": "native-code"})


class _Job:
    """One request: what it tells and what it cost."""

    def __init__(self, progress: ProgressSink | None) -> None:
        self._progress = progress
        self.part = ""
        self.compiled = 0
        self.is_kept = True
        self.why_whole = ""
        self._started = time.monotonic()
        self._next_ms: float = QUIET_MS

    @property
    def wall_ms(self) -> float:
        """Since the request."""
        return (time.monotonic() - self._started) * 1000

    def waiting(self, seconds: float) -> None:
        """Another process compiles the same."""
        self.wait_for("another process that compiles this", seconds)

    def wait_for(self, what: str, seconds: float) -> None:
        """Tell what is waited for, and for how long already; not too often."""
        if seconds * 1000 >= QUIET_MS and self.wall_ms >= self._next_ms:
            self._next_ms = self.wall_ms + PROGRESS_EVERY_MS
            self.tell(Progress("wait", None, f"waiting for {what} ({seconds:.0f} s)"))

    def tell(self, progress: Progress) -> None:
        """Pass progress on, with the part that it is about."""
        if self._progress is not None:
            self._progress(dataclasses.replace(progress, text=self.part + progress.text))


class _SharedCode:
    """Descriptors of modules' native code, so that all plugins of this process map the same memory. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[Digest, int] = {}
        self._bytes = 0

    def get(self, digest: Digest) -> int | None:
        """A descriptor of its own for the caller, or None."""
        with self._lock:
            held = self._held.pop(digest, None)
            if held is None:
                return None
            self._held[digest] = held  # the most recently used stands last
            try:
                return os.dup(held)
            except OSError as error:
                raise shortage("native code that is shared cannot be used", error) from error

    def put(self, digest: Digest, descriptor: int) -> None:
        """Keep a duplicate of `descriptor`, and let go of the least recently used above the bound."""
        with self._lock, contextlib.suppress(OSError):  # without a descriptor to spare it is only not shared
            if digest not in self._held:
                self._held[digest] = os.dup(descriptor)
                self._bytes += os.fstat(descriptor).st_size
            while self._bytes > _SHARED_BYTES:
                self._drop(next(iter(self._held)))

    def drop(self, digest: Digest) -> None:
        """Let go of one module; nothing happens when it is not held."""
        with self._lock:
            if digest in self._held:
                self._drop(digest)

    def close(self) -> None:
        """Let go of everything."""
        with self._lock:
            for digest in list(self._held):
                self._drop(digest)

    def _drop(self, digest: Digest) -> None:
        descriptor = self._held.pop(digest)
        self._bytes -= os.fstat(descriptor).st_size
        os.close(descriptor)


class _Background:
    """Compiles whole components one after the other on a thread that ends when nothing is left."""

    def __init__(self, work: Callable[[Digest, bytes, Callable[[], bool]], None], warn: Callable[[str], None]) -> None:
        self._work, self._warn = work, warn
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._queue: deque[tuple[Digest, bytes]] = deque()
        self._seen: set[Digest] = set()
        self._thread: threading.Thread | None = None

    def add(self, digest: Digest, component: bytes) -> None:
        """Queue one component, each at most once; it is not tried again when it fails."""
        with self._lock:
            if digest in self._seen or self._closed.is_set():
                return
            self._seen.add(digest)
            self._queue.append((digest, component))
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="cloche-compile", daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:
                    self._queue.clear()
                    self._warn(f"component {digest[:12]} stays in parts: {error}")
                else:
                    self._thread = thread

    def wait(self, timeout_s: float) -> bool:
        """Until the queue is empty and its last one done."""
        thread = self._thread
        if thread is not None:
            thread.join(timeout_s)
        return thread is None or not thread.is_alive()

    def close(self) -> None:
        """Drop the queue, kill the child that compiles and wait until it is reaped."""
        self._closed.set()
        with self._lock:
            self._queue.clear()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._queue or self._closed.is_set():
                    self._thread = None
                    return
                digest, component = self._queue.popleft()
            try:
                self._work(digest, component, self._closed.is_set)
            except ClocheError as error:
                if error.code != "usage.interrupted":
                    self._warn(f"component {digest[:12]} stays in parts: {error.message}")
            except Exception as error:
                self._warn(f"component {digest[:12]} stays in parts: {type(error).__name__}: {error}")
