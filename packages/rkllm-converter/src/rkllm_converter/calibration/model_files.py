"""What the files of a model's folder tell of its chats: the template, the special tokens, the markers of reasoning."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rkllm_converter.errors import BadCalibration

__all__ = ["MARKERS", "Found", "look", "thinking_of"]

MARKERS = (
    ("<think>", "</think>"),  # DeepSeek-R1, Qwen3, SmolLM3 and most others
    ("[THINK]", "[/THINK]"),  # Magistral
    ("<seed:think>", "</seed:think>"),  # Seed-OSS
    ("<|channel>thought", "<channel|>"),  # Gemma 4
    ("<thought>", "</thought>"),  # EXAONE Deep
    ("<thinking>", "</thinking>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("◁think▷", "◁/think▷"),  # Kimi
)
"""What models write around their reasoning."""
_SPECIAL_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_LARGEST = 64 << 20
"""Bytes of any of these files; tokenizer.json of Gemma 3 has 33 MB."""


class Found(NamedTuple):
    """A template as text, the file it is from, the special tokens by name, and the markers of reasoning."""

    text: str
    path: Path
    special: Mapping[str, str]
    thinking: tuple[str, str] | None


def look(folder: Path) -> Found | None:
    """None if the folder has no template. Raises BadCalibration for files that are damaged.

    A list of named templates means its `default` one, else its first. The folder additional_chat_templates, for other
    ways to use a model, is left alone.
    """
    config = _json(folder / "tokenizer_config.json")
    found = _template(folder, config)
    if found is None:
        return None
    text, path = found
    special = _special(_json(folder / "special_tokens_map.json")) | _special(config)
    return Found(text, path, special, thinking_of(text) or thinking_of("\n".join(_added_tokens(folder, config))))


def thinking_of(text: str) -> tuple[str, str] | None:
    """The markers that a text knows. The closing one decides: many templates only take reasoning away behind it."""
    return next((pair for pair in MARKERS if pair[1] in text), None)


def _template(folder: Path, config: Mapping[str, Any]) -> tuple[str, Path] | None:
    """In transformers' order."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        return _text(path), path
    path = folder / "chat_template.json"
    for where, holder in ((path, _json(path)), (folder / "tokenizer_config.json", config)):
        text = _default(holder.get("chat_template"))
        if text is not None:
            return text, where
    return None


def _default(value: Any) -> str | None:
    if isinstance(value, list):
        value = {entry.get("name"): entry.get("template") for entry in value if isinstance(entry, dict)}
    if isinstance(value, dict):
        value = value.get("default", next(iter(value.values()), None))
    return value if isinstance(value, str) else None


def _special(config: Mapping[str, Any]) -> dict[str, str]:
    found = {}
    for name in _SPECIAL_NAMES:
        value = config.get(name)
        text = value.get("content") if isinstance(value, dict) else value
        if isinstance(text, str):
            found[name] = text
    return found


def _added_tokens(folder: Path, config: Mapping[str, Any]) -> Iterator[str]:
    """tokenizer.json, the largest, is read only if no smaller file lists them."""
    decoder = config.get("added_tokens_decoder")
    added = _json(folder / "added_tokens.json")
    if isinstance(decoder, dict) or added:
        yield from added
        listed: Any = list(decoder.values()) if isinstance(decoder, dict) else []
    else:
        listed = _json(folder / "tokenizer.json").get("added_tokens")
    for token in listed if isinstance(listed, list) else []:
        if isinstance(token, dict) and isinstance(token.get("content"), str):
            yield token["content"]


def _json(path: Path) -> Mapping[str, Any]:
    """A JSON object; empty if there is no such file."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise _damaged(path, error) from error
    if not isinstance(value, dict):
        raise _damaged(path, "it is no JSON object")
    return value


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST:
            raise _damaged(path, f"it has more than {_LARGEST >> 20} MB")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, reason: object) -> BadCalibration:
    return BadCalibration(f"{path} cannot be used: {reason}. Fetch the model's files again.")
