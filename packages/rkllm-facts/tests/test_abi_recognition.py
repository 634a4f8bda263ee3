"""Which layouts fit a library."""

from __future__ import annotations

import struct

import pytest

from rkllm_facts.abi import (
    DOCUMENTED_DEFAULTS,
    SUPPORTED,
    UNDOCUMENTED_SYMBOLS,
    MarkerScanner,
    known_symbols,
    layout,
    layout_by_default_param,
    layouts,
    layouts_with_symbols,
    probe_buffer,
    version_marker,
)

# --- symbols ---

FIRST = {"rkllm_createDefaultParam", "rkllm_init", "rkllm_run", "rkllm_destroy"}
SINCE_1_0_1 = FIRST | {"rkllm_abort"}
SINCE_1_1_0 = SINCE_1_0_1 | {
    "rkllm_load_lora",
    "rkllm_load_prompt_cache",
    "rkllm_release_prompt_cache",
    "rkllm_run_async",
    "rkllm_is_running",
}
SINCE_1_2_0 = SINCE_1_1_0 | {"rkllm_clear_kv_cache", "rkllm_set_chat_template"}
SINCE_1_2_1 = SINCE_1_2_0 | {"rkllm_get_kv_cache_size", "rkllm_set_function_tools", "rkllm_set_cross_attn_params"}


def names(found: object) -> list[str]:
    assert isinstance(found, list)
    return [one.name for one in found]


def test_the_symbols_of_each_layout() -> None:
    expected = [SINCE_1_1_0, SINCE_1_2_0, SINCE_1_2_0, SINCE_1_2_1, SINCE_1_2_1]
    assert [set(one.symbols) for one in layouts()] == expected
    assert [len(one) for one in expected] == [10, 12, 12, 15, 15]
    assert known_symbols() == SINCE_1_2_1


@pytest.mark.parametrize(
    ("symbols", "fitting"),
    [
        (FIRST, []),
        (SINCE_1_0_1, []),
        (SINCE_1_1_0, ["1.1.4"]),
        (SINCE_1_2_0, ["1.2.0", "1.2.1b1"]),
        (SINCE_1_2_1, ["1.2.3", "1.3.0"]),
        (SINCE_1_2_1 - {"rkllm_set_function_tools"}, []),
        (SINCE_1_2_1 - {"rkllm_abort"}, []),
        (SINCE_1_1_0 | {"rkllm_set_chat_template"}, []),
        (set(), []),
    ],
)
def test_layouts_by_symbols(symbols: set[str], fitting: list[str]) -> None:
    assert names(layouts_with_symbols(symbols)) == fitting
    assert names(layouts_with_symbols([*symbols, *UNDOCUMENTED_SYMBOLS, "malloc", "rkllm_other"])) == fitting


# --- the probe ---

PLACES: dict[str, tuple[int, int | None, int | None]] = {
    "1.1.4": (20, None, None),
    "1.2.0": (24, 93, None),
    "1.2.1b1": (24, 93, None),
    "1.2.3": (24, 93, 100),
    "1.3.0": (24, 65, 72),
}
"""Where top_p, enabled_cpus_num and n_batch lie."""

FITTING = {
    "1.1.4": ["1.1.4"],
    "1.2.0": ["1.2.0", "1.2.1b1"],
    "1.2.1b1": ["1.2.0", "1.2.1b1"],
    "1.2.3": ["1.2.3"],
    "1.3.0": ["1.3.0"],
}


def written(name: str, *, zeroed: bool) -> bytearray:
    """What a library of a layout would write, made from the places above and not from the tables."""
    buffer = bytearray(probe_buffer())
    if zeroed:
        buffer[: layout(name).structs["RKLLMParam"].sizeof] = bytes(layout(name).structs["RKLLMParam"].sizeof)
    top_p, cpus, batch = PLACES[name]
    struct.pack_into("<5fi2f", buffer, top_p, 0.9, 0.8, 1.1, 0.0, 0.0, 0, 5.0, 0.1)
    if cpus is not None:
        buffer[cpus] = 4
    if batch is not None:
        buffer[batch] = 1
    return buffer


@pytest.mark.parametrize("zeroed", [True, False], ids=["zeroed", "only the fields"])
@pytest.mark.parametrize("name", SUPPORTED)
def test_layouts_by_what_the_default_param_is(name: str, *, zeroed: bool) -> None:
    assert names(layout_by_default_param(bytes(written(name, zeroed=zeroed)))) == FITTING[name]


@pytest.mark.parametrize("name", SUPPORTED)
def test_a_write_beyond_the_struct_excludes_its_layout(name: str) -> None:
    """A release that is not known here may have the same beginning and a longer struct."""
    buffer = written(name, zeroed=False)
    buffer[layout(name).structs["RKLLMParam"].sizeof] = 0
    assert layout_by_default_param(bytes(buffer)) == []
    last = written(name, zeroed=False)
    last[-1] = 0
    assert layout_by_default_param(bytes(last)) == []


@pytest.mark.parametrize("name", SUPPORTED)
@pytest.mark.parametrize("place", range(5))
def test_a_missing_default_excludes_the_layout(name: str, place: int) -> None:
    buffer = written(name, zeroed=True)
    top_p, _, _ = PLACES[name]
    struct.pack_into("<f", buffer, top_p + (0, 4, 8, 24, 28)[place], 0.5)
    assert layout_by_default_param(bytes(buffer)) == []


