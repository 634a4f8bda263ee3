"""What an answer took: its tokens and its times."""

from __future__ import annotations

from exo.api.openai.answer_schema import CompletionDetails, PromptDetails, TimingsOut, UsageOut
from exo.inference import Answer
from exo.types import Usage


def usage_out(usage: Usage) -> UsageOut:
    return UsageOut(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.total_tokens,
        prompt_tokens_details=PromptDetails(cached_tokens=usage.cached_tokens),
        completion_tokens_details=CompletionDetails(reasoning_tokens=usage.reasoning_tokens),
    )


def timings_out(answer: Answer) -> TimingsOut:
    """What was evaluated, cached tokens not among them, and how long it took by the runtime's own clock."""
    usage, timings = answer.usage, answer.timings
    return TimingsOut(
        prompt_n=max(0, usage.prompt_tokens - usage.cached_tokens),
        prompt_ms=_milliseconds(timings.prefill),
        predicted_n=usage.completion_tokens,
        predicted_ms=_milliseconds(timings.decode),
        load_ms=_milliseconds(timings.load),
    )


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)
