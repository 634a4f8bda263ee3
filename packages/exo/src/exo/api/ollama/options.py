"""The options of a request: what of them the internal request has, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping

from exo.api.ollama.schema import Options
from exo.models import ModelDescription
from exo.types import Limits, Sampling, UnsupportedParameter

WITHOUT_EFFECT = (
    "num_keep",
    "numa",
    "num_batch",
    "num_gpu",
    "main_gpu",
    "num_thread",
    "low_vram",
    "f16_kv",
    "logits_all",
    "vocab_only",
    "use_mmap",
    "use_mlock",
    "embedding_only",
)
"""They say how a machine is to be used, not what is to be answered; the engine decides that here."""
ONLY_DEFAULT: Mapping[str, float | bool] = {
    "typical_p": 1.0,
    "tfs_z": 1.0,
    "repeat_last_n": 64,
    "penalize_newline": True,
    "mirostat": 0,
}
"""Ollama's defaults of what no engine here can change. The two values of mirostat mean nothing while it is off."""
_RANDOM_SEED = -1


def refuse_unsupported(options: Options, *, path: str = "options") -> None:
    """Raises UnsupportedParameter for what would change the answer and cannot be done."""
    for name, default in ONLY_DEFAULT.items():
        value = getattr(options, name)
        if value is not None and value != default:
            shown = str(default).lower() if isinstance(default, bool) else f"{default:g}"
            raise UnsupportedParameter(
                f"{path}.{name} cannot be honoured here with this value; leave it out, or send {shown}.",
                param=f"{path}.{name}",
            )


def sampling_of(options: Options) -> Sampling:
    """How tokens are drawn. A top_k of -1 is off, as 0 is; a seed of -1 is none."""
    return Sampling(
        temperature=options.temperature,
        top_p=options.top_p,
        top_k=None if options.top_k is None else max(0, options.top_k),
        min_p=options.min_p,
        repeat_penalty=options.repeat_penalty,
        presence_penalty=options.presence_penalty,
        frequency_penalty=options.frequency_penalty,
        seed=None if options.seed == _RANDOM_SEED else options.seed,
    )


def limits_of(options: Options) -> Limits:
    """When the answer ends. Like Ollama, a num_predict of 0 or less sets no cap."""
    capped = options.num_predict is not None and options.num_predict > 0
    most = options.num_predict if capped else None
    return Limits(max_tokens=most, stop=stops_of(options), context=options.num_ctx)


def stops_of(options: Options) -> tuple[str, ...]:
    if isinstance(options.stop, str):
        return (options.stop,) if options.stop else ()
    return tuple(text for text in options.stop or () if text)


def refuse_longer_context(options: Options, description: ModelDescription) -> None:
    """A model's context is fixed when it is loaded. Raises UnsupportedParameter if more is asked for."""
    served = description.context_length
    if options.num_ctx is not None and served and options.num_ctx > served:
        raise UnsupportedParameter(
            f"options.num_ctx is {options.num_ctx}, but {description.id} is served with a context of {served} tokens. "
            "Ask for at most that, or serve the model with more: NUM_CTX in its Modelfile, or EXO_LLAMACPP_CONTEXT for "
            "the engine llamacpp.",
            param="options.num_ctx",
        )
