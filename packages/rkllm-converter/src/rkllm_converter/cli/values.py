"""Parsers of single values, each of which raises argparse's error with what it expected; and a flag of two commands."""

from __future__ import annotations

import argparse
import os
import re
from typing import Any

from rkllm_converter.units import parsed_mb

__all__ = ["lower", "memory_mb", "positive", "toolkit_python"]

_TOOLKIT_PYTHON = "RKLLM_TOOLKIT_PYTHON"
"""The variable that names the Python which has the toolkit, where no flag does."""


def lower(text: str) -> str:
    """Names of chips and types may be written in upper case, as in Rockchip's samples."""
    return text.lower()


def memory_mb(text: str) -> float:
    """In MB of 2^20 bytes."""
    size = parsed_mb(text)
    if size is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no size of memory: say 8G or 8192M")
    return size


def positive(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text, re.ASCII) or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def toolkit_python() -> dict[str, Any]:
    """How --toolkit-python is declared; the environment is read now."""
    return {
        "default": os.environ.get(_TOOLKIT_PYTHON),
        "metavar": "PATH",
        "help": f"the Python that has Rockchip's toolkit (default: {_TOOLKIT_PYTHON}, or this one)",
    }
