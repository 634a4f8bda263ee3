"""What rkllama needs of the original model beside the weights: tokenizer, chat template, and the texts of the end."""

from __future__ import annotations

import shutil
from pathlib import Path

from rkllm_converter.errors import ModelNotFound
from rkllm_converter.model_files import added_tokens, read_object, token_text

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


def copy_tokenizer(source: Path, target: Path) -> list[str]:
    """The names of what was copied. Where there is a tokenizer.json, what it was made from is left out."""
    main = [TOKENIZER] if (source / TOKENIZER).is_file() else list(INSTEAD)
    names = [name for name in (*main, *BESIDE) if (source / name).is_file()]
    for name in names:
        _check_place(source, source / name)
        shutil.copyfile(source / name, target / name)
    return names


def _check_place(folder: Path, path: Path) -> None:
    """A result is made to be passed on: nothing of elsewhere gets into it. Raises ModelNotFound.

    The hub's cache keeps contents beside its folders of links: `models--X/snapshots/COMMIT` and `models--X/blobs`.
    """
    real, home = path.resolve(), folder.resolve()
    places = [home, *([home.parents[1] / "blobs"] if home.parent.name == "snapshots" else [])]
    if not any(real.is_relative_to(place) for place in places):
        raise ModelNotFound(f"{path} is a link to {real}, outside of the model. Put the file itself there.")


def end_texts(folder: Path) -> list[str]:
    """The texts of the tokens that end an answer, the tokenizer's own one first.

    A runtime before 1.3.0 knows one of them only. Files that are missing or damaged say nothing.
    """
    names = added_tokens(folder)
    texts = [token_text(read_object(folder / "tokenizer_config.json").get("eos_token"))]
    for file in ("generation_config.json", "config.json"):
        said = read_object(folder / file).get("eos_token_id")
        texts += [names.get(one) for one in (said if isinstance(said, list) else [said]) if isinstance(one, int)]
    return list(dict.fromkeys(text for text in texts if text and _is_text(text)))


def _is_text(text: str) -> bool:
    """Half of a surrogate pair, which JSON may have, can stand in no file."""
    return not any("\ud800" <= one <= "\udfff" for one in text)
