"""OpenAI's dialect, as llama-server, vLLM and exo speak it."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Literal

import msgspec

from exo.inference.openai_request import chat_json, completion_json
from exo.inference.openai_wire import AnswerReader, Chunk, WireUsage, usage_of
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
    UnsupportedParameter,
)

Kind = Literal["exo", "llama.cpp", "ollama", "other"]
"""What a server is: a node of this project or rkllama, a llama-server, an Ollama, or anything else."""
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
        """What the server is, told by who owns all of its models; some of an Ollama's may be its users'."""
        owners = {model.owned_by for model in self.data}
        if "library" in owners:
            return "ollama"
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
        if request.tools or request.think_budget is not None:
            self._refuse_ignored(request, await self._find_kind())
        body = chat_json(request, of_llama_cpp=self._kind == "llama.cpp")
        async with contextlib.aclosing(self._run("/v1/chat/completions", body, request)) as deltas:
            async for delta in deltas:
                yield delta

    async def complete(self, request: CompletionRequest) -> AsyncGenerator[Delta, None]:
        """Stream the continuation of a raw prompt."""
        body = completion_json(request)
        async with contextlib.aclosing(self._run("/v1/completions", body, request)) as deltas:
            async for delta in deltas:
                yield delta

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        """One vector for each text."""
        body: dict[str, Any] = {"model": request.model, "input": list(request.inputs), "encoding_format": "float"}
        if request.dimensions is not None:
            body["dimensions"] = request.dimensions
        answer = await self._link.post("/v1/embeddings", body, _Vectors, request_id=request.id)
        vectors = tuple(vector.embedding for vector in sorted(answer.data, key=lambda vector: vector.index))
        return embeddings(self._link.host, vectors, len(request.inputs), usage_of(answer.usage))

    async def _run(
        self, path: str, body: dict[str, Any], request: ChatRequest | CompletionRequest
    ) -> AsyncGenerator[Delta, None]:
        body |= {"model": request.model, "stream": True, "stream_options": {"include_usage": True}}
        if request.sampling.repeat_penalty is not None:
            body["repetition_penalty"] = request.sampling.repeat_penalty  # vLLM's name for it
        read = functools.partial(_deltas, answer=AnswerReader(request.logprobs))
        async with contextlib.aclosing(self._link.deltas(path, body, request.id, read)) as deltas:
            async for delta in deltas:
                yield delta

    def _refuse_ignored(self, request: ChatRequest, kind: Kind) -> None:
        """Raises UnsupportedParameter for what servers of that kind would ignore."""
        if request.think_budget is not None and kind in ("ollama", "other"):
            raise UnsupportedParameter(
                f"The server at {self._link.host} is no exo, rkllama or llama-server, and others have no bound for "
                "reasoning. Leave it out.",
                param="thinking_budget_tokens",
            )
        if kind == "ollama" and request.tools and request.tool_choice.mode != "auto":
            raise UnsupportedParameter(
                f"The server at {self._link.host} is an Ollama, which lets the model choose whether it calls a "
                "function. Leave tool_choice out.",
                param="tool_choice",
            )

    async def _find_kind(self) -> Kind:
        """What the server is. Nobody may have asked it yet, where a setting says which dialect it speaks."""
        if self._kind is None:
            with contextlib.suppress(ExoError):  # the request itself tells what is wrong with the server
                await self.listing()
        return self._kind or "other"


async def _deltas(
    stream: Stream, lines: AsyncGenerator[bytes, None], *, answer: AnswerReader
) -> AsyncGenerator[Delta, None]:
    """The deltas up to the last one, which comes as soon as its finish reason and its usage are known.

    Raises RemoteFailed if the answer has not ended, UnsupportedParameter for probabilities that never came.
    """
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
        for delta in answer.read(chunk):
            stream.pieces += 1
            yield delta
        if answer.finish is not None and answer.usage is not None:
            break
    if answer.finish is None:
        raise stream.unfinished()
    if answer.lacks_logprobs:
        raise stream.without_logprobs()
    yield answer.last()


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
