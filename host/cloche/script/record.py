"""What was decided about an image, kept on disk: a later command finds it without asking the rooms that decided.

A record is an entry of the native-code cache and authenticated like one. It is known by all that the decision hangs
on, the policy's text among it, so that a change of anything makes another record. The code that it names is verified as
ever.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from cloche.confine.memory import new_memory_file
from cloche.engine import sealed
from cloche.engine.cache import NativeCache
from cloche.engine.cache_entry import EntryKey, target
from cloche.engine.installed import engine_build
from cloche.model import Digest
from cloche.resources import sdk_dir, wit_dir
from cloche.script.kit import Kit
from cloche.version import VERSION
from cloche.worker.messages import Order
from cloche.worker.orders import lodging_of, order_of

if TYPE_CHECKING:
    from cloche.binary.survey import Survey
    from cloche.script.image import Image

_KIND = "script"
_FORM = 1
"""Of `_Record`: another number for another form."""


class _Record(msgspec.Struct, frozen=True, array_like=True):
    order: Order
    concurrency: int
    lockdown: str
    survey: Any
    ceilings: dict[str, int]
    denied: dict[str, str]
    digest: str
    engine_version: str
    profile: bytes


class Records:
    """The record of one image under one policy, in the cache below `home`. Reads the disk; nothing fails a caller."""

    def __init__(self, home: Path, image: Image, policy: Path | None) -> None:
        self.image = image
        self._cache = NativeCache(home / "cache" / "native")
        self._target = target()
        self._key = EntryKey(_digest(image, policy), _KIND, engine_build(), b"", self._target)

    def load(self) -> Kit | None:
        """The kit, with its code loaded and verified; None where anything of it is not there."""
        descriptor = self._cache.load(self._key)
        if descriptor is None:
            return None
        try:
            with sealed.contents(descriptor) as data:
                record = msgspec.msgpack.decode(data, type=_Record)
        finally:
            os.close(descriptor)
        code = EntryKey(Digest(record.digest), "component", record.engine_version, record.profile, self._target)
        component = self._cache.load(code)
        if component is None:
            return None
        return Kit(
            lodging_of(record.order, component, record.concurrency, record.lockdown),
            lambda: _survey(record.survey),
            record.ceilings,
            record.denied,
            code,
        )

    def save(self, kit: Kit) -> None:
        """Keep a kit for later commands. One with mounts of its own is not kept."""
        lodging = kit.lodging
        if lodging.mounts or lodging.modules:
            return
        record = _Record(
            order=order_of(lodging),
            concurrency=lodging.concurrency,
            lockdown=lodging.lockdown,
            survey=kit.survey(),
            ceilings=dict(kit.ceilings),
            denied=dict(kit.denied),
            digest=kit.code.digest,
            engine_version=kit.code.engine_version,
            profile=kit.code.profile,
        )
        descriptor = new_memory_file("cloche-record")
        try:
            os.write(descriptor, msgspec.msgpack.encode(record))
            sealed.seal(descriptor)
            self._cache.store(self._key, descriptor)
        finally:
            os.close(descriptor)


def _survey(plain: Any) -> Survey:
    from cloche.binary.survey import Survey  # noqa: PLC0415 - asked for only where the memory is not the usual one

    return msgspec.convert(plain, Survey)


def _digest(image: Image, policy: Path | None) -> Digest:
    """Of everything that decides: this program, the image, the policy."""
    seen = sha256()
    for part in (
        f"{_FORM} {VERSION} {sys.version} {image.stack_bytes} {image.source}",
        *_sources(image),
        *_policy(policy),
    ):
        data = part if isinstance(part, bytes) else part.encode("utf-8", "surrogateescape")
        seen.update(len(data).to_bytes(8, "little") + data)
    return Digest(seen.hexdigest())


def _policy(file: Path | None) -> Iterator[str | bytes]:
    if file is not None:
        yield str(file)
        try:
            yield file.read_bytes()
        except OSError:
            yield os.urandom(16)  # whoever reads it in earnest says what is wrong


def _sources(image: Image) -> Iterator[str]:
    """Names, sizes and times of what the image is built from; a file cannot be changed and keep its time of change."""
    places = [str(image.source)]
    if image.source.is_dir():
        places += [str(sdk_dir() / "cloche_guest"), str(wit_dir())]
    while places:
        place = places.pop()
        found = os.stat(place)  # noqa: PTH116 - hundreds of files, and each takes its time
        if stat.S_ISDIR(found.st_mode):
            places += sorted(entry.path for entry in os.scandir(place) if entry.name != "__pycache__")
        yield f"{place} {found.st_mode} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_ino}"
