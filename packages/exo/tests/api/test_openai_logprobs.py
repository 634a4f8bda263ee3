from __future__ import annotations

import math

from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai_engine import OpenAIEngine, events, post, token
from scripted_server import CHAT, running

from exo.api.openai.logprobs import TextLogprobsWriter, chat_logprobs, of_text
from exo.types import Delta, ToolCallDelta

EURO = "€".encode()
SCRIPT = [
    Delta(text="He", logprobs=(token("He", -0.5, ("He", -0.5), ("Ho", -2.0)),)),
    Delta(logprobs=(token("", -1.0, raw=EURO[:1]),)),
    Delta(text="€", logprobs=(token("", -3.0, raw=EURO[1:]),)),
]
CONTENT = [
    {
        "token": "He",
        "logprob": -0.5,
        "bytes": [72, 101],
        "top_logprobs": [
            {"token": "He", "logprob": -0.5, "bytes": [72, 101]},
            {"token": "Ho", "logprob": -2.0, "bytes": [72, 111]},
        ],
    },
    {"token": "\\xe2", "logprob": -1.0, "bytes": [0xE2], "top_logprobs": []},
    {"token": "\\x82\\xac", "logprob": -3.0, "bytes": [0x82, 0xAC], "top_logprobs": []},
]


async def test_chat_tells_the_probability_of_each_token() -> None:
    body = {**CHAT, "logprobs": True, "top_logprobs": 2}
    async with running(OpenAIEngine(SCRIPT)) as node:
        whole = (await post(node, "/v1/chat/completions", body)).json()
        *chunks, _ = events(await post(node, "/v1/chat/completions", {**body, "stream": True}))
    ChatCompletion.model_validate(whole, strict=True)
    assert whole["choices"][0]["logprobs"] == {"content": CONTENT, "refusal": None}
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk, strict=True)
    choices = [chunk["choices"][0] for chunk in chunks]
    assert [choice["delta"].get("content") for choice in choices] == ["", "He", "", "€", None]
    assert [choice["logprobs"] for choice in choices] == [
        None,
        *({"content": [entry], "refusal": None} for entry in CONTENT),
        None,
    ]


async def test_reasoning_has_no_probabilities_in_a_chat() -> None:
    script = [
        Delta(reasoning="hm", logprobs=(token("hm"),)),
        Delta(text="He", reasoning="!", logprobs=(token("He"),)),
    ]
    body = {**CHAT, "logprobs": True}
    async with running(OpenAIEngine(script)) as node:
        whole = (await post(node, "/v1/chat/completions", body)).json()
        *chunks, _ = events(await post(node, "/v1/chat/completions", {**body, "stream": True}))
    assert [entry["token"] for entry in whole["choices"][0]["logprobs"]["content"]] == ["He"]
    choices = [chunk["choices"][0] for chunk in chunks]
    assert [choice["delta"].get("content") for choice in choices] == ["", None, None, "He", None]
    told = [choice["logprobs"] and choice["logprobs"]["content"][0]["token"] for choice in choices]
    assert told == [None, None, None, "He", None]


def test_calls_have_no_probabilities() -> None:
    call = ToolCallDelta(index=0, id="c", name="f")
    assert of_text(Delta(tool_calls=(call,), logprobs=(token("f"),))) == ()
    assert of_text(Delta(text="a", tool_calls=(call,), logprobs=(token("a"),))) == (token("a"),)


async def test_completions_have_the_older_shape() -> None:
    body = {"prompt": "x", "logprobs": 2}
    engine = OpenAIEngine(SCRIPT)
    async with running(engine) as node:
        whole = (await post(node, "/v1/completions", body)).json()
        *chunks, _ = events(await post(node, "/v1/completions", {**body, "stream": True}))
    assert [request.logprobs for request in engine.completions] == [2, 2]
    Completion.model_validate(whole, strict=True)
    expected = {
        "tokens": ["He", "\\xe2", "\\x82\\xac"],
        "token_logprobs": [-0.5, -1.0, -3.0],
        "top_logprobs": [{"He": -0.5, "Ho": -2.0}, {"\\xe2": -1.0}, {"\\x82\\xac": -3.0}],
        "text_offset": [0, 2, 2],
    }
    assert whole["choices"][0]["logprobs"] == expected
    streamed = [chunk["choices"][0]["logprobs"] for chunk in chunks if chunk["choices"][0]["logprobs"]]
    for name, values in expected.items():
        assert [value for piece in streamed for value in piece[name]] == values


def test_a_token_after_a_character_of_several_knows_its_place() -> None:
    tokens = [token("", raw=EURO[:1]), token("", raw=EURO[1:]), token("x")]
    assert TextLogprobsWriter().write(tokens).text_offset == [0, 0, 1]


def test_what_json_cannot_say_is_the_least_value() -> None:
    made = chat_logprobs([token("a", -math.inf), token("b", math.nan)])
    assert [entry.logprob for entry in made.content] == [-9999.0, -9999.0]
