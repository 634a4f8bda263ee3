"""What a conversion is asked for, and which of it is legal."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass

from rkllm_converter.errors import IllegalOptions
from rkllm_converter.toolkit.versions import (
    ALGORITHM,
    ALGORITHMS_FOR_FOUR_BITS,
    CONTEXT_STEP,
    DEVICES,
    DTYPES,
    LARGEST_LORA,
    LONGEST_CONTEXT,
    OPTIMIZATION_LEVELS,
    Toolkit,
)
from rkllm_facts.chips import CHIPS, GGUF_EQUIVALENTS, Chip

__all__ = ["NOT_QUANTISED", "PLATFORMS", "Options", "check"]

NOT_QUANTISED = "none"
"""As a `quant`: the weights stay as they are. The manual advises against it."""

PLATFORMS = tuple(dict.fromkeys(chip.target_platform for chip in CHIPS))


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What is given to the toolkit, beside the paths of files.

    - `platform`: `rk3588`, `rk3576`, `rk3562` or `rv1126b`; `quant`: a type as the manual writes it, or `none`; both
      in lower case
    - `npu_cores`: None is as many as the chip has
    - `max_context`: tokens; the model can never be loaded with more
    - `hybrid_rate`: from 0, below 1: which share of the layers gets the finer, or coarser, groups
    - `export_tokenizer`, `export_embedding`: None leaves it to the toolkit
    """

    platform: str
    quant: str
    algorithm: str = "normal"
    optimization_level: int = 1
    npu_cores: int | None = None
    max_context: int = 4096
    hybrid_rate: float = 0.0
    device: str = "cpu"
    dtype: str = "float32"
    export_tokenizer: bool | None = None
    export_embedding: bool | None = None

    @property
    def is_quantised(self) -> bool:
        return self.quant != NOT_QUANTISED

    @property
    def cores(self) -> int:
        """How many NPU cores the model is made for."""
        return self.npu_cores if self.npu_cores is not None else max(_chip(self.platform).npu_cores)


def check(options: Options, toolkit: Toolkit, *, gguf: str | None = None, has_lora: bool = False) -> None:
    """Raises IllegalOptions with every problem, each with what would be legal.

    `gguf` is the type of the weights if the model is a GGUF file, such as `q4_0`.
    """
    problems = [*_problems(options, toolkit, gguf, has_lora=has_lora)]
    if problems:
        raise IllegalOptions(problems)


def _problems(options: Options, toolkit: Toolkit, gguf: str | None, *, has_lora: bool) -> Iterator[str]:
    if options.platform not in PLATFORMS:
        yield _unknown("--platform", options.platform, PLATFORMS)
    else:
        here = _chip(options.platform)
        yield from _of_type(options, here)
        if options.npu_cores is not None and options.npu_cores not in here.npu_cores:
            cores = " or ".join(map(str, here.npu_cores))
            yield f"--npu-cores {options.npu_cores}: for the {here.name} it has to be {cores}."
    yield from _of_algorithm(options, toolkit, gguf)
    yield from _of_numbers(options)
    for flag, value, legal in (("--device", options.device, DEVICES), ("--dtype", options.dtype, DTYPES)):
        if value not in legal:
            yield _unknown(flag, value, legal)
    yield from _of_export(options, toolkit)
    yield from _of_gguf(options, gguf, has_lora=has_lora)


def _of_type(options: Options, chip: Chip) -> Iterator[str]:
    if options.quant in (*chip.types, NOT_QUANTISED):
        return
    elsewhere = [one.name for one in CHIPS if options.quant in one.types]
    hint = f" {options.quant} is for {', '.join(elsewhere)}." if elsewhere else ""
    yield (
        f"--quant {options.quant}: the {chip.name} does not run that type. "
        f"Take one of: {', '.join(chip.types)}, or {NOT_QUANTISED}.{hint}"
    )


