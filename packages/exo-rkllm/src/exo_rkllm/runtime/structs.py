"""Filled structs for the library's calls. Memory that is not set here is zero, or what the library itself put there."""

from __future__ import annotations

import ctypes
import os
from array import array
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from typing import Any

from exo_rkllm.runtime.ctypes_types import Types
from exo_rkllm.runtime.errors import NotInThisVersion
from exo_rkllm.runtime.options import LoadOptions, SamplingOptions
from rkllm_facts.abi import Features

_ROLE = b"user"
_CPU_BITS = 32
_POINTER = ctypes.POINTER(ctypes.c_int32)


def load_param(param: Any, features: Features, options: LoadOptions) -> Any:
    """Put `options` into the RKLLMParam that rkllm_createDefaultParam gave. Raises NotInThisVersion, ValueError."""
    param.model_path = os.fsencode(options.model_path)
    param.max_context_len = options.max_context
    param.max_new_tokens = options.max_new_tokens
    param.skip_special_token = options.skip_special_token
    param.is_async = False
    for name, value in _given(options.sampling).items():
        setattr(param, name, value)
    if options.n_keep is not None:
        _require(features.has_n_keep, "n_keep", features)
        param.n_keep = options.n_keep
    extend = param.extend_param
    extend.base_domain_id = options.base_domain_id
    if features.has_embed_flash:
        extend.embed_flash = int(options.embed_flash)
    if options.cpus is not None:
        _require(features.has_cpu_mask, "a choice of CPUs", features)
        extend.enabled_cpus_num, extend.enabled_cpus_mask = len(options.cpus), _cpu_mask(options.cpus)
    return param


def sampling_of(param: Any, given: SamplingOptions) -> SamplingOptions:
    """What RKLLMParam holds; numbers that were given come back as they were, not as float32."""
    held = {field.name: getattr(param, field.name) for field in fields(SamplingOptions)}
    plain: dict[str, Any] = {key: round(value, 6) if isinstance(value, float) else value for key, value in held.items()}
    return SamplingOptions(**{**plain, **_given(given)})


def result_callback(types: Types, take: Callable[[int | None, int | None, int], int]) -> Any:
    """`take` as a C function that can stand for LLMResultCallback. It gets addresses, since a pointer object for each
    call costs more than the rest of the call."""
    result: Any = types.callbacks["LLMResultCallback"]
    return ctypes.CFUNCTYPE(result._restype_, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32)(take)


def init_callback(types: Types, features: Features, callback: Any) -> Any:
    """The third argument of rkllm_init. Whoever keeps it has to keep `callback`, too."""
    function = ctypes.cast(callback, types.callbacks["LLMResultCallback"])
    if not features.init_takes_callback_struct:
        return function
    return ctypes.pointer(types.structs["RKLLMCallback"](result_callback=function))


def prompt_input(types: Types, features: Features, prompt: Sequence[int] | str) -> Any:
    """An RKLLMInput that keeps its memory alive. Raises ValueError for a prompt that is empty or cannot be passed."""
    if not len(prompt):
        raise ValueError("The prompt is empty. Give at least one token, or a text that is not empty.")
    made: Any = types.structs["RKLLMInput"]()
    if features.has_role:
        made.role = _ROLE
    kinds = types.layout.enums["RKLLMInputType"].values
    if isinstance(prompt, str):
        if "\0" in prompt:
            raise ValueError("The prompt has a NUL character, at which the library would end it. Remove it.")
        made.input_type = kinds["RKLLM_INPUT_PROMPT"]
        made.prompt_input = prompt.encode("utf-8")
    else:
        made.input_type = kinds["RKLLM_INPUT_TOKEN"]
        made.ids = _token_array(prompt)  # no member: it keeps alive what input_ids points to
        made.token_input.input_ids = ctypes.cast(made.ids.buffer_info()[0], _POINTER)
        made.token_input.n_tokens = len(prompt)
    return made


def infer_param(types: Types, features: Features, mode: str) -> Any:
    """An RKLLMInferParam for a run on its own (keep_history 0)."""
    made: Any = types.structs["RKLLMInferParam"]()
    made.mode = types.layout.enums["RKLLMInferMode"].values[mode]
    if features.has_keep_history:
        made.keep_history = 0
    return made


def limit_run(infer: Any, features: Features, max_new_tokens: int | None) -> None:
    """The limit for one run, into an RKLLMInferParam. Raises NotInThisVersion, ValueError."""
    if max_new_tokens is not None:
        _require(features.max_new_tokens_per_run, "max_new_tokens for one run", features)
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens is {max_new_tokens}; give 1 or more, or None for the loaded limit.")
        infer.max_new_tokens = max_new_tokens


def set_run_sampling(
    infer: Any, types: Types, features: Features, loaded: SamplingOptions, wanted: SamplingOptions | None
) -> None:
    """Sampling for one run, into an RKLLMInferParam. The library takes its struct instead of all of the loaded values,
    so what is not wanted otherwise is filled from `loaded`. Raises NotInThisVersion."""
    given = {} if wanted is None else _given(wanted)
    if given:
        _require(features.sampling_per_run, f"{', '.join(given)} for one run", features)
        values = types.structs["RKLLMSamplingParam"](**{**_given(loaded), **given})
        infer.sampling_params = ctypes.pointer(values)


def _given(sampling: SamplingOptions) -> dict[str, int | float]:
    return {name: value for name, value in asdict(sampling).items() if value is not None}


def _token_array(ids: Sequence[int]) -> array[int]:
    if isinstance(ids, array) and ids.typecode == "i":
        return ids
    try:
        return array("i", ids)
    except (OverflowError, TypeError) as error:
        raise ValueError(f"The prompt is no sequence of token ids: {error}.") from error


def _cpu_mask(cpus: tuple[int, ...]) -> int:
    if not cpus or len(set(cpus)) != len(cpus) or not all(0 <= cpu < _CPU_BITS for cpu in cpus):
        raise ValueError(f"cpus is {cpus}; give different numbers of CPUs from 0 on, at least one.")
    return sum(1 << cpu for cpu in cpus)


def _require(present: bool, what: str, features: Features) -> None:  # noqa: FBT001  # reads as a sentence
    if not present:
        raise NotInThisVersion(what, str(features.version))
