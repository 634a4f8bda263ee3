"""Models from the header of a GGUF file. The reader's other tests are with the simulator, which reads tokenizers."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import pytest

from rkllm_facts.architecture import gguf_architecture
from rkllm_facts.errors import BadGguf
from rkllm_facts.gguf import read_header, read_metadata

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


def one_pair(path: Path, value: bytes, size: int) -> Path:
    """A header of one pair, in a file of `size` bytes that takes no room on the disk. `value` begins with its type."""
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k") + value)
    os.truncate(path, size)
    return path


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


def test_numbers_are_passed_over_however_many_they_are(tmp_path: Path) -> None:
    path = one_pair(tmp_path / "m.gguf", struct.pack("<IIQ", 9, 0, 6 * 2**30), 7 * 2**30)
    header = read_header(path)
    assert (header.pairs, header.lengths) == ({}, {"k": 6 * 2**30})
    assert read_metadata(path) == {}


def test_long_arrays_are_counted_only(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", {"long": ["a"] * 1025, "short": ["a"] * 1024, "n": 1}, {"t": (2, 3)})
    header = read_header(path)
    assert header.pairs == {"short": ["a"] * 1024, "n": 1}
    assert header.lengths == {"long": 1025, "short": 1024}
    assert header.tensors == {"t": 6}
    assert read_metadata(path)["long"] == ["a"] * 1025


def test_arrays_in_a_long_array_are_passed_over_too(tmp_path: Path) -> None:
    inner = struct.pack("<IQBB", 0, 2, 7, 7) + struct.pack("<IQ", 8, 1) + text("a")
    array = struct.pack("<IIQ", 9, 9, 1200) + inner * 600
    path = one_pair(tmp_path / "m.gguf", array, 100_000)
    assert (read_header(path).pairs, read_header(path).lengths) == ({}, {"k": 1200})
    assert read_metadata(path) == {"k": [[7, 7], ["a"]] * 600}


@pytest.mark.parametrize("read", [read_header, read_metadata])
@pytest.mark.parametrize(
    ("value", "why"),
    [
        (struct.pack("<IIQ", 9, 8, 2**27), "more than 2,097,152 items"),
        (struct.pack("<IIQ", 9, 9, 2000) + struct.pack("<IQ", 8, 2**22), "more than 2,097,152 items"),
        (struct.pack("<IQ", 8, 2**30), "longer than 64 MiB"),
        (struct.pack("<IIQ", 9, 99, 2**20), "unknown type 99"),
    ],
)
def test_a_header_that_would_fill_the_memory_is_refused(tmp_path: Path, read: Any, value: bytes, why: str) -> None:
    with pytest.raises(BadGguf, match=rf"m\.gguf .*{why}"):
        read(one_pair(tmp_path / "m.gguf", value, 2**31))


def test_tensors_without_end_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 2**64 - 1, 0))
    os.truncate(path, 2**31)
    with pytest.raises(BadGguf, match="more than 2,097,152 items"):
        read_header(path)


def test_what_is_no_file_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.gguf")
    for path in (tmp_path / "m.gguf", tmp_path):
        with pytest.raises(BadGguf, match="is no file that can be read"):
            read_header(path)


def test_a_model_that_is_split_is_read_whole(tmp_path: Path) -> None:
    names = list(TENSORS)
    first = write(tmp_path / "m-00001-of-00002.gguf", PAIRS, {name: TENSORS[name] for name in names[:5]})
    rest = {name: TENSORS[name] for name in names[5:]}
    second = write(tmp_path / "m-00002-of-00002.gguf", {}, {**rest, "output.weight": (64, 100)})
    found = gguf_architecture(first, second)
    assert found.parameters == sum(sum(read_header(one).tensors.values()) for one in (first, second))
    assert not found.tied_embeddings
    with pytest.raises(BadGguf, match="were expected"):
        gguf_architecture(first)


def test_experts_come_from_the_header(tmp_path: Path) -> None:
    family = {name.replace("llama.", "qwen2moe."): value for name, value in PAIRS.items()}
    pairs = {
        **family,
        "general.architecture": "qwen2moe",
        "qwen2moe.expert_count": 4,
        "qwen2moe.expert_used_count": 2,
        "qwen2moe.expert_feed_forward_length": 128,
        "qwen2moe.expert_shared_feed_forward_length": 96,
    }
    shapes = {
        **{name: shape for name, shape in SHAPES.items() if name.startswith("attn")},
        "ffn_gate_inp": (64, 4),
        "ffn_gate_exps": (64, 128, 4),
        "ffn_up_exps": (64, 128, 4),
        "ffn_down_exps": (128, 64, 4),
        "ffn_gate_shexp": (64, 96),
        "ffn_up_shexp": (64, 96),
        "ffn_down_shexp": (96, 64),
        "ffn_gate_inp_shexp": (64,),
    }
    layers = {f"blk.{layer}.{name}.weight": shape for layer in range(2) for name, shape in shapes.items()}
    others = {name: shape for name, shape in TENSORS.items() if "ffn_" not in name or "norm" in name}
    biases = {f"blk.{layer}.attn_{name}.bias": (64 if name == "q" else 32,) for layer in range(2) for name in "qkv"}
    path = write(tmp_path / "m.gguf", pairs, {**others, **layers, **biases})
    found = gguf_architecture(path)
    assert found.parameters == sum(read_header(path).tensors.values())
    assert found.is_mixture
    assert found.is_understood
