"""Versions and version requirements, as manifests and policies write them.

A version is semantic versioning 2.0.0. A requirement is one or more clauses with a comma between them, all of which
must hold: `^1.2` (compatible: the first number that is not zero stays), `~1.2` (1.2.x), `>=1.0`, `>`, `<`, `<=`,
`=1.2.3`, or `*` for any version at all. A version without an operator means `^`. A pre-release matches only itself (and
`*`), so it is asked for by its whole name: `1.0.0-rc.1`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

MAX_VERSION_CHARACTERS = 64
MAX_CLAUSES = 4

_INTEGER = r"(?:0|[1-9][0-9]{0,8})"
_TAIL = r"[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*"
_VERSION = re.compile(rf"({_INTEGER})\.({_INTEGER})\.({_INTEGER})(?:-({_TAIL}))?(?:\+{_TAIL})?")
_CLAUSE = re.compile(rf"(\^|~|>=|<=|>|<|==|=)? *({_INTEGER})(?:\.({_INTEGER}))?(?:\.({_INTEGER}))?(?:-({_TAIL}))?")

REQUIREMENT_FORMS = 'a version requirement such as "^1.2", "~0.3", ">=1.0, <3" or "*"'
VERSION_FORMS = 'a semantic version such as "1.4.0"'

_Release = tuple[int, int, int]


class VersionError(ValueError):
    """A version or a requirement cannot be read. The text says what is expected; the caller adds the error code."""


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """A version: its three numbers and its pre-release name (empty for a release). Build metadata is dropped.

    The order of two pre-releases is not meaningful; nothing here relies on it. Added in 0.1.
    """

    major: int
    minor: int
    patch: int
    pre: str = ""

    @classmethod
    def parse(cls, text: str) -> Version:
        """Read `1.4.0` or `1.4.0-rc.1+build`. Raises: VersionError."""
        match = _VERSION.fullmatch(text) if len(text) <= MAX_VERSION_CHARACTERS else None
        if match is None or any(
            part.isdigit() and part != "0" and part[0] == "0" for part in (match[4] or "").split(".")
        ):
            raise VersionError(VERSION_FORMS)
        return cls(int(match[1]), int(match[2]), int(match[3]), match[4] or "")

    @property
    def release(self) -> _Release:
        """The three numbers."""
        return self.major, self.minor, self.patch

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}" + (f"-{self.pre}" if self.pre else "")


@dataclass(frozen=True, slots=True)
class Requirement:
    """A version requirement. `text` is as written; make one with `parse`. Added in 0.1."""

    text: str
    _least: _Release = field(repr=False, compare=False)
    _below: _Release | None = field(repr=False, compare=False)
    _exactly: Version | None = field(repr=False, compare=False, default=None)

    @classmethod
    def parse(cls, text: str) -> Requirement:
        """Read a requirement. Raises: VersionError, also when no version can fulfil it."""
        if len(text) > MAX_VERSION_CHARACTERS:
            raise VersionError(REQUIREMENT_FORMS)
        if text.strip() == "*":
            return cls(text, (0, 0, 0), None)
        clauses = [part.strip(" ") for part in text.split(",")]
        if len(clauses) > MAX_CLAUSES:
            raise VersionError(REQUIREMENT_FORMS)
        least: _Release = (0, 0, 0)
        below: _Release | None = None
        for clause in clauses:
            match = _CLAUSE.fullmatch(clause)
            if match is None:
                raise VersionError(REQUIREMENT_FORMS)
            operator, *numbers, pre = match.groups()
            if pre is not None:
                if len(clauses) > 1 or numbers[2] is None or operator not in (None, "=", "=="):
                    raise VersionError('a pre-release alone and whole, such as "1.0.0-rc.1"; it matches only itself')
                exact = Version.parse(clause.lstrip("= "))
                return cls(text, exact.release, None, exact)
            clause_least, clause_below = _interval(operator or "^", [int(part) for part in numbers if part is not None])
            least = max(least, clause_least)
            if clause_below is not None:
                below = clause_below if below is None else min(below, clause_below)
        if below is not None and least >= below:
            raise VersionError("a version requirement that some version can fulfil")
        return cls(text, least, below)

    @property
    def is_any(self) -> bool:
        """Does it admit every version there is?"""
        return self.text.strip() == "*"

    def matches(self, version: str | Version) -> bool:
        """Does `version` fulfil this requirement? Raises: VersionError when `version` is not a semantic version."""
        found = Version.parse(version) if isinstance(version, str) else version
        if self.is_any:
            return True
        if self._exactly is not None or found.pre:
            return self._exactly == found
        return self.admits_release(found)

    def admits_release(self, version: Version) -> bool:
        """Like `matches`, but a pre-release counts as the release that it leads to."""
        return self._least <= version.release and (self._below is None or version.release < self._below)

    def __str__(self) -> str:
        return self.text


ANY_VERSION = Requirement("*", (0, 0, 0), None)


def _interval(operator: str, numbers: list[int]) -> tuple[_Release, _Release | None]:
    """Least version, and the first above; versions that are cut short stand for all versions that they begin."""
    padded = (*numbers, 0, 0)
    low: _Release = (padded[0], padded[1], padded[2])
    match operator:
        case ">=":
            return low, None
        case "<":
            return (0, 0, 0), low
        case ">":
            return _next(low, len(numbers) - 1), None
        case "<=":
            return (0, 0, 0), _next(low, len(numbers) - 1)
        case "=" | "==":
            return low, _next(low, len(numbers) - 1)
        case "~":
            return low, _next(low, min(len(numbers) - 1, 1))
    fixed = next((index for index, number in enumerate(numbers) if number), len(numbers) - 1)
    return low, _next(low, fixed)


def _next(release: _Release, index: int) -> _Release:
    major, minor, patch = release
    return ((major + 1, 0, 0), (major, minor + 1, 0), (major, minor, patch + 1))[index]
