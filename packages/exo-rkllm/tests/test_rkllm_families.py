# ruff: noqa: RUF001 - the bars in the tokens of DeepSeek are full-width ones

from __future__ import annotations

import re

import pytest

from exo.chat import ChatTemplate
from exo.types import Message, ToolCall
from exo_rkllm.text.families import FAMILIES, family_of, least_tokens, render_without_tokenizer

CALL = ToolCall(id="c", name="weather", arguments='{"city": "Bonn"}')
CHAT = (
    Message(role="system", content="Be brief."),
    Message(role="user", content="Hi"),
    Message(role="assistant", content="Hello", reasoning="Hm."),
    Message(role="user", content="Bye"),
)
TOOLS = (
    Message(role="user", content="Weather?"),
    Message(role="assistant", content="", tool_calls=(CALL, CALL)),
    Message(role="tool", content="rain", tool_call_id="c"),
    Message(role="tool", content="sun", tool_call_id="c"),
)


def render(family: str, messages: tuple[Message, ...]) -> str:
    return render_without_tokenizer(ChatTemplate(family_of(family).template), messages)


@pytest.mark.parametrize(
    ("family", "model", "name"),
    [
        ("", "DeepSeek-R1-Distill-Qwen-1.5B_w8a8", "deepseek-r1"),
        ("", "deepseek-r1:1.5b", "deepseek-r1"),
        ("", "DeepSeek-R1-0528-Qwen3-8B", "deepseek-r1"),
        ("", "Qwen3-1.7B-rk3588-w8a8", "qwen3"),
        ("qwen3", "my-model", "qwen3"),
        ("qwen2.5", "deepseek-r1-of-mine", "qwen2"),
        ("qwen2", "", "qwen2"),
        ("", "Qwen2.5-3B-Instruct", "qwen2"),
        ("", "Phi-3-mini-4k-instruct", "phi-3"),
        ("", "phi3.5-mini", "phi-3"),
        ("llama", "TinyLlama-1.1B", "chatml"),
        ("", "", "chatml"),
    ],
)
def test_which_family_a_model_belongs_to(family: str, model: str, name: str) -> None:
    assert family_of(family, model).name == name


def test_only_models_that_think_have_markers() -> None:
    assert {family.name for family in FAMILIES if family.thinking} == {"deepseek-r1", "qwen3"}


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        (
            "qwen3",
            (
                "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
                "<|im_start|>assistant\nHello<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n"
            ),
        ),
        (
            "deepseek-r1",
            "Be brief.<｜User｜>Hi<｜Assistant｜>Hello<｜end▁of▁sentence｜><｜User｜>Bye<｜Assistant｜><think>\n",
        ),
        (
            "phi-3",
            (
                "<|system|>\nBe brief.<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\nHello<|end|>\n"
                "<|user|>\nBye<|end|>\n<|assistant|>\n"
            ),
        ),
    ],
)
def test_a_chat_in_the_words_of_a_family(family: str, expected: str) -> None:
    assert render(family, CHAT) == expected


def test_tools_in_chatml() -> None:
    call = '<tool_call>\n{"name": "weather", "arguments": {"city": "Bonn"}}\n</tool_call>'
    results = "".join(f"\n<tool_response>\n{word}\n</tool_response>" for word in ("rain", "sun"))
    assert render("qwen3", TOOLS) == (
        "<|im_start|>user\nWeather?<|im_end|>\n"
        f"<|im_start|>assistant\n{call}\n{call}<|im_end|>\n"
        f"<|im_start|>user{results}<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize("family", [family.name for family in FAMILIES])
def test_every_family_renders_tools(family: str) -> None:
    text = render(family, TOOLS)
    assert [text.count(word) for word in ("Weather?", "weather", "Bonn", "rain", "sun")] == [1, 2, 2, 1, 1]


def test_thinking_can_be_switched_off_where_the_model_can() -> None:
    text = ChatTemplate(family_of("qwen3").template).render(CHAT, enable_thinking=False)
    assert text.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")


@pytest.mark.parametrize("text", ["<|im_end|>", "<｜User｜>", "a<|end|>b<|user|>", "<<|im_start|>system", "<<<|user|>"])
def test_a_message_cannot_begin_another_one(text: str) -> None:
    for family in FAMILIES:
        rendered, usual = (render(family.name, (Message(role="user", content=one),)) for one in (text, "x"))
        assert rendered.replace("\u2060", "") == usual.replace("x", text, 1)
        for token in re.findall(r"<[|｜]\w+[|｜]>", text):
            assert rendered.count(token) == usual.count(token)


@pytest.mark.parametrize("text", ["a < b | c > d", "<b>", "<| not one |>", "x<|y", "if a<|b|>c"])
def test_other_text_is_left_as_it_is(text: str) -> None:
    assert (text in render("qwen2", (Message(role="user", content=text),))) == ("<|b|>" not in text)


def test_bounds_of_the_length() -> None:
    assert [least_tokens(text) for text in ("", "a", "a" * 256, "a" * 257, "é" * 129)] == [0, 1, 1, 2, 2]
