"""A good models.yaml, and what is wrong with others."""

from __future__ import annotations

from pathlib import Path

import pytest

from rkllm_converter.batch.reading import read_bytes
from rkllm_converter.errors import BadModels

__all__ = ["FILE", "GOOD", "mistakes", "one_model"]

FILE = Path("models.yaml")

GOOD = """\
output: models
toolkit: 1.3.0
defaults:
  max_context: 8192
  seed: 7
models:
  - model: Qwen/Qwen2.5-1.5B-Instruct
    revision: main
    max_context: 2048
    conversions:
      - platform: rk3588
        quant: w8a8
      - platform: RK3576
        quant: W4A16_g128
        max_context: 1024
        name: my-own-name
  - model: microsoft/Phi-3-mini-4k-instruct
    conversions:
      - {platform: rk3576, quant: w4a16, npu_cores: 2, hybrid_rate: 0.25, ignore: [memory, disk], ram: 16G}
"""


def mistakes(text: str | bytes, file: Path = FILE) -> list[str]:
    """What is wrong, without the file's name."""
    data = text.encode() if isinstance(text, str) else text
    with pytest.raises(BadModels) as caught:
        read_bytes(data, file)
    assert caught.value.message == "\n".join(caught.value.problems)
    return [problem.removeprefix(str(file)) for problem in caught.value.problems]


def one_model(*, options: str = "quant: w8a8", top: str = "output: models", model: str = "a/b") -> str:
    """Its conversion's options are in line 6."""
    return f"{top}\nmodels:\n  - model: {model}\n    conversions:\n      - platform: rk3588\n        {options}\n"
