"""What a chip has to do for a model: bytes to read, numbers to multiply, values that its CPU handles.

A quantity of work is a vector: its first entry goes with the measured speed of a chip, the others are counted in the
same unit by the constants of `calibration`. MB are 2^20 bytes, as in Rockchip's tables; G is 10^9.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from rkllm_facts.architecture import Architecture
from rkllm_facts.chips import group_size

__all__ = ["MB", "NEW_TOKENS", "PIECE", "Work", "generation_work", "prefill_work", "scale_groups", "weight_bits"]

MB = 1 << 20
NEW_TOKENS = 64
"""How many tokens the rows of Rockchip's tables generate."""

PIECE = 64
"""Calls of the NPU are taken to be made once for each such piece of a prompt. A guess: prompts of 64 tokens took about
60 % as long as those of 128 are predicted to, measured with older SDKs (docs/PLANNER.md)."""

_FLOAT16 = 2
_FLOAT32 = 4
_FLOAT16_SLOWDOWN = 2
"""Attention is not quantised: the NPU multiplies float16 at half the rate of int8."""


@dataclass(frozen=True, slots=True)
class Work:
    """- `bulk`: MB to read for a new token; 10^9 multiply-adds for a prompt. `attention` is its part for earlier tokens
    - `calls`: matrices to multiply, each of which costs a call
    - `mixing`: values of queries, keys, values and the like that are handled one by one; 10^6 for a token, 10^9 for a
      prompt
    - `state`: of recurrent layers: MB to read and write for a token, 10^9 values for a prompt
    """

    bulk: float
    attention: float
    calls: float
    mixing: float
    state: float

    @property
    def vector(self) -> tuple[float, float, float, float]:
        return self.bulk + self.attention, self.calls, self.mixing, self.state


def weight_bits(type_name: str) -> int:
    """Of one weight: 8 for `w8a8_g128`."""
    found = re.match(r"w([0-9]{1,2})a", type_name.lower())
    return int(found[1]) if found else 16


def scale_groups(values: int, type_name: str) -> float:
    """How many groups of weights have a scale of their own; 0 for a type without groups."""
    groups = group_size(type_name)
    return values / groups if groups else 0.0


def generation_work(architecture: Architecture, type_name: str, scale_bytes: float, prompt_tokens: int) -> Work:
    """For one new token, as the mean of the first NEW_TOKENS after a prompt."""
    values = architecture.active_values
    read = values * weight_bits(type_name) / 8 + scale_groups(values, type_name) * scale_bytes
    position = prompt_tokens + NEW_TOKENS // 2
    return Work(
        bulk=read / MB,
        attention=architecture.kv_values * _FLOAT16 * position / MB,
        calls=architecture.multiplications,
        mixing=architecture.mixing_values / 1e6,
        state=architecture.state_values * 2 * _FLOAT32 / MB,
    )


def prefill_work(architecture: Architecture, prompt_tokens: int) -> Work:
    """For a whole prompt.

    The logits are made for the last token only. Every expert of a mixture is multiplied with every token, as far as
    the only measured one tells: each is chosen by some token of the prompt, and the NPU works on whole tiles.
    """
    values = architecture.weight_values - architecture.output_values
    pairs = architecture.score_values * prompt_tokens * prompt_tokens
    return Work(
        bulk=values * prompt_tokens / 1e9,
        attention=pairs * _FLOAT16_SLOWDOWN / 1e9,
        calls=architecture.multiplications * max(1.0, prompt_tokens / PIECE),
        mixing=architecture.mixing_values * prompt_tokens / 1e9,
        state=architecture.state_values * prompt_tokens / 1e9,
    )
