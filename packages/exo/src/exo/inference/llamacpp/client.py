"""A client of llama.cpp's server."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Sequence
from typing import Any, NoReturn

import httpx2
import msgspec

from exo.inference.openai_request import chat_json, completion_json
from exo.inference.openai_wire import AnswerReader, Chunk
from exo.types import (
    ChatRequest,
    CompletionRequest,
    ContextOverflow,
    Delta,
    ExoError,
    InvalidRequest,
    RunFailed,
)

_DATA = b"data: "
_END = b"data: [DONE]"
_SERVER_ERROR = 500
_ABOUT_A_SCHEMA = "JSON schema error at "
_TIMEOUT = httpx2.Timeout(None, connect=5.0)


class TemplateAbilities(msgspec.Struct, frozen=True):
    """What llama.cpp has found out about a chat template, as far as it is used here."""

    supports_tools: bool = False


class Properties(msgspec.Struct, frozen=True):
    """What llama.cpp tells of the model."""

    chat_template: str = ""
    chat_template_caps: TemplateAbilities = TemplateAbilities()


class _Embedding(msgspec.Struct):
    """One vector for the whole text, or one for each token of it."""

    index: int
    embedding: list[list[float]]


class _Error(msgspec.Struct):
    message: str = "no message"
    code: int | None = None
    n_prompt_tokens: int | None = None
    n_ctx: int | None = None


class _ErrorBody(msgspec.Struct):
    error: _Error


_chunk_decoder = msgspec.json.Decoder(Chunk)
_error_decoder = msgspec.json.Decoder(_ErrorBody)


class LlamaClient:
    """Talks to one llama.cpp server over its socket. Connection errors (`httpx2.TransportError`) reach the caller."""

    def __init__(self, socket: str) -> None:
        # llama.cpp closes a connection after a streamed answer without saying so: every request gets its own.
        transport = httpx2.AsyncHTTPTransport(uds=socket, limits=httpx2.Limits(max_keepalive_connections=0))
        self._http = httpx2.AsyncClient(
            transport=transport, base_url="http://worker", timeout=_TIMEOUT, trust_env=False
        )

    async def chat(self, request: ChatRequest, *, reasons: bool = True) -> AsyncGenerator[Delta, None]:
        """Stream an answer; closing the generator closes the connection, which makes llama.cpp stop decoding.

        `reasons`: the model may reason, and the tokens of that are counted, which costs some time for each token.
        """
        body = chat_json(request, of_llama_cpp=True, reasons=reasons)
        async with contextlib.aclosing(self._stream("/v1/chat/completions", body, request.logprobs)) as deltas:
            async for delta in deltas:
                yield delta

    async def complete(self, request: CompletionRequest) -> AsyncGenerator[Delta, None]:
        """Stream the continuation of a raw prompt."""
        body = completion_json(request)
        async with contextlib.aclosing(self._stream("/v1/completions", body, request.logprobs)) as deltas:
            async for delta in deltas:
                yield delta

    async def embed(self, texts: Sequence[str]) -> list[list[list[float]]]:
        """For each text its vectors: one, if the model makes one of a text, else one for each token."""
        answer = await self._send("POST", "/embeddings", {"content": list(texts)})
        found = msgspec.json.decode(answer, type=list[_Embedding])
        return [one.embedding for one in sorted(found, key=lambda one: one.index)]

    async def properties(self) -> Properties:
        return msgspec.json.decode(await self._send("GET", "/props"), type=Properties)

    async def tokenize(self, text: str, *, special: bool, add_special: bool = False) -> list[int]:
        """Token ids; with `special`, strings of special tokens become those tokens, with `add_special` those that the
        model puts around a text are there."""
        body = {"content": text, "parse_special": special, "add_special": add_special}
        return list(msgspec.json.decode(await self._send("POST", "/tokenize", body))["tokens"])

    async def render(self, request: ChatRequest) -> str:
        """The prompt that the model's own chat template makes of the messages."""
        body = chat_json(request, of_llama_cpp=True)
        return str(msgspec.json.decode(await self._send("POST", "/apply-template", body))["prompt"])

    async def close(self) -> None:
        await self._http.aclose()

    async def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> bytes:
        response = await self._http.request(method, path, content=None if body is None else msgspec.json.encode(body))
        if response.status_code != httpx2.codes.OK:
            _refuse(response.status_code, response.content)
        return response.content

    async def _stream(self, path: str, body: dict[str, Any], logprobs: int | None) -> AsyncGenerator[Delta, None]:
        body = {**body, "stream": True, "stream_options": {"include_usage": True}}
        if "stop" in body:
            body["verbose"] = True  # for the one that has ended the answer
        content = msgspec.json.encode(body)
        async with self._http.stream("POST", path, content=content) as response:
            if response.status_code != httpx2.codes.OK:
                _refuse(response.status_code, await response.aread())
            answer = AnswerReader(logprobs)
            async with contextlib.aclosing(_events(response)) as lines:
                async for line in lines:
                    if line.startswith((b"error: ", _DATA + b'{"error"')):
                        _refuse(_SERVER_ERROR, line.partition(b" ")[2])
                    for delta in answer.read(_decode_chunk(line)):
                        yield delta
                    if answer.usage is not None:
                        yield answer.last()
                        return
        raise RunFailed("llama.cpp ended the answer without a result. Send the request again.")


def _decode_chunk(line: bytes) -> Chunk:
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
        _, is_about_schema, what = error.message.partition(_ABOUT_A_SCHEMA)
        if is_about_schema:
            return InvalidRequest(f"The JSON schema of the request cannot be used: at {what}.")
        return InvalidRequest(f"llama.cpp refused the request: {error.message}")
    return RunFailed(f"llama.cpp could not run the request: {error.message}")
