"""What a model consists of, and which files of it the toolkit needs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from rkllm_converter.errors import SourceError
from rkllm_converter.model_files import LARGEST

__all__ = [
    "CONFIG",
    "LARGEST_CONFIG",
    "Source",
    "check_config_size",
    "missing_shards",
    "needed",
    "parse_config",
    "weights",
]

CONFIG = "config.json"
LARGEST_CONFIG = 4 << 20

_BESIDE_WEIGHTS = (
    CONFIG,
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "quantize_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
    "*vocab*.json",
    "*vocab*.txt",
    "merges.txt",
    "*.tiktoken",
    "*.model",
    "*.py",
)
"""Patterns of names: settings, tokenizers of every kind, and the code of models that bring their own."""

_WEIGHTS = (
    (("*.safetensors",), "*.safetensors.index.json"),
    (("pytorch_model*.bin",), "pytorch_model*.bin.index.json"),
)
"""Patterns of the weights and of their index, the preferred ones first."""

_OTHER_WEIGHTS = ("consolidated*", "adapter_*")
"""The same weights as the makers' own programs have them, and adapters, which are no models."""

_SHARD = re.compile(r"(.*-)(\d{5})-of-(\d{5})(\..*)", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A model, as far as it is known without its weights.

    - `name`: short, such as `Qwen2.5-1.5B-Instruct`
    - `repository`, `revision`: of a model of the hub; the revision is the whole hash of a commit
    - `path`: a local folder, or a .gguf file; None for a model of the hub
    - `config`: its config.json, empty for a GGUF file
    - `files`: name and bytes of all files that would be used; for a GGUF file that file alone
    - `gguf_type`: `f16`, `q4_0` and the like, `unknown` if the file does not say; None if it is no GGUF file
    - `fingerprint`: the same if the model is the same. The commit for the hub, otherwise a hash of names, sizes and
      times of change: to read whole weights for it would take minutes for every look
    - `to_download`: bytes that are not on this machine yet; `cache` is the folder where they would go
    """

    kind: Literal["hub", "folder", "gguf"]
    name: str
    repository: str | None = None
    revision: str | None = None
    path: Path | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, int]
    gguf_type: str | None = None
    fingerprint: str
    to_download: int = 0
    cache: Path | None = None

    @property
    def weights_bytes(self) -> int:
        """0 if there are none, as in a folder with nothing but a config.json."""
        if self.kind == "gguf":
            return sum(self.files.values())
        return sum(self.files[name] for name in weights(self.files))


def needed(files: Mapping[str, int]) -> dict[str, int]:
    """Those of the files in a model's folder that are needed: weights in one format only, nothing of subfolders."""
    chosen = {name for name in files if any(fnmatchcase(name, one) for one in _BESIDE_WEIGHTS) and "/" not in name}
    for patterns, index in _WEIGHTS:
        found = _weights(files, patterns)
        if found:
            chosen |= {*found, *(name for name in files if fnmatchcase(name, index) and "/" not in name)}
            break
    return {name: files[name] for name in sorted(chosen)}


def weights(files: Iterable[str]) -> list[str]:
    """The names of the weights: .safetensors if there are any, otherwise PyTorch's .bin."""
    names = sorted(files)
    return next((found for patterns, _ in _WEIGHTS if (found := _weights(names, patterns))), [])


def missing_shards(files: Iterable[str], folder: Path | None = None) -> list[str]:
    """Of weights in several files, those that are not there: by their numbers, and by the index if it is in `folder`.

    Raises SourceError for an index that makes no sense.
    """
    names = set(files)
    expected = set()
    for name in weights(names):
        found = _SHARD.fullmatch(name)
        if found:
            expected |= {f"{found[1]}{number:05}-of-{found[3]}{found[4]}" for number in range(1, int(found[3]) + 1)}
    if folder is not None:
        for index in sorted(name for name in names if name.endswith(".index.json")):
            expected |= _indexed(folder / index)
    return sorted(expected - names)


def parse_config(text: bytes, where: str) -> dict[str, Any]:
    """The content of a config.json or another JSON object. Raises SourceError, which names `where`."""
    check_config_size(len(text), where)
    try:
        read = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SourceError(
            f"{where} is no JSON that can be read: {error}. Take the one of the model's makers."
        ) from error
    if not isinstance(read, dict):
        raise SourceError(f"{where} is no JSON object. Take the one of the model's makers.")
    return read


def check_config_size(size: int, where: str) -> None:
    """To be called before the content is read or brought, too. Raises SourceError."""
    if size > LARGEST_CONFIG:
        raise SourceError(f"{where} has more than {LARGEST_CONFIG >> 20} MB. Take the one of the model's makers.")


def _indexed(index: Path) -> set[str]:
    try:
        text = index.read_bytes() if index.stat().st_size <= LARGEST else b""
    except OSError as error:
        raise SourceError(f"{index} cannot be read: {error.strerror}.") from error
    try:
        listed = json.loads(text)["weight_map"].values()
        return {name for name in listed if isinstance(name, str)}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SourceError(f"{index} is no index of weights. Take the one of the model's makers.") from error


def _weights(files: Iterable[str], patterns: tuple[str, ...]) -> list[str]:
    return [
        name
        for name in files
        if "/" not in name
        and any(fnmatchcase(name, one) for one in patterns)
        and not any(fnmatchcase(name, one) for one in _OTHER_WEIGHTS)
    ]
