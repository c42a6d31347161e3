"""Everything below a home that can be made again, seen as one: native code, what building made and fetched, types."""

from __future__ import annotations

from dataclasses import dataclass

from cloche.build.cache import BuildCache
from cloche.config import Settings, home_error
from cloche.engine.cache import NativeCache
from cloche.wit.store import TypeStore


@dataclass(frozen=True, slots=True)
class Cached:
    """One entry. `kind`: `component`, `module`, `split` for native code; `built` for a component; `npm` and `vendor`
    for what building fetched; `types` for the types of all components; `work` for a build in progress or dead.

    `last_used` is seconds since 1970; `name` is the plugin that was built, else empty.
    """

    kind: str
    digest: str
    size_bytes: int
    last_used: float
    name: str = ""


_STORES = {"built": "building", "npm": "building", "vendor": "building", "types": "types"}
"""Who keeps which kind; the others are native code."""


class Caches:
    """Lists, shrinks and empties the caches below one home. Safe while hosts use them. Added in 0.1.

    Every method blocks on the disk. Raises: RegistryError (`registry.io`).
    """

    def __init__(self, settings: Settings) -> None:
        self._cap = settings.cache_bytes
        self._home = settings.home
        self._native = NativeCache(settings.native_cache, max_bytes=settings.cache_bytes)
        self._built = BuildCache(settings.build_cache)
        self._types = TypeStore(settings.home)

    def entries(self) -> tuple[Cached, ...]:
        """Everything that is cached, most recently used first."""
        found = [Cached(item.kind, item.digest, item.size_bytes, item.last_used) for item in self._native.entries()]
        found += [Cached(item.kind, item.digest, item.size, item.used, item.name) for item in self._built.entries()]
        try:
            size_bytes, last_used = self._types.held()
        except OSError as error:
            raise home_error(self._home, error) from error
        if size_bytes:
            found.append(Cached("types", "", size_bytes, last_used))
        return tuple(sorted(found, key=lambda item: (-item.last_used, item.digest)))

    def gc(self, max_bytes: int | None = None) -> int:
        """Remove what was used longest ago until all takes at most `max_bytes` (default: the cap), and what killed
        builds left; bytes freed. What a build uses now stays.
        """
        room = self._cap if max_bytes is None else max_bytes
        keep = {"native": 0, "building": 0, "types": 0}
        for item in self.entries():
            if item.kind == "work":  # not worth keeping, and not counted: it goes as soon as its build ends
                continue
            room -= item.size_bytes
            if room < 0:
                break
            keep[_STORES.get(item.kind, "native")] += item.size_bytes
        freed = self._native.gc(keep["native"]) + self._built.gc(keep["building"])
        return freed if keep["types"] else freed + self._clear_types()

    def clear(self) -> int:
        """Remove everything, also the key that vouches for native code; bytes freed."""
        return self._native.clear() + self._built.gc(0) + self._clear_types()

    def _clear_types(self) -> int:
        try:
            return self._types.clear()
        except OSError as error:
            raise home_error(self._home, error) from error
