"""The file that the stand-in exports: text, which the simulator of the runtime library loads and chats with."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Callable, Iterator, NamedTuple  # noqa: UP035 - as Python 3.9 has them

__all__ = ["FIRST_LINE", "Vocabulary", "model_text", "vocabulary"]

FIRST_LINE = "rkllm-sim model 1"

_TURN = b"<|im_start|>"
_PREFIX = "<|im_start|>user\n"
_POSTFIX = "<|im_end|>\n<|im_start|>assistant\n"
_EMBEDDING = 64
_FEW_BYTES = re.compile("<0x([0-9A-Fa-f]{2})>")


class Vocabulary(NamedTuple):
    """`pieces[i]` are the bytes of token i, None for an id without; `words` the ids it may say: (first, count)."""

    pieces: list[bytes | None]
    eos: list[int]
    special: list[int]
    words: tuple[int, int]


def model_text(
    folder: Path | None, config: dict[str, Any], *, version: str, weights: int, built: dict[str, Any]
) -> str:
    """`built`: platform, max_context, npu_cores, dtype. `weights`: bytes of the model that was loaded."""
    known = vocabulary(folder, config)
    lines = [FIRST_LINE, f"toolkit {version}", *(f"{key} {value}" for key, value in built.items())]
    lines += [f"memory_mb {_memory(weights, built['dtype'])}", f"embd {config.get('hidden_size') or _EMBEDDING}"]
    lines += ["lm hash", "seed 1", "answer 8 40", f"words {known.words[0]} {known.words[1]}"]
    lines += [
        f"{key} {' '.join(map(str, ids))}" for key, ids in (("eos", known.eos), ("special", known.special)) if ids
    ]
    lines += ["prefill_ms 0", "decode_ms 0", "load_ms 0"]
    if _TURN in known.pieces:
        lines += [f"prefix {json.dumps(_PREFIX)}", f"postfix {json.dumps(_POSTFIX)}"]
    lines += [f"vocab {len(known.pieces)}", *(piece.hex() if piece else "-" for piece in known.pieces)]
    return "\n".join([*lines, f"rkllm-toolkit version: {version}", ""])


def vocabulary(folder: Path | None, config: dict[str, Any]) -> Vocabulary:
    """That of the folder's tokenizer.json; single bytes if there is none that can be used."""
    if folder is not None:
        try:
            found = _of_tokenizer(folder, config)
        except (AttributeError, KeyError, TypeError, ValueError):  # a tokenizer of another making
            found = None
        if found is not None and found.words[1]:
            return found
    return Vocabulary([*(bytes([one]) for one in range(256)), b"</s>"], [256], [256], (0x61, 26))


def _memory(weights: int, dtype: str) -> int:
    """Megabytes, if the weights came with 16 bits."""
    bits = {"w8": 8, "w4": 4}.get(dtype[:2], 16)
    return max(weights * bits // 16 >> 20, 1)


def _of_tokenizer(folder: Path, config: dict[str, Any]) -> Vocabulary | None:
    tokenizer = _object(folder / "tokenizer.json")
    model, added = tokenizer.get("model", {}), tokenizer.get("added_tokens") or []
    convert = _conversion(tokenizer)
    if convert is None or not model.get("vocab"):
        return None
    vocab = model["vocab"]
    ids = dict(vocab) if isinstance(vocab, dict) else {pair[0]: place for place, pair in enumerate(vocab)}
    known = {token: convert(text) for text, token in ids.items()}
    for one in added:
        known[one["id"]] = one["content"].encode()
        ids[one["content"]] = one["id"]
    special = sorted(one["id"] for one in added if one.get("special"))
    pieces = [known.get(token) for token in range(max(known) + 1)]
    eos = list(dict.fromkeys(_ends(folder, config, ids)))
    reserved = {*eos, *(one["id"] for one in added)}
    return Vocabulary(pieces, eos, special, _words(pieces, reserved))


def _ends(folder: Path, config: dict[str, Any], ids: dict[str, int]) -> Iterator[int]:
    """What ends an answer, by all files that tell."""
    yield from _numbers(_object(folder / "generation_config.json").get("eos_token_id"))
    token = _object(folder / "tokenizer_config.json").get("eos_token")
    text = token.get("content") if isinstance(token, dict) else token
    if text in ids:
        yield ids[text]
    yield from _numbers(config.get("eos_token_id"))


def _numbers(value: Any) -> list[int]:
    return [one for one in (value if isinstance(value, list) else [value]) if type(one) is int]


def _object(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return content if isinstance(content, dict) else {}


def _conversion(tokenizer: dict[str, Any]) -> Callable[[str], bytes] | None:
    """From a token as tokenizer.json writes it to its bytes."""
    parts = json.dumps([tokenizer.get("decoder"), tokenizer.get("pre_tokenizer")])
    if '"ByteLevel"' in parts:
        return _byte_level()
    model = tokenizer.get("model", {})
    if (
        '"Metaspace"' in parts
        or '"ByteFallback"' in parts
        or model.get("byte_fallback")
        or model.get("type") == "Unigram"
    ):
        return _sentence_piece
    return None


def _byte_level() -> Callable[[str], bytes]:
    """GPT-2 writes a byte that cannot be printed as the next free character from U+0100 on."""
    shown = {*range(33, 127), *range(161, 173), *range(174, 256)}
    hidden = [byte for byte in range(256) if byte not in shown]
    table = {chr(byte): byte for byte in shown}
    table.update({chr(256 + place): byte for place, byte in enumerate(hidden)})

    def convert(text: str) -> bytes:
        return bytes(table[one] for one in text) if table.keys() >= set(text) else text.encode()

    return convert


def _sentence_piece(text: str) -> bytes:
    byte = _FEW_BYTES.fullmatch(text)
    return bytes([int(byte[1], 16)]) if byte else text.replace("\u2581", " ").encode()


def _words(pieces: list[bytes | None], reserved: set[int]) -> tuple[int, int]:
    """The longest row of ids that are printable text: (first, count)."""
    best, first = (0, 0), 0
    for token in range(len(pieces) + 1):
        if token < len(pieces) and token not in reserved and _is_printable(pieces[token]):
            continue
        best = max(best, (first, token - first), key=lambda row: row[1])
        first = token + 1
    return best


def _is_printable(piece: bytes | None) -> bool:
    try:
        return bool(piece) and (piece or b"").decode().isprintable()
    except UnicodeDecodeError:
        return False
