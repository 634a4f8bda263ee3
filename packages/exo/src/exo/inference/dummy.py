"""The engine dummy: streams words at a set pace, so that everything around an engine can be tested and measured."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import ClassVar

from exo.chat import StopStrings
from exo.inference.engine import Availability, Capability, EngineContext, InferenceEngine
from exo.types import (
    ChatRequest,
    ConfigurationError,
    ContextOverflow,
    Delta,
    FinishReason,
    ModelCard,
    ModelNotFound,
    Timings,
    Usage,
)

MODEL = "dummy"
CONTEXT = 4096


class DummyEngine(InferenceEngine):
    """Answers `word0 word1 …`, one word a token; a prompt's tokens are its words. Chosen by name only.

    EXO_DUMMY_RATE: tokens per second, 0 for as fast as it goes (default 50). EXO_DUMMY_TOKENS: length of an answer
    (default 16). EXO_DUMMY_SLOTS: default 4. EXO_DUMMY_FIRST_WORD: in place of `word0`, to tell nodes apart.
    """

    name: ClassVar[str] = "dummy"
    capabilities: ClassVar[frozenset[Capability]] = frozenset({"chat"})

    def __init__(self, context: EngineContext) -> None:
        super().__init__(context)
        self._rate = _setting(context.env, "EXO_DUMMY_RATE", 50.0)
        self._length = int(_setting(context.env, "EXO_DUMMY_TOKENS", 16))
        self._slots = max(1, int(_setting(context.env, "EXO_DUMMY_SLOTS", 4)))
        self._first_word = context.env.get("EXO_DUMMY_FIRST_WORD") or "word0"

    @classmethod
    def available(cls, env: Mapping[str, str]) -> Availability:  # noqa: ARG003 - the contract passes it to every engine
        return Availability(ok=True, reason="for tests and measurements, chosen by name only")

    @property
    def slots(self) -> int:
        return self._slots

    async def models(self) -> Sequence[ModelCard]:
        return [ModelCard(id=MODEL, display_name="Dummy", context_length=CONTEXT, files={self.name: "built in"})]

    async def load(self, model: str, *, keep_alive: float | None = None) -> None:  # noqa: ARG002 - there is nothing to keep
        if model != MODEL:
            raise ModelNotFound(model, [MODEL])

    async def unload(self, model: str) -> None:
        pass

    def loaded(self) -> Sequence[str]:
        return [MODEL]

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        prompt_tokens = await self.count(request)
        if prompt_tokens > CONTEXT:
            raise ContextOverflow(prompt_tokens=prompt_tokens, context_tokens=CONTEXT)
        loop = asyncio.get_running_loop()
        started = loop.time()
        stops = StopStrings(request.limits.stop)
        cap = request.limits.max_tokens
        finish: FinishReason = "length" if cap is not None and cap < self._length else "stop"
        made = 0
        for made in range(1, (self._length if cap is None else min(self._length, cap)) + 1):
            pause = started + made / self._rate - loop.time() if self._rate else 0.0
            await asyncio.sleep(max(0.0, pause))
            text = stops.feed(f"{self._first_word if made == 1 else f'word{made - 1}'} ")
            if text:
                yield Delta(text=text)
            if stops.hit:
                finish = "stop"
                break
        rest = "" if stops.hit else stops.flush()
        yield Delta(
            text=rest,
            finish_reason=finish,
            stop=stops.hit,
            usage=Usage(prompt_tokens=prompt_tokens, completion_tokens=made),
            timings=Timings(decode=loop.time() - started),
        )

    async def tokenize(self, model: str, text: str) -> Sequence[int]:  # noqa: ARG002 - there is one vocabulary only
        return [len(word) for word in text.split()]

    async def count(self, request: ChatRequest) -> int:
        return sum(len(message.content.split()) for message in request.messages)


def _setting(env: Mapping[str, str], name: str, default: float) -> float:
    try:
        value = float(env.get(name) or default)
    except ValueError:
        raise ConfigurationError(f"{name} has to be a number, not {env[name]!r}.") from None
    if not 0 <= value < float("inf"):
        raise ConfigurationError(f"{name} has to be a number of at least 0, not {env[name]!r}.")
    return value
