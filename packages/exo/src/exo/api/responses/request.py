"""A request of the Responses API to ours, and the response that answers it as far as the request tells it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence

from exo.api.fields import refuse_unsupported
from exo.api.openai.shared import WITHOUT_REASONING
from exo.api.responses.fields import RESPONSES
from exo.api.responses.schema import (
    InputItem,
    ResponseObject,
    ResponseReasoning,
    ResponsesRequest,
    ResponseTextConfig,
    ResponseTextFormat,
)
from exo.api.responses.tools import tools_of
from exo.types import (
    AnswerFormat,
    ChatRequest,
    InvalidRequest,
    Limits,
    Message,
    Sampling,
)

FIELD_NAMES = {
    "messages": "input",
    "max_tokens": "max_output_tokens",
    "format": "text.format",
    "think": "reasoning.effort",
    "logprobs": "top_logprobs",
}
"""What this API calls the fields that refusals of the service and of engines name."""
_LOGPROBS = "message.output_text.logprobs"


def input_items(wire: ResponsesRequest) -> Sequence[InputItem]:
    """The items of the input; a text is a message of the user. Raises InvalidRequest if there is nothing to answer."""
    if isinstance(wire.input, str):
        return (InputItem(role="user", content=wire.input),)
    if not wire.input and wire.previous_response_id is None:
        raise InvalidRequest("input is missing: it has to be a text or at least one item.", param="input")
    return tuple(wire.input or ())


def chat_request(
    wire: ResponsesRequest, conversation: Sequence[Message], *, model: str, request_id: str
) -> ChatRequest:
    """The internal request: `conversation` behind the instructions. Raises InvalidRequest, UnsupportedParameter."""
    refuse_unsupported(wire, RESPONSES)
    tools, choice = tools_of(wire)
    instructions = (Message(role="system", content=wire.instructions),) if wire.instructions else ()
    return ChatRequest(
        id=request_id,
        model=model,
        messages=(*instructions, *conversation),
        sampling=Sampling(temperature=wire.temperature, top_p=wire.top_p),
        limits=Limits(max_tokens=wire.max_output_tokens),
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=wire.parallel_tool_calls is not False,
        think=_think(wire.reasoning),
        effort=wire.reasoning.effort if wire.reasoning else None,
        format=_format(wire.text),
        logprobs=_logprobs(wire),
    )


def response_of(wire: ResponsesRequest, *, model: str) -> ResponseObject:
    """The response before its first token. Absent fields have the values that were used in their place.

    Raises InvalidRequest if it is nested so deeply that it could be read, but may not be written.
    """
    text = wire.text or ResponseTextConfig()
    choice = wire.tool_choice
    return ResponseObject(
        id=f"resp_{uuid.uuid4().hex}",
        created_at=int(time.time()),
        model=model,
        instructions=wire.instructions,
        previous_response_id=wire.previous_response_id,
        store=wire.store is not False,
        max_output_tokens=wire.max_output_tokens,
        max_tool_calls=wire.max_tool_calls,
        temperature=wire.temperature,
        top_p=wire.top_p,
        top_logprobs=wire.top_logprobs or 0,
        tools=wire.tools or (),
        tool_choice="auto" if choice is None else choice,
        parallel_tool_calls=wire.parallel_tool_calls is not False,
        text=ResponseTextConfig(format=text.format or ResponseTextFormat("text"), verbosity=text.verbosity),
        reasoning=ResponseReasoning(effort=wire.reasoning.effort if wire.reasoning else None),
        metadata=wire.metadata or {},
        user=wire.user,
        safety_identifier=wire.safety_identifier,
        prompt_cache_key=wire.prompt_cache_key,
    )


def _think(wire: ResponseReasoning | None) -> bool | None:
    if wire is None or wire.effort is None:
        return None
    return wire.effort not in WITHOUT_REASONING


def _format(wire: ResponseTextConfig | None) -> AnswerFormat | None:
    if wire is None or wire.format is None or wire.format.type == "text":
        return None
    if wire.format.type == "json_object":
        return AnswerFormat()
    for name in ("name", "schema"):
        if getattr(wire.format, name) is None:
            raise InvalidRequest(f"text.format.{name} is missing.", param=f"text.format.{name}")
    return AnswerFormat(schema=wire.format.schema)


def _logprobs(wire: ResponsesRequest) -> int | None:
    """How many other tokens are told beside each of the answer; None if no probabilities are."""
    asked = bool(wire.top_logprobs) or _LOGPROBS in (wire.include or ())
    return (wire.top_logprobs or 0) if asked else None
