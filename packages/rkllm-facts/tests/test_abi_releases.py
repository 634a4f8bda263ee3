"""Versions, their order, and which layout belongs to which release."""

from __future__ import annotations

import itertools

import pytest

from rkllm_facts.abi import SUPPORTED, Version, layout, layout_for_release, layouts, releases
from rkllm_facts.errors import UnknownVersion, UnsupportedVersion

LAYOUT_OF = {
    "1.1.0": "1.1.4",
    "1.1.1": "1.1.4",
    "1.1.2": "1.1.4",
    "1.1.3": "1.1.4",
    "1.1.4": "1.1.4",
    "1.2.0": "1.2.0",
    "1.2.1b1": "1.2.1b1",
    "1.2.1": "1.2.3",
    "1.2.2": "1.2.3",
    "1.2.3": "1.2.3",
    "1.3.0": "1.3.0",
}
LAYOUT_IDS = {
    "1.1.4": "cb642f87dd3e",
    "1.2.0": "b41dc069e3b3",
    "1.2.1b1": "8d021791fc76",
    "1.2.3": "a86aa54e6754",
    "1.3.0": "547807e433e1",
}
ORDERED = ["1.0.0", "1.0.1", "1.0.2b", "1.0.2b9", "1.1.4", "1.2.0", "1.2.1b1", "1.2.1b2", "1.2.1b10", "1.2.1", "1.2.10"]


@pytest.mark.parametrize(
    ("earlier", "later"), list(itertools.combinations([*ORDERED, "1.3.0", "1.10.0", "2.0.0b1"], 2))
)
def test_versions_are_ordered_as_they_were_released(earlier: str, later: str) -> None:
    assert Version.parse(earlier) < Version.parse(later)


@pytest.mark.parametrize("text", ORDERED)
def test_a_version_is_written_as_it_was_read(text: str) -> None:
    assert str(Version.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "1.2",
        "1.2.",
        "1.2.3.",
        "1.2.3.4",
        "v1.2.3",
        "1.2.3 ",
        " 1.2.3",
        "1.2.3\n",
        "1.2.3c1",
        "1.2.-3",
        "1.2.٣",
    ],
)
def test_what_is_no_version_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a version number"):
        Version.parse(text)
    with pytest.raises(UnknownVersion) as caught:
        layout_for_release(text)
    assert caught.value.supported == tuple(LAYOUT_OF)
    assert not isinstance(caught.value, UnsupportedVersion)


@pytest.mark.parametrize(("release", "name"), LAYOUT_OF.items())
def test_the_layout_of_each_supported_release(release: str, name: str) -> None:
    assert layout_for_release(release) is layout(name)
    assert layout_for_release(Version.parse(release)) is layout(name)
    assert release in layout(name).releases


def test_layouts_cover_the_releases_and_no_others() -> None:
    assert [release for one in layouts() for release in one.releases] == list(LAYOUT_OF)
    assert {one.name: one.layout_id for one in layouts()} == LAYOUT_IDS
    assert all(one.releases[-1] == one.name for one in layouts())


def test_all_releases_in_order() -> None:
    versions = [release.version for release in releases()]
    assert versions == sorted(versions)
    assert [str(one) for one in versions] == ["1.0.0", "1.0.1", "1.0.2b", *LAYOUT_OF, "1.3.1"]
    for release in releases():
        assert release.layout == LAYOUT_OF.get(str(release.version))
        assert bool(release.why_not) == (release.layout is None)
        assert release.layout is None or release.layout_id == layout(release.layout).layout_id
    assert set(SUPPORTED) == set(LAYOUT_OF.values())


@pytest.mark.parametrize("version", ["1.3.2", "1.2.1b2", "1.2.3b1", "1.1.5", "2.3.3b0", "9999.0.0"])
def test_an_unknown_version_is_refused_with_the_known_ones(version: str) -> None:
    with pytest.raises(UnknownVersion) as caught:
        layout_for_release(version)
    assert not isinstance(caught.value, UnsupportedVersion)
    assert caught.value.version == version
    assert all(known in str(caught.value) for known in (version, *LAYOUT_OF))


@pytest.mark.parametrize(
    ("version", "reason"),
    [("1.0.0", "toolkit 1.0.x"), ("1.0.1", "toolkit 1.0.x"), ("1.0.2b", "toolkit 1.0.x"), ("1.3.1", "header")],
)
def test_a_release_that_is_known_but_not_supported_says_why(version: str, reason: str) -> None:
    with pytest.raises(UnsupportedVersion, match=reason) as caught:
        layout_for_release(version)
    assert f"librkllmrt {version} is known, but not supported" in str(caught.value)
    assert caught.value.supported == tuple(LAYOUT_OF)
