"""What rkllama needs of the original model beside the weights: tokenizer, chat template, and the texts of the end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["BESIDE", "INSTEAD", "TEMPLATE", "TOKENIZER", "copy_tokenizer", "end_texts"]

TOKENIZER = "tokenizer.json"
INSTEAD = ("vocab.json", "merges.txt", "tokenizer.model")
"""What a tokenizer.json can be made from."""

TEMPLATE = "chat_template.jinja"
BESIDE = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    TEMPLATE,
    "chat_template.json",
    "config.json",
    "generation_config.json",
)
"""config.json and generation_config.json have the tokens that end an answer, and tell the planner what the model is."""

_LARGEST = 256 << 20


def copy_tokenizer(source: Path, target: Path) -> list[str]:
    """The names of what was copied. Where there is a tokenizer.json, what it was made from is left out."""
    main = [TOKENIZER] if (source / TOKENIZER).is_file() else list(INSTEAD)
    names = [name for name in (*main, *BESIDE) if (source / name).is_file()]
    for name in names:
        shutil.copyfile(source / name, target / name)
    return names


def end_texts(folder: Path) -> list[str]:
    """The texts of the tokens that end an answer, the tokenizer's own one first.

    A runtime before 1.3.0 knows one of them only. Files that are missing or damaged say nothing.
    """
    config = _object(folder / "tokenizer_config.json")
    own = config.get("eos_token")
    texts = [own["content"] if isinstance(own, dict) and isinstance(own.get("content"), str) else own]
    names = _added_tokens(folder)
    for file in ("generation_config.json", "config.json"):
        said = _object(folder / file).get("eos_token_id")
        texts += [names.get(one) for one in (said if isinstance(said, list) else [said]) if isinstance(one, int)]
    return list(dict.fromkeys(text for text in texts if isinstance(text, str) and text))


def _added_tokens(folder: Path) -> dict[int, str]:
    """Id -> text of the tokens beside the vocabulary."""
    return dict(_added(folder))


def _added(folder: Path) -> Iterator[tuple[int, str]]:
    decoder = _object(folder / "tokenizer_config.json").get("added_tokens_decoder")
    for key, value in decoder.items() if isinstance(decoder, dict) else ():
        if key.isdecimal() and isinstance(value, dict) and isinstance(value.get("content"), str):
            yield int(key), value["content"]
    added = _object(folder / TOKENIZER).get("added_tokens")
    for value in added if isinstance(added, list) else ():
        if isinstance(value, dict) and isinstance(value.get("id"), int) and isinstance(value.get("content"), str):
            yield value["id"], value["content"]


def _object(path: Path) -> dict[str, Any]:
    """A JSON object; empty if the file is missing, or has something else."""
    try:
        if path.stat().st_size > _LARGEST:
            return {}
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
