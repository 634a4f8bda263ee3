"""What a request says of itself, besides its text."""

from __future__ import annotations

from dataclasses import dataclass

from exo.routing.rules import Signals
from exo.types import ChatRequest, CompletionRequest, ModelRole

Request = ChatRequest | CompletionRequest
_LITTLE = frozenset({"none", "minimal", "low"})
_MUCH = frozenset({"high", "xhigh", "max"})


@dataclass(frozen=True, slots=True)
class Signal:
    """A request that says which role it wants, and how it says so."""

    role: ModelRole
    rule: str
    reason: str


@dataclass(frozen=True, slots=True)
class Leaning:
    """What speaks for a quick model without deciding it."""

    weight: float
    rule: str
    reason: str


def signal_of(request: Request, rules: Signals) -> Signal | None:
    """The first of the explicit signals; what a client says of thinking comes before what its limits imply."""
    wish = _wish_of(request, rules) if isinstance(request, ChatRequest) else None
    return wish or _limit_of(request, rules)


def leanings_of(request: Request, rules: Signals) -> list[Leaning]:
    if not isinstance(request, ChatRequest):
        return []
    found = []
    if request.tools and request.tool_choice.mode != "none":
        found.append(Leaning(rules.tools, "tools", "The request brings tools, which a quick model calls as well."))
    if request.format is not None:
        found.append(Leaning(rules.format, "format", "The answer has to be JSON, which a quick model writes as well."))
    return found


def _wish_of(request: ChatRequest, rules: Signals) -> Signal | None:
    if request.effort in _LITTLE:
        return Signal("quick", "effort", "The request asks for little reasoning effort.")
    if request.effort in _MUCH:
        return Signal("reasoning", "effort", "The request asks for much reasoning effort.")
    if request.think is False:
        return Signal("quick", "think", "The request switches reasoning off.")
    if request.think_budget is not None and request.think_budget <= rules.quick_think_budget:
        return Signal("quick", "think-budget", "The request leaves next to no tokens for reasoning.")
    if request.think and request.effort is None:  # medium effort, which switches reasoning on, is no signal
        return Signal("reasoning", "think", "The request switches reasoning on.")
    return None


def _limit_of(request: Request, rules: Signals) -> Signal | None:
    limits = request.limits
    if limits.max_tokens is not None and limits.max_tokens <= rules.quick_max_tokens:
        return Signal("quick", "max-tokens", "The answer may be so short that reasoning would not end in it.")
    if limits.deadline is not None and limits.deadline <= rules.quick_deadline:
        return Signal("quick", "short-deadline", "The time that the request has is too short for reasoning.")
    return None
