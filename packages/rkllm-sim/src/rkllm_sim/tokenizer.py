"""Where a simulated model's tokenizer comes from: our own small one, or the folder of a real model.

A third source, the metadata of a GGUF file, is in gguf_tokenizer.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rkllm_sim.errors import BadTokenizer
from rkllm_sim.templates import CHATML, THINKING
from rkllm_sim.vocabulary import Vocabulary, byte_level_text, from_tokenizer_json

__all__ = [
    "FILES",
    "TURN_BEGIN",
    "TokenizerFiles",
    "as_json",
    "byte_level",
    "copied",
    "small",
    "tokenizer_json",
    "words",
]

FILES = ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja")
"""Names of the files that a model folder may hold beside the model."""

END_OF_TEXT, TURN_BEGIN, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
THINK_BEGIN, THINK_END = "<think>", "</think>"

_BYTES = 256
_WORDS = 2000
_CONSONANTS = "bdfghjklmnprstvwyz"
_VOWELS = "aeiou"


@dataclass(frozen=True)
class TokenizerFiles:
    """File name -> content, and the vocabulary that the files describe."""

    files: Mapping[str, bytes]
    vocabulary: Vocabulary


def words() -> tuple[str, ...]:
    """The 2,000 words of the small tokenizer, of two or three syllables, all different."""
    syllables = [consonant + vowel for consonant in _CONSONANTS for vowel in _VOWELS]
    count = len(syllables)
    stride = 4099  # a prime beside the number of pairs: neighbours in the list look unlike
    found = []
    for place in range(_WORDS):
        first, second = divmod(place * stride % count**2, count)
        third = syllables[(first + 2 * second) % count] if place % 3 == 2 else ""
        found.append(syllables[first] + syllables[second] + third)
    return tuple(found)


def small(*, thinking: bool = False) -> TokenizerFiles:
    """256 bytes, the words with a blank before each, and the special tokens of Qwen3. What the words of any sequence
    of ids spell is encoded to the same ids again."""
    plain = [bytes([byte]) for byte in range(_BYTES)] + [f" {word}".encode() for word in words()]
    added = [(END_OF_TEXT, True), (TURN_BEGIN, True), (TURN_END, True), (THINK_BEGIN, False), (THINK_END, False)]
    ids = {text: len(plain) + place for place, (text, _) in enumerate(added)}
    tokenizer = tokenizer_json(
        {byte_level_text(piece): token for token, piece in enumerate(plain)},
        [],
        [(ids[text], text, special) for text, special in added],
        pre_tokenizer=byte_level(),
    )
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END_OF_TEXT,
        "eos_token": TURN_END,
        "clean_up_tokenization_spaces": False,
        "chat_template": THINKING if thinking else CHATML,
    }
    eos = (ids[TURN_END], ids[END_OF_TEXT])
    generation = {"bos_token_id": ids[END_OF_TEXT], "eos_token_id": list(eos)}
    files = {
        "tokenizer.json": as_json(tokenizer),
        "tokenizer_config.json": as_json(config),
        "generation_config.json": as_json(generation),
    }
    special = tuple(ids[text] for text, is_special in added if is_special)
    pieces = (*plain, *(text.encode() for text, _ in added))
    return TokenizerFiles(files, Vocabulary(pieces, eos, special, (_BYTES, _WORDS)))


def byte_level(*, use_regex: bool = True) -> dict[str, Any]:
    """The part of tokenizer.json that turns text into GPT-2's alphabet, after a split by GPT-2's regex if wanted."""
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def tokenizer_json(
    vocab: Mapping[str, int],
    merges: Iterable[tuple[str, str]],
    added: Iterable[tuple[int, str, bool]],
    *,
    pre_tokenizer: Mapping[str, Any],
) -> dict[str, Any]:
    """A byte-level BPE for the library tokenizers. `vocab` and `merges` are in GPT-2's alphabet, `added` are
    (id, text, special). Without merges whole words are looked up, and all else falls to bytes."""
    pairs = [list(pair) for pair in merges]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": token, "content": text, **flags, "special": special} for token, text, special in added],
        "normalizer": None,
        "pre_tokenizer": dict(pre_tokenizer),
        "post_processor": None,
        "decoder": byte_level(),
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": not pairs,
            "vocab": dict(vocab),
            "merges": pairs,
        },
    }


def copied(folder: Path) -> TokenizerFiles:
    """The tokenizer of a real model. Raises BadTokenizer, which names the file.

    What the hash language says with its ids may be encoded to other ids here: only the small tokenizer rules that out.
    """
    files = {name: (folder / name).read_bytes() for name in FILES if (folder / name).is_file()}
    if "tokenizer.json" not in files:
        raise BadTokenizer(
            f"{folder} holds no tokenizer.json: --tokenizer takes a folder with a model's tokenizer files."
        )
    parts = [_parsed(folder / name, files.get(name)) for name in FILES[:3]]
    return TokenizerFiles(files, from_tokenizer_json(*parts, name=str(folder / "tokenizer.json")))


def as_json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, ensure_ascii=False, indent=1) + "\n").encode()


def _parsed(path: Path, data: bytes | None) -> Mapping[str, Any]:
    if data is None:
        return {}
    try:
        content = json.loads(data)
    except ValueError as error:
        raise BadTokenizer(f"{path} is not JSON: {error}.") from error
    if not isinstance(content, dict):
        raise BadTokenizer(f"{path} holds no JSON object.")
    return content
