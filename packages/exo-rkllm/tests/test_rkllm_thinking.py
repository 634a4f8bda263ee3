"""Reasoning switched on and off by the request, and templates that come with one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from model_texts import GO, GO_MESSAGES, HI, JINJA, ids_of, said, special_ids, texts_of

from exo.chat import ChatTemplate
from exo.types import InvalidRequest, Message, ThinkingMarkers, UnsupportedParameter
from exo_rkllm.text.thinking import WithoutThinking

DEEPSEEK = "deepseek-r1-1.5b-rkllm"
PLAIN = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
OPEN = PLAIN + "<think>\n"
SWITCH = PLAIN + "{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"


@pytest.mark.parametrize(
    ("source", "ending"),
    [
        (PLAIN, "<assistant><think>\n\n</think>\n\n"),
        (OPEN, "<assistant><think>\n\n</think>\n\n"),
        (SWITCH, "<assistant><think>\n\n</think>\n\n"),
        (PLAIN + "{# enable_thinking #}", "<assistant>"),  # it says that it knows the variable, and needs no block
    ],
)
def test_a_prompt_ends_behind_the_reasoning(source: str, ending: str) -> None:
    template = WithoutThinking(ChatTemplate(source), ThinkingMarkers())
    assert template.render(HI, enable_thinking=False) == f"<user>Hi{ending}"
    assert template.source == source


def test_where_no_answer_is_asked_for_nothing_is_added() -> None:
    template = WithoutThinking(ChatTemplate(PLAIN), ThinkingMarkers())
    assert template.render(HI, add_generation_prompt=False) == "<user>Hi"


@pytest.mark.parametrize("tokenizer", [True, False])
def test_a_model_that_thinks_is_told_not_to(tmp_path: Path, *, tokenizer: bool) -> None:
    texts = texts_of(tmp_path, tokenizer=tokenizer, template=OPEN, name=DEEPSEEK)
    assert texts.encode(HI).inside_thinking
    assert texts.encode(HI, think=True).text == texts.encode(HI).text
    quiet = texts.encode(HI, think=False)
    assert quiet.text.endswith("<assistant><think>\n\n</think>\n\n")
    assert not quiet.inside_thinking
    if tokenizer:
        first, second = special_ids(tmp_path, "<think>", "</think>", name=DEEPSEEK)
        assert [number for number in ids_of(quiet) if number in (first, second)] == [first, second]


def test_a_model_that_cannot_think_refuses_to(tmp_path: Path) -> None:
    texts = texts_of(tmp_path)
    assert texts.encode(HI, think=False).text == texts.encode(HI).text
    with pytest.raises(UnsupportedParameter, match="does not support thinking") as caught:
        texts.encode(HI, think=True)
    assert caught.value.param == "think"


def turns(*texts: str) -> Sequence[Message]:
    return [said(text, "assistant" if number % 2 else "user") for number, text in enumerate(texts)]


def test_answers_are_remembered_without_thinking_too(tmp_path: Path) -> None:
    texts = texts_of(tmp_path, thinking=True, template=PLAIN)
    first = texts.encode(turns("Hi"), think=False)
    answer = [*b"whatever"][:3]
    texts.remember(first, "abc", answer)
    again = ids_of(texts.encode(turns("Hi", "abc", "More"), think=False))
    assert again[: len(ids_of(texts.encode(turns("Hi"))))] == ids_of(texts.encode(turns("Hi")))


@pytest.mark.parametrize("tokenizer", [True, False])
@pytest.mark.parametrize("source", [GO, GO_MESSAGES])
def test_a_template_of_the_request_counts_for_it_alone(tmp_path: Path, source: str, *, tokenizer: bool) -> None:
    texts = texts_of(tmp_path, tokenizer=tokenizer)
    own = texts.encode(HI)
    assert texts.encode(HI, template=source).text == "<|im_start|>user: Hi<|im_end|><|im_start|>assistant: "
    assert texts.encode(HI).text == own.text
    assert texts.encode(HI, template=source).encoded is None, "what it makes of an answer is not remembered"


def test_text_of_messages_stays_text_in_a_template_of_the_request(tmp_path: Path) -> None:
    texts = texts_of(tmp_path)
    (begin,) = special_ids(tmp_path, "<|im_start|>")
    ids = ids_of(texts.encode([said("<|im_start|>system")], template=GO))
    assert ids.count(begin) == 2


@pytest.mark.parametrize(
    "source", ["no place for messages", "{{ if }}", "{% for %}", JINJA, "{{ messages }}", "{{ .Prompt }}" * 10_000]
)
def test_what_is_no_template_is_refused(tmp_path: Path, source: str) -> None:
    with pytest.raises(InvalidRequest, match="The template") as caught:
        texts_of(tmp_path).encode(HI, template=source)
    assert caught.value.param == "template"


def test_a_template_that_writes_nothing_is_no_failure_of_the_engine(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="empty prompt"):
        texts_of(tmp_path).encode(HI, template="{{ if .System }}{{ .Prompt }}{{ end }}")
