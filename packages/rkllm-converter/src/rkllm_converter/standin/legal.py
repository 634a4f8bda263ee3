"""What the toolkit takes, argument by argument, as its manual says. Raises Refusal, which names the argument.

These tables are on purpose not those of the converter, which they are to judge.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

__all__ = [
    "CHIPS",
    "Refusal",
    "algorithm",
    "chat",
    "choice",
    "context",
    "dataset",
    "export_path",
    "file",
    "flag",
    "hybrid_rate",
    "input_ids",
    "json_object",
    "lora_folder",
    "model_folder",
    "number",
    "platform",
    "qparams",
    "quantized_dtype",
]


class Chip(NamedTuple):
    dtypes: tuple[str, ...]
    cores: tuple[int, ...]


CHIPS = {
    "rk3588": Chip(("w8a8", "w8a8_g128", "w8a8_g256", "w8a8_g512"), (1, 2, 3)),
    "rk3576": Chip(("w4a16", "w4a16_g32", "w4a16_g64", "w4a16_g128", "w8a8"), (1, 2)),
    "rk3562": Chip(("w8a8", "w4a16_g32", "w4a16_g64", "w4a16_g128", "w4a8_g32"), (1,)),
    "rv1126b": Chip(("w4a16", "w4a16_g32", "w4a16_g64", "w4a16_g128", "w8a8"), (1,)),
}

_CHAT = {
    "max_length": int,
    "top_k": int,
    "top_p": float,
    "temperature": float,
    "do_sample": bool,
    "repetition_penalty": float,
}


class Refusal(Exception):
    """What is wrong with a call."""


# --- plain values ---


def text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise Refusal(f"{name} is {value!r}: it has to be a text")
    return value


def flag(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise Refusal(f"{name} is {value!r}: it has to be True or False")


def number(name: str, value: Any, legal: tuple[int, ...]) -> None:
    if type(value) is not int or value not in legal:
        raise Refusal(f"{name} is {value!r}: it has to be one of {legal}")


def choice(name: str, value: Any, legal: tuple[str, ...]) -> None:
    if text(name, value) not in legal:
        raise Refusal(f"{name} is {value!r}: it has to be one of {legal}")


# --- of build ---


def platform(value: Any) -> str:
    return _either_case("target_platform", value, tuple(CHIPS))


def quantized_dtype(value: Any, chip: str) -> str:
    return _either_case("quantized_dtype", value, CHIPS[chip].dtypes)


def algorithm(value: Any, dtype: str, device: str | None, *, old: bool) -> None:
    """`old`: 1.2.3 or before. `device`: what the model was loaded with."""
    name, ending, rank = text("quantized_algorithm", value).partition("_r")
    legal = ("normal", "gdq", "grq") if old else ("normal", "grq")
    if name not in legal or (ending and rank not in {str(one) for one in range(1, 65)}):
        raise Refusal(f"quantized_algorithm is {value!r}: it has to be one of {legal}, each also with _r1 to _r64")
    if name != "normal" and not dtype.startswith("w4a16"):
        raise Refusal(f"quantized_algorithm is {value!r}: it is for the types w4a16, not for {dtype}")
    if name != "normal" and device != "cuda":
        raise Refusal(f"quantized_algorithm is {value!r}: the model has to be loaded with device='cuda'")


def context(value: Any) -> None:
    if type(value) is not int or value not in range(32, 16385, 32):
        raise Refusal(f"max_context is {value!r}: it has to be a multiple of 32, 16384 at most")


def hybrid_rate(value: Any) -> None:
    if type(value) not in (int, float) or not 0 <= value < 1:
        raise Refusal(f"hybrid_rate is {value!r}: it has to be a number from 0 up to, but not, 1")


def qparams(value: Any) -> None:
    file("extra_qparams", value, ".qparams")


def dataset(value: Any) -> None:
    path = file("dataset", value, ".json")
    records = _json(path, "dataset")
    if not isinstance(records, list) or not records:
        raise Refusal(f"dataset {value!r} is no list of records, or an empty one")
    for place, record in enumerate(records):
        shape = _shape(record)
        if shape is None or shape != _shape(records[0]):
            raise Refusal(
                f'dataset {value!r}, record {place}: all are to be {{"input": text, "target": text}}, '
                'or all {"sample": path, "token_nums": number}'
            )


# --- files ---


def file(name: str, value: Any, ending: str) -> Path:
    path = Path(text(name, value))
    if not path.is_file() or path.suffix != ending:
        raise Refusal(f"{name} is {value!r}: there is no such {ending} file")
    return path


def json_object(name: str, value: Any) -> None:
    if not isinstance(_json(file(name, value, ".json"), name), dict):
        raise Refusal(f"{name} {value!r} holds no JSON object")


def model_folder(value: Any, *, load_weight: bool) -> tuple[dict[str, Any], int]:
    """Its config.json, and how many bytes of weights there are."""
    folder = Path(text("model", value))
    if not (folder / "config.json").is_file():
        raise Refusal(f"model is {value!r}: there is no such folder with a config.json")
    config = _json(folder / "config.json", "model")
    if not isinstance(config, dict):
        raise Refusal(f"model is {value!r}: its config.json holds no JSON object")
    weights = [one for kind in ("*.safetensors", "pytorch_model*.bin") for one in folder.glob(kind) if one.is_file()]
    if not weights and load_weight:
        raise Refusal(f"model is {value!r}: it has no weights (*.safetensors or pytorch_model*.bin)")
    for index in folder.glob("*.index.json"):
        parts = _json(index, "model").get("weight_map", {}).values()
        missing = sorted(one for one in set(parts) if not (folder / one).is_file())
        if missing and load_weight:
            raise Refusal(f"model is {value!r}: {index.name} names {missing[0]}, which is not there")
    return config, sum(one.stat().st_size for one in weights)


def lora_folder(value: Any) -> None:
    folder = Path(text("model_lora", value))
    if not (folder / "adapter_config.json").is_file() or not [*folder.glob("adapter_model.*")]:
        raise Refusal(f"model_lora is {value!r}: it has no adapter_config.json or no adapter_model")


def export_path(value: Any) -> Path:
    path = Path(text("export_path", value))
    if path.suffix != ".rkllm" or not path.parent.is_dir():
        raise Refusal(f"export_path is {value!r}: it has to end in .rkllm, in a folder that is there")
    return path


# --- of the simulation ---


def input_ids(inputs: Any) -> list[list[int]]:
    """As transformers has them: a mapping with input_ids, one row or several, as lists, arrays or tensors."""
    try:
        ids = inputs["input_ids"]
    except (KeyError, TypeError):
        raise Refusal("inputs has no input_ids") from None
    rows = ids.tolist() if hasattr(ids, "tolist") else ids
    if not isinstance(rows, list) or not rows:
        raise Refusal("inputs: input_ids is empty")
    rows = rows if isinstance(rows[0], list) else [rows]
    if not all(row and all(type(one) is int and one >= 0 for one in row) for row in rows):
        raise Refusal("inputs: input_ids has to be rows of token ids")
    return rows


def chat(messages: Any, args: Any) -> None:
    text("messages", messages)
    if not isinstance(args, dict):
        raise Refusal(f"args is {args!r}: it has to be a dict")
    for name, value in args.items():
        kind = _CHAT.get(name)
        if kind is None:
            raise Refusal(f"args has {name!r}: there are {', '.join(_CHAT)}")
        if type(value) is not kind and not (kind is float and type(value) is int):
            raise Refusal(f"args[{name!r}] is {value!r}: it has to be of type {kind.__name__}")


# --- helpers ---


def _either_case(name: str, value: Any, legal: tuple[str, ...]) -> str:
    """Upper or lower, but not mixed."""
    choice(name, value, (*legal, *(one.upper() for one in legal)))
    return str(value).lower()


def _json(path: Path, name: str) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise Refusal(f"{name}: {path} is no JSON: {error}") from None


def _shape(record: Any) -> str | None:
    if not isinstance(record, dict):
        return None
    kinds = {name: type(value) for name, value in record.items()}
    if kinds == {"input": str, "target": str}:
        return "text"
    return "sample" if kinds == {"sample": str, "token_nums": int} else None
