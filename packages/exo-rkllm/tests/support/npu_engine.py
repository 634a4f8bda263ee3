"""The engine on a simulated board, and what is asked of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

from npu_board import SimBoard
from prometheus_client import CollectorRegistry

from exo.inference import EngineContext
from exo.models import ModelStore, cards_by_id
from exo.types import (
    ChatRequest,
    Delta,
    Message,
)
from exo_rkllm.engine import RKLLMInferenceEngine
from exo_rkllm.models import RKLLM_MODELS


@asynccontextmanager
async def running(board: SimBoard, **env: str) -> AsyncIterator[RKLLMInferenceEngine]:
    cards, problems = cards_by_id([("exo-rkllm", RKLLM_MODELS)])
    assert problems == []
    store = ModelStore(board.home / "of the node")
    context = EngineContext(store=store, cards=cards, env=board.env | env, registry=CollectorRegistry())
    engine = RKLLMInferenceEngine(context)
    try:
        yield engine
    finally:
        await engine.close()


def ask(text: str = "Hello", model: str = "m", **fields: Any) -> ChatRequest:
    return ChatRequest(model=model, messages=(Message(role="user", content=text),), **fields)


async def answer(engine: RKLLMInferenceEngine, request: ChatRequest) -> tuple[str, Delta]:
    """The text, and the last delta."""
    async with aclosing(engine.chat(request)) as stream:
        deltas = [delta async for delta in stream]
    assert [delta.finish_reason for delta in deltas[:-1]] == [None] * (len(deltas) - 1)
    return "".join(delta.text for delta in deltas), deltas[-1]


async def until(condition: Callable[[], bool], timeout: float = 10.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
