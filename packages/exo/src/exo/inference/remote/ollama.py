"""Ollama's dialect, as Ollama, rkllama and exo speak it."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import msgspec

from exo.chat import tools_as_json
from exo.inference.engine import ResidentModel
from exo.inference.openai_request import limits_json, logprobs_json, sampling_json
from exo.inference.openai_wire import ToolCallPiece, ToolCallReader, WireChance, token_logprob
from exo.inference.remote.link import Link, Stream
from exo.inference.remote.ollama_models import ModelTags, RunningModels, ShownModel
from exo.inference.remote.settings import TIMEOUT, checked_url
from exo.inference.remote.vectors import embeddings
from exo.models import ModelDescription
from exo.types import (
    ChatRequest,
    CompletionRequest,
    Delta,
    EmbeddingRequest,
    Embeddings,
    FinishReason,
    InvalidRequest,
    Limits,
    Message,
    Sampling,
    Timings,
    UnsupportedParameter,
    Usage,
)

_NANO = 1e-9
_WHOLE = {"truncate": False, "shift": False}
"""Nothing of a conversation is left out in silence where it is too long."""


class Version(msgspec.Struct):
    """What /api/version answers."""

    version: str


class _Said(msgspec.Struct):
    content: str | None = None
    thinking: str | None = None
    tool_calls: Sequence[ToolCallPiece] | None = None


class _Line(msgspec.Struct):
    message: _Said | None = None
    response: str | None = None
    thinking: str | None = None
    done: bool = False
    done_reason: str | None = None
    load_duration: int = 0
    prompt_eval_count: int = 0
    prompt_eval_duration: int = 0
    eval_count: int = 0
    eval_duration: int = 0
    logprobs: Sequence[WireChance] | None = None
    error: Any = None

    @property
    def said(self) -> tuple[str, str]:
        """The text and the reasoning of this line."""
        if self.message is None:
            return self.response or "", self.thinking or ""
        return self.message.content or "", self.message.thinking or ""


class _Vectors(msgspec.Struct):
    embeddings: tuple[tuple[float, ...], ...]
    prompt_eval_count: int = 0


_line_decoder = msgspec.json.Decoder(_Line)


class OllamaClient:
    """One server, by way of its `/api` paths. Errors as those of Link.

    Reasoning tokens and cached tokens are not told by this dialect and stay 0.
    """

    def __init__(self, link: Link) -> None:
        self._link = link

    @classmethod
    def at(cls, url: str, *, api_key: str = "", timeout: float = TIMEOUT) -> OllamaClient:
        """A client of its own for `url`; `timeout` is the longest silence in seconds. Connects with the first use."""
        return cls(Link(checked_url(url), api_key=api_key, timeout=timeout))

    async def version(self) -> str:
        """The server's version."""
        return (await self._link.get("/api/version", Version)).version

    async def models(self) -> Sequence[ModelDescription]:
        """What the server can run."""
        return (await self._link.get("/api/tags", ModelTags)).descriptions()

    async def resident(self) -> Sequence[ResidentModel]:
        """What the server has in memory, used most recently first."""
        return (await self._link.get("/api/ps", RunningModels)).resident()

    async def show(self, known: ModelDescription, *, is_exo: bool = False) -> ModelDescription:
        """What is known of a model, with the server's details of it. `is_exo`: it is a node of this project."""
        shown = await self._link.post("/api/show", {"model": known.id}, ShownModel, timeout=2.0)
        return shown.added_to(known, is_exo=is_exo)

    async def load(self, model: str, keep_alive: float | None = None) -> None:
        """Load a model; it stays for `keep_alive` seconds once nobody uses it."""
        await self._link.post("/api/chat", _empty_chat(model, keep_alive), _Line)

    async def unload(self, model: str) -> None:
        """Unload a model."""
        await self._link.post("/api/chat", _empty_chat(model, 0), _Line)

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        """Stream an answer; closing the generator closes the connection, which ends the run there."""
        _refuse(request)
        body: dict[str, Any] = {"messages": messages_json(request.messages), **_WHOLE}
        if request.tools and request.tool_choice.mode != "none":
            body["tools"] = tools_as_json(request.tools)
        if request.format is not None:
            body["format"] = "json" if request.format.schema is None else request.format.schema
        if request.think is not None:
            body["think"] = request.think
        async with contextlib.aclosing(self._run("/api/chat", body, request)) as deltas:
            async for delta in deltas:
                yield delta

    async def complete(self, request: CompletionRequest) -> AsyncGenerator[Delta, None]:
        """Stream the continuation of a raw prompt, which reaches the model byte for byte."""
        body: dict[str, Any] = {"prompt": request.prompt, "raw": True, **_WHOLE}
        async with contextlib.aclosing(self._run("/api/generate", body, request)) as deltas:
            async for delta in deltas:
                yield delta

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        """One vector for each text; one that is too long is refused."""
        body: dict[str, Any] = {"model": request.model, "input": list(request.inputs), "truncate": False}
        if request.keep_alive is not None:
            body["keep_alive"] = _keep_alive(request.keep_alive)
        if request.dimensions is not None:
            body["dimensions"] = request.dimensions
        answer = await self._link.post("/api/embed", body, _Vectors, request_id=request.id)
        usage = Usage(prompt_tokens=answer.prompt_eval_count)
        return embeddings(self._link.host, answer.embeddings, len(request.inputs), usage)

    async def close(self) -> None:
        await self._link.close()

    async def _run(
        self, path: str, body: dict[str, Any], request: ChatRequest | CompletionRequest
    ) -> AsyncGenerator[Delta, None]:
        if request.logprobs is not None:
            body |= logprobs_json(request.logprobs)
        body |= _run_json(request.model, request.sampling, request.limits, request.keep_alive)
        read = functools.partial(_deltas, logprobs=request.logprobs)
        async with contextlib.aclosing(self._link.deltas(path, body, request.id, read)) as deltas:
            async for delta in deltas:
                yield delta


