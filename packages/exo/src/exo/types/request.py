"""What a dialect hands to an engine: one request model for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

Role = Literal["system", "user", "assistant", "tool"]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
"""How much a model is to reason, in the words of OpenAI's and Anthropic's clients."""


class ToolCall(msgspec.Struct, frozen=True, kw_only=True):
    """A function call that a model asked for. `arguments` is JSON text, as the model wrote it."""

    id: str
    name: str
    arguments: str


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """A function that a model may call. `parameters` is the JSON Schema of its arguments; None: nothing is known."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] | None = None


class ToolChoice(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the model has to call a function: it chooses, it must not, it must, or it must call the one of `name`."""

    mode: Literal["auto", "none", "required"] = "auto"
    name: str | None = None


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One message of a conversation, plain text."""

    role: Role
    content: str
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """How the next token is drawn. None means: the engine's own value for this model."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """When an answer ends. `max_tokens` counts answer tokens; `deadline` is seconds from arrival, queue included.

    `context` is how many tokens of context the model needs at least, where the node chooses it.
    """

    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    deadline: float | None = None
    context: int | None = None


class AnswerFormat(msgspec.Struct, frozen=True, kw_only=True):
    """What the text of an answer has to be: a JSON object, or with `schema` (JSON Schema) any JSON that fits it."""

    schema: Mapping[str, Any] | None = None


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation to be continued by one answer.

    `model` is the id of a served model; the node resolves aliases, the default and `auto` before an engine sees it.
    `tools` are the functions that the answer may call, all of one answer at once if `parallel_tool_calls`. `think`
    switches reasoning on or off, None leaves it to the model; `effort` is how much of it a client has asked for, for
    whoever chooses the model. After `think_budget` tokens of reasoning the answer has to begin. `logprobs` asks for the
    probability of each token, and of that many others in its place. `template` is a chat template (Jinja, or Go's
    language as in Ollama) in place of the model's own. `keep_alive` is how many seconds the model stays loaded once
    nobody uses it, infinite for ever; None: as the engine has it. `id` is the request's id across hops. A lower
    `priority` is served earlier.
    """

    model: str
    messages: tuple[Message, ...]
    sampling: Sampling = Sampling()
    limits: Limits = Limits()
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = ToolChoice()
    parallel_tool_calls: bool = True
    think: bool | None = None
    think_budget: int | None = None
    effort: Effort | None = None
    template: str | None = None
    format: AnswerFormat | None = None
    logprobs: int | None = None
    keep_alive: float | None = None
    id: str = ""
    priority: int = 0


class CompletionRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A raw prompt to be continued; no chat template is applied. `logprobs` as in ChatRequest."""

    model: str
    prompt: str
    sampling: Sampling = Sampling()
    limits: Limits = Limits()
    logprobs: int | None = None
    keep_alive: float | None = None
    id: str = ""
    priority: int = 0


class EmbeddingRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Texts to be embedded, one vector each, of `dimensions` numbers or as many as the model has."""

    model: str
    inputs: tuple[str, ...]
    dimensions: int | None = None
    keep_alive: float | None = None
    id: str = ""
    priority: int = 0
