"""A small real model: a folder as Hugging Face has them, with weights in safetensors and a tokenizer that works."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from rkllm_sim.templates import CHATML, THINKING
from rkllm_sim.tokenizer import small

HIDDEN, INTERMEDIATE, LAYERS, HEADS, KV_HEADS, HEAD_DIM = 64, 128, 2, 4, 2, 16


def small_model(folder: Path, *, thinking: bool = False, template: str | None = None, **config: Any) -> Path:
    """Write it and return its folder. `config` are keys of config.json over those of a small Qwen2."""
    files = dict(small(thinking=thinking).files)
    vocabulary = len(small().vocabulary.pieces)
    said: dict[str, Any] = {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_DIM,
        "vocab_size": vocabulary,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
        **config,
    }
    tokenizer = json.loads(files["tokenizer_config.json"])
    tokenizer["chat_template"] = template or (THINKING if thinking else CHATML)
    files["tokenizer_config.json"] = json.dumps(tokenizer).encode()
    files["config.json"] = json.dumps(said, indent=2).encode()
    files["model.safetensors"] = safetensors(_shapes(said))
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def safetensors(shapes: dict[str, tuple[int, ...]]) -> bytes:
    """A file of that format with tensors of float16 zeros."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    place = 0
    for name, shape in shapes.items():
        size = 2
        for dimension in shape:
            size *= dimension
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [place, place + size]}
        place += size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(place)


def _shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    hidden, wide, vocabulary = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    queries = config["num_attention_heads"] * HEAD_DIM
    keys = config["num_key_value_heads"] * HEAD_DIM
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, hidden)}
    for layer in range(config["num_hidden_layers"]):
        own = f"model.layers.{layer}."
        shapes |= {
            f"{own}input_layernorm.weight": (hidden,),
            f"{own}post_attention_layernorm.weight": (hidden,),
            f"{own}self_attn.q_proj.weight": (queries, hidden),
            f"{own}self_attn.k_proj.weight": (keys, hidden),
            f"{own}self_attn.v_proj.weight": (keys, hidden),
            f"{own}self_attn.o_proj.weight": (hidden, queries),
            f"{own}mlp.gate_proj.weight": (wide, hidden),
            f"{own}mlp.up_proj.weight": (wide, hidden),
            f"{own}mlp.down_proj.weight": (hidden, wide),
        }
    return {**shapes, "model.norm.weight": (hidden,), "lm_head.weight": (vocabulary, hidden)}
