"""Writes the folder of a simulated model: the `.rkllm` text file, and what a server expects beside it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from rkllm_facts.abi import Version
from rkllm_facts.chips import check_type, chip
from rkllm_sim.errors import BadOptions, BadTokenizer
from rkllm_sim.records import check_fault, check_script
from rkllm_sim.templates import POSTFIX, PREFIX
from rkllm_sim.tokenizer import FILES, TURN_BEGIN, TokenizerFiles, copied, small
from rkllm_sim.vocabulary import Vocabulary

__all__ = ["FIRST_LINE", "LANGUAGE_MODELS", "LanguageModel", "ModelOptions", "model_text", "write_model"]

FIRST_LINE = "rkllm-sim model 1"
LanguageModel = Literal["hash", "script", "llama"]
LANGUAGE_MODELS = get_args(LanguageModel)
_CONTEXT = 4096


@dataclass(frozen=True)
class ModelOptions:
    """`name` is that of the file, None for the folder's. `script` are the records for lm script (text, not a path),
    `gguf` the file for lm llama, `tokenizer` a folder with a real model's tokenizer instead of the small one. Times are
    milliseconds (prefill and decode for each token), `answer` the shortest and the longest in tokens. `context` None
    means 4096, or what the GGUF has been trained with if that is less."""

    lm: LanguageModel = "hash"
    name: str | None = None
    script: str | None = None
    gguf: Path | None = None
    tokenizer: Path | None = None
    thinking: bool = False
    with_tokenizer: bool = True
    seed: int = 1
    answer: tuple[int, int] = (8, 40)
    context: int | None = None
    platform: str = "rk3588"
    toolkit: str = "1.2.0"
    dtype: str = "w8a8"
    memory_mb: int = 900
    embd: int = 64
    prefill_ms: float = 0.0
    decode_ms: float = 0.0
    load_ms: int = 0
    faults: tuple[str, ...] = ()


def write_model(folder: Path, options: ModelOptions | None = None, **changes: Any) -> Path:
    """Write the model and return the path of its `.rkllm`; `changes` are fields of ModelOptions, over `options`.

    A simulated model that is there is replaced. Raises SimulatorError before anything is written.
    """
    chosen = replace(options or ModelOptions(), **changes)
    _check(chosen)
    tokenizer, chosen = _tokenizer(chosen)
    name = chosen.name or folder.resolve().name
    path = folder / f"{name}.rkllm"
    _check_replaceable(folder, path)
    text = model_text(chosen, tokenizer.vocabulary)
    folder.mkdir(parents=True, exist_ok=True)
    for stale in [folder / one for one in FILES if path.exists()]:
        stale.unlink(missing_ok=True)
    if chosen.with_tokenizer:
        for file, content in tokenizer.files.items():
            (folder / file).write_bytes(content)
    (folder / "Modelfile").write_text(_modelfile(path.name, chosen), encoding="utf-8")
    path.write_text(text, encoding="utf-8", newline="\n")
    return path


def model_text(options: ModelOptions, vocabulary: Vocabulary) -> str:
    """The content of the `.rkllm` file; README.md describes it."""
    lines = [FIRST_LINE, *_settings(options, vocabulary), *(f"fault {fault}" for fault in options.faults)]
    lines.append(f"vocab {len(vocabulary.pieces)}")
    lines += [piece.hex() if piece else "-" for piece in vocabulary.pieces]
    if options.lm == "script":
        lines += ["script", *(options.script or "").splitlines(), "end"]
    lines.append(f"rkllm-toolkit version: {options.toolkit}")
    return "\n".join(lines) + "\n"


def _settings(options: ModelOptions, vocabulary: Vocabulary) -> Iterator[str]:
    yield f"toolkit {options.toolkit}"
    yield f"platform {chip(options.platform).target_platform}"
    yield f"max_context {options.context or _CONTEXT}"
    yield f"npu_cores {max(chip(options.platform).npu_cores)}"
    yield f"dtype {options.dtype}"
    yield f"memory_mb {options.memory_mb}"
    yield f"embd {options.embd}"
    yield f"lm {options.lm}"
    yield f"seed {options.seed}"
    if options.lm == "hash":
        yield f"answer {options.answer[0]} {options.answer[1]}"
        yield f"words {vocabulary.words[0]} {vocabulary.words[1]}"
    yield "eos " + " ".join(map(str, vocabulary.eos))
    if vocabulary.special:
        yield "special " + " ".join(map(str, vocabulary.special))
    for key in ("prefill_ms", "decode_ms", "load_ms"):
        yield f"{key} {getattr(options, key):g}"
    if vocabulary.id_of(TURN_BEGIN) is not None:
        yield f"prefix {json.dumps(PREFIX)}"
        yield f"postfix {json.dumps(POSTFIX)}"
    if options.gguf is not None:
        yield f"gguf {options.gguf.resolve()}"
        yield "child " + " ".join(map(json.dumps, (sys.executable, "-m", "rkllm_sim.llama")))


def _tokenizer(options: ModelOptions) -> tuple[TokenizerFiles, ModelOptions]:
    """The tokenizer, and the options with what the source of the tokenizer decides."""
    if options.gguf is not None:
        from rkllm_sim import gguf_tokenizer  # noqa: PLC0415 - only one of three language models needs it

        source = gguf_tokenizer.read(options.gguf)
        context = options.context or min(_CONTEXT, source.context)
        return source.tokenizer, replace(options, context=context, embd=source.embd)
    if options.tokenizer is not None:
        tokenizer = copied(options.tokenizer)
        if options.lm == "hash" and not tokenizer.vocabulary.words[1]:
            raise BadTokenizer(f"{options.tokenizer}: no token is plain text that the hash language model could say.")
        return tokenizer, options
    return small(thinking=options.thinking), options


def _modelfile(file: str, options: ModelOptions) -> str:
    lines = (
        f'FROM="{file}"',
        'HUGGINGFACE_PATH=""',
        'SYSTEM=""',
        "TEMPERATURE=0.8",
        f"NUM_CTX={options.context or _CONTEXT}",
    )
    return "\n".join(lines) + "\n"


def _check(options: ModelOptions) -> None:
    for fault in options.faults:
        check_fault(fault)
    _check_sources(options)
    _check_numbers(options)
    if options.script is not None:
        check_script(options.script)
    try:
        check_type(options.platform, options.dtype)
        Version.parse(options.toolkit)
    except ValueError as error:
        raise BadOptions(str(error)) from error


def _check_sources(options: ModelOptions) -> None:
    """The files and switches that one language model needs and another one cannot use."""
    for value, lm, option in ((options.script, "script", "--script FILE"), (options.gguf, "llama", "--gguf FILE")):
        if options.lm == lm and value is None:
            raise BadOptions(f"The language model {lm} needs {option}.")
        if options.lm != lm and value is not None:
            raise BadOptions(f"{option} is for --lm {lm}; this model is {options.lm}.")
    if options.gguf is not None and options.tokenizer is not None:
        raise BadOptions("A GGUF file brings its own tokenizer; leave --tokenizer out.")
    if options.thinking and (options.gguf is not None or options.tokenizer is not None):
        raise BadOptions("--thinking is a template of the small tokenizer; a real tokenizer brings its own.")
    if options.name is not None and (not options.name or "/" in options.name):
        raise BadOptions(f"{options.name!r} cannot be the name of a model file.")


def _check_numbers(options: ModelOptions) -> None:
    shortest, longest = options.answer
    if not 0 <= shortest <= longest:
        raise BadOptions(f"An answer of {shortest} to {longest} tokens cannot be: the first number is the smaller one.")
    if not 0 <= options.seed < 2**64:
        raise BadOptions(f"{options.seed} is no seed: it has 64 bits and no sign.")
    if options.context is not None and options.context < 1:
        raise BadOptions(f"A context of {options.context} tokens cannot be.")
    if min(options.prefill_ms, options.decode_ms, options.load_ms) < 0:
        raise BadOptions("A time cannot be negative.")


def _check_replaceable(folder: Path, path: Path) -> None:
    """A real model must not be overwritten, nor may a second model make the folder's name ambiguous."""
    if folder.exists() and not folder.is_dir():
        raise BadOptions(f"{folder} is a file; a model needs a folder.")
    for other in sorted(folder.glob("*.rkllm")):
        with other.open("rb") as stream:
            simulated = stream.read(len(FIRST_LINE)) == FIRST_LINE.encode()
        if not simulated:
            raise BadOptions(f"{other} is no simulated model and is left alone: choose another folder.")
        if other.name != path.name:
            raise BadOptions(f"{folder} holds another model, {other.name}: remove it or choose another folder.")
