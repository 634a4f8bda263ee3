"""GGUF files for tests: written by hand, and the real one that the developer's model store has."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from rkllm_sim.vocabulary import byte_alphabet

TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"
MERGES = [("h", "i"), ("\u0120", "hi"), ("\u00c3", "\u00a9")]
"""In GPT-2's alphabet: hi, hi after a blank, and the two bytes of e with an acute accent."""

_SCALARS = {bool: (7, "<?"), int: (4, "<I"), float: (6, "<f")}


def metadata(**changes: Any) -> dict[str, Any]:
    """Of a tiny byte-level model; a change to None leaves a pair out, `__` in names stands for a dot."""
    tokens = [*byte_alphabet().values(), *("".join(pair) for pair in MERGES), "<|im_start|>", "<|im_end|>", "<tool>"]
    pairs = {
        "general.architecture": "llama",
        "llama.context_length": 2048,
        "llama.embedding_length": 96,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [1] * (len(tokens) - 3) + [3, 3, 4],
        "tokenizer.ggml.merges": [" ".join(pair) for pair in MERGES],
        "tokenizer.ggml.bos_token_id": len(tokens) - 3,
        "tokenizer.ggml.eos_token_id": len(tokens) - 2,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": TEMPLATE,
    }
    pairs.update({name.replace("__", "."): value for name, value in changes.items()})
    return {name: value for name, value in pairs.items() if value is not None}


def write_gguf(path: Path, pairs: Mapping[str, Any], *, version: int = 3) -> Path:
    """A file of metadata without tensors."""
    content = b"GGUF" + struct.pack("<IQQ", version, 0, len(pairs))
    for name, value in pairs.items():
        content += _string(name) + _value(value)
    path.write_bytes(content)
    return path


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value: Any) -> bytes:
    """The type and the value."""
    if isinstance(value, str):
        return struct.pack("<I", 8) + _string(value)
    if isinstance(value, Sequence):
        items = [_value(item) for item in value] or [struct.pack("<I", 4)]
        return struct.pack("<I", 9) + items[0][:4] + struct.pack("<Q", len(value)) + b"".join(one[4:] for one in items)
    kind, layout = _SCALARS[type(value)]
    return struct.pack("<I", kind) + struct.pack(layout, value)


def real_model() -> Path:
    """The built-in model's GGUF in the developer's own store, where `make setup` puts it."""
    exo = Path(sys.executable).with_name("exo")
    done = subprocess.run(
        [str(exo), "pull", "smollm2-135m-instruct"], capture_output=True, text=True, timeout=600, check=False
    )
    said = done.stderr.strip().splitlines() or [""]
    if done.returncode != 0:
        pytest.fail(f"exo pull ended with {done.returncode}: {said[-1]}")
    return Path(said[-1].partition(": ")[2])
