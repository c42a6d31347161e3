"""The two caches that grow, seen as one: native code, and components built from source. Both can be made again."""

from __future__ import annotations

from dataclasses import dataclass

from cloche.build.cache import BuildCache
from cloche.config import Settings, home_error
from cloche.engine.cache import NativeCache


@dataclass(frozen=True, slots=True)
class Cached:
    """One entry. `kind`: `component`, `module`, `split` for native code, `built` for a component.

    `last_used` is seconds since 1970; `name` is the plugin that was built, empty for native code.
    """

    kind: str
    digest: str
    size_bytes: int
    last_used: float
    name: str = ""


class Caches:
    """Lists, shrinks and empties the caches below one home. Safe while hosts use them. Added in 0.1.

    Every method blocks on the disk. Raises: RegistryError (`registry.io`).
    """

    def __init__(self, settings: Settings) -> None:
        self._cap = settings.cache_bytes
        self._root = settings.build_cache
        self._native = NativeCache(settings.native_cache, max_bytes=settings.cache_bytes)
        self._built = BuildCache(settings.build_cache)

    def entries(self) -> tuple[Cached, ...]:
        """Everything that is cached, most recently used first."""
        native = [Cached(item.kind, item.digest, item.size_bytes, item.last_used) for item in self._native.entries()]
        built = [Cached("built", item.digest, item.size, item.used, item.name) for item in self._built.entries()]
        return tuple(sorted([*native, *built], key=lambda item: (-item.last_used, item.digest)))

    def gc(self, max_bytes: int | None = None) -> int:
        """Remove what was used longest ago until all takes at most `max_bytes` (default: the cap); bytes freed."""
        room = self._cap if max_bytes is None else max_bytes
        keep = {True: 0, False: 0}
        for item in self.entries():
            room -= item.size_bytes
            if room < 0:
                break
            keep[item.kind == "built"] += item.size_bytes
        return self._native.gc(keep[False]) + self._prune(keep[True])

    def clear(self) -> int:
        """Remove everything, also the key that vouches for native code; bytes freed."""
        return self._native.clear() + self._prune(0)

    def _prune(self, keep_bytes: int) -> int:
        try:
            return sum(item.size for item in self._built.prune(keep_bytes))
        except OSError as error:
            raise home_error(self._root, error) from error
