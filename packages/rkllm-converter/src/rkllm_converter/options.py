"""What a conversion is asked for, and which of it is legal."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass

from rkllm_converter.errors import IllegalOptions, Problem
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

_OTHER_CHIPS = ("rk3566", "rk3568")
"""Source: issue 416 of airockchip/rknn-llm."""


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


def _problems(options: Options, toolkit: Toolkit, gguf: str | None, *, has_lora: bool) -> Iterator[Problem]:
    here = _chip(options.platform) if options.platform in PLATFORMS else None
    if here is None:
        yield _unknown_chip(options.platform)
    else:
        yield from _of_chip(options, here, gguf)
    yield from _of_algorithm(options, toolkit, here, gguf)
    yield from _of_numbers(options)
    for field, value, legal in (("device", options.device, DEVICES), ("dtype", options.dtype, DTYPES)):
        if value not in legal:
            yield _unknown(field, value, legal)
    yield from _of_export(options, toolkit)
    if gguf is not None:
        yield from _of_gguf(options, gguf, has_lora=has_lora)


def _of_chip(options: Options, here: Chip, gguf: str | None) -> Iterator[Problem]:
    becomes = GGUF_EQUIVALENTS.get(gguf or "")
    if becomes and becomes not in here.types:  # whatever type was named: none would do
        yield Problem(
            "model",
            None,
            f"a GGUF file of type {gguf} becomes {becomes}, which the {here.name} does not run. Take the model as "
            f"Hugging Face has it. {becomes} is for {_chips_with(becomes)}.",
        )
    elif becomes and options.quant != becomes:
        yield Problem("quant", options.quant, f"a GGUF file of type {gguf} becomes {becomes}. Take that.")
    elif options.quant not in (*here.types, NOT_QUANTISED):
        elsewhere = _chips_with(options.quant)
        yield Problem(
            "quant",
            options.quant,
            f"the {here.name} does not run that type. Take one of: {', '.join(here.types)}, or {NOT_QUANTISED}."
            f"{f' {options.quant} is for {elsewhere}.' if elsewhere else ''}",
        )
    if options.npu_cores is not None and options.npu_cores not in here.npu_cores:
        cores = " or ".join(map(str, here.npu_cores))
        yield Problem("npu_cores", str(options.npu_cores), f"for the {here.name} it has to be {cores}.")


def _of_algorithm(options: Options, toolkit: Toolkit, here: Chip | None, gguf: str | None) -> Iterator[Problem]:
    found = ALGORITHM.fullmatch(options.algorithm)
    if found is None or found[1] not in toolkit.algorithms or int(found[2] or 1) > LARGEST_LORA:
        names = ", ".join(toolkit.algorithms)
        yield _of(options, f"the toolkit {toolkit.version} has {names}, each also with _r1 to _r{LARGEST_LORA}.")
    elif not options.is_quantised:
        if options.algorithm != "normal":
            yield _of(options, f"the type {NOT_QUANTISED} leaves it nothing to do. Leave it out.")
    elif found[1] in ALGORITHMS_FOR_FOUR_BITS:
        if gguf is not None:
            yield _of(options, "it needs a GPU, and a GGUF file is loaded by the CPU. Take normal.")
        elif here is not None and not any(map(_has_four_bits, here.types)):
            yield _of(options, f"it is for the types w4a16 only, and the {here.name} has none. Take normal.")
        elif not _has_four_bits(options.quant):
            told = f"it is for the types w4a16 only, not for {options.quant}. Take normal, or a type w4a16."
            yield _of(options, told)
        elif options.device != "cuda":
            yield _of(options, "it needs a GPU. Take the device cuda, or the algorithm normal.")


def _of(options: Options, sentence: str) -> Problem:
    return Problem("algorithm", options.algorithm, sentence)


def _has_four_bits(quant: str) -> bool:
    """Of those that algorithms are for."""
    return quant.startswith("w4a16")


def _of_numbers(options: Options) -> Iterator[Problem]:
    if options.optimization_level not in OPTIMIZATION_LEVELS:
        told = "there are 0 (quicker) and 1 (more accurate)."
        yield Problem("optimization_level", str(options.optimization_level), told)
    context = options.max_context
    if not CONTEXT_STEP <= context <= LONGEST_CONTEXT or context % CONTEXT_STEP:
        near = min(max((context + CONTEXT_STEP // 2) // CONTEXT_STEP, 1) * CONTEXT_STEP, LONGEST_CONTEXT)
        told = f"it has to be a multiple of {CONTEXT_STEP} from {CONTEXT_STEP} to {LONGEST_CONTEXT}."
        yield Problem("max_context", str(context), f"{told} The nearest is {near}.")
    rate = f"{options.hybrid_rate:g}"
    if not 0 <= options.hybrid_rate < 1:
        yield Problem("hybrid_rate", rate, "it has to be at least 0 and below 1, such as 0.25.")
    elif options.hybrid_rate and not options.is_quantised:
        yield Problem("hybrid_rate", rate, f"the type {NOT_QUANTISED} leaves nothing to mix. Leave it out.")


def _of_export(options: Options, toolkit: Toolkit) -> Iterator[Problem]:
    if toolkit.exports_parts:
        return
    for part in ("tokenizer", "embedding"):
        value = getattr(options, f"export_{part}")
        if value is not None:
            yield Problem(f"export_{part}", value, f"the toolkit {toolkit.version} has no such choice. Leave it out.")


def _of_gguf(options: Options, gguf: str, *, has_lora: bool) -> Iterator[Problem]:
    if gguf not in ("f16", *GGUF_EQUIVALENTS):
        legal = " and ".join(("f16", *GGUF_EQUIVALENTS))
        told = f"a GGUF file of type {gguf} is not taken by the toolkit, only {legal}."
        yield Problem("model", None, f"{told} Take one of these, or the model as Hugging Face has it.")
    if has_lora:
        told = "a GGUF file is loaded without an adapter. Take the model as Hugging Face has it."
        yield Problem("lora", None, told)
    for field, usual in (("device", "cpu"), ("dtype", "float32")):
        value = getattr(options, field)
        if value != usual:
            yield Problem(field, value, "the toolkit loads a GGUF file without that choice. Leave it out.")


def _chip(platform: str) -> Chip:
    return next(one for one in CHIPS if one.target_platform == platform)


def _chips_with(quant: str) -> str:
    return ", ".join(one.name for one in CHIPS if quant in one.types)


def _unknown_chip(platform: str) -> Problem:
    """Most names that are nearly one of the chips' are those of other chips: only an ending more is taken for it."""
    plain = "".join(filter(str.isalnum, platform.lower()))
    legal = ", ".join(PLATFORMS)
    if plain in _OTHER_CHIPS:
        told = f"the {plain.upper()} has an NPU that the RKLLM runtime does not use. The chips are: {legal}."
        return Problem("platform", platform, told)
    near = [one for one in PLATFORMS if plain.startswith(one) or plain == one.removeprefix("rk")]
    hint = f" Did you mean {near[0]}?" if near else ""
    return Problem("platform", platform, f"there is no such chip. Take one of: {legal}.{hint}")


def _unknown(field: str, value: str, legal: tuple[str, ...]) -> Problem:
    near = difflib.get_close_matches(value, legal, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    return Problem(field, value, f"there is no such one. Take one of: {', '.join(legal)}.{hint}")
