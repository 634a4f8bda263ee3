"""What each chip has and runs."""

from __future__ import annotations

import pytest

from rkllm_facts import benchmark
from rkllm_facts.chips import CHIPS, GGUF_EQUIVALENTS, check_group_size, check_type, chip, group_size, legal_types
from rkllm_facts.errors import GroupSizeMismatch, IllegalType, UnknownChip

TYPES = {
    "RK3588": "w8a8 w8a8_g128 w8a8_g256 w8a8_g512",
    "RK3588S": "w8a8 w8a8_g128 w8a8_g256 w8a8_g512",
    "RK3576": "w4a16 w4a16_g32 w4a16_g64 w4a16_g128 w8a8",
    "RK3562": "w8a8 w4a16_g32 w4a16_g64 w4a16_g128 w4a8_g32",
    "RV1126B": "w4a16 w4a16_g32 w4a16_g64 w4a16_g128 w8a8",
}
ALL_TYPES = sorted({name for names in TYPES.values() for name in names.split()})


def test_legal_types() -> None:
    assert {one.name: " ".join(one.types) for one in CHIPS} == TYPES
    assert len(ALL_TYPES) == 9


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("type_name", ALL_TYPES)
def test_each_pair_of_chip_and_type(name: str, type_name: str) -> None:
    if type_name in TYPES[name].split():
        assert check_type(name.lower(), type_name.upper()) == type_name
        return
    with pytest.raises(IllegalType) as caught:
        check_type(name, type_name)
    assert caught.value.legal == legal_types(name)
    assert all(legal in str(caught.value) for legal in TYPES[name].split())


def test_an_illegal_type_names_the_chips_that_run_it() -> None:
    with pytest.raises(IllegalType) as caught:
        check_type("rk3562", "w4a16")
    assert str(caught.value) == (
        "RK3562 does not run models of type 'w4a16'. Take one of: w8a8, w4a16_g32, w4a16_g64, w4a16_g128, w4a8_g32. "
        "w4a16 is for RK3576, RV1126B."
    )
    with pytest.raises(IllegalType, match=r"w8a8_g512\.$"):
        check_type("RK3588", "fp8")


@pytest.mark.parametrize("name", ["RK3399", "", "rk3588x", "rockchip,rk3588"])
def test_an_unknown_chip_is_refused_with_the_known_ones(name: str) -> None:
    for ask in (chip, legal_types):
        with pytest.raises(UnknownChip) as caught:
            ask(name)
        assert all(known in str(caught.value) for known in TYPES)


def test_cores_and_cpus() -> None:
    table = {one.name: (one.npu_cores, one.little_cpus, one.big_cpus, one.runtime_cpus) for one in CHIPS}
    low, high = (0, 1, 2, 3), (4, 5, 6, 7)
    assert table == {
        "RK3588": ((1, 2, 3), low, high, range(1, 9)),
        "RK3588S": ((1, 2, 3), low, high, range(1, 9)),
        "RK3576": ((1, 2), low, high, range(1, 9)),
        "RK3562": ((1,), low, (), range(1, 5)),
        "RV1126B": ((1,), low, (), None),
    }
    for one in CHIPS:
        assert one.runtime_cpus is None or max(one.runtime_cpus) == len(one.cpus)
        assert one.cpus == tuple(range(len(one.cpus)))
        assert max(one.npu_cores) <= len(one.cpus)


def test_platforms_and_domains() -> None:
    assert {one.name: (one.target_platform, one.vision_base_domain_id) for one in CHIPS} == {
        "RK3588": ("rk3588", 1),
        "RK3588S": ("rk3588", 1),
        "RK3576": ("rk3576", 1),
        "RK3562": ("rk3562", 0),
        "RV1126B": ("rv1126b", 0),
    }


@pytest.mark.parametrize(
    ("type_name", "size"),
    [("w8a8", None), ("w4a16", None), ("w8a8_g128", 128), ("W4A16_G32", 32), ("w4a8_g32", 32), ("w8a8_g512", 512)],
)
def test_group_sizes(type_name: str, size: int | None) -> None:
    assert group_size(type_name) == size


def test_groups_have_to_divide_the_output_dimension() -> None:
    check_group_size("w8a8_g512", 1536)
    check_group_size("w8a8", 1537)
    with pytest.raises(GroupSizeMismatch, match=r"groups of 512 of type w8a8_g512 do not divide 896"):
        check_group_size("w8a8_g512", 896)


def test_gguf_types_have_legal_equivalents() -> None:
    assert set(GGUF_EQUIVALENTS.values()) <= set(ALL_TYPES)


def test_what_rockchip_has_measured_is_legal() -> None:
    pairs = {(row.platform, row.dtype) for row in benchmark.rows()}
    pairs |= {(row.platform, row.dtype) for row in benchmark.multimodal_rows()}
    assert len(pairs) == 8
    assert [type_name for name, type_name in pairs if check_type(name, type_name) != type_name] == []
