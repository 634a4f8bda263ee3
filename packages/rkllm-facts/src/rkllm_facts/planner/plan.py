"""How fast a model would run on a chip and what memory it would take, before anybody has converted it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from rkllm_facts.architecture import Architecture
from rkllm_facts.chips import CHIPS, check_type, chip, group_size
from rkllm_facts.errors import BadPlan
from rkllm_facts.planner.calibration import Calibration, Errors, Speed, TimeConstants, calibration, pair
from rkllm_facts.planner.work import MB, Work, generation_work, prefill_work, scale_groups, weight_bits

__all__ = [
    "LONGEST_CONTEXT",
    "USUAL_TYPES",
    "Part",
    "Plan",
    "asked_mb",
    "memory_of_file",
    "plan",
    "reserved_mb",
    "usual_type",
]

LONGEST_CONTEXT = 16384
"""The toolkit converts for no more. Source: SDK manual."""

USUAL_TYPES = {"rk3588": "w8a8", "rk3576": "w4a16", "rk3562": "w8a8", "rv1126b": "w4a16"}
"""By target platform: the fastest type without groups that Rockchip's tables have for it."""

_RESERVED_SHARE = 0.1
_RESERVED_LEAST = 256
_SERVER_MB = 30
"""The most that rkllama's worker takes by itself, in addition to what Rockchip's own programs take."""
_FLOAT16 = 2
_FEWEST_BITS = 4
_MOST_BYTES = 1.15
"""For each weight: 8 bits and a scale for each 128 of them, and what the planner may err."""
_FILE_TOLERANCE = 0.03
_DOMAIN_MB = 4096
_MUCH_CACHE = 0.2
_FILE_SCALE_BYTES = 9
_FILE_REST_MB = 35
"""By the sizes of published files. Those of four bits are larger by about half a byte for each value of the output, as
if it were kept in eight bits; in memory it is not."""


@dataclass(frozen=True, slots=True)
class Part:
    """What a figure consists of, in the unit of the figure."""

    name: str
    value: float


@dataclass(frozen=True, slots=True)
class Plan:
    """Times in ms, memory and sizes in MB of 2^20 bytes, as in Rockchip's tables.

    - `tokens_per_s`: of the first 64 tokens after the prompt; `ttft_ms`: time to the first of them
    - `memory_mb`: peak of the program with the whole `context` in use; `file_mb`: the .rkllm file
    - `fits`: whether `ram_mb` less what the system keeps (`reserved_mb`) is enough; None if no `ram_mb` was given
    - `errors`: what the planner's errors were for models that it had not seen, on this chip with this type; None if the
      tables have no such rows
    - `measured`: the chip and type whose rows the speed is from; `notes`: what else is to be known
    """

    architecture: Architecture
    platform: str
    quant: str
    context: int
    prompt_tokens: int
    embed_flash: bool
    ram_mb: float | None
    token_parts: tuple[Part, ...]
    ttft_parts: tuple[Part, ...]
    memory_parts: tuple[Part, ...]
    file_parts: tuple[Part, ...]
    errors: Errors | None
    measured: str
    notes: tuple[str, ...]

    @property
    def ms_per_token(self) -> float:
        return _sum(self.token_parts)

    @property
    def tokens_per_s(self) -> float:
        return 1000 / self.ms_per_token

    @property
    def ttft_ms(self) -> float:
        return _sum(self.ttft_parts)

    @property
    def memory_mb(self) -> float:
        return _sum(self.memory_parts)

    @property
    def file_mb(self) -> float:
        return _sum(self.file_parts)

    @property
    def group_note(self) -> str:
        """The one of the `notes` that tells of groups which do not divide a matrix; empty if they divide all."""
        return _group_note(self.architecture, self.quant)

    @property
    def fits(self) -> bool | None:
        return None if self.ram_mb is None else self.memory_mb <= self.ram_mb - reserved_mb(self.ram_mb)


