"""What each chip with an RKLLM runtime has and runs.

Sources: types, NPU cores and CPUs that the runtime takes are from the SDK manuals 1.2.2 to 1.3.0. Which CPUs are the
big ones is the usual numbering of these chips and in none of the manuals: what a board says in /sys comes first.

Names of chips and types may be written in upper or lower case.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from rkllm_facts.errors import GroupSizeMismatch, IllegalType, UnknownChip

__all__ = [
    "CHIPS",
    "GGUF_EQUIVALENTS",
    "Chip",
    "check_group_size",
    "check_type",
    "chip",
    "group_size",
    "legal_types",
]

GGUF_EQUIVALENTS = {"q4_0": "w4a16_g32"}
"""GGUF types that the toolkit takes over as they are. Source: SDK manual."""

_GROUP = re.compile(r"_g([0-9]+)$", re.ASCII)


@dataclass(frozen=True, slots=True)
class Chip:
    """One chip.

    - `target_platform`: its name for toolkit and runtime
    - `types`: the quantisation types it runs; the manual does not forbid models that are not quantised, which load as
      FP16, but advises against them
    - `npu_cores`: what a model may be converted for; the number is fixed by the conversion
    - `little_cpus`, `big_cpus`: CPU numbers as Linux has them; no big ones where all are alike
    - `runtime_cpus`: how many CPUs the runtime may be told to use, at least as many as the model has NPU cores; None if
      that is not documented
    - `vision_base_domain_id`: the base_domain_id for Rockchip's demo of a language model that shares the NPU with a
      vision model. It is 0 otherwise; another value crashed on an early 1.1 (issue 99 of airockchip/rknn-llm)
    """

    name: str
    target_platform: str
    types: tuple[str, ...]
    npu_cores: tuple[int, ...]
    little_cpus: tuple[int, ...]
    big_cpus: tuple[int, ...]
    runtime_cpus: range | None
    vision_base_domain_id: int

    @property
    def cpus(self) -> tuple[int, ...]:
        """All CPU numbers."""
        return self.little_cpus + self.big_cpus


_RK3588_TYPES = ("w8a8", "w8a8_g128", "w8a8_g256", "w8a8_g512")
_RK3576_TYPES = ("w4a16", "w4a16_g32", "w4a16_g64", "w4a16_g128", "w8a8")

CHIPS = (
    Chip(
        name="RK3588",
        target_platform="rk3588",
        types=_RK3588_TYPES,
        npu_cores=(1, 2, 3),
        little_cpus=(0, 1, 2, 3),
        big_cpus=(4, 5, 6, 7),
        runtime_cpus=range(1, 9),
        vision_base_domain_id=1,
    ),
    Chip(  # the RK3588 with fewer interfaces: the same cores and the same platform for toolkit and runtime
        name="RK3588S",
        target_platform="rk3588",
        types=_RK3588_TYPES,
        npu_cores=(1, 2, 3),
        little_cpus=(0, 1, 2, 3),
        big_cpus=(4, 5, 6, 7),
        runtime_cpus=range(1, 9),
        vision_base_domain_id=1,
    ),
    Chip(
        name="RK3576",
        target_platform="rk3576",
        types=_RK3576_TYPES,
        npu_cores=(1, 2),
        little_cpus=(0, 1, 2, 3),
        big_cpus=(4, 5, 6, 7),
        runtime_cpus=range(1, 9),
        vision_base_domain_id=1,
    ),
    Chip(
        name="RK3562",
        target_platform="rk3562",
        types=("w8a8", "w4a16_g32", "w4a16_g64", "w4a16_g128", "w4a8_g32"),
        npu_cores=(1,),
        little_cpus=(0, 1, 2, 3),
        big_cpus=(),
        runtime_cpus=range(1, 5),
        vision_base_domain_id=0,
    ),
    Chip(  # Rockchip's server takes 4 CPUs here; how many are allowed is not documented
        name="RV1126B",
        target_platform="rv1126b",
        types=_RK3576_TYPES,
        npu_cores=(1,),
        little_cpus=(0, 1, 2, 3),
        big_cpus=(),
        runtime_cpus=None,
        vision_base_domain_id=0,
    ),
)


def chip(name: str) -> Chip:
    """The chip of that name. Raises UnknownChip."""
    for one in CHIPS:
        if one.name == name.upper():
            return one
    raise UnknownChip(name, [one.name for one in CHIPS])


def legal_types(chip_name: str) -> tuple[str, ...]:
    """The quantisation types that a chip runs. Raises UnknownChip."""
    return chip(chip_name).types


def check_type(chip_name: str, type_name: str) -> str:
    """The type as the manual writes it. Raises IllegalType, which lists the legal ones, and UnknownChip."""
    here = chip(chip_name)
    wanted = type_name.lower()
    if wanted not in here.types:
        elsewhere = [one.name for one in CHIPS if wanted in one.types]
        raise IllegalType(here.name, type_name, here.types, elsewhere)
    return wanted


def group_size(type_name: str) -> int | None:
    """How many weights share a scale: 128 for `w8a8_g128`; None for a type without groups."""
    found = _GROUP.search(type_name.lower())
    return int(found[1]) if found else None


def check_group_size(type_name: str, output_dimension: int) -> None:
    """The groups have to divide the output dimension of each linear layer. Raises GroupSizeMismatch."""
    groups = group_size(type_name)
    if groups is not None and output_dimension % groups:
        raise GroupSizeMismatch(type_name, groups, output_dimension)
