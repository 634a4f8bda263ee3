"""OpenAI's request to ours."""

from __future__ import annotations

from exo.api.openai.schema import ChatCompletionRequest, ChatMessage, RefusalPart, TextPart
from exo.types import (
    ChatRequest,
    InvalidRequest,
    Limits,
    Message,
    Role,
    Sampling,
    ToolCall,
    UnsupportedParameter,
)


def chat_request(wire: ChatCompletionRequest, *, model: str, request_id: str) -> ChatRequest:
    """The internal request. Raises UnsupportedParameter for what cannot be honoured."""
    _refuse_unsupported(wire)
    return ChatRequest(
        id=request_id,
        model=model,
        messages=tuple(_message(message, f"messages[{i}]") for i, message in enumerate(wire.messages)),
        sampling=Sampling(
            temperature=wire.temperature,
            top_p=wire.top_p,
            top_k=wire.top_k,
            min_p=wire.min_p,
            repeat_penalty=wire.repeat_penalty,
            presence_penalty=wire.presence_penalty,
            frequency_penalty=wire.frequency_penalty,
            seed=wire.seed,
        ),
        limits=Limits(max_tokens=_max_tokens(wire), stop=_stops(wire.stop)),
    )


def _message(wire: ChatMessage, path: str) -> Message:
    if wire.content is None and not wire.tool_calls:
        raise InvalidRequest(f"{path}.content is missing.", param=f"{path}.content")
    if wire.role == "tool" and not wire.tool_call_id:
        raise InvalidRequest(f"{path}.tool_call_id is missing.", param=f"{path}.tool_call_id")
    role: Role = "system" if wire.role == "developer" else wire.role
    calls = wire.tool_calls or []
    return Message(
        role=role,
        content=_text(wire, path),
        reasoning=wire.reasoning_content or "",
        tool_calls=tuple(ToolCall(id=c.id, name=c.function.name, arguments=c.function.arguments) for c in calls),
        tool_call_id=wire.tool_call_id,
    )


def _text(wire: ChatMessage, path: str) -> str:
    if wire.content is None or isinstance(wire.content, str):
        return wire.content or ""
    texts = []
    for number, part in enumerate(wire.content):
        if isinstance(part, TextPart):
            texts.append(part.text)
        elif isinstance(part, RefusalPart):
            texts.append(part.refusal)
        else:
            raise UnsupportedParameter(
                "Only text parts can be read here; this model takes no images, audio or files.",
                param=f"{path}.content[{number}]",
            )
    return "\n".join(texts)


def _max_tokens(wire: ChatCompletionRequest) -> int | None:
    return wire.max_completion_tokens if wire.max_completion_tokens is not None else wire.max_tokens


def _stops(stop: str | list[str] | None) -> tuple[str, ...]:
    if stop is None:
        return ()
    return tuple(text for text in ([stop] if isinstance(stop, str) else stop) if text)


def _refuse_unsupported(wire: ChatCompletionRequest) -> None:
    """What would change the answer and cannot be done is refused; its default value is always fine."""
    unsupported = {
        "n": wire.n not in (None, 1),
        "logprobs": bool(wire.logprobs) or bool(wire.top_logprobs),
        "logit_bias": bool(wire.logit_bias),
        "response_format": wire.response_format is not None and wire.response_format.type != "text",
        "tools": bool(wire.tools),
        "tool_choice": wire.tool_choice not in (None, "none", "auto"),
        "functions": bool(wire.functions),
        "function_call": wire.function_call not in (None, "none", "auto"),
        "modalities": wire.modalities not in (None, [], ["text"]),
        "audio": bool(wire.audio),
        "prediction": bool(wire.prediction),
        "web_search_options": wire.web_search_options is not None,
    }
    for name, asked in unsupported.items():
        if asked:
            raise UnsupportedParameter(f"{name} cannot be honoured here with this value; leave it out.", param=name)
