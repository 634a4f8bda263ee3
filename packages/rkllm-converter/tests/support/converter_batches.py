"""Batches with converter_fake_model.py in the place of `rkllm-convert model`."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["BATCH_PROGRAM", "FAKE_MODEL", "FakeBatch"]

FAKE_MODEL = Path(__file__).with_name("converter_fake_model.py")
BATCH_PROGRAM = Path(__file__).with_name("converter_batch_program.py")


@dataclass(frozen=True)
class FakeBatch:
    """A models.yaml with conversions of these names, and what the fake does for each, see `orders`."""

    folder: Path
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        self.behaviour.mkdir(parents=True, exist_ok=True)
        lines = [f"      - {{platform: rk3588, quant: w8a8, name: {name}}}" for name in self.names]
        text = "\n".join(["output: out", "models:", "  - model: owner/model", "    conversions:", *lines, ""])
        self.file.write_text(text, encoding="utf-8")

    @property
    def behaviour(self) -> Path:
        return self.folder / "behaviour"

    @property
    def file(self) -> Path:
        return self.folder / "models.yaml"

    @property
    def output(self) -> Path:
        return self.folder / "out"

    @property
    def program(self) -> tuple[str, ...]:
        return (sys.executable, str(FAKE_MODEL), str(self.behaviour))

    def order(self, name: str, **orders: Any) -> None:
        (self.behaviour / f"{name}.json").write_text(json.dumps(orders), encoding="utf-8")

    @property
    def calls(self) -> list[dict[str, Any]]:
        """Of the fake, with `pid`, `name` and `arguments`."""
        file = self.behaviour / "calls"
        return [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file.exists() else []

    @property
    def called(self) -> list[str]:
        return [call["name"] for call in self.calls]

    def has_cleaned_up(self, name: str) -> bool:
        """Whether the fake was told to end, and took its time."""
        return (self.behaviour / f"{name}.cleaned").exists()