def plan(
    architecture: Architecture,
    *,
    platform: str,
    dtype: str,
    context: int = 4096,
    prompt_tokens: int = 128,
    ram_mb: float | None = None,
    embed_flash: bool = True,
) -> Plan:
    """What to expect of a model of `dtype` on `platform`, a chip's name in any case.

    `embed_flash`: the embeddings stay in the file, as the runtime can be told. Raises UnknownChip, IllegalType (with
    the legal types) and BadPlan.
    """
    here, quant = chip(platform), check_type(platform, dtype)
    _check(context, prompt_tokens, ram_mb)
    constants = calibration()
    generation, prefill = constants.generation.speed(here.name, quant), constants.prefill.speed(here.name, quant)
    scale_bytes = constants.memory.scale_bytes

    def token_parts(position: int) -> tuple[Part, ...]:
        work = generation_work(architecture, quant, scale_bytes, position)
        return _times("reading weights", work, constants.generation, generation)

    prompt = _times("multiplying", prefill_work(architecture, prompt_tokens), constants.prefill, prefill)
    memory = _memory(architecture, quant, context, constants, embed_flash=embed_flash)
    return Plan(
        architecture=architecture,
        platform=here.name,
        quant=quant,
        context=context,
        prompt_tokens=prompt_tokens,
        embed_flash=embed_flash,
        ram_mb=ram_mb,
        token_parts=token_parts(prompt_tokens),
        ttft_parts=max(prompt, token_parts(0), key=_sum),  # a pass reads every weight, however short the prompt
        memory_parts=memory,
        file_parts=_file(architecture, quant),
        errors=constants.errors.get(pair(here.name, quant)),
        measured=generation.measured,
        notes=(*_notes(architecture, here.name, quant, generation), *_memory_notes(memory)),
    )


def usual_type(platform: str) -> str:
    """The type that one would take on that chip if nothing speaks for another. Raises UnknownChip."""
    return USUAL_TYPES[chip(platform).target_platform]


def reserved_mb(ram_mb: float) -> float:
    """What kernel and system keep of a board's memory: a tenth, and 256 MB at least."""
    return max(_RESERVED_LEAST, ram_mb * _RESERVED_SHARE)


def asked_mb(planned: Plan) -> float:
    """What a server that keeps a margin, as rkllama does, asks for before it loads the model, in MB.

    That is the planned memory; by how much more nineteen of twenty measured models were found to need at most; and what
    the server's own program takes.
    """
    return planned.memory_mb * (1 + calibration().memory_doubt) + _SERVER_MB


def memory_of_file(
    architecture: Architecture, file_mb: float, *, context: int, embed_flash: bool = True, platform: str | None = None
) -> tuple[Part, ...] | None:
    """As Plan.memory_parts, but with the weights of a .rkllm file that is there, whatever its type.

    None if the file is too small to have the model's weights, or too large to have no more: it is another model, not
    quantised, or none. A file whose size only fits a type of the `platform`, of any if it is not known, without the
    embeddings is taken to have been exported without. Raises UnknownChip.
    """
    types = [one for here in ([chip(platform)] if platform else CHIPS) for one in here.types]
    tables = 0.0 if _is_without_tables(architecture, file_mb, types) else _tables(architecture) * _FLOAT16 / MB
    weights = file_mb - tables - _FILE_REST_MB
    values = architecture.weight_values / MB
    if not values * _FEWEST_BITS / 8 <= weights <= values * _MOST_BYTES:
        return None
    return _around(Part("weights", weights), architecture, context, embed_flash=embed_flash)


def _is_without_tables(architecture: Architecture, file_mb: float, types: Iterable[str]) -> bool:
    tables = _tables(architecture) * _FLOAT16 / MB
    sizes = [_sum(_file(architecture, one)) for one in types]

    def is_one(with_tables: float) -> bool:
        return any(abs(with_tables / size - 1) <= _FILE_TOLERANCE for size in sizes)

    return is_one(file_mb + tables) and not is_one(file_mb)


def _check(context: int, prompt_tokens: int, ram_mb: float | None) -> None:
    if not 1 <= context <= LONGEST_CONTEXT:
        raise BadPlan(
            f"A context of {context} is not possible: models are converted for 1 to {LONGEST_CONTEXT} tokens."
        )
    if not 1 <= prompt_tokens < context:
        raise BadPlan(
            f"A prompt of {prompt_tokens} tokens does not leave room for an answer in a context of {context}: "
            "take a shorter prompt, or more context."
        )
    if ram_mb is not None and not 0 < ram_mb < math.inf:
        raise BadPlan(f"A board with {ram_mb} MB of memory is not possible.")


def _times(bulk: str, work: Work, constants: TimeConstants, speed: Speed) -> tuple[Part, ...]:
    amounts = (
        (bulk, work.bulk),
        ("attention to earlier tokens", work.attention),
        ("calls of the NPU", work.calls * constants.per_call),
        ("queries, keys and values", work.mixing * constants.per_mixing),
        ("state of recurrent layers", work.state * constants.per_state),
    )
    return tuple(Part(name, amount * speed.value) for name, amount in amounts if amount)


