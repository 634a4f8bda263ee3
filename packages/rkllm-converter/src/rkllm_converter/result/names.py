"""What a result's folder may be called, as its name is the model's for rkllama; and what the files in it are called."""

from __future__ import annotations

import re

__all__ = ["ADAPTER_CONFIG", "MODELFILE", "MODEL_SUFFIX", "name_fault"]

MODELFILE = "Modelfile"
MODEL_SUFFIX = ".rkllm"
ADAPTER_CONFIG = "adapter_config.json"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+-]*", re.ASCII)
_LONGEST = 200


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
