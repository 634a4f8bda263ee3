"""Which dialects a server offers, and which one serves what."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from exo.inference.remote.ollama import OllamaClient
from exo.inference.remote.openai import OpenAIClient
from exo.inference.remote.settings import Dialect
from exo.types import (
    CapacityError,
    ChatRequest,
    CompletionRequest,
    ExoError,
    RemoteFailed,
    RemoteUnavailable,
    RunTimedOut,
)

T = TypeVar("T")


@dataclass(frozen=True)
class Offer:
    """What a server offers. `is_exo`: it is a node of this project, whose `/v1` counts exactly and knows each field."""

    ollama: bool
    openai: bool
    is_exo: bool = False

    def for_run(self, request: ChatRequest | CompletionRequest) -> Dialect:
        """The dialect that loses least.

        Ollama's has thinking, keep_alive, a format for sure, and the times of load, prefill and decode; its servers
        ignore some fields in `/v1`. OpenAI's has cached and reasoning tokens, which only a node of this project is
        known to count: there it is taken, unless the request needs what only Ollama's has. Only OpenAI's can force a
        call of a function or bound the reasoning; a request for that takes it wherever it is there.
        """
        if not (self.ollama and self.openai):
            return self.for_the_rest
        if isinstance(request, ChatRequest) and _needs_openai(request):
            return "openai"
        return "openai" if self.is_exo and _exo_takes(request) else "ollama"

    @property
    def for_the_rest(self) -> Dialect:
        """For embeddings, lists, load and unload: Ollama's can do all of it."""
        return "ollama" if self.ollama else "openai"


def _needs_openai(request: ChatRequest) -> bool:
    return request.think_budget is not None or bool(request.tools and request.tool_choice.mode == "required")


def _exo_takes(request: ChatRequest | CompletionRequest) -> bool:
    """Whether `/v1` of this project takes all of a request.

    Its `/api` takes temperatures and penalties of 0 to 100, and results that name no call.
    """
    temperature, penalty = request.sampling.temperature, request.sampling.repeat_penalty
    messages = request.messages if isinstance(request, ChatRequest) else ()
    return (
        request.keep_alive is None
        and (temperature is None or 0 <= temperature <= 2)
        and (penalty is None or 0 < penalty <= 10)
        and all(message.tool_call_id for message in messages if message.role == "tool")
    )


async def find_offer(host: str, ollama: OllamaClient, openai: OpenAIClient) -> Offer:
    """Ask a server what it offers. Raises RemoteUnavailable, RunTimedOut; RemoteFailed if it speaks neither dialect."""
    problems: list[str] = []
    version = await _asked(ollama.version, problems)
    try:
        listing = await _asked(openai.listing, problems)
    except ExoError:
        if version is None:
            raise
        listing = None  # as where a key is for other paths only
    if version is None and listing is None:
        raise RemoteFailed(
            f"The server at {host} speaks neither Ollama's nor OpenAI's dialect. Check its address. "
            f"{' '.join(problems)}"
        )
    return Offer(version is not None, listing is not None, is_exo=listing is not None and listing.is_exo)


async def _asked(ask: Callable[[], Awaitable[T]], problems: list[str]) -> T | None:
    """What the server answers, None if it does not have that path."""
    try:
        return await ask()
    except (RemoteUnavailable, RunTimedOut, CapacityError):
        raise
    except ExoError as error:
        problems.append(error.message)
        return None
