"""Versions of WIT packages: which one may stand in for which, and what a manifest's requirement accepts. Pure.

Source: component-model Explainer, "canonical interface name": versions are interchangeable within one major, before
1.0.0 within one minor, before 0.1.0 not at all; a pre-release matches only itself. Build metadata is ignored.
"""

from __future__ import annotations

from collections.abc import Iterable

from semantic_version import NpmSpec, Version  # type: ignore[import-untyped]

MAX_VERSION_CHARS = 64
MAX_REQUIREMENT_CHARS = 128


def parse_version(text: str | None) -> tuple[int, int, int, str] | None:
    """Major, minor, patch and pre-release of `text`; None when it is no version. Added in 0.1."""
    if text is None or len(text) > MAX_VERSION_CHARS:
        return None
    try:
        version = Version(text)
    except ValueError:
        return None
    return version.major, version.minor, version.patch, ".".join(version.prerelease)


def track(text: str | None) -> str | None:
    """What interchangeable versions have in common (`2`, `0.3`, `0.0.7`, `1.0.0-rc.1`); None for no version."""
    parsed = parse_version(text)
    if parsed is None:
        return None
    major, minor, patch, prerelease = parsed
    if prerelease:
        return f"{major}.{minor}.{patch}-{prerelease}"
    if major:
        return str(major)
    return f"0.{minor}" if minor else f"0.0.{patch}"


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
    return first is not None and second is not None and first[:3] > second[:3]


def newest(interface_ids: Iterable[str]) -> str | None:
    """The id with the highest version: a release goes before its drafts, and an id without version comes last."""

    def rank(interface_id: str) -> tuple[object, ...]:
        parsed = parse_version(interface_id.partition("@")[2])
        return (-1,) if parsed is None else (*parsed[:3], not parsed[3], parsed[3])

    return max(interface_ids, key=rank, default=None)


def revision(text: str | None) -> int | None:
    """The major version; None for no version."""
    parsed = parse_version(text)
    return None if parsed is None else parsed[0]


def is_requirement(text: str) -> bool:
    """Whether `text` is a requirement as npm writes them: `^2.0`, `~1.4`, `>=1.2 <3`, `1.x`, `^1 || ^2`."""
    return _spec(text) is not None


def satisfies(version: str | None, requirement: str) -> bool:
    """Whether `version` meets `requirement`. `*` takes anything, no version and pre-releases too; nothing else takes
    what is no version, and an invalid requirement is met by nothing.
    """
    spec = _spec(requirement)
    if spec is None:
        return False
    if requirement.strip() in ("", "*"):
        return True
    if parse_version(version) is None:
        return False
    return bool(spec.match(Version(version)))


def _spec(text: str) -> NpmSpec | None:
    if len(text) > MAX_REQUIREMENT_CHARS:
        return None
    try:
        return NpmSpec(text)
    except ValueError:
        return None
