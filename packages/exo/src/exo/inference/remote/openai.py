"""OpenAI's dialect, as llama-server, vLLM and exo speak it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import msgspec

from exo.inference.openai_wire import (
    Chunk,
    WireTimings,
    WireUsage,
    format_json,
    limits_json,
    messages_json,
    sampling_json,
    timings_of,
    usage_of,
)
from exo.inference.remote.link import Link, Stream
from exo.inference.remote.vectors import embeddings
from exo.models import ModelDescription
from exo.types import (
    ChatRequest,
    CompletionRequest,
    Delta,
    EmbeddingRequest,
    Embeddings,
    FinishReason,
    Limits,
    Sampling,
    UnsupportedParameter,
)

_DATA = b"data:"
_END = b"[DONE]"


class _Meta(msgspec.Struct):
    n_ctx: int | None = None
    n_params: int | None = None
    size: int | None = None


class _Model(msgspec.Struct):
    id: str
    owned_by: str | None = None
    created: float | None = None
    max_model_len: int | None = None
    meta: _Meta | None = None


class ModelList(msgspec.Struct):
    """What /v1/models answers; without `data` it is something else."""

    data: list[_Model]

    @property
    def is_exo(self) -> bool:
        """All models are served by this project's node or rkllama, which count tokens exactly."""
        return bool(self.data) and all(model.owned_by == "exo" for model in self.data)


class _Vector(msgspec.Struct):
    embedding: tuple[float, ...]
    index: int = 0


class _Vectors(msgspec.Struct):
    data: list[_Vector]
    usage: WireUsage | None = None


_chunk_decoder = msgspec.json.Decoder(Chunk)


class OpenAIClient:
    """One server, by way of its `/v1` paths. Errors as those of Link.

    There is no way to keep a model loaded: `keep_alive` has no effect. A server that counts no tokens leaves the usage
    of an answer at 0.
    """

    def __init__(self, link: Link) -> None:
        self._link = link

    async def listing(self) -> ModelList:
        """The answer of /v1/models as it is."""
        return await self._link.get("/v1/models", ModelList)

    async def models(self) -> Sequence[ModelDescription]:
        """The models that the server names."""
        return [_description(model) for model in (await self.listing()).data]

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        """Stream an answer; closing the generator closes the connection, which ends the run there."""
        if request.template is not None:
            raise UnsupportedParameter("Another server's models keep their own chat template.", param="template")
        body: dict[str, Any] = {"messages": messages_json(request.messages)}
        if request.format is not None:
            body["response_format"] = format_json(request.format)
        if request.think is not None:  # as llama-server and vLLM take it
            body["chat_template_kwargs"] = {"enable_thinking": request.think}
        body |= _run_json(request.model, request.sampling, request.limits)
        async with contextlib.aclosing(self._link.deltas("/v1/chat/completions", body, request.id, _deltas)) as deltas:
            async for delta in deltas:
                yield delta

    async def complete(self, request: CompletionRequest) -> AsyncGenerator[Delta, None]:
        """Stream the continuation of a raw prompt."""
        body = {"prompt": request.prompt, **_run_json(request.model, request.sampling, request.limits)}
        async with contextlib.aclosing(self._link.deltas("/v1/completions", body, request.id, _deltas)) as deltas:
            async for delta in deltas:
                yield delta

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        """One vector for each text."""
        body = {"model": request.model, "input": list(request.inputs), "encoding_format": "float"}
        answer = await self._link.post("/v1/embeddings", body, _Vectors)
        vectors = tuple(vector.embedding for vector in sorted(answer.data, key=lambda vector: vector.index))
        return embeddings(self._link.host, vectors, len(request.inputs), usage_of(answer.usage))


async def _deltas(stream: Stream, lines: AsyncGenerator[bytes, None]) -> AsyncGenerator[Delta, None]:
    """The deltas up to the last one, which comes as soon as its finish reason and its usage are known."""
    finish: FinishReason | None = None
    usage: WireUsage | None = None
    timings: WireTimings | None = None
    begun = False
    async for line in lines:
        event = _event(line)
        if event == _END:
            break
        if not event:
            continue
        chunk = _decoded(stream, event)
        if not begun:  # only now is it sure that the server has not refused
            begun = True
            yield Delta(sampling=stream.sampling)
        for choice in chunk.choices or ():
            text, reasoning = choice.said
            if text or reasoning:
                stream.pieces += 1
                yield Delta(text=text, reasoning=reasoning)
            finish = choice.finish or finish
        usage = chunk.usage or usage
        timings = chunk.timings or timings
        if finish is not None and usage is not None:
            break
    if finish is None:
        raise stream.unfinished()
    yield Delta(finish_reason=finish, usage=usage_of(usage), timings=timings_of(timings))


def _event(line: bytes) -> bytes:
    """The data of a line of server-sent events; nothing for comments and other fields.

    Some servers answer with an error as plain JSON, or write `error:` in place of `data:`.
    """
    if line.startswith(_DATA):
        return line[len(_DATA) :].lstrip()
    if line.startswith(b"error:"):
        return line[len(b"error:") :].lstrip()
    return line if line.startswith(b"{") else b""


def _decoded(stream: Stream, event: bytes) -> Chunk:
    try:
        chunk = _chunk_decoder.decode(event)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise stream.unreadable(event) from None
    if chunk.error is not None:
        raise stream.error(event)
    return chunk


def _run_json(model: str, sampling: Sampling, limits: Limits) -> dict[str, Any]:
    body = {"model": model, "stream": True, "stream_options": {"include_usage": True}}
    body |= sampling_json(sampling) | limits_json(limits)
    if sampling.repeat_penalty is not None:
        body["repetition_penalty"] = sampling.repeat_penalty  # vLLM's name for it
    return body


def _description(model: _Model) -> ModelDescription:
    meta = model.meta or _Meta()
    return ModelDescription(
        id=model.id,
        size=meta.size or 0,
        modified=model.created or 0.0,
        parameters_count=meta.n_params or 0,
        context_length=model.max_model_len or meta.n_ctx or 0,
        capabilities=("completion",),
    )
