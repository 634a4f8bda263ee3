"""Our request types to and from the JSON of llama.cpp's server."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Mapping
from typing import Any, NoReturn

import httpx2
import msgspec

from exo.types import (
    AnswerFormat,
    ChatRequest,
    CompletionRequest,
    ContextOverflow,
    Delta,
    ExoError,
    FinishReason,
    InvalidRequest,
    Limits,
    Message,
    RunFailed,
    Sampling,
    Timings,
    Usage,
)

_DATA = b"data: "
_END = b"data: [DONE]"
_SERVER_ERROR = 500
_SEEDS = 2**32 - 1
"""llama.cpp takes 32 bits, of which the last value means a random seed."""
_TIMEOUT = httpx2.Timeout(None, connect=5.0)


class _Piece(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None


class _Choice(msgspec.Struct):
    finish_reason: str | None = None
    delta: _Piece = msgspec.field(default_factory=_Piece)
    text: str | None = None


class _PromptDetails(msgspec.Struct):
    cached_tokens: int = 0


class _Usage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int
    prompt_tokens_details: _PromptDetails = msgspec.field(default_factory=_PromptDetails)


class _Timings(msgspec.Struct):
    prompt_ms: float = 0.0
    predicted_ms: float = 0.0


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    timings: _Timings | None = None


class _Error(msgspec.Struct):
    message: str = "no message"
    code: int | None = None
    n_prompt_tokens: int | None = None
    n_ctx: int | None = None


class _ErrorBody(msgspec.Struct):
    error: _Error


_FINISH_REASONS: Mapping[str, FinishReason] = {"stop": "stop", "length": "length", "tool_calls": "tool_calls"}
_chunk_decoder = msgspec.json.Decoder(_Chunk)
_error_decoder = msgspec.json.Decoder(_ErrorBody)


class LlamaClient:
    """Talks to one llama.cpp server over its socket. Connection errors (`httpx2.TransportError`) reach the caller."""

    def __init__(self, socket: str) -> None:
        # llama.cpp closes a connection after a streamed answer without saying so: every request gets its own.
        transport = httpx2.AsyncHTTPTransport(uds=socket, limits=httpx2.Limits(max_keepalive_connections=0))
        self._http = httpx2.AsyncClient(
            transport=transport, base_url="http://worker", timeout=_TIMEOUT, trust_env=False
        )

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        """Stream an answer; closing the generator closes the connection, which makes llama.cpp stop decoding."""
        body = {"messages": messages_json(request), **_run_json(request.sampling, request.limits)}
        if request.format is not None:
            body["response_format"] = format_json(request.format)
        async with contextlib.aclosing(self._stream("/v1/chat/completions", body)) as deltas:
            async for delta in deltas:
                yield delta

    async def complete(self, request: CompletionRequest) -> AsyncGenerator[Delta, None]:
        """Stream the continuation of a raw prompt."""
        body = {"prompt": request.prompt, **_run_json(request.sampling, request.limits)}
        async with contextlib.aclosing(self._stream("/v1/completions", body)) as deltas:
            async for delta in deltas:
                yield delta

    async def tokenize(self, text: str, *, special: bool) -> list[int]:
        """Token ids; with `special`, strings of special tokens become those tokens."""
        answer = await self._post("/tokenize", {"content": text, "parse_special": special})
        return list(answer["tokens"])

    async def render(self, request: ChatRequest) -> str:
        """The prompt that the model's own chat template makes of the messages."""
        answer = await self._post("/apply-template", {"messages": messages_json(request)})
        return str(answer["prompt"])

    async def close(self) -> None:
        await self._http.aclose()

    async def _post(self, path: str, body: dict[str, Any]) -> Any:
        response = await self._http.post(path, content=msgspec.json.encode(body))
        if response.status_code != httpx2.codes.OK:
            _refuse(response.status_code, response.content)
        return msgspec.json.decode(response.content)

    async def _stream(self, path: str, body: dict[str, Any]) -> AsyncGenerator[Delta, None]:
        content = msgspec.json.encode({**body, "stream": True, "stream_options": {"include_usage": True}})
        async with self._http.stream("POST", path, content=content) as response:
            if response.status_code != httpx2.codes.OK:
                _refuse(response.status_code, await response.aread())
            finish: FinishReason | None = None
            async with contextlib.aclosing(_events(response)) as lines:
                async for line in lines:
                    if line.startswith((b"error: ", _DATA + b'{"error"')):
                        _refuse(_SERVER_ERROR, line.partition(b" ")[2])
                    chunk = _decode_chunk(line)
                    for choice in chunk.choices:
                        finish = _FINISH_REASONS.get(choice.finish_reason or "", finish)
                        text = choice.delta.content or choice.text or ""
                        if text or choice.delta.reasoning_content:
                            yield Delta(text=text, reasoning=choice.delta.reasoning_content or "")
                    if chunk.usage is not None:
                        yield _last_delta(finish, chunk.usage, chunk.timings)
                        return
        raise RunFailed("llama.cpp ended the answer without a result. Send the request again.")