def test_when_both_fit_both_are_named() -> None:
    """Image tags of 1.2.x may be pointers whose bytes look like defaults of 1.3.0."""
    buffer = written("1.2.3", zeroed=False)
    buffer[65], buffer[72] = 4, 1
    assert names(layout_by_default_param(bytes(buffer))) == ["1.2.3", "1.3.0"]
    buffer[100] = 0
    assert names(layout_by_default_param(bytes(buffer))) == ["1.2.0", "1.2.1b1", "1.3.0"]


def test_other_buffers_fit_nothing() -> None:
    assert layout_by_default_param(probe_buffer()) == []
    assert layout_by_default_param(bytes(1024)) == []
    first = bytearray(probe_buffer())  # 1.0.1: the same first defaults as 1.2.x, 72 bytes
    first[:72] = bytes(72)
    struct.pack_into("<5fi2f", first, 24, 0.9, 0.8, 1.1, 0.0, 0.0, 0, 5.0, 0.1)
    assert layout_by_default_param(bytes(first)) == []


@pytest.mark.parametrize("size", [0, 184, 208, 415])
def test_a_buffer_that_is_too_short_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="probe_buffer"):
        layout_by_default_param(probe_buffer()[:size])


def test_documented_defaults_are_of_fields_that_exist() -> None:
    newest = layout("1.3.0")
    assert all(newest.locate("RKLLMParam", path) is not None for path in DOCUMENTED_DEFAULTS)
    assert DOCUMENTED_DEFAULTS["top_k"] == 40


# --- the marker ---

MARKER = b"RKLLM SDK (version: 1.2.1b1 | target: Linux | build: 27637c95 2025-05-02 17:46:07)"
TRAP = b"\0rknn llm lib version: 2.3.3b0 (c824afd6c@2025-08-25)\0rkllm-runtime version: %s, rknpu\x001.2.9\0"
LIBRARY = b"\x7fELF\0" + TRAP + MARKER + b"\0rkllm-toolkit version: 1.3.1\0" + TRAP


def scan(*chunks: bytes) -> str | None:
    scanner = MarkerScanner()
    found = [scanner.feed(chunk) for chunk in chunks]
    assert scanner.version == (found[-1] if found else None)
    return scanner.version


def test_the_marker_in_one_piece() -> None:
    assert version_marker(LIBRARY) == "1.2.1b1"


@pytest.mark.parametrize("size", range(1, len(LIBRARY) + 1))
def test_the_marker_in_pieces_of_any_size(size: int) -> None:
    assert scan(*(LIBRARY[start : start + size] for start in range(0, len(LIBRARY), size))) == "1.2.1b1"


def test_the_marker_cut_anywhere() -> None:
    for first in range(len(LIBRARY) + 1):
        assert scan(LIBRARY[:first], LIBRARY[first:]) == "1.2.1b1"
        for second in range(first, min(first + 70, len(LIBRARY) + 1)):
            assert scan(LIBRARY[:first], b"", LIBRARY[first:second], LIBRARY[second:]) == "1.2.1b1"


def test_the_marker_across_the_border_of_long_pieces() -> None:
    filler = b"RKLLM SDK (version: x" * 4000
    for cut in range(len(MARKER) + 1):
        assert scan(filler + MARKER[:cut], MARKER[cut:] + filler) == "1.2.1b1"


@pytest.mark.parametrize(
    "version", ["1.2.0", "1.3.1", "1.2.1b1", "10.20.30", "1.2.3rc1.dev2", "9999.9999.9999" + "x" * 16]
)
def test_versions_that_a_marker_may_have(version: str) -> None:
    data = b"\0RKLLM SDK (version: " + version.encode() + b" | target: Android"
    assert version_marker(data) == version
    assert scan(*(data[place : place + 1] for place in range(len(data)))) == version


@pytest.mark.parametrize(
    "data",
    [
        b"",
        TRAP,
        b"rknn llm lib version: 2.3.3b0 (c824afd6c@2025-08-25T06:45:44)",
        b"RKLLM SDK (version: %s | target: Linux",
        b"RKLLM SDK (version: 1.2 | target: Linux",
        b"RKLLM SDK version: 1.2.3 |",
        b"rkllm sdk (version: 1.2.3 |",
        b"RKLLM SDK (lib version: 2.3.3b0 |",
        b"RKLLM SDK (version: 1.2.3",
        b"RKLLM SDK (version: 1.2.3" + b"b" * 64 + b" |",
        b"R\0K\0L\0L\0M\0",
    ],
)
def test_no_marker(data: bytes) -> None:
    assert version_marker(data) is None
    assert scan(*(data[place : place + 1] for place in range(len(data)))) is None


def test_the_first_marker_counts() -> None:
    assert version_marker(MARKER + b"\0RKLLM SDK (version: 1.3.0 | ") == "1.2.1b1"
    assert scan(MARKER, b"RKLLM SDK (version: 1.3.0 | ") == "1.2.1b1"


def test_a_version_is_not_taken_before_it_has_ended() -> None:
    scanner = MarkerScanner()
    assert scanner.feed(b"RKLLM SDK (version: 1.2.1") is None
    assert scanner.feed(b"b1") is None
    assert scanner.feed(b" ") == "1.2.1b1"
