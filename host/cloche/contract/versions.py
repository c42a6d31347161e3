"""Versions of WIT packages: which one may stand in for which. Pure.

Source: component-model Explainer, "canonical interface name": versions are interchangeable within one major, before
1.0.0 within one minor, before 0.1.0 not at all; a pre-release matches only itself. Build metadata is ignored.
"""

from __future__ import annotations

from collections.abc import Iterable

from cloche.manifest.versions import Version, VersionError


def parse_version(text: str | None) -> Version | None:
    """`text` as a version; None when it is none. Added in 0.1."""
    if text is None:
        return None
    try:
        return Version.parse(text)
    except VersionError:
        return None


def track(text: str | None) -> str | None:
    """What interchangeable versions have in common (`2`, `0.3`, `0.0.7`, `1.0.0-rc.1`); None for no version."""
    version = parse_version(text)
    if version is None:
        return None
    if version.pre:
        return str(version)
    if version.major:
        return str(version.major)
    return f"0.{version.minor}" if version.minor else f"0.0.{version.patch}"


def is_same_track(one: str | None, other: str | None) -> bool:
    """Whether two versions are interchangeable but for what was added. No version matches only no version."""
    if one is None or other is None:
        return one is other
    found = track(one)
    return one == other if found is None else found == track(other)


def is_provided_by(required: str | None, provided: str | None) -> bool:
    """Whether something made for version `required` works with `provided`: same track, and at least as new."""
    return is_same_track(required, provided) and (required == provided or not is_newer(required, provided))


def is_newer(one: str | None, other: str | None) -> bool:
    """Whether `one` is newer than `other`; False where either is no version."""
    first, second = parse_version(one), parse_version(other)
    return first is not None and second is not None and first.release > second.release


def age(interface_id: str) -> tuple[object, ...]:
    """Sorts ids from the oldest version to the newest: a release after its drafts, an id without version first."""
    version = parse_version(interface_id.partition("@")[2])
    if version is None:
        return (-1,)
    draft = tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in version.pre.split("."))
    return (*version.release, not version.pre, draft)


def newest(interface_ids: Iterable[str]) -> str | None:
    """The id with the highest version, by `age`."""
    return max(interface_ids, key=age, default=None)


def revision(text: str | None) -> int | None:
    """The major version; None for no version."""
    version = parse_version(text)
    return None if version is None else version.major
