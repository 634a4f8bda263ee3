"""Headers of GGUF files, with nothing behind them."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["PAIRS", "write_gguf"]

PAIRS = {
    "general.architecture": "llama",
    "general.file_type": 1,
    "llama.block_count": 1,
    "llama.embedding_length": 128,
    "llama.feed_forward_length": 256,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.vocab_size": 96,
    "llama.context_length": 2048,
}
"""Of a model as small as they come."""

_TENSORS = {
    "token_embd.weight": (128, 96),
    "output_norm.weight": (128,),
    "blk.0.attn_norm.weight": (128,),
    "blk.0.ffn_norm.weight": (128,),
    "blk.0.attn_q.weight": (128, 128),
    "blk.0.attn_k.weight": (128, 64),
    "blk.0.attn_v.weight": (128, 64),
    "blk.0.attn_output.weight": (128, 128),
    "blk.0.ffn_gate.weight": (128, 256),
    "blk.0.ffn_up.weight": (128, 256),
    "blk.0.ffn_down.weight": (256, 128),
}


def write_gguf(path: Path, **changed: Any) -> Path:
    """Pairs of PAIRS, those of `changed` in their place, with `__` for a dot; None leaves one out."""
    new = {name.replace("__", "."): value for name, value in changed.items()}
    pairs: Mapping[str, Any] = {name: value for name, value in {**PAIRS, **new}.items() if value is not None}
    content = b"GGUF" + struct.pack("<IQQ", 3, len(_TENSORS), len(pairs))
    for name, value in pairs.items():
        kind = struct.pack("<I", 8) + _text(value) if isinstance(value, str) else struct.pack("<II", 4, value)
        content += _text(name) + kind
    for name, shape in _TENSORS.items():
        content += _text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, 0)
    path.write_bytes(content)
    return path


def _text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()
