"""What the engine llamacpp can do beyond plain chats, with the real model."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from gguf_template import with_template
from prometheus_client import CollectorRegistry

from exo.inference import EngineContext, InferenceService, NodeMetrics
from exo.inference.llamacpp.engine import LlamaCppEngine
from exo.models import ModelStore, cards_by_id
from exo.types import (
    ChatRequest,
    CompletionRequest,
    Delta,
    EmbeddingRequest,
    Limits,
    Message,
    Sampling,
    Tool,
    ToolCall,
    ToolChoice,
    UnsupportedParameter,
)
from support import BUILTIN_MODEL

pytestmark = pytest.mark.slow

WEATHER = Tool(
    name="get_weather",
    description="The weather of a city now",
    parameters={
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}, "unit": {"enum": ["c", "f"]}},
        "required": ["city", "unit"],
        "additionalProperties": False,
    },
)
TIME = Tool(name="get_time", parameters={"type": "object", "properties": {}, "additionalProperties": False})
HERMES = """{%- if tools %}{{ '<|im_start|>system\\nFunctions:\\n' }}{% for tool in tools %}{{ tool | tojson }}
{% endfor %}{{ 'Call them as <tool_call>\\n{"name": ..., "arguments": ...}\\n</tool_call><|im_end|>\\n' }}{% endif %}
{%- for message in messages %}{{ '<|im_start|>' + message.role + '\\n' }}
{%- if message.reasoning_content %}{{ '<think>\\n' + message.reasoning_content + '\\n</think>\\n\\n' }}{% endif %}
{{- message.content or '' }}{% for call in message.tool_calls or [] %}
{{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' + (call.function.arguments | tojson) }}
{{- '}\\n</tool_call>' }}{% endfor %}{{ '<|im_end|>\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}
{%- if enable_thinking is false %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}{% endif %}"""
"""A template that knows functions and reasoning, in the way of Qwen3."""
REASONING = """{%- for message in messages %}{{ '<|im_start|>' + message.role + '\\n' }}
{%- if message.reasoning_content %}{{ '<think>\\n' + message.reasoning_content + '\\n</think>\\n\\n' }}{% endif %}
{{- message.content + '<|im_end|>\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n<think>\\n' }}{% endif %}"""
"""A template whose prompts end where the reasoning begins, in the way of DeepSeek-R1."""


@pytest.fixture(scope="module")
def store(model_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in model, and the same one with a template that knows more."""
    root = tmp_path_factory.mktemp("abilities")
    (own,) = (model_store / BUILTIN_MODEL).glob("*.gguf")
    (root / "plain").mkdir()
    (root / "plain" / own.name).symlink_to(own)
    for name, template in (("hermes", HERMES), ("reasoning", REASONING)):
        (root / name).mkdir()
        with_template(own, root / name / own.name, template)
    return root


@pytest.fixture(params=["plain", "hermes", "reasoning"])
def model(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def service(store: Path) -> AsyncIterator[InferenceService]:
    cards, _ = cards_by_id([])
    env = {"EXO_LLAMACPP_CONTEXT": "1024", "EXO_LLAMACPP_SLOTS": "1"}
    registry = CollectorRegistry()
    engine = LlamaCppEngine(EngineContext(store=ModelStore(store), cards=cards, env=env, registry=registry))
    try:
        yield InferenceService(engine, NodeMetrics(registry))
    finally:
        await engine.close()


def ask(model: str, text: str = "What is the weather in Paris?", **fields: Any) -> ChatRequest:
    fields = {"sampling": Sampling(temperature=0), "limits": Limits(max_tokens=60)} | fields
    return ChatRequest(model=model, messages=(Message(role="user", content=text),), **fields)


async def answer(service: InferenceService, request: ChatRequest | CompletionRequest) -> list[Delta]:
    made = await (service.chat(request) if isinstance(request, ChatRequest) else service.complete(request))
    async with contextlib.aclosing(made):
        return [delta async for delta in made]


def calls_of(deltas: list[Delta]) -> list[tuple[str, Any]]:
    found: dict[int, list[str]] = {}
    for piece in (piece for delta in deltas for piece in delta.tool_calls):
        name, arguments = found.setdefault(piece.index, ["", ""])
        found[piece.index] = [name + (piece.name or ""), arguments + piece.arguments]
    return [(name, json.loads(arguments)) for name, arguments in found.values()]


async def test_a_model_that_has_to_call_calls(service: InferenceService, model: str) -> None:
    deltas = await answer(service, ask(model, tools=(WEATHER,), tool_choice=ToolChoice(mode="required")))
    ((name, arguments),) = calls_of(deltas)
    assert name == "get_weather"
    assert set(arguments) == {"city", "unit"}
    assert deltas[-1].finish_reason == "tool_calls"
    assert "".join(delta.text for delta in deltas).strip() == ""


async def test_a_function_that_is_named_is_the_one_that_is_called(service: InferenceService, model: str) -> None:
    choice = ToolChoice(mode="required", name="get_time")
    deltas = await answer(service, ask(model, tools=(WEATHER, TIME), tool_choice=choice))
    assert calls_of(deltas) == [("get_time", {})]


async def test_a_model_that_must_not_call_says_something(service: InferenceService, model: str) -> None:
    deltas = await answer(service, ask(model, tools=(WEATHER,), tool_choice=ToolChoice(mode="none")))
    assert calls_of(deltas) == []
    assert "".join(delta.text + delta.reasoning for delta in deltas)


async def test_what_was_called_is_in_the_prompt(service: InferenceService, model: str) -> None:
    call = ToolCall(id="c1", name="get_weather", arguments='{"city": "Paris", "unit": "c"}')
    asked = ask(model, tools=(WEATHER,))
    messages = (
        *asked.messages,
        Message(role="assistant", content="", tool_calls=(call,)),
        Message(role="tool", content="Rain, 12 degrees, and a wind from the north", tool_call_id="c1"),
    )
    longer = ChatRequest(model=model, messages=messages, tools=(WEATHER,), limits=Limits(max_tokens=5))
    count = service.engine.count
    assert await count(ask(model)) + 20 < await count(asked)
    assert await count(asked) + 20 < await count(longer)
    assert (await answer(service, longer))[-1].finish_reason == "length"


async def test_probabilities_of_a_chat_and_of_a_raw_prompt(service: InferenceService) -> None:
    chat = await answer(service, ask("plain", logprobs=2, limits=Limits(max_tokens=4)))
    raw = CompletionRequest(
        model="plain", prompt="Paris is", logprobs=2, sampling=Sampling(temperature=0), limits=Limits(max_tokens=4)
    )
    for deltas in (chat, await answer(service, raw)):
        tokens = [token for delta in deltas for token in delta.logprobs]
        assert "".join(token.chosen.text for token in tokens) == "".join(delta.text for delta in deltas)
        assert len(tokens) == 4
        assert all(token.chosen == token.top[0] and len(token.top) == 2 for token in tokens)
        assert all(token.top[1].logprob <= token.top[0].logprob <= 0 for token in tokens)
    bare = await answer(service, ask("plain", logprobs=0, limits=Limits(max_tokens=2)))
    assert [token.top for delta in bare for token in delta.logprobs] == [(), ()]


async def test_thinking_is_for_models_that_think(service: InferenceService) -> None:
    with pytest.raises(UnsupportedParameter, match="does not support thinking"):
        await answer(service, ask("plain", think=True))
    assert (await answer(service, ask("plain", think=False)))[-1].finish_reason
    count = service.engine.count
    assert await count(ask("hermes", think=False)) > await count(ask("hermes", think=True))


async def test_tokens_of_reasoning_are_counted(service: InferenceService) -> None:
    limits = Limits(max_tokens=40)
    deltas = await answer(service, ask("reasoning", "Why is the sky blue?", think_budget=12, limits=limits))
    usage = deltas[-1].usage
    assert usage is not None
    reasoning = "".join(delta.reasoning for delta in deltas)
    assert usage.reasoning_tokens == len(await service.engine.tokenize("reasoning", reasoning))
    assert 0 < usage.reasoning_tokens < usage.completion_tokens
    plain = (await answer(service, ask("plain", limits=Limits(max_tokens=3))))[-1].usage
    assert plain is not None
    assert plain.reasoning_tokens == 0


@pytest.mark.parametrize("off", [{"think": False}, {"think_budget": 0}])
async def test_reasoning_that_the_prompt_begins_can_be_switched_off(
    service: InferenceService, off: dict[str, Any]
) -> None:
    deltas = await answer(service, ask("reasoning", "Why is the sky blue?", limits=Limits(max_tokens=12), **off))
    assert "".join(delta.text for delta in deltas).strip()
    assert not any(delta.reasoning for delta in deltas)


async def test_embeddings(service: InferenceService) -> None:
    texts = ("The sky is blue today.", "The sky is blue today.", "Bread needs flour, water and salt.")
    found = await service.embed(EmbeddingRequest(model="plain", inputs=texts))
    first, same, other = found.vectors
    assert all(math.isclose(math.hypot(*vector), 1, rel_tol=1e-6) for vector in found.vectors)
    assert (len(first), len(other)) == (576, 576)
    assert math.sumprod(first, same) > 0.999 if hasattr(math, "sumprod") else first == pytest.approx(same, abs=1e-2)
    assert first != pytest.approx(other, abs=1e-2)
    tokens = [len(await service.engine.tokenize("plain", text)) for text in texts]
    assert found.usage.prompt_tokens >= sum(tokens)


async def test_a_chat_and_an_embedding_at_the_same_time(service: InferenceService) -> None:
    embed = service.embed(EmbeddingRequest(model="plain", inputs=("Hello",) * 3))
    chat, found = await asyncio.gather(answer(service, ask("plain")), embed)
    assert chat[-1].finish_reason is not None
    assert len(found.vectors) == 3
