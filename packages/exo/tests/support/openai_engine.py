"""An engine with every power that OpenAI's dialect asks for, and what reads its answers."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator, Sequence
from typing import Any, ClassVar

import httpx2
from scripted_server import Running, ScriptedEngine, Step

from exo.inference import Capability
from exo.types import (
    ChatRequest,
    CompletionRequest,
    Delta,
    EmbeddingRequest,
    Embeddings,
    ExoError,
    TokenChance,
    TokenLogprob,
    Usage,
)

TOOL = {"type": "function", "function": {"name": "f"}}
OTHER_TOOL = {"type": "function", "function": {"name": "g"}}


class OpenAIEngine(ScriptedEngine):
    """Plays `scripts` one after the other, one for each answer, then `script` for all others.

    A text has one vector: its length, 4.0 and 0.0.
    """

    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {"chat", "completion", "tools", "reasoning", "think_budget", "embeddings", "json_schema", "logprobs"}
    )

    def __init__(
        self, script: Sequence[Step] = ("Hello", " world"), *, scripts: Sequence[Sequence[Step]] = (), slots: int = 2
    ) -> None:
        super().__init__(script, slots=slots)
        self.scripts = [*scripts]
        self.completions: list[CompletionRequest] = []
        self.embedded: list[EmbeddingRequest] = []

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        if self.scripts:
            self.script = [*self.scripts.pop(0)]
        async with contextlib.aclosing(super().chat(request)) as deltas:
            async for delta in deltas:
                yield delta

    async def complete(self, request: CompletionRequest) -> AsyncGenerator[Delta, None]:
        self.completions.append(request)
        for step in self.scripts.pop(0) if self.scripts else self.script:
            if isinstance(step, ExoError):
                raise step
            assert not isinstance(step, str) or step
            if isinstance(step, str | Delta):
                yield Delta(text=step) if isinstance(step, str) else step
        yield Delta(finish_reason="length", usage=Usage(prompt_tokens=3, completion_tokens=2, cached_tokens=1))

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        self.embedded.append(request)
        vectors = tuple((float(len(text)), 4.0, 0.0) for text in request.inputs)
        return Embeddings(vectors=vectors, usage=Usage(prompt_tokens=5))


async def post(node: Running, path: str, body: Any) -> httpx2.Response:
    async with httpx2.AsyncClient() as client:
        response: httpx2.Response = await client.post(f"{node.url}{path}", json=body)
        return response


def events(response: httpx2.Response) -> list[Any]:
    """The data of a stream of events, JSON but for [DONE]."""
    assert response.headers["content-type"].startswith("text/event-stream")
    blocks = response.text.split("\n\n")
    assert blocks.pop() == ""
    assert all(block.startswith("data: ") for block in blocks)
    texts = [block.removeprefix("data: ") for block in blocks]
    return [text if text == "[DONE]" else json.loads(text) for text in texts]


def token(text: str, logprob: float = -1.0, *others: tuple[str, float], raw: bytes = b"") -> TokenLogprob:
    top = tuple(TokenChance(text=other, logprob=chance) for other, chance in others)
    return TokenLogprob(chosen=TokenChance(text=text, logprob=logprob, raw=raw), top=top)
