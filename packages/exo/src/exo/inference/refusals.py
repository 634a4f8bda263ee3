"""What an engine cannot do is refused before it sees a request: a plugin need not know of what it lacks."""

from __future__ import annotations

from exo.inference.engine import Capability, InferenceEngine
from exo.inference.json_check import refuse_large
from exo.types import ChatRequest, InvalidRequest, UnsupportedParameter


def refuse_what_cannot_run(engine: InferenceEngine, request: ChatRequest) -> None:
    """Raises InvalidRequest, UnsupportedParameter."""
    if not request.messages:
        raise InvalidRequest("messages must hold at least one message.", param="messages")
    if request.template is not None:
        need(engine, "template", "template", "templates other than the model's own")
    if request.think:
        need(engine, "reasoning", "think", "models that think")
    if request.think_budget is not None:
        need(engine, "think_budget", "thinking_budget_tokens", "bound for reasoning")
    if request.tools:
        need(engine, "tools", "tools", "calls of functions")
    if request.logprobs is not None:
        need(engine, "logprobs", "logprobs", "probabilities of tokens")
    if request.format is not None and request.format.schema is not None:
        refuse_large(request.format.schema, param="format")


def checks_format(engine: InferenceEngine, request: ChatRequest) -> bool:
    """Whether the node has to check the answer's format: no engine constrains an answer that may also be a call."""
    return request.format is not None and (bool(request.tools) or "json_schema" not in engine.capabilities)


def need(engine: InferenceEngine, capability: Capability, param: str, what: str) -> None:
    """Raises UnsupportedParameter for `param`, if the engine has not what it is about."""
    if capability not in engine.capabilities:
        raise UnsupportedParameter(f"The engine {engine.name} has no {what}.", param=param)
