"""A node in front of a node: nothing of an answer gets lost on the way, in either dialect."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import pytest
from ollama_engine import OllamaEngine
from remote_server import collect
from scripted_server import Step, running

from exo.inference import Capability, EngineContext
from exo.inference.remote import RemoteEngine
from exo.models import ModelStore
from exo.types import (
    ChatRequest,
    Delta,
    Message,
    TokenChance,
    TokenLogprob,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolChoice,
    Usage,
)

DIALECTS = pytest.mark.parametrize("dialect", ["ollama", "openai"])
WEATHER = Tool(
    name="weather",
    description="Tells it.",
    parameters={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)
MESSAGES = (
    Message(role="user", content="rain?"),
    Message(
        role="assistant",
        content="",
        tool_calls=(
            ToolCall(id="c1", name="weather", arguments='{"city":"Rome"}'),
            ToolCall(id="c2", name="weather", arguments='{"city":"Bonn"}'),
        ),
    ),
    Message(role="tool", content="sun", tool_call_id="c2"),
    Message(role="tool", content="rain", tool_call_id="c1"),
    Message(role="user", content="and Paris?"),
)
ASKED = ChatRequest(model="one", messages=MESSAGES, tools=(WEATHER,))


class CapableEngine(OllamaEngine):
    """As the class above, with everything that an engine may be able to do."""

    capabilities: ClassVar[frozenset[Capability]] = OllamaEngine.capabilities | {"tools", "logprobs", "think_budget"}


async def through_a_node(script: Sequence[Step], request: ChatRequest, dialect: str) -> tuple[list[Delta], ChatRequest]:
    """What comes of a script by way of the engine remote, and the request as it has reached the other node's engine."""
    engine = CapableEngine(script)
    async with running(engine) as node:
        env = {"EXO_REMOTE_URL": node.url, "EXO_REMOTE_DIALECT": dialect}
        remote = RemoteEngine(EngineContext(store=ModelStore(Path("nowhere")), env=env))
        try:
            return await collect(remote.chat(request)), engine.requests[-1]
        finally:
            await remote.close()


END = Delta(finish_reason="tool_calls", usage=Usage(prompt_tokens=7, completion_tokens=9))


@DIALECTS
async def test_calls(dialect: str) -> None:
    pieces = [
        ToolCallDelta(index=place, id=f"call_{place}", name="weather", arguments=f'{{"city": "{city}"}}')
        for place, city in enumerate(("Paris", "Köln"))
    ]
    script = [Delta(text="Let me see."), *(Delta(tool_calls=(piece,)) for piece in pieces), END]
    deltas, arrived = await through_a_node(script, ASKED, dialect)
    calls = [piece for delta in deltas for piece in delta.tool_calls]
    assert [(call.index, call.id, call.name) for call in calls if call.name] == [
        (0, "call_0", "weather"),
        (1, "call_1", "weather"),
    ]
    written = ["".join(call.arguments for call in calls if call.index == place) for place in (0, 1)]
    assert [text.replace(" ", "") for text in written] == ['{"city":"Paris"}', '{"city":"Köln"}']
    assert "".join(delta.text for delta in deltas) == "Let me see."
    assert (deltas[-1].finish_reason, deltas[-1].usage) == ("tool_calls", END.usage)
    assert (arrived.tools, arrived.messages) == (ASKED.tools, ASKED.messages)


@pytest.mark.parametrize(
    ("choice", "parallel"),
    [
        (ToolChoice(mode="none"), True),
        (ToolChoice(mode="required"), True),
        (ToolChoice(mode="required", name="weather"), False),
    ],
)
async def test_choices(choice: ToolChoice, *, parallel: bool) -> None:
    request = ChatRequest(
        model="one", messages=MESSAGES, tools=(WEATHER,), tool_choice=choice, parallel_tool_calls=parallel
    )
    call = ToolCallDelta(index=0, id="c", name="weather", arguments='{"city": "Paris"}')
    _, arrived = await through_a_node([Delta(tool_calls=(call,)), END], request, "auto")
    assert (arrived.tool_choice, arrived.parallel_tool_calls) == (choice, parallel)


@DIALECTS
async def test_probabilities(dialect: str) -> None:
    told = tuple(
        TokenLogprob(
            chosen=TokenChance(text=text, logprob=-0.5, raw=raw),
            top=(TokenChance(text=text, logprob=-0.5, raw=raw), TokenChance(text="b", logprob=-2.0, raw=b"b")),
        )
        for text, raw in (("a", b"a"), ("", b"\xe2"))
    )
    script = [Delta(text="a", logprobs=told), Delta(text="!"), Delta(finish_reason="stop", usage=END.usage)]
    request = ChatRequest(model="one", messages=MESSAGES[:1], logprobs=2)
    deltas, arrived = await through_a_node(script, request, dialect)
    assert [one for delta in deltas for one in delta.logprobs] == list(told)
    assert arrived.logprobs == 2


async def test_a_bound_for_reasoning() -> None:
    request = ChatRequest(model="one", messages=MESSAGES[:1], think=True, think_budget=64)
    _, arrived = await through_a_node(["a"], request, "auto")
    assert (arrived.think, arrived.think_budget) == (True, 64)
