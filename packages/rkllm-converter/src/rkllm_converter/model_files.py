"""The JSON files of a model's folder, and the tokens that they list beside the vocabulary."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rkllm_converter.errors import ConvertError

__all__ = ["LARGEST", "added_tokens", "damaged_file", "is_text", "read_object", "read_text", "token_text"]

LARGEST = 256 << 20
"""Bytes of any of these files; tokenizer.json of Gemma 3 has 33 MB."""
_ID = re.compile(r"[0-9]{1,9}")


def read_object(path: Path, *, damaged: type[ConvertError] | None = None) -> Mapping[str, Any]:
    """A JSON object; empty if there is no such file.

    `damaged` is raised for a file that is too large, cannot be read, or has something else; None: that is empty, too.
    """
    if not path.is_file():
        return {}
    try:
        return _object(path)
    except (OSError, ValueError, RecursionError) as error:
        if damaged is None:
            return {}
        raise damaged(damaged_file(path, error)) from error


def read_text(path: Path, *, damaged: type[ConvertError]) -> str:
    """The text of a file. Raises `damaged` for one that is missing, too large, or not UTF-8."""
    try:
        return _text(path)
    except (OSError, ValueError) as error:
        raise damaged(damaged_file(path, error)) from error


def added_tokens(folder: Path, *, damaged: type[ConvertError] | None = None) -> dict[int, str]:
    """Id -> text of the tokens beside the vocabulary, of all files that list some; tokenizer.json is right where they
    differ. `damaged` as in `read_object`."""
    config, added, tokenizer = (
        read_object(folder / name, damaged=damaged)
        for name in ("tokenizer_config.json", "added_tokens.json", "tokenizer.json")
    )
    return {**dict(_of_added(added)), **dict(_of_decoder(config)), **dict(_of_tokenizer(tokenizer))}


def token_text(value: object) -> str | None:
    """Of a token as these files write it: a text, or an object with `content`."""
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) else None


def is_text(value: str) -> bool:
    """Whether it can be written as UTF-8: JSON may have halves of surrogate pairs, which are no text."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def damaged_file(path: Path, reason: object) -> str:
    """The message of an error."""
    return f"{path} cannot be used: {reason}. Fetch the model's files again."


def _of_added(added: Mapping[str, Any]) -> Iterator[tuple[int, str]]:
    yield from ((number, text) for text, number in added.items() if _is_id(number))


def _of_decoder(config: Mapping[str, Any]) -> Iterator[tuple[int, str]]:
    listed = config.get("added_tokens_decoder")
    for key, value in listed.items() if isinstance(listed, dict) else ():
        text = token_text(value)
        if text is not None and _ID.fullmatch(key):
            yield int(key), text


def _of_tokenizer(tokenizer: Mapping[str, Any]) -> Iterator[tuple[int, str]]:
    listed = tokenizer.get("added_tokens")
    for value in listed if isinstance(listed, list) else ():
        text = token_text(value)
        if text is not None and isinstance(value, dict) and _is_id(value.get("id")):
            yield value["id"], text


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _object(path: Path) -> Mapping[str, Any]:
    value = json.loads(_text(path))
    if not isinstance(value, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004 - as wrong as other JSON is, for the callers
    return value


def _text(path: Path) -> str:
    if path.stat().st_size > LARGEST:
        raise ValueError(f"it has more than {LARGEST >> 20} MB")
    return path.read_text(encoding="utf-8")
