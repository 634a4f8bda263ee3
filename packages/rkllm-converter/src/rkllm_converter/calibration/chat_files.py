"""What the files of a model's folder tell of its chats: the template, the special tokens, the markers of reasoning."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rkllm_converter.errors import BadCalibration
from rkllm_converter.model_files import added_tokens, damaged_file, is_text, read_object, read_text, token_text

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
_HALF = "half of a surrogate pair, which is no text"
_SPECIAL_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


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
    if not is_text(text):
        raise BadCalibration(damaged_file(path, f"the template has {_HALF}"))
    special = _special(folder / "special_tokens_map.json") | _special(folder / "tokenizer_config.json")
    thinking = thinking_of(text) or thinking_of("\n".join(added_tokens(folder, damaged=BadCalibration).values()))
    return Found(text, path, special, thinking)


def thinking_of(text: str) -> tuple[str, str] | None:
    """The markers that a text knows. The closing one decides: many templates only take reasoning away behind it."""
    return next((pair for pair in MARKERS if pair[1] in text), None)


def _template(folder: Path, config: Mapping[str, Any]) -> tuple[str, Path] | None:
    """In transformers' order."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        return read_text(path, damaged=BadCalibration), path
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


def _special(path: Path) -> dict[str, str]:
    config = _json(path)
    given = ((name, token_text(config.get(name))) for name in _SPECIAL_NAMES)
    found = {name: text for name, text in given if text is not None}
    for name, text in found.items():
        if not is_text(text):
            raise BadCalibration(damaged_file(path, f"its {name} has {_HALF}"))
    return found


def _json(path: Path) -> Mapping[str, Any]:
    return read_object(path, damaged=BadCalibration)
