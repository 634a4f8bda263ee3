"""The keys of models.yaml, and how each becomes an argument of `rkllm-convert model`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum
from types import MappingProxyType
from typing import TypeAlias

__all__ = ["CONVERSION_KEYS", "MODEL_KEYS", "OPTIONS", "TOP_KEYS", "Kind", "Option", "arguments"]


class Kind(Enum):
    """What the value of an option has to be."""

    TEXT = "a text"
    COUNT = "a whole number from 1"
    WHOLE = "a whole number"
    SHARE = "a number"
    SWITCH = "true or false"
    FILE = "the path of a file"
    FOLDER = "the path of a folder"
    MODEL = "the id of a model, or the path of a folder or a .gguf file"
    MEMORY = "an amount of memory such as 8G or 8192M"
    IGNORED = "a list of kinds of problems"


OPTIONS: Mapping[str, Kind] = MappingProxyType(
    {
        "revision": Kind.TEXT,
        "platform": Kind.TEXT,
        "quant": Kind.TEXT,
        "algorithm": Kind.TEXT,
        "opt_level": Kind.WHOLE,
        "npu_cores": Kind.WHOLE,
        "max_context": Kind.WHOLE,
        "hybrid_rate": Kind.SHARE,
        "dataset": Kind.FILE,
        "samples": Kind.COUNT,
        "seed": Kind.WHOLE,
        "device": Kind.TEXT,
        "dtype": Kind.TEXT,
        "lora": Kind.FOLDER,
        "custom_config": Kind.FILE,
        "qparams": Kind.FILE,
        "tokenizer": Kind.MODEL,
        "export_tokenizer": Kind.SWITCH,
        "export_embedding": Kind.SWITCH,
        "max_new_tokens": Kind.COUNT,
        "ram": Kind.MEMORY,
        "ignore": Kind.IGNORED,
    }
)
"""Named as the flags of `rkllm-convert model`, with underscores."""

TOP_KEYS = ("output", "toolkit", "defaults", "models")
MODEL_KEYS = ("model", "conversions", *OPTIONS)
CONVERSION_KEYS = ("name", *OPTIONS)

Option: TypeAlias = "str | int | float | bool | tuple[str, ...]"


def arguments(options: Mapping[str, Option]) -> Iterator[str]:
    """In the order of OPTIONS. Value and flag are one argument, so that a value may begin with a dash."""
    for name in OPTIONS:
        if name not in options:
            continue
        value, flag = options[name], name.replace("_", "-")
        if isinstance(value, bool):
            yield f"--{flag}" if value else f"--no-{flag}"
        elif isinstance(value, tuple):
            yield from (f"--{flag}={one}" for one in value)
        else:
            yield f"--{flag}={value}"
