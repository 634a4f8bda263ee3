"""The bytes that each token id stands for, and which ids are special or end a text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from rkllm_sim.errors import BadTokenizer

__all__ = [
    "Vocabulary",
    "byte_alphabet",
    "byte_level_bytes",
    "byte_level_text",
    "from_tokenizer_json",
    "plain_range",
]

_BLANK = "\u2581"
"""How SentencePiece writes a blank."""


@dataclass(frozen=True)
class Vocabulary:
    """`pieces[i]` are the bytes of token i, None for an id without text. `words` is the range of ids that the hash
    language model may emit: (first, count)."""

    pieces: tuple[bytes | None, ...]
    eos: tuple[int, ...]
    special: tuple[int, ...]
    words: tuple[int, int]

    def id_of(self, text: str) -> int | None:
        """The first id with this text, or None."""
        wanted = text.encode()
        return next((token for token, piece in enumerate(self.pieces) if piece == wanted), None)


@cache
def byte_alphabet() -> Mapping[int, str]:
    """GPT-2's way to write any byte as one printable character: itself, or the next free one from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = {byte: chr(byte) for byte in printable}
    hidden = (byte for byte in range(0x100) if byte not in alphabet)
    alphabet.update({byte: chr(0x100 + place) for place, byte in enumerate(hidden)})
    return alphabet


@cache
def _bytes_of_characters() -> Mapping[str, int]:
    return {character: byte for byte, character in byte_alphabet().items()}


def byte_level_text(data: bytes) -> str:
    """Bytes in GPT-2's alphabet."""
    alphabet = byte_alphabet()
    return "".join(alphabet[byte] for byte in data)


def byte_level_bytes(text: str) -> bytes:
    """The bytes that a token in GPT-2's alphabet stands for; other characters stand for themselves."""
    known = _bytes_of_characters()
    if all(character in known for character in text):
        return bytes(known[character] for character in text)
    return text.encode()


def from_tokenizer_json(
    tokenizer: Mapping[str, Any],
    config: Mapping[str, Any],
    generation: Mapping[str, Any],
    *,
    name: str,
) -> Vocabulary:
    """The vocabulary of a Hugging Face tokenizer (tokenizer.json, tokenizer_config.json, generation_config.json).

    Raises BadTokenizer, which calls the tokenizer `name`.
    """
    model, added = _sections(tokenizer, name)
    ids = _model_ids(model, name)
    convert = _converter(tokenizer, model, name)
    known = {token: convert(text) for text, token in ids.items()}
    known.update({int(one["id"]): str(one["content"]).encode() for one in added})
    special = tuple(sorted(int(one["id"]) for one in added if one.get("special")))
    by_text = {**ids, **{str(one["content"]): int(one["id"]) for one in added}}
    eos = _eos(by_text, config, generation)
    if not eos:
        raise BadTokenizer(
            f"{name} names no end-of-sequence token: eos_token in tokenizer_config.json or eos_token_id in "
            "generation_config.json is needed."
        )
    pieces = tuple(known.get(token) for token in range(max(known) + 1))
    reserved = {*special, *eos, *(int(one["id"]) for one in added)}
    return Vocabulary(pieces, eos, special, plain_range(pieces, reserved))


def plain_range(pieces: Sequence[bytes | None], reserved: Iterable[int]) -> tuple[int, int]:
    """The longest row of ids (first, count) that are each valid UTF-8 and not reserved."""
    out = set(reserved)
    best = (0, 0)
    first = 0
    for token, piece in enumerate([*pieces, None]):
        if token not in out and _is_text(piece):
            continue
        if token - first > best[1]:
            best = (first, token - first)
        first = token + 1
    return best


def _is_text(piece: bytes | None) -> bool:
    if not piece:
        return False
    try:
        text = piece.decode()
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() for character in text)


def _sections(tokenizer: Mapping[str, Any], name: str) -> tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]:
    model = tokenizer.get("model")
    added = tokenizer.get("added_tokens") or []
    if isinstance(model, dict) and all(isinstance(one, dict) and {"id", "content"} <= one.keys() for one in added):
        return model, added
    raise BadTokenizer(f"{name} is no tokenizer.json of the library tokenizers: model or added_tokens is not right.")


def _model_ids(model: Mapping[str, Any], name: str) -> Mapping[str, int]:
    """Token text -> id."""
    vocab = model.get("vocab")
    if isinstance(vocab, Mapping) and vocab:
        return {str(text): int(token) for text, token in vocab.items()}
    if isinstance(vocab, list) and vocab:  # Unigram: pairs of text and score, in the order of ids
        return {str(pair[0]): token for token, pair in enumerate(vocab)}
    raise BadTokenizer(f"{name} has no vocabulary (model.vocab).")


def _converter(tokenizer: Mapping[str, Any], model: Mapping[str, Any], name: str) -> Callable[[str], bytes]:
    kinds = {*_types(tokenizer.get("decoder")), *_types(tokenizer.get("pre_tokenizer"))}
    if "ByteLevel" in kinds:
        return byte_level_bytes
    if kinds & {"Metaspace", "ByteFallback"} or model.get("byte_fallback") or model.get("type") == "Unigram":
        return _sentencepiece_bytes
    raise BadTokenizer(
        f"{name} is neither byte-level nor SentencePiece-like (model {model.get('type')!r}, parts {sorted(kinds)}): "
        "how its tokens become bytes is not known here."
    )


def _types(part: Any) -> Iterable[str]:
    """The types of a part of tokenizer.json and of all parts within."""
    if isinstance(part, Mapping):
        if isinstance(part.get("type"), str):
            yield part["type"]
        for inner in part.values():
            yield from _types(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from _types(inner)


def _sentencepiece_bytes(text: str) -> bytes:
    if len(text) == len("<0x00>") and text.startswith("<0x") and text.endswith(">"):
        try:
            return bytes([int(text[3:5], 16)])
        except ValueError:
            return text.encode()
    return text.replace(_BLANK, " ").encode()


def _eos(by_text: Mapping[str, int], config: Mapping[str, Any], generation: Mapping[str, Any]) -> tuple[int, ...]:
    """What generation_config.json names, then what tokenizer_config.json names."""
    named = generation.get("eos_token_id")
    found = [one for one in (named if isinstance(named, list) else [named]) if isinstance(one, int)]
    token = config.get("eos_token")
    text = token.get("content") if isinstance(token, Mapping) else token
    if isinstance(text, str) and text in by_text:
        found.append(by_text[text])
    return tuple(dict.fromkeys(found))
