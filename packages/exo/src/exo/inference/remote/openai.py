"""OpenAI's dialect, as llama-server, vLLM and exo speak it."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec

from exo.inference.openai_wire import (
    Chunk,
    ToolCallReader,
    WireTimings,
    WireUsage,
    calling_json,
    format_json,
    limits_json,
    logprobs_json,
    logprobs_of,
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
    ExoError,
    FinishReason,
    Limits,
    Sampling,
    UnsupportedParameter,
)

Kind = Literal["exo", "llama.cpp", "other"]
"""What a server is: a node of this project or rkllama, a llama-server, or anything else."""
_OWNERS: Mapping[str, Kind] = {"exo": "exo", "llamacpp": "llama.cpp"}
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
    def kind(self) -> Kind:
        """What the server is, told by who owns all of its models."""
        owners = {model.owned_by for model in self.data}
        return _OWNERS.get(owners.pop() or "", "other") if len(owners) == 1 else "other"

    @property
    def is_exo(self) -> bool:
        """The server counts tokens exactly, and knows each field."""
        return self.kind == "exo"


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
        self._kind: Kind | None = None

    async def listing(self) -> ModelList:
        """The answer of /v1/models as it is."""
        listing = await self._link.get("/v1/models", ModelList)
        self._kind = listing.kind
        return listing

    async def models(self) -> Sequence[ModelDescription]:
        """The models that the server names."""
        return [_description(model) for model in (await self.listing()).data]

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        """Stream an answer; closing the generator closes the connection, which ends the run there."""
        if request.template is not None:
            raise UnsupportedParameter("Another server's models keep their own chat template.", param="template")
        body: dict[str, Any] = {"messages": messages_json(request.messages)}
        if request.tools:
            body |= calling_json(request, of_llama_cpp=await self._find_kind() == "llama.cpp")
        if request.format is not None:
            body["response_format"] = format_json(request.format)
        if request.think is not None:  # as llama-server and vLLM take it
            body["chat_template_kwargs"] = {"enable_thinking": request.think}
        if request.think_budget is not None:
            body["thinking_budget_tokens"] = await self._think_budget(request.think_budget)
        if request.logprobs is not None:
            body |= logprobs_json(request.logprobs)
        body |= _run_json(request.model, request.sampling, request.limits)
        read = functools.partial(_deltas, logprobs=request.logprobs)
        async with contextlib.aclosing(self._link.deltas("/v1/chat/completions", body, request.id, read)) as deltas:
            async for delta in deltas:
                yield delta

    async def complete(self, request: CompletionRequest) -> AsyncGenerator[Delta, None]:
        """Stream the continuation of a raw prompt."""
        body = {"prompt": request.prompt, **_run_json(request.model, request.sampling, request.limits)}
        if request.logprobs is not None:
            body["logprobs"] = max(1, request.logprobs)  # as logprobs_json does it
        read = functools.partial(_deltas, logprobs=request.logprobs)
        async with contextlib.aclosing(self._link.deltas("/v1/completions", body, request.id, read)) as deltas:
            async for delta in deltas:
                yield delta

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        """One vector for each text."""
        body: dict[str, Any] = {"model": request.model, "input": list(request.inputs), "encoding_format": "float"}
        if request.dimensions is not None:
            body["dimensions"] = request.dimensions
        answer = await self._link.post("/v1/embeddings", body, _Vectors)
        vectors = tuple(vector.embedding for vector in sorted(answer.data, key=lambda vector: vector.index))
        return embeddings(self._link.host, vectors, len(request.inputs), usage_of(answer.usage))

    async def _think_budget(self, tokens: int) -> int:
        """The bound for reasoning. Raises UnsupportedParameter for servers that would ignore it."""
        if await self._find_kind() == "other":
            raise UnsupportedParameter(
                f"The server at {self._link.host} is no exo, rkllama or llama-server, and others have no bound for "
                "reasoning. Leave it out.",
                param="thinking_budget_tokens",
            )
        return tokens

    async def _find_kind(self) -> Kind:
        """What the server is. Nobody may have asked it yet, where a setting says which dialect it speaks."""
        if self._kind is None:
            with contextlib.suppress(ExoError):  # the request itself tells what is wrong with the server
                await self.listing()
        return self._kind or "other"


async def _deltas(
    stream: Stream, lines: AsyncGenerator[bytes, None], *, logprobs: int | None
) -> AsyncGenerator[Delta, None]:
    """The deltas up to the last one, which comes as soon as its finish reason and its usage are known."""
    answer = _Answer(stream, logprobs)
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
        for delta in answer.add(chunk):
            stream.pieces += 1
            yield delta
        if answer.is_complete:
            break
    yield answer.last()


class _Answer:
    """What has come of an answer. `logprobs` as in ChatRequest."""

    def __init__(self, stream: Stream, logprobs: int | None) -> None:
        self._stream = stream
        self._logprobs = logprobs
        self._written = self._told = False
        self._calls = ToolCallReader()
        self._finish: FinishReason | None = None
        self._usage: WireUsage | None = None
        self._timings: WireTimings | None = None

    @property
    def is_complete(self) -> bool:
        return self._finish is not None and self._usage is not None

    def add(self, chunk: Chunk) -> Iterator[Delta]:
        """The deltas of a chunk."""
        for choice in chunk.choices or ():
            text, reasoning = choice.said
            calls = self._calls.read(choice)
            chances = () if self._logprobs is None else logprobs_of(choice, self._logprobs)
            self._written, self._told = self._written or bool(text), self._told or bool(chances)
            if text or reasoning or calls or chances:
                yield Delta(text=text, reasoning=reasoning, tool_calls=calls, logprobs=chances)
            self._finish = choice.finish or self._finish
        self._usage = chunk.usage or self._usage
        self._timings = chunk.timings or self._timings

    def last(self) -> Delta:
        """Raises RemoteFailed if the answer has not ended, UnsupportedParameter for probabilities that never came."""
        if self._finish is None:
            raise self._stream.unfinished()
        if self._logprobs is not None and self._written and not self._told:
            raise self._stream.without_logprobs()
        called = self._calls.count and self._finish == "stop"
        return Delta(
            finish_reason="tool_calls" if called else self._finish,
            usage=usage_of(self._usage),
            timings=timings_of(self._timings),
        )


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
