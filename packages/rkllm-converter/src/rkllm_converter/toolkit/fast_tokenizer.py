"""A tokenizer.json where a model has none, made with the transformers that the toolkit brings."""

from __future__ import annotations

import subprocess
from pathlib import Path

from rkllm_converter.children import spawn
from rkllm_converter.errors import ModelNotFound
from rkllm_converter.toolkit.door import Found

__all__ = ["make_tokenizer"]

_SCRIPT = Path(__file__).with_name("make_tokenizer.py")


def make_tokenizer(found: Found, model: Path, target: Path) -> None:
    """Write `target` from what is in the folder `model`. Raises ModelNotFound with the reason."""
    child = spawn(
        [found.python, str(_SCRIPT), str(model), str(target)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    _, told = child.communicate()
    if child.returncode or not target.is_file():
        reason = told.strip().splitlines()
        raise ModelNotFound(
            f"{model} has no {target.name}, and none could be made ({reason[-1] if reason else 'no reason given'}). "
            "Name a model with the same tokenizer that has one, with --tokenizer."
        )
