"""Version requirements: which versions they admit."""

from __future__ import annotations

import pytest

from cloche.manifest.versions import Requirement, Version, VersionError

MATCHES = [
    ("*", "0.0.1", True),
    ("^1.2", "1.2.0", True),
    ("^1.2", "1.9.9", True),
    ("^1.2", "2.0.0", False),
    ("^1.2", "1.1.9", False),
    ("1.2", "1.9.0", True),
    ("^0.2", "0.2.9", True),
    ("^0.2", "0.3.0", False),
    ("^0.0.3", "0.0.4", False),
    ("^0", "0.9.0", True),
    ("^0", "1.0.0", False),
    ("^0.0", "0.0.9", True),
    ("^0.0", "0.1.0", False),
    ("~1.2", "1.2.9", True),
    ("~1.2", "1.3.0", False),
    ("~1", "1.9.0", True),
    ("~1.2.3", "1.2.2", False),
    ("=1.2", "1.2.7", True),
    ("==1.2.3", "1.2.4", False),
    (">1.2", "1.2.9", False),
    (">1.2", "1.3.0", True),
    ("<=1.2", "1.2.9", True),
    ("<1.2", "1.2.0", False),
    (">=1.0, <3", "2.9.0", True),
    (">=1.0,<3", "3.0.0", False),
    ("^1.0", "1.1.0-rc.1", False),
    ("*", "1.1.0-rc.1", True),
    ("1.1.0-rc.1", "1.1.0-rc.1", True),
    ("=1.1.0-rc.1", "1.1.0", False),
    ("^1.0", "1.0.0+build.5", True),
]


@pytest.mark.parametrize(("requirement", "version", "expected"), MATCHES)
def test_requirements_admit_versions(requirement: str, version: str, expected: bool) -> None:
    """Compatible means that the first number other than zero stays; a pre-release matches only itself."""
    assert expected is Requirement.parse(requirement).matches(version)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "^",
        "1.x",
        "^1.0.0-rc.1",
        ">=1.0.0-a, <2",
        ">=2, <1",
        "<0.0.0",
        "1,2,3,4,5",
        "01",
        "1.0.0.0",
        "9" * 70,
        "1" * 10,
    ],
)
def test_unusable_requirements_are_refused(text: str) -> None:
    """A requirement that cannot be read or cannot be fulfilled is an error."""
    with pytest.raises(VersionError):
        Requirement.parse(text)


def test_requirements_are_equal_by_text() -> None:
    """Values compare by what was written, and print as it."""
    assert Requirement.parse("^1.0") == Requirement.parse("^1.0")
    assert str(Requirement.parse("^1.0")) == "^1.0"
    assert str(Version.parse("1.0.0-rc.1+b")) == "1.0.0-rc.1"
