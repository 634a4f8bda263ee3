"""A tokenizer.json where a model has none, made with the transformers that the toolkit brings."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from rkllm_converter.children import ending, exit_code, kill_group, spawn
from rkllm_converter.errors import ModelNotFound, ToolkitDied
from rkllm_converter.toolkit.door import Found
from rkllm_converter.toolkit.environment import environment

__all__ = ["make_tokenizer"]

_SCRIPT = Path(__file__).with_name("make_tokenizer.py")
_PATIENCE = 600.0
"""Seconds: far more than it takes for any vocabulary."""
_TAIL_BYTES = 8192


def make_tokenizer(found: Found, model: Path, target: Path) -> None:
    """Write `target` from what is in the folder `model`. Raises ModelNotFound with the reason, and ToolkitDied."""
    with tempfile.TemporaryFile() as said:  # a pipe would stay open in what the child may leave behind
        code = _run([found.python, str(_SCRIPT), str(model), str(target)], said.fileno())
        said.seek(max(said.seek(0, os.SEEK_END) - _TAIL_BYTES, 0))
        lines = said.read().decode("utf-8", "replace").strip().splitlines()
    if code is None:
        raise ToolkitDied(
            f"{found.python} did not make {target.name} of {model} within {_PATIENCE:.0f} seconds, and was ended. "
            "Name a model with the same tokenizer that has one, with --tokenizer."
        )
    if code < 0:
        raise ToolkitDied(f"{found.python} {ending(code, f'making {target.name} of {model}')}")
    if code or not target.is_file():
        raise ModelNotFound(
            f"{model} has no {target.name}, and none could be made ({lines[-1] if lines else 'no reason given'}). "
            "Name a model with the same tokenizer that has one, with --tokenizer."
        )


def _run(command: list[str], stderr: int) -> int | None:
    """The exit code, None if it had to be ended. The child is gone afterwards, after Ctrl-C too."""
    with spawn(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        start_new_session=True,
        env=environment(),
    ) as child:
        try:
            return exit_code(child, _PATIENCE)
        finally:
            kill_group(child)