def _of_algorithm(options: Options, toolkit: Toolkit, gguf: str | None) -> Iterator[str]:
    found = ALGORITHM.fullmatch(options.algorithm)
    if found is None or found[1] not in toolkit.algorithms or int(found[2] or 1) > LARGEST_LORA:
        names = ", ".join(toolkit.algorithms)
        yield (
            f"--algorithm {options.algorithm}: the toolkit {toolkit.version} has {names}, "
            f"each also with _r1 to _r{LARGEST_LORA}."
        )
        return
    if not options.is_quantised:
        if options.algorithm != "normal":
            yield f"--algorithm {options.algorithm}: --quant {NOT_QUANTISED} leaves it nothing to do. Leave it out."
        return
    if found[1] in ALGORITHMS_FOR_FOUR_BITS:
        if not options.quant.startswith("w4a16"):
            yield (
                f"--algorithm {options.algorithm}: it is for the types w4a16 only, not for {options.quant}. "
                "Take --algorithm normal, or a w4a16 type."
            )
        if options.device != "cuda" and gguf is None:
            yield f"--algorithm {options.algorithm}: it needs a GPU. Add --device cuda, or take --algorithm normal."


def _of_numbers(options: Options) -> Iterator[str]:
    if options.optimization_level not in OPTIMIZATION_LEVELS:
        yield f"--opt-level {options.optimization_level}: there are 0 (quicker) and 1 (more accurate)."
    context = options.max_context
    if not CONTEXT_STEP <= context <= LONGEST_CONTEXT or context % CONTEXT_STEP:
        near = min(max((context + CONTEXT_STEP // 2) // CONTEXT_STEP, 1) * CONTEXT_STEP, LONGEST_CONTEXT)
        yield (
            f"--max-context {context}: it has to be a multiple of {CONTEXT_STEP} from {CONTEXT_STEP} to "
            f"{LONGEST_CONTEXT}. The nearest is {near}."
        )
    if not 0 <= options.hybrid_rate < 1:
        yield f"--hybrid-rate {options.hybrid_rate:g}: it has to be from 0 up to, but not, 1."
    elif options.hybrid_rate and not options.is_quantised:
        yield f"--hybrid-rate {options.hybrid_rate:g}: --quant {NOT_QUANTISED} leaves nothing to mix. Leave it out."


def _of_export(options: Options, toolkit: Toolkit) -> Iterator[str]:
    if toolkit.exports_parts:
        return
    for flag, value in (("tokenizer", options.export_tokenizer), ("embedding", options.export_embedding)):
        if value is not None:
            written = f"--{'' if value else 'no-'}export-{flag}"
            yield f"{written}: the toolkit {toolkit.version} has no such choice. Leave it out."


def _of_gguf(options: Options, gguf: str | None, *, has_lora: bool) -> Iterator[str]:
    if gguf is None:
        return
    if gguf not in ("f16", *GGUF_EQUIVALENTS):
        legal = " and ".join(("f16", *GGUF_EQUIVALENTS))
        yield f"--model: a GGUF file of type {gguf} is not taken by the toolkit, only {legal}. Take one of these."
    equivalent = GGUF_EQUIVALENTS.get(gguf)
    if equivalent and options.quant != equivalent:
        chips = ", ".join(one.target_platform for one in CHIPS if equivalent in one.types)
        yield f"--quant {options.quant}: a GGUF file of type {gguf} becomes {equivalent}. Take that; it is for {chips}."
    if has_lora:
        yield "--lora: a GGUF file is loaded without an adapter. Take the model as Hugging Face has it."
    if options.algorithm.startswith(ALGORITHMS_FOR_FOUR_BITS):
        yield f"--algorithm {options.algorithm}: it needs a GPU, and a GGUF file is loaded by the CPU. Take normal."
    for flag, value, usual in (("device", options.device, "cpu"), ("dtype", options.dtype, "float32")):
        if value != usual:
            yield f"--{flag} {value}: the toolkit loads a GGUF file without that choice. Leave it out."


def _chip(platform: str) -> Chip:
    return next(one for one in CHIPS if one.target_platform == platform)


def _unknown(flag: str, value: str, legal: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(value, legal, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    return f"{flag} {value}: there is no such one. Take one of: {', '.join(legal)}.{hint}"
