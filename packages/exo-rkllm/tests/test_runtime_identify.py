"""Which interface a library has: decided from its marker, its functions and the probe of its defaults."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from exo_rkllm.runtime import SymbolMissing, VersionUnknown
from exo_rkllm.runtime.identify import Evidence, identify
from rkllm_facts.abi import SUPPORTED, Features, Layout, layout, layouts, releases

PATH = Path("/opt/librkllmrt.so")
SUPPORTED_RELEASES = [str(one.version) for one in releases() if one.layout]


def evidence(
    marker: str | None, symbols_of: str, *, probe: Iterable[str] = (), less: str = "", more: str = ""
) -> Evidence:
    """Of a library with the functions of one layout, whose defaults fit the layouts `probe` (default: that one)."""
    names = set(probe) or {symbols_of}
    symbols = (layout(symbols_of).symbols - {less}) | ({more} if more else set())

    def fitting(candidates: Iterable[Layout]) -> list[Layout]:
        return [one for one in candidates if one.name in names]

    return Evidence(PATH, marker, frozenset(symbols), fitting)


@pytest.mark.parametrize("release", SUPPORTED_RELEASES)
def test_the_marker_of_a_supported_release_decides(release: str) -> None:
    name = Features.of(release).layout.name
    found = identify(evidence(release, name))
    assert (found.layout.name, found.version, str(found.features.version)) == (name, release, release)
    assert found.warnings == ()


@pytest.mark.parametrize("release", ["1.0.1", "1.3.1", "1.4.0", "1.2.3b7", "9.9.9.9"])
def test_an_unknown_or_unsupported_version_is_refused(release: str) -> None:
    with pytest.raises(VersionUnknown) as caught:
        identify(evidence(release, "1.3.0"))
    assert caught.value.version == release
    text = str(caught.value)
    assert str(PATH) in text
    assert release in text
    assert "set RKLLM_ABI" in text
    assert "by its functions it could be 1.2.3 or 1.3.0" in text


def test_functions_that_are_missing_are_named() -> None:
    with pytest.raises(SymbolMissing) as caught:
        identify(evidence("1.3.0", "1.2.0"))
    assert caught.value.missing == tuple(sorted(layout("1.3.0").symbols - layout("1.2.0").symbols))
    assert "rkllm_get_kv_cache_size" in str(caught.value)
    assert "its marker says version 1.3.0" in str(caught.value)


def test_functions_that_the_version_does_not_have_contradict_the_marker() -> None:
    with pytest.raises(VersionUnknown, match=r"its marker says 1\.1\.4, but it exports .*rkllm_set_chat_template"):
        identify(evidence("1.1.4", "1.3.0"))


def test_undocumented_functions_do_not_count() -> None:
    assert identify(evidence("1.2.0", "1.2.0", more="rkllm_print_timings")).warnings == ()


def test_a_probe_that_disagrees_with_the_marker_only_warns() -> None:
    found = identify(evidence("1.2.3", "1.2.3", probe=["1.3.0"]))
    assert found.layout.name == "1.2.3"
    assert len(found.warnings) == 1
    assert "they fit 1.3.0" in found.warnings[0]
    (nothing,) = identify(evidence("1.2.3", "1.2.3", probe=["none"])).warnings
    assert "they fit no known version" in nothing


@pytest.mark.parametrize("name", ["1.1.4", "1.2.3", "1.3.0"])
def test_without_a_marker_functions_and_probe_decide_with_a_warning(name: str) -> None:
    found = identify(evidence(None, name, probe=[name]))
    assert (found.layout.name, found.version) == (name, None)
    assert str(found.features.version) == layout(name).releases[0]
    assert len(found.warnings) == 1
    assert "has no version marker" in found.warnings[0]


def test_without_a_marker_the_two_twins_are_used_as_the_longer_one() -> None:
    found = identify(evidence(None, "1.2.0", probe=["1.2.0", "1.2.1b1"]))
    assert found.layout.name == "1.2.1b1"
    assert "those of 1.2.0 or 1.2.1b1, so the interface 1.2.1b1 is used" in found.warnings[0]


@pytest.mark.parametrize("probe", [["none"], ["1.2.3", "1.3.0"]])
def test_without_a_marker_more_than_one_layout_or_none_is_refused(probe: list[str]) -> None:
    with pytest.raises(VersionUnknown, match="no version marker") as caught:
        identify(evidence(None, "1.3.0", probe=probe))
    assert "by functions 1.2.3 or 1.3.0" in str(caught.value)
    assert caught.value.version is None


def test_without_a_marker_functions_of_no_release_are_refused() -> None:
    with pytest.raises(VersionUnknown, match=r"those of no supported release.*it is none of them"):
        identify(evidence(None, "1.2.3", less="rkllm_abort"))


@pytest.mark.parametrize("abi", SUPPORTED)
def test_a_named_layout_is_taken_for_an_unknown_version(abi: str) -> None:
    found = identify(evidence("1.9.0", abi), abi)
    assert (found.layout.name, found.version, str(found.features.version)) == (abi, "1.9.0", abi)
    assert len(found.warnings) == 1
    assert "says that it is version 1.9.0; the interface of " + abi in found.warnings[0]


def test_a_named_release_gives_its_features() -> None:
    found = identify(evidence(None, "1.2.3"), "1.2.2")
    assert found.layout.name == "1.2.3"
    assert str(found.features.version) == "1.2.2"
    assert "has no version marker" in found.warnings[0]


def test_a_name_that_agrees_with_the_marker_changes_nothing() -> None:
    found = identify(evidence("1.2.1", "1.2.3"), "1.2.3")
    assert (str(found.features.version), found.warnings) == ("1.2.1", ())


def test_a_name_against_a_known_marker_needs_the_probe_on_its_side() -> None:
    with pytest.raises(VersionUnknown, match=r"RKLLM_ABI is '1\.2\.3', but the library's marker says version 1\.3\.0"):
        identify(evidence("1.3.0", "1.3.0"), "1.2.3")
    found = identify(evidence("1.3.0", "1.3.0", probe=["1.2.3"]), "1.2.3")
    assert found.layout.name == "1.2.3"
    assert "says that it is version 1.3.0" in found.warnings[0]


def test_a_name_does_not_make_up_for_missing_functions() -> None:
    with pytest.raises(SymbolMissing) as caught:
        identify(evidence("1.9.0", "1.3.0", less="rkllm_abort"), "1.3.0")
    assert caught.value.missing == ("rkllm_abort",)
    assert "RKLLM_ABI is 1.3.0" in str(caught.value)


def test_a_named_layout_that_lacks_functions_of_the_library_warns() -> None:
    found = identify(evidence("1.9.0", "1.3.0", probe=["1.1.4"]), "1.1.4")
    assert any("rkllm_set_chat_template" in text and "RKLLM_ABI may be wrong" in text for text in found.warnings)


@pytest.mark.parametrize("abi", ["1.3.1", "newest", "1.0.0"])
def test_a_name_of_no_supported_release_is_refused(abi: str) -> None:
    with pytest.raises(VersionUnknown, match=f"RKLLM_ABI is '{abi}'"):
        identify(evidence("1.3.0", "1.3.0"), abi)


def test_every_layout_is_told_apart_but_for_the_twins() -> None:
    assert len(layouts()) == 5
    assert {one.name for one in layouts() if one.symbols == layout("1.2.0").symbols} == {"1.2.0", "1.2.1b1"}
