"""Ollama's requests to ours."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from exo.api.ollama.options import limits_of, refuse_unsupported, sampling_of
from exo.api.ollama.schema import (
    OllamaChatRequest,
    OllamaEmbeddingsRequest,
    OllamaEmbedRequest,
    OllamaGenerateRequest,
    OllamaMessage,
    Options,
)
from exo.models import parse_keep_alive
from exo.types import (
    AnswerFormat,
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    InvalidRequest,
    Message,
    ToolCall,
    UnsupportedParameter,
)

_NO_IMAGES = "Images cannot be read here; send text only."


def chat_request(wire: OllamaChatRequest, *, model: str, request_id: str) -> ChatRequest:
    """The internal request. Raises InvalidRequest, UnsupportedParameter."""
    _refuse_logprobs(logprobs=wire.logprobs, top_logprobs=wire.top_logprobs)
    if wire.tools:
        raise UnsupportedParameter(f"{wire.model} does not support tools here; leave them out.", param="tools")
    return _chat(wire, messages_of(wire.messages or ()), model=model, request_id=request_id)


def generate_request(wire: OllamaGenerateRequest, *, model: str, request_id: str) -> ChatRequest | CompletionRequest:
    """The internal request: a raw prompt as it is, any other as a conversation of one turn. Raises as above."""
    _refuse_logprobs(logprobs=wire.logprobs, top_logprobs=wire.top_logprobs)
    _refuse_of_generate(wire)
    if wire.raw:
        return _completion(wire, model=model, request_id=request_id)
    messages = [Message(role="system", content=wire.system)] if wire.system else []
    messages.append(Message(role="user", content=wire.prompt or ""))
    return _chat(wire, messages, model=model, request_id=request_id, template=wire.template or None)


def embedding_request(
    wire: OllamaEmbedRequest | OllamaEmbeddingsRequest, *, model: str, request_id: str
) -> EmbeddingRequest:
    """The internal request; without inputs for a text that is empty. Raises InvalidRequest, UnsupportedParameter."""
    refuse_unsupported(wire.options or Options())
    if isinstance(wire, OllamaEmbeddingsRequest):
        inputs: Sequence[str] = (wire.prompt,) if wire.prompt else ()
    else:
        if wire.dimensions:
            raise UnsupportedParameter("dimensions cannot be honoured here; leave it out.", param="dimensions")
        texts = wire.input or ()
        inputs = (texts,) if isinstance(texts, str) else texts
    return EmbeddingRequest(model=model, inputs=tuple(inputs), keep_alive=keep_alive_of(wire.keep_alive), id=request_id)


def messages_of(wire: Sequence[OllamaMessage]) -> list[Message]:
    """The messages of a conversation. Calls of tools get ids, and their results those of the calls that they answer."""
    ids: dict[str, str] = {}
    messages = []
    for number, message in enumerate(wire):
        if message.images:
            raise UnsupportedParameter(_NO_IMAGES, param=f"messages[{number}].images")
        calls = []
        for place, call in enumerate(message.tool_calls or ()):
            ids[call.function.name] = call.id or f"call_{number}_{place}"
            arguments = msgspec.json.encode(call.function.arguments).decode()
            calls.append(ToolCall(id=ids[call.function.name], name=call.function.name, arguments=arguments))
        name = message.tool_name
        messages.append(
            Message(
                role=message.role,
                content=message.content or "",
                reasoning=message.thinking or "",
                tool_calls=tuple(calls),
                tool_call_id=message.tool_call_id or (name and ids.get(name, name)) or None,
            )
        )
    return messages


def keep_alive_of(value: float | str | None) -> float | None:
    """Seconds, infinite for anything negative. Raises InvalidRequest for a text that is no time."""
    if value is None:
        return None
    if isinstance(value, str):
        try:
            return parse_keep_alive(value)
        except ValueError as error:
            raise InvalidRequest(f"keep_alive: {error}, not {value!r}.", param="keep_alive") from None
    return math.inf if value < 0 else value


def format_of(value: str | Mapping[str, Any] | None) -> AnswerFormat | None:
    """Nothing for an empty text, any JSON object for `json`, else the schema."""
    if value is None or value == "":
        return None
    return AnswerFormat() if isinstance(value, str) else AnswerFormat(schema=value)


def _chat(
    wire: OllamaChatRequest | OllamaGenerateRequest,
    messages: Sequence[Message],
    *,
    model: str,
    request_id: str,
    template: str | None = None,
) -> ChatRequest:
    options = wire.options or Options()
    refuse_unsupported(options)
    return ChatRequest(
        id=request_id,
        model=model,
        messages=tuple(messages),
        sampling=sampling_of(options),
        limits=limits_of(options),
        think=None if wire.think is None else bool(wire.think),
        template=template,
        format=format_of(wire.format),
        keep_alive=keep_alive_of(wire.keep_alive),
    )


def _completion(wire: OllamaGenerateRequest, *, model: str, request_id: str) -> CompletionRequest:
    options = wire.options or Options()
    refuse_unsupported(options)
    for name in ("template", "system"):
        if getattr(wire, name):
            raise InvalidRequest(f"raw and {name} contradict each other: a raw prompt goes in as it is.", param=name)
    for name in ("format", "think"):
        if getattr(wire, name):
            raise UnsupportedParameter(f"{name} cannot be honoured with raw; leave one of them out.", param=name)
    return CompletionRequest(
        id=request_id,
        model=model,
        prompt=wire.prompt or "",
        sampling=sampling_of(options),
        limits=limits_of(options),
        keep_alive=keep_alive_of(wire.keep_alive),
    )


def _refuse_logprobs(*, logprobs: bool | None, top_logprobs: int | None) -> None:
    for name, asked in (("logprobs", logprobs), ("top_logprobs", top_logprobs)):
        if asked:
            raise UnsupportedParameter(f"{name} cannot be honoured here with this value; leave it out.", param=name)


def _refuse_of_generate(wire: OllamaGenerateRequest) -> None:
    if wire.images:
        raise UnsupportedParameter(_NO_IMAGES, param="images")
    if wire.suffix:
        raise UnsupportedParameter("Text cannot be filled in before a suffix here; leave it out.", param="suffix")
    if wire.context:
        raise UnsupportedParameter(
            "A context of token numbers cannot be continued here. Send the whole conversation to /api/chat.",
            param="context",
        )
