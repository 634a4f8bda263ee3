"""Requests in OpenAI's dialect, for everything that asks a server in it: the fields that are set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from exo.chat import tools_as_json
from exo.types import AnswerFormat, ChatRequest, CompletionRequest, Limits, Message, Sampling, ToolChoice

SEEDS = 2**32 - 1
"""llama.cpp, also behind other servers, takes 32 bits, of which the last value means a random seed."""
_LEAST_OF_LLAMA_CPP = 1
"""With a bound of 0 it does not end reasoning that the prompt has begun: the line end there counts for its end."""


def chat_json(request: ChatRequest, *, of_llama_cpp: bool = False, reasons: bool = True) -> dict[str, Any]:
    """A request for a chat, without the model's name. `of_llama_cpp` as in `calling_json`.

    If the model `reasons`, llama.cpp is to say with each piece how many tokens there have been, as it does not count
    those of reasoning.
    Thinking and its bound have the names of llama.cpp, of which others know the first.
    """
    body: dict[str, Any] = {"messages": messages_json(request.messages)}
    body |= calling_json(request, of_llama_cpp=of_llama_cpp)
    if of_llama_cpp and reasons:
        body["timings_per_token"] = True
    if request.format is not None:
        body["response_format"] = format_json(request.format)
    if request.think is not None:
        body["chat_template_kwargs"] = {"enable_thinking": request.think}
    if request.think_budget is not None:
        body["thinking_budget_tokens"] = max(_LEAST_OF_LLAMA_CPP if of_llama_cpp else 0, request.think_budget)
    if request.logprobs is not None:
        body |= logprobs_json(request.logprobs)
    return body | sampling_json(request.sampling) | limits_json(request.limits)


def completion_json(request: CompletionRequest) -> dict[str, Any]:
    """A request that continues a raw prompt, without the model's name."""
    body: dict[str, Any] = {"prompt": request.prompt}
    if request.logprobs is not None:
        body["logprobs"] = max(1, request.logprobs)  # as in logprobs_json
    return body | sampling_json(request.sampling) | limits_json(request.limits)


def messages_json(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The messages of a conversation."""
    return [_message_json(message) for message in messages]


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


def tool_choice_json(choice: ToolChoice) -> str | dict[str, Any]:
    """Whether the model has to call a function, for `tool_choice`."""
    if choice.name is None:
        return choice.mode
    return {"type": "function", "function": {"name": choice.name}}


def calling_json(request: ChatRequest, *, of_llama_cpp: bool = False) -> dict[str, Any]:
    """All fields about the functions that may be called, none where there are none.

    llama.cpp ignores the name of a choice, so it is told of that function only, and that it must call one. Without
    `parallel_tool_calls` it may make one call at a time.
    """
    if not request.tools:
        return {}
    tools, choice = request.tools, request.tool_choice
    if of_llama_cpp and choice.name is not None:
        tools = tuple(tool for tool in tools if tool.name == choice.name) or tools
        choice = ToolChoice(mode="required")
    body: dict[str, Any] = {"tools": tools_as_json(tools)}
    if choice != ToolChoice():
        body["tool_choice"] = tool_choice_json(choice)
    if of_llama_cpp or not request.parallel_tool_calls:
        body["parallel_tool_calls"] = request.parallel_tool_calls
    return body


def logprobs_json(others: int) -> dict[str, Any]:
    """What asks a chat for the probability of each token, and of that many others in its place.

    One of the others is always asked for, since llama.cpp without any tells nothing at all.
    """
    return {"logprobs": True, "top_logprobs": max(1, others)}


def format_json(form: AnswerFormat) -> dict[str, Any]:
    """The format of an answer, for `response_format`."""
    if form.schema is None:
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": form.schema, "strict": True}}


def sampling_json(sampling: Sampling) -> dict[str, Any]:
    """The fields that are set. Ollama's options have the same names."""
    body: dict[str, Any] = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "repeat_penalty": sampling.repeat_penalty,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "seed": None if sampling.seed is None else sampling.seed % SEEDS,
    }
    return {name: value for name, value in body.items() if value is not None}


def limits_json(limits: Limits, max_tokens: str = "max_tokens") -> dict[str, Any]:
    """The limits that are set, the cap by the name `max_tokens`. The deadline is the node's business."""
    body: dict[str, Any] = {}
    if limits.max_tokens is not None:
        body[max_tokens] = limits.max_tokens
    if limits.stop:
        body["stop"] = list(limits.stop)
    return body
