"""The engine `echo`: answers with the last user message, word by word."""

from __future__ import annotations

import asyncio
import math
import re
import zlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import ClassVar

from prometheus_client import Counter

from exo.chat import StopStrings
from exo.inference import Availability, Capability, EngineContext, InferenceEngine
from exo.types import (
    ChatRequest,
    ConfigurationError,
    ContextOverflow,
    Delta,
    InvalidRequest,
    ModelCard,
    ModelLoadError,
    Timings,
    Usage,
)

DEFAULT_CONTEXT = 4096
_TOKEN = re.compile(r"\s*\S+|\s+")


def split(text: str) -> list[str]:
    """The tokens of a text: its words, each with the white space before it. Joined, they are the text again."""
    return _TOKEN.findall(text)


class EchoEngine(InferenceEngine):
    """EXO_ECHO_RATE: words per second, 0 for as fast as it goes (default)."""

    name: ClassVar[str] = "echo"
    capabilities: ClassVar[frozenset[Capability]] = frozenset({"chat"})

    def __init__(self, context: EngineContext) -> None:
        super().__init__(context)
        rate = _rate_from(context.env)
        self._pause = 1 / rate if rate else 0.0
        self._cards = {card.id: card for card in context.cards.values() if self.source_of(card) is not None}
        self._loaded: set[str] = set()
        self._words = Counter(
            "exo_echo_words_total",
            "Words that were echoed, those of cancelled answers included.",
            ["model"],
            registry=context.registry,
        )

    @classmethod
    def available(cls, env: Mapping[str, str]) -> Availability:  # noqa: ARG003 - the contract passes it to every engine
        return Availability(ok=True, reason="repeats what it hears, on any machine")

    @property
    def slots(self) -> int:
        return 4

    async def models(self) -> Sequence[ModelCard]:
        return list(self._cards.values())

    async def load(self, model: str, *, keep_alive: float | None = None) -> None:  # noqa: ARG002 - it takes no memory
        if model not in self._cards:
            raise ModelLoadError(f"The engine echo has no model {model!r}. It has: {', '.join(self._cards)}.")
        self._loaded.add(model)

    async def unload(self, model: str) -> None:
        self._loaded.discard(model)

    def loaded(self) -> Sequence[str]:
        return sorted(self._loaded)

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        await self.load(request.model)
        words = split(_last_user_message(request))
        prompt_tokens = await self.count(request)
        context_tokens = self._cards[request.model].context_length or DEFAULT_CONTEXT
        if prompt_tokens > context_tokens:
            raise ContextOverflow(prompt_tokens=prompt_tokens, context_tokens=context_tokens)
        # The run begins here: a refusal may not come any more.
        room = context_tokens - prompt_tokens
        limit = room if request.limits.max_tokens is None else min(room, request.limits.max_tokens)
        stops = StopStrings(request.limits.stop)
        started = asyncio.get_running_loop().time()
        made = 0
        try:
            for word in words[:limit]:
                await asyncio.sleep(self._pause)  # a real engine awaits the next token of its worker
                made += 1
                text = stops.feed(word)
                if text:
                    yield Delta(text=text)
                if stops.hit is not None:
                    break
            complete = stops.hit is not None or made == len(words)
            yield Delta(
                text=stops.flush(),
                finish_reason="stop" if complete else "length",
                usage=Usage(prompt_tokens=prompt_tokens, completion_tokens=made),
                timings=Timings(decode=asyncio.get_running_loop().time() - started),
            )
        finally:
            # Reached at the end, and when the node closes the iterator: a real engine tells its worker to stop.
            self._words.labels(request.model).inc(made)

    async def tokenize(self, model: str, text: str) -> Sequence[int]:  # noqa: ARG002 - one vocabulary for all models
        return [zlib.crc32(word.encode()) for word in split(text)]

    async def count(self, request: ChatRequest) -> int:
        return sum(len(split(message.content)) for message in request.messages)


def _last_user_message(request: ChatRequest) -> str:
    for message in reversed(request.messages):
        if message.role == "user":
            return message.content
    raise InvalidRequest("messages hold no message of the user, so there is nothing to echo.", param="messages")


def _rate_from(env: Mapping[str, str]) -> float:
    text = env.get("EXO_ECHO_RATE") or "0"
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not 0 <= rate < math.inf:
        raise ConfigurationError(f"EXO_ECHO_RATE has to be a number of words per second, not {text!r}.")
    return rate
