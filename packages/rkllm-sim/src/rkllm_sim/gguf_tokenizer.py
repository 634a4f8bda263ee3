"""The tokenizer in a GGUF file's metadata, as the files that the library tokenizers reads.

Byte-level BPE only, with the pre-tokenizers whose rules are written down here; their ids are those of llama.cpp.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from rkllm_sim.errors import BadGguf
from rkllm_sim.gguf import Value, read_metadata
from rkllm_sim.tokenizer import TokenizerFiles, as_json, byte_level, tokenizer_json
from rkllm_sim.vocabulary import Vocabulary, byte_level_bytes, plain_range

__all__ = ["PRE_TOKENIZERS", "GgufModel", "read", "vocabulary"]

T = TypeVar("T")

_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4
_ENDS = ("eos_token_id", "eot_token_id", "eom_token_id")
_END_TEXTS = {
    *("<|endoftext|>", "<|end_of_text|>", "<|im_end|>", "<|end|>", "<|return|>", "<|eot_id|>", "<|eom_id|>"),
    *("<end_of_turn>", "<EOT>", "</s>", "<\uff5cend\u2581of\u2581sentence\uff5c>"),
    *("<|fim_pad|>", "<|fim_repo|>", "<|repo_name|>", "<reponame>", "<|file_sep|>"),
}
"""Control tokens that llama.cpp takes for an end, whatever the metadata say."""

_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def _sequence(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": list(parts)}


PRE_TOKENIZERS: Mapping[str, dict[str, Any]] = {
    "gpt-2": byte_level(),
    "smollm": _sequence({"type": "Digits", "individual_digits": True}, byte_level()),
    "qwen2": _sequence(_split(_QWEN2), byte_level(use_regex=False)),
    "default": _sequence(
        _split(r"[\p{P}\$\+<=>\^~\|]+"),
        _split(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"),
        _split(r"\p{N}+"),
        _split(r"[0-9][0-9][0-9]"),
        byte_level(use_regex=False),
    ),
}
"""Name in `tokenizer.ggml.pre` -> the part of tokenizer.json that splits text the same way."""


@dataclass(frozen=True)
class GgufModel:
    """`context` is what the model has been trained with in tokens, `embd` the width of its hidden states."""

    tokenizer: TokenizerFiles
    context: int
    embd: int


def read(path: Path) -> GgufModel:
    """Raises BadGguf, which names the file and what of it is not known here."""
    pairs = _pairs(path)
    splitter = _get(path, pairs, "tokenizer.ggml.pre", str, "default")
    if splitter not in PRE_TOKENIZERS:
        known = ", ".join(PRE_TOKENIZERS)
        raise BadGguf(f"{path} has the pre-tokenizer {splitter!r}, which is not known here; known: {known}.")
    architecture = _get(path, pairs, "general.architecture", str)
    context = _get(path, pairs, f"{architecture}.context_length", int)
    embd = _get(path, pairs, f"{architecture}.embedding_length", int)
    return GgufModel(_tokenizer(path, pairs, splitter, context), context, embd)


def vocabulary(path: Path) -> Vocabulary:
    """The vocabulary in a file's metadata, whatever its pre-tokenizer. Raises BadGguf."""
    return _vocabulary(path, _pairs(path))


def _pairs(path: Path) -> Mapping[str, Value]:
    pairs = read_metadata(path)
    kind = _get(path, pairs, "tokenizer.ggml.model", str)
    if kind != "gpt2":
        raise BadGguf(f"{path} has a tokenizer of the kind {kind!r}; only byte-level BPE (gpt2) is known here.")
    return pairs


def _vocabulary(path: Path, pairs: Mapping[str, Value]) -> Vocabulary:
    texts = _strings(path, pairs, "tokenizer.ggml.tokens")
    kinds = _kinds(path, pairs, len(texts))
    pieces = tuple(_piece(text, kind) for text, kind in zip(texts, kinds, strict=True))
    eos = [_get(path, pairs, f"tokenizer.ggml.{key}", int, -1) for key in _ENDS]
    eos += [token for token, text in enumerate(texts) if kinds[token] == _CONTROL and text in _END_TEXTS]
    ends = tuple(dict.fromkeys(token for token in eos if 0 <= token < len(texts)))
    if not ends:
        raise BadGguf(f"{path} names no end-of-sequence token (tokenizer.ggml.eos_token_id).")
    special = tuple(token for token, kind in enumerate(kinds) if kind == _CONTROL)
    reserved = {token for token, kind in enumerate(kinds) if kind != _NORMAL}
    return Vocabulary(pieces, ends, special, plain_range(pieces, reserved))


def _piece(text: str, kind: int) -> bytes | None:
    if kind in {_CONTROL, _USER_DEFINED}:
        return text.encode()
    return byte_level_bytes(text) if kind == _NORMAL else None


def _tokenizer(path: Path, pairs: Mapping[str, Value], splitter: str, context: int) -> TokenizerFiles:
    texts = _strings(path, pairs, "tokenizer.ggml.tokens")
    kinds = _kinds(path, pairs, len(texts))
    merges = [_merge(path, text) for text in _strings(path, pairs, "tokenizer.ggml.merges")]
    known = _vocabulary(path, pairs)
    added = [(token, text, kinds[token] == _CONTROL) for token, text in enumerate(texts) if _is_added(kinds[token])]
    ids = {text: token for token, text in reversed(list(enumerate(texts)))}
    tokenizer = tokenizer_json(ids, merges, added, pre_tokenizer=PRE_TOKENIZERS[splitter])
    bos = _get(path, pairs, "tokenizer.ggml.bos_token_id", int, -1)
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": texts[bos] if 0 <= bos < len(texts) else None,
        "eos_token": texts[known.eos[0]],
        "add_bos_token": _get(path, pairs, "tokenizer.ggml.add_bos_token", bool, default=False),
        "clean_up_tokenization_spaces": False,
        "model_max_length": context,
    }
    if "tokenizer.chat_template" in pairs:
        config["chat_template"] = _get(path, pairs, "tokenizer.chat_template", str)
    files = {
        "tokenizer.json": as_json(tokenizer),
        "tokenizer_config.json": as_json(config),
        "generation_config.json": as_json({"eos_token_id": list(known.eos)}),
    }
    return TokenizerFiles(files, known)


def _is_added(kind: int) -> bool:
    return kind in {_CONTROL, _USER_DEFINED}


def _merge(path: Path, text: str) -> tuple[str, str]:
    place = text.find(" ", 1)
    if place < 0:
        raise BadGguf(f"{path} has a merge of one part, {text!r}.")
    return text[:place], text[place + 1 :]


def _kinds(path: Path, pairs: Mapping[str, Value], count: int) -> list[int]:
    kinds = _get(path, pairs, "tokenizer.ggml.token_type", list)
    if len(kinds) != count:
        raise BadGguf(f"{path} has {count} tokens and {len(kinds)} token types.")
    return kinds


def _strings(path: Path, pairs: Mapping[str, Value], key: str) -> list[str]:
    found = _get(path, pairs, key, list)
    if not all(isinstance(text, str) for text in found):
        raise BadGguf(f"{path}: {key} is no list of strings.")
    return found


def _get(path: Path, pairs: Mapping[str, Value], key: str, kind: type[T], default: T | None = None) -> T:
    value = pairs.get(key, default)
    if value is None:
        raise BadGguf(f"{path} has no {key} in its metadata.")
    if not isinstance(value, kind):
        raise BadGguf(f"{path}: {key} should be of type {kind.__name__}, but is {value!r:.60}.")
    return value
