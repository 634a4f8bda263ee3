"""OpenAI's request for a chat to ours."""

from __future__ import annotations

from exo.api.fields import refuse_unsupported
from exo.api.openai.fields import CHAT
from exo.api.openai.schema import ChatCompletionRequest, ChatMessage, RefusalPart, TextPart
from exo.api.openai.shared import WITHOUT_REASONING, limits_of, sampling_of
from exo.api.openai.tools import tools_of
from exo.types import (
    AnswerFormat,
    ChatRequest,
    InvalidRequest,
    Message,
    Role,
    ToolCall,
    UnsupportedParameter,
)

_SWITCH = "enable_thinking"


def chat_request(wire: ChatCompletionRequest, *, model: str, request_id: str) -> ChatRequest:
    """The internal request. Raises InvalidRequest, and UnsupportedParameter for what cannot be honoured."""
    refuse_unsupported(wire, CHAT)
    tools, choice = tools_of(wire)
    think = think_of(wire)
    budget = wire.thinking_budget_tokens
    return ChatRequest(
        id=request_id,
        model=model,
        messages=tuple(_message(message, f"messages[{i}]") for i, message in enumerate(wire.messages)),
        sampling=sampling_of(wire),
        limits=limits_of(
            wire, wire.max_completion_tokens if wire.max_completion_tokens is not None else wire.max_tokens
        ),
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=wire.parallel_tool_calls is not False,
        think=think,
        think_budget=None if think is False or budget == -1 else budget,
        effort=wire.reasoning_effort,
        format=format_of(wire),
        logprobs=_logprobs(wire),
    )


def names_of(wire: ChatCompletionRequest) -> dict[str, str]:
    """Which field of the request says what a field of ours does, where their names differ."""
    by_effort = wire.reasoning_effort is not None
    return {
        "think": "reasoning_effort" if by_effort else f"chat_template_kwargs.{_SWITCH}",
        "format": "response_format",
    }


def think_of(wire: ChatCompletionRequest) -> bool | None:
    """Whether the model is to reason; None: as it likes."""
    by_effort = None if wire.reasoning_effort is None else wire.reasoning_effort not in WITHOUT_REASONING
    by_template = _switch(wire.chat_template_kwargs or {})
    if None not in (by_effort, by_template) and by_effort != by_template:
        raise InvalidRequest(
            f"reasoning_effort and chat_template_kwargs.{_SWITCH} contradict each other; leave one of them out.",
            param="reasoning_effort",
        )
    return by_template if by_effort is None else by_effort


def _switch(kwargs: dict[str, object]) -> bool | None:
    for name in kwargs:
        if name != _SWITCH:
            raise UnsupportedParameter(
                f"chat_template_kwargs takes {_SWITCH} and nothing else here; leave {name} out.",
                param=f"chat_template_kwargs.{name}",
            )
    value = kwargs.get(_SWITCH)
    if value is None or isinstance(value, bool):
        return value
    path = f"chat_template_kwargs.{_SWITCH}"
    raise InvalidRequest(f"{path}: true or false is expected.", param=path)


def format_of(wire: ChatCompletionRequest) -> AnswerFormat | None:
    """What the answer has to be. json_schema without a schema is any JSON object."""
    form = wire.response_format
    if form is None or form.type == "text":
        return None
    if form.type == "json_object":
        return AnswerFormat(schema=form.schema)
    if form.json_schema is None:
        path = "response_format.json_schema"
        raise InvalidRequest(f"{path} is missing.", param=path)
    return AnswerFormat(schema=form.json_schema.schema)


def _logprobs(wire: ChatCompletionRequest) -> int | None:
    if wire.logprobs:
        return wire.top_logprobs or 0
    if wire.top_logprobs:
        raise InvalidRequest("top_logprobs needs logprobs to be true.", param="top_logprobs")
    return None


def _message(wire: ChatMessage, path: str) -> Message:
    if wire.function_call:
        raise UnsupportedParameter("Earlier calls can be read as tool_calls only.", param=f"{path}.function_call")
    if wire.audio:
        raise UnsupportedParameter("Of an earlier answer only the text can be read.", param=f"{path}.audio")
    if wire.content is None and wire.refusal is None and not wire.tool_calls:
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
        return wire.content or wire.refusal or ""
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