def _memory(
    architecture: Architecture, quant: str, context: int, constants: Calibration, *, embed_flash: bool
) -> tuple[Part, ...]:
    weights, scales = _weights(architecture, quant, constants.memory.scale_bytes)
    first, *others = _around(weights, architecture, context, embed_flash=embed_flash)
    return (first, *([scales] if scales.value else []), *others)


def _around(weights: Part, architecture: Architecture, context: int, *, embed_flash: bool) -> tuple[Part, ...]:
    """The weights, and what a loaded model takes beyond them."""
    constants = calibration().memory
    parts = (
        weights,
        Part("embeddings", 0 if embed_flash else _tables(architecture) * _FLOAT16 / MB),
        Part("KV cache", architecture.kv_values * _FLOAT16 * context / MB),
        Part("what grows with the vocabulary", architecture.vocabulary * constants.per_token_bytes / MB),
        Part("runtime", constants.base_mb),
    )
    return tuple(part for part in parts if part.value)


def _tables(architecture: Architecture) -> int:
    """Values of the embeddings, of each layer too where a model has such."""
    return architecture.embedding_values + architecture.per_layer_embedding_values


def _file(architecture: Architecture, quant: str) -> tuple[Part, ...]:
    wider = (8 - weight_bits(quant)) / 8 * architecture.output_values
    parts = (
        *_weights(architecture, quant, _FILE_SCALE_BYTES),
        Part("output in 8 bits", wider / MB),
        Part("embeddings", _tables(architecture) * _FLOAT16 / MB),
        Part("the rest", _FILE_REST_MB),
    )
    return tuple(part for part in parts if part.value)


def _weights(architecture: Architecture, quant: str, scale_bytes: float) -> tuple[Part, ...]:
    values = architecture.weight_values
    scales = scale_groups(values, quant) * scale_bytes
    return Part("weights", values * weight_bits(quant) / 8 / MB), Part("scales of groups", scales / MB)


def _notes(architecture: Architecture, platform: str, quant: str, speed: Speed) -> Iterable[str]:
    if not speed.exact:
        yield _unmeasured(platform, quant, speed)
    if not architecture.is_understood:
        yield f"The family {architecture.family!r} is not known here: it is planned as a plain decoder."
    if architecture.recurrent_layers:
        yield (
            "Layers with a state are worked out on the CPU, which small chips do more slowly than this says: the first "
            "token was up to 40 % off for such models."
        )
    if architecture.is_mixture:
        yield "Only one mixture of experts was measured, so little is known of them."
    if note := _group_note(architecture, quant):
        yield note


def _group_note(architecture: Architecture, quant: str) -> str:
    groups = group_size(quant)
    odd = [one.name for one in architecture.matrices if groups and one.name in _WIDE and one.outputs % groups]
    if not odd:
        return ""
    return f"Groups of {groups} do not divide the width of {', '.join(dict.fromkeys(odd))}: the toolkit may refuse."


def _unmeasured(platform: str, quant: str, speed: Speed) -> str:
    if speed.measured == pair(platform, quant):
        return (
            f"One row tells of {quant} on {platform}, Qwen2-0.5B with SDK 1.2.0: for other models this may be far off."
        )
    return (
        f"Rockchip's tables have nothing with {quant} on {platform}: this is worked out from {speed.measured}, so "
        "expect larger errors."
    )


def _memory_notes(parts: tuple[Part, ...]) -> Iterable[str]:
    sizes = {part.name: part.value for part in parts}
    cache = sizes.get("KV cache", 0.0) / _sum(parts)
    if cache > _MUCH_CACHE:
        yield (
            f"The KV cache is {cache:.0%} of the memory. Only short contexts were measured, so a long one may need "
            "more than is said here: leave some memory free, or take a shorter context if the model does not load."
        )
    if sizes["weights"] > _DOMAIN_MB:
        yield (
            "The weights are above 4 GiB, more than one memory domain of the NPU holds. Rockchip has measured such a "
            "model on RK3588 (ChatGLM3-6B), so it can work; if it does not load though memory is free, take a type "
            "with fewer bits, or a smaller model."
        )


_WIDE = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def _sum(parts: Iterable[Part]) -> float:
    return math.fsum(part.value for part in parts)
