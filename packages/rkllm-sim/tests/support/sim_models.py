"""Model files for the tests of the simulated library, written line by line: nothing but the file format is shared."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

FIRST_WORD = 256
WORDS = 64
EOS = 320
SPECIAL = 321
ACCENTED = 322  # " é", more than one byte
NOTHING = 323  # an id without text
PAD = 151935

VOCABULARY: list[bytes | None] = [
    *(bytes([byte]) for byte in range(256)),
    *(f" w{number}".encode() for number in range(WORDS)),
    b"<|end|>",
    b"<|user|>",
    " é".encode(),
    None,
]


def text_of(*ids: int) -> str:
    """What the ids decode to."""
    return b"".join((VOCABULARY[one] if one < len(VOCABULARY) else None) or b"[PAD%d]" % one for one in ids).decode()


def model_text(*lines: str, lm: str = "hash", script: Sequence[str] | None = None, toolkit: str = "1.1.0") -> str:
    """A whole model file; `lines` come last among the settings, so they win."""
    words = [f"words {FIRST_WORD} {WORDS}"] if lm == "hash" else []
    head = [
        "rkllm-sim model 1",
        f"toolkit {toolkit}",
        f"lm {lm}",
        "max_context 256",
        f"eos {EOS}",
        f"special {SPECIAL}",
        *words,
        *lines,
        f"vocab {len(VOCABULARY)}",
    ]
    vocab = [text.hex() if text else "-" for text in VOCABULARY]
    tail = ["script", *script, "end"] if script is not None else []
    return "\n".join([*head, *vocab, *tail, f"rkllm-toolkit version: {toolkit}", ""])


def hash_model(folder: Path, *lines: str, name: str = "hash.rkllm", toolkit: str = "1.1.0") -> Path:
    path = folder / name
    path.write_text(model_text(*lines, toolkit=toolkit), encoding="utf-8")
    return path


def script_model(folder: Path, *script: str, settings: Sequence[str] = (), name: str = "script.rkllm") -> Path:
    path = folder / name
    path.write_text(model_text(*settings, lm="script", script=script), encoding="utf-8")
    return path


def quoted(text: str) -> str:
    return json.dumps(text)


# --- the hash language once more, for the tests that compare ---

_ALL = (1 << 64) - 1


def _mix(value: int) -> int:
    value = (value + 0x9E3779B97F4A7C15) & _ALL
    value = ((value ^ value >> 30) * 0xBF58476D1CE4E5B9) & _ALL
    value = ((value ^ value >> 27) * 0x94D049BB133111EB) & _ALL
    return value ^ value >> 31


def _state(ids: Sequence[int], seed: int) -> int:
    state = _mix(seed)
    for position, one in enumerate(ids):
        state = _mix(state ^ _mix((one + (position << 32)) & _ALL))
    return state


def hash_answer(prompt: Sequence[int], *, seed: int = 1, shortest: int = 8, longest: int = 40) -> list[int]:
    """What the hash language answers to a prompt, as the README says it."""
    length = shortest + _mix(_state(prompt, seed) ^ 0x6C656E67746800) % (longest - shortest + 1)
    context = list(prompt)
    for _ in range(length):
        context.append(FIRST_WORD + _mix(_state(context, seed) ^ 0x776F7264) % WORDS)
    return context[len(prompt) :]
