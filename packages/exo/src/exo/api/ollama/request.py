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
    OllamaTool,
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
    Tool,
    ToolCall,
    UnsupportedParameter,
)

_NO_IMAGES = "Images cannot be read here; send text only."


def chat_request(wire: OllamaChatRequest, *, model: str, request_id: str) -> ChatRequest:
    """The internal request. Raises InvalidRequest, UnsupportedParameter."""
    tools = tools_of(wire.tools or ())
    return _chat(wire, messages_of(wire.messages or ()), model=model, request_id=request_id, tools=tools)


def generate_request(wire: OllamaGenerateRequest, *, model: str, request_id: str) -> ChatRequest | CompletionRequest:
    """The internal request: a raw prompt as it is, any other as a conversation of one turn. Raises as above."""
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
    dimensions = None
    if isinstance(wire, OllamaEmbeddingsRequest):
        inputs: Sequence[str] = (wire.prompt,) if wire.prompt else ()
    else:
        texts = wire.input or ()
        inputs = (texts,) if isinstance(texts, str) else texts
        dimensions = wire.dimensions or None
    return EmbeddingRequest(
        model=model,
        inputs=tuple(inputs),
        dimensions=dimensions,
        keep_alive=keep_alive_of(wire.keep_alive),
        id=request_id,
    )


def tools_of(wire: Sequence[OllamaTool]) -> tuple[Tool, ...]:
    """The functions that the model may call."""
    return tuple(
        Tool(name=function.name, description=function.description or "", parameters=function.parameters)
        for function in (tool.function for tool in wire)
    )


def messages_of(wire: Sequence[OllamaMessage]) -> list[Message]:
    """The messages of a conversation. Calls of tools get ids, and their results those of the calls that they answer."""
    calls = _Calls()
    messages = []
    for number, message in enumerate(wire):
        if message.images:
            raise UnsupportedParameter(_NO_IMAGES, param=f"messages[{number}].images")
        messages.append(
            Message(
                role=message.role,
                content=message.content or "",
                reasoning=message.thinking or "",
                tool_calls=calls.of(message, number),
                tool_call_id=calls.answered_by(message),
            )
        )
    return messages


class _Calls:
    """The calls of a conversation, to find the one that a result answers; many clients name only the function."""

    def __init__(self) -> None:
        self._open: list[ToolCall] = []
        self._newest: dict[str, str] = {}

    def of(self, message: OllamaMessage, number: int) -> tuple[ToolCall, ...]:
        """The calls of a message."""
        calls = tuple(
            ToolCall(
                id=call.id or f"call_{number}_{place}",
                name=call.function.name,
                arguments=msgspec.json.encode(call.function.arguments or {}).decode(),
            )
            for place, call in enumerate(message.tool_calls or ())
        )
        if calls:
            self._open = list(calls)
            self._newest |= {call.name: call.id for call in calls}
        return calls

    def answered_by(self, message: OllamaMessage) -> str | None:
        """The id of the call that a message is the result of: the one it names, else the oldest without a result."""
        name, given = message.tool_name, message.tool_call_id
        if message.role != "tool":
            return given
        for call in self._open:
            if call.id == given if given else name in ("", None, call.name):
                self._open.remove(call)
                return call.id
        return given or (name and self._newest.get(name, name)) or None


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
    tools: tuple[Tool, ...] = (),
) -> ChatRequest:
    options = wire.options or Options()
    refuse_unsupported(options)
    return ChatRequest(
        id=request_id,
        model=model,
        messages=tuple(messages),
        sampling=sampling_of(options),
        limits=limits_of(options),
        tools=tools,
        think=None if wire.think is None else bool(wire.think),
        effort=wire.think if isinstance(wire.think, str) else None,
        template=template,
        format=format_of(wire.format),
        logprobs=_logprobs(wire),
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
        logprobs=_logprobs(wire),
        keep_alive=keep_alive_of(wire.keep_alive),
    )


def _logprobs(wire: OllamaChatRequest | OllamaGenerateRequest) -> int | None:
    """Like Ollama, `top_logprobs` alone asks for nothing."""
    return wire.top_logprobs or 0 if wire.logprobs else None


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
