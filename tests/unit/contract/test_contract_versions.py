"""Component-model semver: which version of a WIT package may stand in for which."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloche.contract.versions import (
    age,
    is_newer,
    is_provided_by,
    is_same_track,
    newest,
    parse_version,
    revision,
    track,
)


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("1.0.0", "1"),
        ("2.14.3", "2"),
        ("0.2.9", "0.2"),
        ("0.0.7", "0.0.7"),
        ("1.0.0-rc.1", "1.0.0-rc.1"),
        ("0.1.0-draft", "0.1.0-draft"),
        ("1.2.3+build.5", "1"),
        ("1.2", None),
        ("v1.2.3", None),
        ("", None),
        ("1.2.3" + "0" * 64, None),
        (None, None),
    ],
)
def test_tracks(version: str | None, expected: str | None) -> None:
    """The track is the major, before 1.0 the minor, before 0.1 the patch, and a pre-release is its own."""
    assert track(version) == expected


@pytest.mark.parametrize(
    ("required", "provided", "expected"),
    [
        ("1.0.0", "1.0.0", True),
        ("1.0.0", "1.4.2", True),
        ("1.4.0", "1.3.9", False),
        ("1.0.0", "2.0.0", False),
        ("2.0.0", "1.9.9", False),
        ("0.2.0", "0.2.12", True),
        ("0.2.12", "0.2.9", False),
        ("0.2.0", "0.3.0", False),
        ("0.0.1", "0.0.1", True),
        ("0.0.1", "0.0.2", False),
        ("0.2.0-draft", "0.2.0-draft", True),
        ("0.2.0-draft", "0.2.0-draft2", False),
        ("0.2.0-draft", "0.2.0", False),
        ("0.2.0", "0.2.0-draft", False),
        ("1.0.0+a", "1.0.0+b", True),
        (None, None, True),
        (None, "1.0.0", False),
        ("1.0.0", None, False),
        ("not-a-version", "not-a-version", True),
        ("not-a-version", "other", False),
        ("not-a-version", "1.0.0", False),
    ],
)
def test_what_may_stand_in(required: str | None, provided: str | None, expected: bool) -> None:
    """A provider serves its own track, and only what is not newer than itself."""
    assert is_provided_by(required, provided) is expected


def test_revision_is_the_major() -> None:
    """The revision of an extension point is its major version."""
    assert [revision("3.1.4"), revision("0.2.0"), revision(None)] == [3, 0, None]


_VERSIONS = st.builds("{}.{}.{}".format, *[st.integers(0, 3)] * 3)


@settings(deadline=None)
@given(_VERSIONS, _VERSIONS)
def test_newer_is_an_order_within_a_track(one: str, other: str) -> None:
    """Of two versions on one track the older can be replaced by the newer, and never the other way round."""
    if one == other or not is_same_track(one, other):
        return
    older, newer = (one, other) if is_newer(other, one) else (other, one)
    assert is_provided_by(older, newer)
    assert not is_provided_by(newer, older)


@settings(deadline=None)
@given(st.text(max_size=200), st.text(max_size=200))
def test_any_text_is_answered(version: str, other: str) -> None:
    """No text as a version makes the rules fail."""
    parse_version(version)
    is_provided_by(version, other)
    sorted((f"a:b/c@{version}", f"a:b/c@{other}", "a:b/c@1.0.0-rc.1", "a:b/c"), key=age)


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ((), None),
        (("a:b/c",), "a:b/c"),
        (("a:b/c", "a:b/c@0.0.1"), "a:b/c@0.0.1"),
        (("a:b/c@0.9.0", "a:b/c@0.10.0"), "a:b/c@0.10.0"),
        (("a:b/c@10.0.0", "a:b/c@9.0.0"), "a:b/c@10.0.0"),
        (("a:b/c@1.0.0", "a:b/c@1.0.0-rc.1"), "a:b/c@1.0.0"),
        (("a:b/c@1.0.0-rc.1", "a:b/c@0.9.0"), "a:b/c@1.0.0-rc.1"),
        (("a:b/c@1.0.0-rc.9", "a:b/c@1.0.0-rc.10"), "a:b/c@1.0.0-rc.10"),
        (("a:b/c@1.0.0-rc", "a:b/c@1.0.0-beta.2"), "a:b/c@1.0.0-rc"),
    ],
)
def test_the_newest_of_several_ids(ids: tuple[str, ...], expected: str | None) -> None:
    """Versions are compared as numbers, not as text."""
    assert newest(ids) == expected
    assert newest(reversed(ids)) == expected
