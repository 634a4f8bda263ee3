"""What the requests of this dialect have in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from msgspec.structs import replace

from exo.api.openai.schema import RunFields, Texts
from exo.types import (
    ChatRequest,
    CompletionRequest,
    InvalidRequest,
    Limits,
    RequestError,
    Sampling,
    UnsupportedParameter,
)

R = TypeVar("R", ChatRequest, CompletionRequest)
WITHOUT_REASONING = frozenset({"none", "minimal"})
"""The efforts that switch reasoning off; all others switch it on."""


def sampling_of(wire: RunFields) -> Sampling:
    return Sampling(
        temperature=wire.temperature,
        top_p=wire.top_p,
        top_k=wire.top_k,
        min_p=wire.min_p,
        repeat_penalty=wire.repeat_penalty,
        presence_penalty=wire.presence_penalty,
        frequency_penalty=wire.frequency_penalty,
        seed=wire.seed,
    )


def repeated(request: R, times: int) -> list[R]:
    """The requests for so many choices: each has a seed of its own, the first one that of `request`."""
    sampling = request.sampling
    if sampling.seed is None:
        return [request] * times
    seeds = range(sampling.seed, sampling.seed + times)
    return [replace(request, sampling=replace(sampling, seed=seed)) for seed in seeds]


def limits_of(wire: RunFields, max_tokens: int | None) -> Limits:
    stops = [wire.stop] if isinstance(wire.stop, str) else wire.stop or []
    return Limits(max_tokens=max_tokens, stop=tuple(text for text in stops if text))


def texts_of(given: Texts, *, param: str, most: int) -> list[str]:
    """One text or several as a list. Raises InvalidRequest, UnsupportedParameter for numbers of tokens."""
    if isinstance(given, str):
        return [given]
    if not 1 <= len(given) <= most:
        raise InvalidRequest(f"{param} has {len(given)} entries; 1 to {most} are possible.", param=param)
    texts = [text for text in given if isinstance(text, str)]
    if len(texts) < len(given):
        raise UnsupportedParameter(f"{param} cannot be given as numbers of tokens here; send text.", param=param)
    return texts


def asks_for_usage(wire: RunFields) -> bool:
    return wire.stream_options is not None and bool(wire.stream_options.include_usage)


@contextmanager
def named_as_sent(names: Mapping[str, str]) -> Iterator[None]:
    """An error about a field of our request gets the name that the client's request has for it."""
    try:
        yield
    except RequestError as error:
        if error.param is not None:
            error.param = names.get(error.param, error.param)
        raise
