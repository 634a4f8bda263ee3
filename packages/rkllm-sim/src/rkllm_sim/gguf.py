"""The metadata of a GGUF file, as rkllm_facts reads it."""

from __future__ import annotations

from pathlib import Path

from rkllm_facts import gguf
from rkllm_facts.errors import BadGguf as NoGguf
from rkllm_facts.gguf import Value
from rkllm_sim.errors import BadGguf

__all__ = ["Value", "read_metadata"]


def read_metadata(path: Path) -> dict[str, Value]:
    """Every pair. Raises BadGguf, which names the file."""
    try:
        return gguf.read_metadata(path)
    except NoGguf as error:
        raise BadGguf(error.message) from error
