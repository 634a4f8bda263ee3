"""Answers that have to be JSON, from an engine that cannot constrain the model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import psutil
import pytest

from exo.inference import json_check
from exo.inference.formatted import ATTEMPTS, answer_in_format, unfenced
from exo.types import (
    AnswerFormat,
    AnswerNotValid,
    ChatRequest,
    ContextOverflow,
    Delta,
    InvalidRequest,
    Message,
    Sampling,
    Timings,
    Usage,
)

AGE = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}


class Model:
    """Writes one prepared answer for each request, a character at a time."""

    def __init__(self, *answers: str, finish: str = "stop", reasoning: str = "") -> None:
        self.asked: list[ChatRequest] = []
        self.closed = 0
        self._answers = list(answers)
        self._finish: Any = finish
        self._reasoning = reasoning

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        self.asked.append(request)
        try:
            if self._reasoning:
                yield Delta(reasoning=self._reasoning)
            for character in self._answers.pop(0):
                yield Delta(text=character)
            yield Delta(
                finish_reason=self._finish,
                usage=Usage(prompt_tokens=10, completion_tokens=5, cached_tokens=2),
                timings=Timings(prefill=1.0, decode=2.0),
            )
        finally:
            self.closed += 1


def asking(schema: dict[str, Any] | None = None, *more: Message) -> ChatRequest:
    messages = (Message(role="user", content="How old is he?"), *more)
    return ChatRequest(model="m", messages=messages, format=AnswerFormat(schema=schema), sampling=Sampling(top_k=1))


async def collect(model: Model, request: ChatRequest) -> list[Delta]:
    return [delta async for delta in answer_in_format(model.chat, request)]


async def test_a_valid_answer_comes_as_one_piece_behind_an_empty_one() -> None:
    model = Model('{"age": 22}')
    first, last = await collect(model, asking(AGE))
    assert first == Delta()  # tells that the run has begun
    assert (last.text, last.finish_reason, last.usage) == (
        '{"age": 22}',
        "stop",
        Usage(prompt_tokens=10, completion_tokens=5, cached_tokens=2),
    )


async def test_the_model_is_told_the_format_in_the_last_user_message() -> None:
    model = Model('{"age": 1}', '{"age": 1}')
    await collect(model, asking(AGE, Message(role="assistant", content="Who?")))
    first, assistant = model.asked[0].messages
    assert first.content.startswith("How old is he?\n\n")
    assert '"required": ["age"]' in first.content
    assert assistant == Message(role="assistant", content="Who?")
    await collect(model, ChatRequest(model="m", messages=(Message(role="system", content="s"),), format=AnswerFormat()))
    assert [message.role for message in model.asked[1].messages] == ["system", "user"]


async def test_a_wrong_answer_is_asked_for_again_with_the_reason() -> None:
    model = Model("He is 22.", '{"age": "22"}', '{"age": 22}')
    *_, last = await collect(model, asking(AGE))
    assert last.text == '{"age": 22}'
    assert last.usage == Usage(prompt_tokens=30, completion_tokens=15, cached_tokens=6)
    assert last.timings == Timings(prefill=3.0, decode=6.0)
    assert model.closed == 3
    complaints = [request.messages[-1].content for request in model.asked[1:]]
    assert "not JSON" in complaints[0]
    assert "$.age" in complaints[1]
    assert "'22' is not of type 'integer'" in complaints[1]
    assert model.asked[2].messages[-2] == Message(role="assistant", content='{"age": "22"}')
    assert model.asked[2].sampling == Sampling(top_k=1)


async def test_attempts_are_bounded() -> None:
    model = Model(*["no"] * (ATTEMPTS + 1))
    with pytest.raises(AnswerNotValid, match="not JSON") as caught:
        await collect(model, asking(AGE))
    assert len(model.asked) == ATTEMPTS
    counted = Usage(prompt_tokens=10 * ATTEMPTS, completion_tokens=5 * ATTEMPTS, cached_tokens=2 * ATTEMPTS)
    assert caught.value.usage == counted


async def test_an_answer_that_was_cut_off_is_not_tried_again() -> None:
    model = Model('{"age": ', '{"age": 1}', finish="length")
    with pytest.raises(AnswerNotValid, match="cut off"):
        await collect(model, asking(AGE))
    assert len(model.asked) == 1


async def test_reasoning_is_handed_on_as_it_comes() -> None:
    deltas = await collect(Model("{}", reasoning="Hm."), asking())
    assert [(delta.reasoning, delta.text) for delta in deltas] == [("Hm.", ""), ("", "{}")]


async def test_leaving_ends_the_run() -> None:
    model = Model("{}")
    answer = answer_in_format(model.chat, asking())
    await answer.__anext__()
    await answer.aclose()
    assert model.closed == 1


@pytest.mark.parametrize(
    ("schema", "text", "valid"),
    [
        (None, "{}", True),
        (None, "[]", False),
        (None, "1", False),
        ({"type": "array"}, "[]", True),
        ({"type": "integer"}, "1", True),
        ({"type": "integer"}, "1.5", False),
        ({"enum": ["a", "b"]}, '"a"', True),
        ({}, "anything", False),
        (AGE, "[" * 100_000, False),
    ],
)
async def test_what_fits(schema: dict[str, Any] | None, text: str, *, valid: bool) -> None:
    model = Model(*[text] * ATTEMPTS)
    if valid:
        assert (await collect(model, asking(schema)))[-1].text == text
    else:
        with pytest.raises(AnswerNotValid):
            await collect(model, asking(schema))


DOUBLING = {"a0": {"type": "integer"}} | {
    f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n - 1}"}, {"$ref": f"#/$defs/a{n - 1}"}]} for n in range(1, 40)
}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "wrong"},
        {"properties": []},
        {"required": "age"},
        {"$schema": 5},
        {"$ref": "http://127.0.0.1:9/schema.json"},
        {"$ref": "file:///etc/hostname"},
        {"$ref": "#/nowhere"},
        {"$dynamicRef": "#nope"},
        {"$ref": "#"},
        {"$defs": {"x": 1}, "$ref": "#/$defs/x"},
    ],
)
async def test_a_schema_that_is_none_is_refused_before_the_model_is_asked(schema: dict[str, Any]) -> None:
    model = Model("{}")
    with pytest.raises(InvalidRequest, match="schema") as caught:
        await collect(model, asking(schema))
    assert (caught.value.param, model.asked) == ("format", [])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"pattern": "^(a+)+$"}, f'"{"a" * 40}!"'),
        ({"$defs": DOUBLING, "$ref": "#/$defs/a39"}, "1"),
    ],
)
async def test_a_schema_that_takes_for_ever_stops_nobody_else(
    schema: dict[str, Any], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_check, "_TIMEOUT", 1.0)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.02)
            ticks += 1

    ticking = asyncio.ensure_future(tick())
    with pytest.raises(InvalidRequest, match="takes too long"):
        await collect(Model(text), asking(schema))
    ticking.cancel()
    assert ticks > 10


async def test_no_process_of_a_check_is_left_over() -> None:
    children = set(psutil.Process().children())
    await collect(Model("[]"), asking({"type": "array"}))
    with pytest.raises(InvalidRequest):
        await collect(Model(), asking({"type": "wrong"}))
    answer = answer_in_format(Model("{}").chat, asking(AGE))
    await answer.__anext__()
    await answer.aclose()
    assert set(psutil.Process().children()) <= children


async def test_what_looks_like_a_reference_in_data_is_none() -> None:
    schema = {"enum": [{"$ref": "x"}]}
    assert (await collect(Model('{"$ref": "x"}'), asking(schema)))[-1].text == '{"$ref": "x"}'


async def test_a_second_attempt_without_room_is_no_mistake_of_the_client() -> None:
    class Narrow(Model):
        async def chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
            if self.asked:
                raise ContextOverflow(prompt_tokens=99, context_tokens=50)
            async for delta in super().chat(request):
                yield delta

    with pytest.raises(AnswerNotValid, match="no room"):
        await collect(Narrow("no"), asking(AGE))


@pytest.mark.parametrize("text", ['{"a": NaN}', '{"a": Infinity}', "{'a': 1}", ""])
async def test_what_python_takes_for_json_and_nobody_else_does_is_none(text: str) -> None:
    with pytest.raises(AnswerNotValid, match="not JSON"):
        await collect(Model(*[text] * ATTEMPTS), asking())


async def test_a_schema_may_refer_to_itself() -> None:
    schema = {"$defs": {"n": {"type": "integer"}}, "items": {"$ref": "#/$defs/n"}, "type": "array"}
    assert (await collect(Model("[1, 2]"), asking(schema)))[-1].text == "[1, 2]"


@pytest.mark.parametrize(
    ("text", "inner"),
    [
        ("```json\n{}\n```", "{}"),
        (" ```\n{}\n```\n", "{}"),
        ("```JSON\n[1,\n2]\n```", "[1,\n2]"),
        ("Here: ```json\n{}\n```", "Here: ```json\n{}\n```"),
        (" {} ", "{}"),
    ],
)
def test_one_code_block_around_the_whole_answer_is_taken_off(text: str, inner: str) -> None:
    assert unfenced(text) == inner
