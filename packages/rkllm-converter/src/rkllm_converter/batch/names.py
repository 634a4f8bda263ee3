"""Names of the folders that a batch makes, which are the names of the models that rkllama serves."""

from __future__ import annotations

import os
import re

__all__ = ["default_name", "name_fault"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+-]*", re.ASCII)
_UNFIT = re.compile(r"[^A-Za-z0-9._:+-]+", re.ASCII)
_LONGEST = 200


def default_name(model: str, platform: str, quant: str) -> str:
    """`Qwen/Qwen2.5-1.5B-Instruct` becomes `qwen2.5-1.5b-instruct-rk3588-w8a8`."""
    short = os.path.normpath(model).rpartition("/")[2]
    if short.lower().endswith(".gguf"):
        short = short[: -len(".gguf")]
    parts = (_UNFIT.sub("-", part.lower()).strip("-._:+") for part in (short, platform, quant))
    return "-".join(part for part in parts if part)


def name_fault(name: str) -> str | None:
    """What keeps rkllama from serving a folder of that name, as the rest of a sentence."""
    if not _NAME.fullmatch(name):
        return "cannot be a model's name: use letters, digits and . _ : + -, and begin with a letter or a digit."
    if len(name) > _LONGEST:
        return f"is too long for a model's name: up to {_LONGEST} characters. Write a name of your own."
    if name.endswith(".partial"):
        return "cannot be a model's name: what ends in .partial counts as unfinished."
    if name.lower() == "auto":
        return "cannot be a model's name: auto leaves the choice of a model to the node."
    return None
