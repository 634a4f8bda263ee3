"""Typed access to the keys of a config.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rkllm_facts.errors import IncompleteConfig

__all__ = ["Config"]

_LARGEST = 1 << 24
_NESTED = ("text_config", "language_config", "llm_config")
"""Where models that see or hear keep what is about text."""

_LEFT_OUT = {
    "gemma3_text": {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "vocab_size": 262_208},
}
"""What makers leave out of a config.json because it is the default of their family in transformers."""


@dataclass(frozen=True, slots=True)
class Config:
    """A config.json. Keys of a nested part about text come first."""

    values: Mapping[str, Any]

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Config:
        nested: Mapping[str, Any] = next((config[key] for key in _NESTED if isinstance(config.get(key), Mapping)), {})
        values = {**config, **nested}
        left_out = _LEFT_OUT.get(str(values.get("model_type")), {})
        return cls({**left_out, **values})

    @property
    def family(self) -> str:
        """The model_type, without the ending that nested ones have; empty if there is none."""
        return self.text("model_type").removesuffix("_text")

    def number(self, *keys: str, at_most: int = _LARGEST) -> int:
        """The first key that is there. Raises IncompleteConfig."""
        found = self.optional(*keys, at_most=at_most)
        if found is None:
            raise IncompleteConfig(keys[0])
        return found

    def optional(self, *keys: str, at_most: int = _LARGEST) -> int | None:
        """The first key that is there with a whole number above 0; of a list, the mean of its layers, rounded.

        Raises IncompleteConfig for one that has something else.
        """
        for key in keys:
            value = self.values.get(key)
            if isinstance(value, list) and value and all(type(one) is int and one >= 0 for one in value):
                value = round(sum(value) / len(value))
            if value is None or value is False or value == 0:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= at_most:
                raise IncompleteConfig(key, f"{str(value)[:40]!r} is no whole number from 1 to {at_most}.")
            return value
        return None

    def flag(self, key: str, *, default: bool = False) -> bool:
        value = self.values.get(key)
        return value if isinstance(value, bool) else default

    def text(self, key: str) -> str:
        value = self.values.get(key)
        return value if isinstance(value, str) else ""

    def listed(self, key: str) -> Sequence[Any]:
        value = self.values.get(key)
        return value if isinstance(value, list) else ()
