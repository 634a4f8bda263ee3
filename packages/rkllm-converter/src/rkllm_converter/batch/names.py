"""Names for the folders that a batch makes."""

from __future__ import annotations

import os
import re

__all__ = ["default_name"]

_UNFIT = re.compile(r"[^A-Za-z0-9._:+-]+", re.ASCII)


def default_name(model: str, platform: str, quant: str) -> str:
    """`Qwen/Qwen2.5-1.5B-Instruct` becomes `qwen2.5-1.5b-instruct-rk3588-w8a8`."""
    short = os.path.normpath(model).rpartition("/")[2]
    if short.lower().endswith(".gguf"):
        short = short[: -len(".gguf")]
    parts = (_UNFIT.sub("-", part.lower()).strip("-._:+") for part in (short, platform, quant))
    return "-".join(part for part in parts if part)
