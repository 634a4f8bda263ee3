"""Models from the header of a GGUF file. The reader's other tests are with the simulator, which reads tokenizers."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from rkllm_facts.architecture import gguf_architecture
from rkllm_facts.errors import BadGguf
from rkllm_facts.gguf import read_header

PAIRS = {
    "general.architecture": "llama",
    "llama.block_count": 2,
    "llama.embedding_length": 64,
    "llama.feed_forward_length": 256,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.vocab_size": 100,
}
SHAPES = {
    "attn_q": (64, 64),
    "attn_k": (64, 32),
    "attn_v": (64, 32),
    "attn_output": (64, 64),
    "ffn_gate": (64, 256),
    "ffn_up": (64, 256),
    "ffn_down": (256, 64),
}
TENSORS = {
    "token_embd.weight": (64, 100),
    "output_norm.weight": (64,),
    **{f"blk.{layer}.{name}.weight": shape for layer in range(2) for name, shape in SHAPES.items()},
    **{f"blk.{layer}.{name}.weight": (64,) for layer in range(2) for name in ("attn_norm", "ffn_norm")},
}


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def pair(name: str, value: Any) -> bytes:
    if isinstance(value, str):
        return text(name) + struct.pack("<I", 8) + text(value)
    if isinstance(value, list):
        return text(name) + struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(text, value))
    return text(name) + struct.pack("<II", 4, value)


def tensor(name: str, shape: tuple[int, ...]) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, 0)


def write(path: Path, pairs: dict[str, Any], tensors: dict[str, tuple[int, ...]]) -> Path:
    """A header; no values behind it."""
    content = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(pairs))
    content += b"".join(pair(*item) for item in pairs.items()) + b"".join(tensor(*item) for item in tensors.items())
    path.write_bytes(content)
    return path


def test_an_architecture_comes_from_the_header_alone(tmp_path: Path) -> None:
    found = gguf_architecture(write(tmp_path / "m.gguf", PAIRS, TENSORS))
    assert (found.family, found.layers, found.hidden, found.heads, found.kv_heads) == ("llama", 2, 64, 4, 2)
    assert found.tied_embeddings
    assert found.parameters == sum(read_header(tmp_path / "m.gguf").tensors.values())


def test_an_output_of_its_own_is_not_tied(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", PAIRS, {**TENSORS, "output.weight": (64, 100)})
    assert not gguf_architecture(path).tied_embeddings


def test_the_vocabulary_may_be_told_by_the_tokens(tmp_path: Path) -> None:
    pairs = {name: value for name, value in PAIRS.items() if name != "llama.vocab_size"}
    path = write(tmp_path / "m.gguf", {**pairs, "tokenizer.ggml.tokens": ["a"] * 100}, TENSORS)
    assert gguf_architecture(path).vocabulary == 100


def test_a_family_that_is_not_understood_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", PAIRS, {**TENSORS, "blk.0.ssm.weight": (64, 1000)})
    with pytest.raises(BadGguf, match=r"m\.gguf .*'llama' is not understood.*config\.json"):
        gguf_architecture(path)


def test_what_the_header_does_not_tell_is_named(tmp_path: Path) -> None:
    pairs = {name: value for name, value in PAIRS.items() if name != "llama.block_count"}
    with pytest.raises(BadGguf, match=r"m\.gguf .*num_hidden_layers"):
        gguf_architecture(write(tmp_path / "m.gguf", pairs, TENSORS))


def test_a_header_that_ends_anywhere_is_refused(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.gguf", PAIRS, {"output.weight": (64, 100)}).read_bytes()
    for size in range(0, len(whole), 5):
        (tmp_path / "cut.gguf").write_bytes(whole[:size])
        with pytest.raises(BadGguf, match=r"cut\.gguf"):
            read_header(tmp_path / "cut.gguf")


def test_a_tensor_of_too_many_dimensions_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", PAIRS, {"odd.weight": (1, 2, 3, 4, 5)})
    with pytest.raises(BadGguf, match=r"odd\.weight.*5 dimensions"):
        read_header(path)