def _decode_chunk(line: bytes) -> _Chunk:
    try:
        return _chunk_decoder.decode(line.removeprefix(_DATA))
    except msgspec.DecodeError as error:
        raise RunFailed(f"llama.cpp sent an event that cannot be read: {error}.") from error


async def _events(response: httpx2.Response) -> AsyncGenerator[bytes, None]:
    """The lines of a stream that carry something, up to its end mark."""
    rest = b""
    async with contextlib.aclosing(response.aiter_raw()) as pieces:
        async for piece in pieces:
            *lines, rest = (rest + piece).split(b"\n")
            for line in (line.rstrip() for line in lines):
                if line == _END:
                    return
                if line and not line.startswith(b":"):  # llama.cpp sends comments while nothing else is to be sent
                    yield line


def format_json(form: AnswerFormat) -> dict[str, Any]:
    """The format in OpenAI's shape."""
    if form.schema is None:
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": form.schema, "strict": True}}


def messages_json(request: ChatRequest) -> list[dict[str, Any]]:
    """The messages in OpenAI's shape."""
    return [_message_json(message) for message in request.messages]


def _message_json(message: Message) -> dict[str, Any]:
    body: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.reasoning:
        body["reasoning_content"] = message.reasoning
    if message.tool_call_id is not None:
        body["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        body["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    return body


def _run_json(sampling: Sampling, limits: Limits) -> dict[str, Any]:
    body: dict[str, Any] = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "repeat_penalty": sampling.repeat_penalty,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "seed": None if sampling.seed is None else sampling.seed % _SEEDS,
        "max_tokens": limits.max_tokens,
    }
    body = {name: value for name, value in body.items() if value is not None}
    if limits.stop:
        body["stop"] = list(limits.stop)
    return body


def _last_delta(finish: FinishReason | None, usage: _Usage, timings: _Timings | None) -> Delta:
    timings = timings or _Timings()
    return Delta(
        finish_reason=finish or "stop",
        usage=Usage(
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            cached_tokens=usage.prompt_tokens_details.cached_tokens,
        ),
        timings=Timings(prefill=timings.prompt_ms / 1000, decode=timings.predicted_ms / 1000),
    )


def _refuse(status: int, content: bytes) -> NoReturn:
    raise error_of(status, content)


def error_of(status: int, content: bytes) -> ExoError:
    """The exception for an error answer of llama.cpp."""
    try:
        error = _error_decoder.decode(content).error
    except msgspec.DecodeError:
        return RunFailed(f"llama.cpp answered with status {status} and no readable error.")
    if error.n_prompt_tokens is not None and error.n_ctx is not None:
        return ContextOverflow(
            prompt_tokens=error.n_prompt_tokens, context_tokens=error.n_ctx, hint="EXO_LLAMACPP_CONTEXT"
        )
    if (error.code or status) < _SERVER_ERROR:
        return InvalidRequest(f"llama.cpp refused the request: {error.message}")
    return RunFailed(f"llama.cpp could not run the request: {error.message}")
