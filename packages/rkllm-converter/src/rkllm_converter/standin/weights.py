"""Which weights the toolkit takes, and for which types. Raises Refusal."""

from __future__ import annotations

import re
import struct
from typing import Any, BinaryIO

from .legal import Refusal, file

__all__ = ["becomes", "gguf_config", "gguf_pairs", "groups", "quantised"]

_GPTQ = {(bits, size): f"w{bits}a{acts}_g{size}" for bits, acts, sizes in
         ((4, 16, (32, 64, 128)), (8, 8, (128, 256, 512))) for size in sizes}  # fmt: skip
"""By bits and group size: what it becomes."""

_GGUF = {1: "f16", 2: "q4_0"}
"""By general.file_type."""
_GGUF_KEYS = {
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
}
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_TEXT, _LIST = 8, 9
_LONGEST = 1 << 20


# --- config.json ---


def quantised(config: dict[str, Any]) -> str | None:
    """The type that weights of GPTQ become; None for weights that nobody has quantised."""
    told = _of_text(config)
    settings = told.get("quantization_config") or told.get("compression_config")
    if not settings:
        return None
    if not isinstance(settings, dict) or _method(settings) != "gptq":
        raise Refusal(f"model has weights that are quantised: {settings!r:.200}; only GPTQ is taken")
    size, bits = settings.get("group_size"), settings.get("bits")
    found = _GPTQ.get((bits, size)) if type(bits) is int and type(size) is int else None
    if found is None or settings.get("sym", True) is not True or settings.get("desc_act", False) is not False:
        raise Refusal(
            f"model has weights of GPTQ with {settings!r:.200}: they have to have 4 bits in groups of 32, 64 or 128, "
            "or 8 bits in groups of 128, 256 or 512, symmetric, without desc_act"
        )
    return found


def _method(settings: dict[str, Any]) -> str:
    """Older ones do not name it."""
    return str(settings.get("quant_method", "gptq" if "desc_act" in settings else None)).lower()


def becomes(dtype: str, gptq: str | None, gguf: dict[str, Any]) -> None:
    """Weights that are quantised already become one type only. `gptq`: as of `quantised`; `gguf`: the pairs."""
    if gptq is not None and dtype != gptq:
        raise Refusal(f"quantized_dtype is {dtype!r}: these weights of GPTQ become {gptq}")
    if _GGUF.get(gguf.get("general.file_type", 1)) == "q4_0" and dtype != "w4a16_g32":
        raise Refusal(f"quantized_dtype is {dtype!r}: a GGUF file of type q4_0 becomes w4a16_g32")


def groups(dtype: str, config: dict[str, Any]) -> None:
    """The size has to divide the output of every linear layer."""
    found = re.search(r"_g(\d+)$", dtype)
    if found is None:
        return
    for name, outputs in _outputs(config):
        if outputs % int(found[1]):
            raise Refusal(f"quantized_dtype is {dtype!r}: {found[1]} does not divide {outputs}, the output of {name}")


def _of_text(config: dict[str, Any]) -> dict[str, Any]:
    """Models that see keep what is about text in a part of its own."""
    inner = [config.get(name) for name in ("text_config", "llm_config", "language_config")]
    return {**config, **next((one for one in inner if isinstance(one, dict)), {})}


def _outputs(config: dict[str, Any]) -> list[tuple[str, int]]:
    """Linear layers and their output dimension, as far as config.json tells.

    q, k and v are taken together: Rockchip measured w8a8_g512 with TinyLlama, where k and v put out 256 each.
    """
    told = _of_text(config)
    hidden, heads = _sizes(told.get("hidden_size")), _sizes(told.get("num_attention_heads"))
    feed = told.get("ffn_hidden_size") if told.get("intermediate_size") is None else told["intermediate_size"]
    outputs = [("o_proj and down_proj", one) for one in hidden]
    outputs += [("gate_proj and up_proj", one) for one in _sizes(feed)]
    widths = _sizes(told.get("head_dim") or told.get("kv_channels"))
    if len(heads) == 1 and (widths or hidden) and not told.get("kv_lora_rank"):
        width = widths[0] if widths else hidden[0] // heads[0]
        kv = told.get("multi_query_group_num") if told.get("multi_query_attention") else told.get("num_key_value_heads")
        both = (_sizes(kv) or heads)[0] * 2
        outputs.append(("q_proj, k_proj and v_proj together", (heads[0] + both) * width))
    return outputs


def _sizes(value: Any) -> list[int]:
    """Of a number, or one for each layer."""
    listed = value if isinstance(value, list) else [value]
    return sorted({one for one in listed if type(one) is int and one > 0})


# --- GGUF ---


def gguf_pairs(value: Any) -> tuple[dict[str, Any], int]:
    """What its header says, without lists, and the size of the file."""
    path = file("model", value, ".gguf")
    size = path.stat().st_size
    with path.open("rb") as stream:
        if stream.read(4) != b"GGUF":
            raise Refusal(f"model is {value!r}: that is no GGUF file")
        try:
            _, _, count = struct.unpack("<IQQ", stream.read(20))
            pairs = {}
            for _ in range(count):
                name = _text(stream)
                pairs[name] = _value(stream, _number(stream, "I"), size)
        except (struct.error, KeyError, ValueError, OverflowError) as error:
            raise Refusal(f"model is {value!r}: its header cannot be read: {error!r}") from None
    kind = pairs.get("general.file_type")
    if type(kind) is not int or kind not in _GGUF:
        raise Refusal(f"model is {value!r}: general.file_type is {kind!r}, only {_GGUF} are taken")
    return pairs, size


def gguf_config(pairs: dict[str, Any]) -> dict[str, Any]:
    """By the keys of a config.json."""
    family = pairs.get("general.architecture")
    return {name: pairs[f"{family}.{key}"] for key, name in _GGUF_KEYS.items() if f"{family}.{key}" in pairs}


def _value(stream: BinaryIO, kind: int, size: int) -> Any:
    if kind == _TEXT:
        return _text(stream)
    if kind != _LIST:
        return _number(stream, _SCALARS[kind])
    kind, count = _number(stream, "I"), _number(stream, "Q")
    if count > size:
        raise ValueError("a list that is longer than the file")
    if kind in _SCALARS:
        stream.seek(count * struct.calcsize(f"<{_SCALARS[kind]}"), 1)
    else:
        for _ in range(count):
            _value(stream, kind, size)
    return None


def _number(stream: BinaryIO, code: str) -> Any:
    return struct.unpack(f"<{code}", stream.read(struct.calcsize(f"<{code}")))[0]


def _text(stream: BinaryIO) -> str:
    length = _number(stream, "Q")
    if length > _LONGEST:
        raise ValueError("a text of more than a megabyte")
    return stream.read(length).decode("utf-8", "replace")
