"""Tokenizer files of a few hundred tokens, of the kinds that models come with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

BYTE_MERGES = [
    "h e",
    "l l",
    "ll o",
    "he llo",
    "Ġ w",
    "o r",
    "Ġw or",
    "Ċ Ċ",
    ". Ċ",
    "i n",
    "in g",
    "Ġ Ġ",
    "1 2",
    "a n",
    "an d",
]
BLANK_MERGES = ["h e", "l l", "ll o", "he llo", "▁ hello", "▁ ▁", "o r", "▁ w", "▁w or", "i n", "in g"]
CHATML_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEXT_TOKENS = ("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")


def byte_alphabet() -> list[str]:
    """The characters by which byte-level vocabularies write the 256 bytes."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return [chr(byte) for byte in shown] + [chr(0x100 + place) for place in range(len(hidden))]


def added(number: int, content: str, *, special: bool = True, **flags: bool) -> dict[str, Any]:
    """An entry of `added_tokens`."""
    usual = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": number, "content": content, "special": special, **usual, **flags}


def byte_level(*tokens: dict[str, Any], in_vocabulary: tuple[str, ...] = (), **parts: Any) -> dict[str, Any]:
    """A byte-level definition, as Qwen's and DeepSeek's are; `in_vocabulary` are added tokens that it holds too."""
    vocabulary = {text: number for number, text in enumerate([*in_vocabulary, *byte_alphabet()])}
    return {
        **_frame(vocabulary, BYTE_MERGES, {}),
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "added_tokens": list(tokens),
        **parts,
    }


def with_blanks_marked(*tokens: dict[str, Any], **parts: Any) -> dict[str, Any]:
    """A definition with `▁` for blanks and bytes for unknown characters, as Llama's and Phi's are."""
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    letters = [chr(code) for code in range(0x21, 0x7F)]
    vocabulary = {text: number for number, text in enumerate(["<unk>", "<s>", "</s>", *bytes_, "▁", *letters])}
    replaced = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    decoders = [replaced, {"type": "ByteFallback"}, {"type": "Fuse"}, strip]
    frame = _frame(vocabulary, BLANK_MERGES, {"unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True})
    return {**frame, "decoder": {"type": "Sequence", "decoders": decoders}, "added_tokens": list(tokens), **parts}


def vocabulary_end(definition: dict[str, Any]) -> int:
    """The first id behind the vocabulary, from where added tokens are numbered."""
    return len(definition["model"]["vocab"])


def chatml() -> dict[str, Any]:
    """A byte-level definition with ChatML's special tokens, and those of text that newer models have."""
    end = vocabulary_end(byte_level())
    special = [added(end + place, text) for place, text in enumerate(CHATML_TOKENS)]
    end += len(special)
    return byte_level(*special, *(added(end + place, text, special=False) for place, text in enumerate(TEXT_TOKENS)))


def write(folder: Path, definition: dict[str, Any], **configs: Any) -> Path:
    """Write tokenizer.json, and `tokenizer_config=…` and the like as further JSON files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in {"tokenizer": definition, **configs}.items():
        (folder / f"{name}.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return folder


def _frame(vocabulary: dict[str, int], merges: list[str], options: dict[str, Any]) -> dict[str, Any]:
    for merge in merges:
        vocabulary.setdefault(merge.replace(" ", ""), len(vocabulary))
    usual = {"dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None}
    model = {"type": "BPE", **usual, "fuse_unk": False, "byte_fallback": False, **options}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "normalizer": None,
        "pre_tokenizer": None,
        "post_processor": None,
        "model": {**model, "vocab": vocabulary, "merges": merges},
    }