def _refuse(request: ChatRequest) -> None:
    """Raises UnsupportedParameter for what this dialect has no words for."""
    if request.template is not None:
        raise UnsupportedParameter("Another server's models keep their own chat template.", param="template")
    if request.tools and request.tool_choice.mode == "required":
        raise UnsupportedParameter(
            "A server that speaks only Ollama's dialect cannot be told that the model has to call a function. Leave "
            "tool_choice out.",
            param="tool_choice",
        )
    if request.think_budget is not None:
        raise UnsupportedParameter(
            "A server that speaks only Ollama's dialect has no bound for reasoning. Leave it out.",
            param="thinking_budget_tokens",
        )


async def _deltas(
    stream: Stream, lines: AsyncGenerator[bytes, None], *, logprobs: int | None
) -> AsyncGenerator[Delta, None]:
    """The deltas up to the last one; `logprobs` as in ChatRequest."""
    begun = written = told = False
    calls = ToolCallReader()
    async for line in lines:
        piece = _decoded(stream, line)
        if not begun:
            begun = True
            yield Delta(sampling=stream.sampling)
        delta = _delta(piece, calls, logprobs)
        written, told = written or bool(delta.text), told or bool(delta.logprobs)
        if delta != Delta():
            stream.pieces += 1
            yield delta
        if piece.done:
            if logprobs is not None and written and not told:
                raise stream.without_logprobs()
            yield _last(piece, called=calls.count > 0)
            return
    raise stream.unfinished()


def _decoded(stream: Stream, line: bytes) -> _Line:
    try:
        piece = _line_decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise stream.unreadable(line) from None
    if piece.error is not None:
        raise stream.error(line)
    return piece


def _delta(line: _Line, calls: ToolCallReader, logprobs: int | None) -> Delta:
    """What a line adds. A call is whole there, with an object for its arguments."""
    text, reasoning = line.said
    chances = () if logprobs is None else tuple(token_logprob(one, logprobs) for one in line.logprobs or ())
    made = calls.add((line.message and line.message.tool_calls) or ())
    return Delta(text=text, reasoning=reasoning, tool_calls=made, logprobs=chances)


def _last(line: _Line, *, called: bool) -> Delta:
    finish: FinishReason = "tool_calls" if called else "stop"  # this dialect has no word for it
    return Delta(
        finish_reason="length" if line.done_reason == "length" else finish,
        usage=Usage(prompt_tokens=line.prompt_eval_count, completion_tokens=line.eval_count),
        timings=Timings(
            load=line.load_duration * _NANO,
            prefill=line.prompt_eval_duration * _NANO,
            decode=line.eval_duration * _NANO,
        ),
    )


def messages_json(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The messages in Ollama's shape. Raises InvalidRequest for arguments of a tool call that are no JSON object."""
    names = {call.id: call.name for message in messages for call in message.tool_calls}
    return [_message_json(message, f"messages[{number}]", names) for number, message in enumerate(messages)]


def _message_json(message: Message, path: str, names: dict[str, str]) -> dict[str, Any]:
    body: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.reasoning:
        body["thinking"] = message.reasoning
    if message.tool_calls:
        body["tool_calls"] = [
            {"id": call.id, "function": {"name": call.name, "arguments": _arguments(call.arguments, f"{path}.{i}")}}
            for i, call in enumerate(message.tool_calls)
        ]
    if message.tool_call_id is not None:
        body["tool_call_id"] = message.tool_call_id
        body["tool_name"] = names.get(message.tool_call_id, "")
    return body


def _arguments(text: str, path: str) -> dict[str, Any]:
    try:
        arguments = msgspec.json.decode(text or "{}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        where, _, number = path.rpartition(".")
        field = f"{where}.tool_calls[{number}].function.arguments"
        raise InvalidRequest(f"{field} has to be a JSON object for a server that speaks Ollama's dialect.", param=field)
    return arguments


def _run_json(model: str, sampling: Sampling, limits: Limits, keep_alive: float | None) -> dict[str, Any]:
    body: dict[str, Any] = {"model": model, "stream": True}
    if keep_alive is not None:
        body["keep_alive"] = _keep_alive(keep_alive)
    if options := sampling_json(sampling) | limits_json(limits, "num_predict"):
        body["options"] = options
    return body


def _empty_chat(model: str, keep_alive: float | None) -> dict[str, Any]:
    body: dict[str, Any] = {"model": model, "messages": [], "stream": False}
    if keep_alive is not None:
        body["keep_alive"] = _keep_alive(keep_alive)
    return body


def _keep_alive(seconds: float) -> float:
    return seconds if math.isfinite(seconds) else -1
