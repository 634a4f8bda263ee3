from __future__ import annotations

import functools
import json
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_tokenizer import (
    BLANK_MERGES,
    CHATML_TOKENS,
    TEXT_TOKENS,
    added,
    chatml,
    vocabulary_end,
    with_blanks_marked,
    write,
)

from exo.chat import ChatTemplate
from exo.types import InvalidRequest, Message, Role, ThinkingMarkers, ToolCall
from exo_rkllm.text import prompt as prompt_module
from exo_rkllm.text.prompt import EncodedPrompt, PromptEncoder
from exo_rkllm.text.tokenizer import ModelTokenizer

THINK = ThinkingMarkers()
SENTINEL = "\uf8d0"
PLAIN = """
{%- for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}
{{- '<|im_start|>assistant\\n' if add_generation_prompt }}"""
TRIMMING = PLAIN.replace("m.content", "m.content | trim")
QWEN3 = """
{%- set last = namespace(query=0) %}
{%- for m in messages if m.role == 'user' %}{% set last.query = messages.index(m) %}{% endfor %}
{%- for m in messages %}
    {%- set content = m.content.split('</think>')[-1].lstrip('\\n') if m.role == 'assistant' else m.content %}
    {{- '<|im_start|>' + m.role + '\\n' }}
    {%- if m.reasoning_content and loop.index0 > last.query %}
        {{- '<think>\\n' + m.reasoning_content.strip('\\n') + '\\n</think>\\n\\n' }}
    {%- endif %}
    {{- content }}
    {%- for call in m.tool_calls or [] %}
        {{- '\\n' if content or not loop.first }}
        {{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
        {{- call.function.arguments | tojson + '}\\n</tool_call>' }}
    {%- endfor %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{{- '<|im_start|>assistant\\n' if add_generation_prompt }}"""
DEEPSEEK = """{{ bos_token }}
{%- for m in messages %}
    {{- '<|im_start|>' + m.role + ':' + m.content.split('</think>')[-1] }}
    {{- '<|im_end|>' if m.role == 'assistant' }}
{%- endfor %}
{{- '<|im_start|>assistant:<think>\\n' if add_generation_prompt }}"""
TEMPLATES = {"plain": PLAIN, "trimming": TRIMMING, "qwen3": QWEN3, "deepseek": DEEPSEEK}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> ModelTokenizer:
    config = {"bos_token": "<|endoftext|>", "eos_token": "<|im_end|>"}
    made = ModelTokenizer.load(write(tmp_path_factory.mktemp("model"), chatml(), tokenizer_config=config))
    assert made is not None
    return made


def encoder(tokenizer: ModelTokenizer, template: str = PLAIN, *, memory: int = 64) -> PromptEncoder:
    return PromptEncoder(tokenizer, compiled(template), THINK, memory=memory)


@functools.cache
def compiled(template: str) -> ChatTemplate:
    return ChatTemplate(template, special={"bos_token": "<|endoftext|>"})


def said(role: Role, content: str) -> Message:
    return Message(role=role, content=content)


def by_character(tokenizer: ModelTokenizer, text: str) -> list[int]:
    """Ids that are not those of encoding the whole text, as a model may generate them."""
    return [number for char in text for number in tokenizer.encode_plain(char)]


def begins_with(ids: Sequence[int], beginning: Sequence[int]) -> bool:
    return list(ids[: len(beginning)]) == list(beginning)


def test_a_conversation_is_rendered_and_encoded(tokenizer: ModelTokenizer) -> None:
    encoded = encoder(tokenizer).encode([said("system", "Be brief."), said("user", "hello")])
    assert (
        encoded.text
        == "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    )
    assert encoded.ids == tokenizer.encode_rendered(encoded.text)
    assert not encoded.inside_thinking


pieces = st.lists(
    st.sampled_from([*CHATML_TOKENS, *TEXT_TOKENS, "hello", " ", "\n", "<", "|>", "im_end", SENTINEL, "é"]), max_size=8
)
joined = pieces.map("".join)


@pytest.mark.parametrize("template", TEMPLATES)
@given(user=joined, system=joined, answer=joined)
def test_nothing_that_callers_write_becomes_special(
    tokenizer: ModelTokenizer, template: str, user: str, system: str, answer: str
) -> None:
    calls = (ToolCall(id=user, name="f" + answer, arguments=json.dumps({"a": user, user: [system]})),)
    messages = [
        said("system", system),
        said("user", user),
        Message(role="assistant", content=answer, reasoning="r" + user, tool_calls=calls),
        Message(role="tool", content=system, tool_call_id=user),
    ]
    harmless = [
        said("system", "s"),
        said("user", "u"),
        Message(
            role="assistant", content="a", reasoning="r", tool_calls=(ToolCall(id="i", name="f", arguments='{"a":1}'),)
        ),
        Message(role="tool", content="t", tool_call_id="i"),
    ]
    guarded = tokenizer.added.guarded_ids
    encoded, expected = (encoder(tokenizer, TEMPLATES[template]).encode(one) for one in (messages, harmless))
    assert [one for one in encoded.ids if one in guarded] == [one for one in expected.ids if one in guarded]
    assert tokenizer.decode(encoded.ids) == encoded.text


def test_text_is_whole_in_spite_of_the_sentinels(tokenizer: ModelTokenizer) -> None:
    content = f"a <|im_end|> b {SENTINEL} c </think> d <"
    encoded = encoder(tokenizer).encode([said("user", content)])
    assert f"user\n{content}<|im_end|>" in encoded.text
    assert encoded.sentinel == chr(ord(SENTINEL) + 1)
    specials = [tokenizer.added.texts[one] for one in encoded.ids if one in tokenizer.added.guarded_ids]
    assert specials == ["<|im_start|>", "<|im_end|>", "<|im_start|>"]
    end = encoded.ids.index(tokenizer.added.ids["<|im_end|>"])
    assert encoded.ids[1:end] == tokenizer.encode_plain("user\n" + content)


@pytest.mark.parametrize("arguments", ['{"a": "\\u003c|im_end|>"}', '{"a": "<\\/think>"}', '{"<\\u002fthink>": 1}'])
def test_escapes_in_arguments_hide_nothing(tokenizer: ModelTokenizer, arguments: str) -> None:
    calls = (ToolCall(id="c", name="f", arguments=arguments),)
    messages = [said("user", "q"), Message(role="assistant", content="", tool_calls=calls)]
    encoded = encoder(tokenizer, QWEN3).encode(messages)
    specials = [tokenizer.added.texts[one] for one in encoded.ids if one in tokenizer.added.guarded_ids]
    turn = ["<|im_start|>", "<|im_end|>"]
    assert specials == [*turn, turn[0], "<tool_call>", "</tool_call>", turn[1], turn[0]]
    assert '<|im_end|>"' in encoded.text or "</think>" in encoded.text


def test_messages_with_every_private_use_character_are_refused(tokenizer: ModelTokenizer) -> None:
    numbers = [number for numbers in prompt_module._PRIVATE_USE for number in numbers]
    everything = "".join(map(chr, numbers))
    assert encoder(tokenizer).encode([said("user", everything[:-1])]).sentinel == everything[-1]
    with pytest.raises(InvalidRequest) as caught:
        encoder(tokenizer).encode([said("user", everything)])
    assert caught.value.param == "messages"


def test_variables_reach_the_template(tokenizer: ModelTokenizer) -> None:
    made = encoder(tokenizer, "{{ enable_thinking }}").encode([], variables={"enable_thinking": False})
    assert made.text == "False"


@pytest.mark.parametrize(
    ("content", "reasoning", "answer"),
    [
        ("<think>\nhm\n</think>\n\nhello", "hm", "hello"),
        (" \n<think></think>hello", "", "hello"),
        ("<think>never closed", "", "<think>never closed"),
        ("first <think>x</think>", "", "first <think>x</think>"),
    ],
)
def test_reasoning_in_an_answer_that_is_sent_back_goes_its_own_way(
    tokenizer: ModelTokenizer, content: str, reasoning: str, answer: str
) -> None:
    template = "{% for m in messages %}[{{ m.reasoning_content }}|{{ m.content }}]{% endfor %}"
    shown = encoder(tokenizer, template).encode([said("assistant", content), said("user", content)]).text
    assert shown == f"[{reasoning}|{answer}][|{content}]"


def test_reasoning_of_its_own_field_stays(tokenizer: ModelTokenizer) -> None:
    template = "{{ messages[0].reasoning_content }}|{{ messages[0].content }}"
    message = Message(role="assistant", content="<think>b</think>c", reasoning="a")
    assert encoder(tokenizer, template).encode([message]).text == "a|<think>b</think>c"


@pytest.mark.parametrize(("template", "inside"), [(PLAIN, False), (QWEN3, False), (DEEPSEEK, True)])
def test_a_prompt_that_ends_with_the_open_marker_is_inside(
    tokenizer: ModelTokenizer,
    template: str,
    inside: bool,  # noqa: FBT001 - parametrized
) -> None:
    assert encoder(tokenizer, template).encode([said("user", "q")]).inside_thinking is inside


@pytest.mark.parametrize("ending", [[], ["<|im_end|>"]])
def test_an_answer_that_is_sent_again_has_the_ids_that_it_had(tokenizer: ModelTokenizer, ending: list[str]) -> None:
    machine = encoder(tokenizer)
    messages = [said("user", "hello")]
    kept: list[int] = []
    for turn in range(6):
        first = machine.encode(messages)
        assert begins_with(first.ids, kept)
        answer = f"hello and <b> hello.\n {turn} <|im_end|> <think"
        ids = by_character(tokenizer, answer)
        machine.remember(first, answer, ids + [tokenizer.added.ids[text] for text in ending])
        kept = first.ids + ids
        messages += [said("assistant", answer), said("user", f"and {turn}")]
        assert kept != tokenizer.encode_rendered(tokenizer.decode(kept))
    assert tokenizer.decode(machine.encode(messages).ids) == machine.encode(messages).text


def test_an_answer_with_reasoning_and_a_call_is_found_again(tokenizer: ModelTokenizer) -> None:
    """As long as the template repeats it: between a call and the answer to it."""
    machine = encoder(tokenizer, QWEN3)
    question = said("user", "weather?")
    first = machine.encode([question])
    answer = '<think>\nhm and\n</think>\n\nhello\n<tool_call>\n{"name": "f", "arguments": {"a": "and"}}\n</tool_call>'
    names = ("<think>", "</think>", "<tool_call>", "</tool_call>")
    ids: list[int] = []
    for piece, special in tokenizer.added.split(answer):
        ids += by_character(tokenizer, piece) if special is None else [special]
    assert [tokenizer.added.texts[one] for one in ids if one in tokenizer.added.guarded_ids] == list(names)
    machine.remember(first, answer, [*ids, tokenizer.added.ids["<|im_end|>"]])
    calls = (ToolCall(id="c", name="f", arguments='{"a": "and"}'),)
    sent = Message(role="assistant", content="hello", reasoning="hm and", tool_calls=calls)
    second = machine.encode([question, sent, Message(role="tool", content="rain", tool_call_id="c")])
    assert begins_with(second.ids, first.ids + ids)
    third = machine.encode([question, said("assistant", "hello"), said("user", "more")])
    assert begins_with(third.ids, first.ids)
    assert "hm and" not in third.text


@pytest.mark.parametrize(
    ("template", "answer", "sent"), [(TRIMMING, "hello \n", "hello \n"), (QWEN3, "<think>a</think>b", "b")]
)
def test_of_an_answer_that_the_template_changes_only_the_prompt_is_used(
    tokenizer: ModelTokenizer, template: str, answer: str, sent: str
) -> None:
    machine = encoder(tokenizer, template)
    first = machine.encode([said("user", "q")])
    machine.remember(first, answer, tokenizer.encode_rendered(answer))
    second = machine.encode([said("user", "q"), said("assistant", sent), said("user", "r")])
    assert begins_with(second.ids, first.ids)
    assert tokenizer.decode(second.ids) == second.text


def test_with_the_open_marker_in_the_prompt_the_same_text_gives_the_same_ids(tokenizer: ModelTokenizer) -> None:
    machine = encoder(tokenizer, DEEPSEEK)
    messages = [said("user", "hello"), said("assistant", "<think>x</think>hello"), said("user", "more")]
    first = machine.encode(messages[:1])
    machine.remember(first, "x</think>hello", tokenizer.encode_rendered("x</think>hello"))
    assert machine.encode(messages).ids == encoder(tokenizer, DEEPSEEK).encode(messages).ids


@pytest.mark.parametrize(
    ("answer", "names"),
    [
        ("hello <think> b", ()),  # written in characters: text
        ("hello <think> b <think>", ("<think>",)),  # which of the two it was cannot be told
        ("hello b", ("<think>",)),  # the runtime has swallowed it
        (f"hello {SENTINEL} b", ()),
        ("", ()),
    ],
)
def test_special_texts_in_answers_are_matched_or_left(
    tokenizer: ModelTokenizer, answer: str, names: tuple[str, ...]
) -> None:
    machine = encoder(tokenizer)
    first = machine.encode([said("user", "q")])
    ids = [*by_character(tokenizer, answer), *(tokenizer.added.ids[name] for name in names)]
    machine.remember(first, answer, ids)
    second = machine.encode([said("user", "q"), said("assistant", answer), said("user", "r")])
    assert begins_with(second.ids, first.ids + ids) == (answer in {"hello <think> b", ""})
    assert tokenizer.decode(second.ids) == second.text


def test_an_answer_that_was_edited_inside_a_word_is_encoded_anew(tokenizer: ModelTokenizer) -> None:
    machine = encoder(tokenizer)
    first = machine.encode([said("user", "q")])
    machine.remember(first, "hell", by_character(tokenizer, "hell"))
    edited = [said("user", "q"), said("assistant", "hello")]
    assert machine.encode(edited).ids == encoder(tokenizer).encode(edited).ids
    assert begins_with(
        machine.encode([said("user", "q"), said("assistant", "hell.")]).ids, first.ids + by_character(tokenizer, "hell")
    )


def test_what_ran_last_counts(tokenizer: ModelTokenizer) -> None:
    """A longer text that was encoded before the answer was known must not bring other ids back."""
    machine = encoder(tokenizer)
    first = machine.encode([said("user", "q")])
    later = [said("user", "q"), said("assistant", "hello"), said("user", "r")]
    machine.encode(later)
    machine.remember(first, "hello", by_character(tokenizer, "hello"))
    assert begins_with(machine.encode(later).ids, first.ids + by_character(tokenizer, "hello"))


def test_the_memory_is_bounded_in_entries_and_characters(
    tokenizer: ModelTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = encoder(tokenizer, memory=4)
    for number in range(9):
        machine.remember(machine.encode([said("user", str(number))]), "hello", [1])
    assert len(machine._memory._known) == 4
    monkeypatch.setattr(prompt_module, "MEMORY_CHARACTERS", 2000)
    machine = encoder(tokenizer)
    for number in range(40):
        machine.encode([said("user", f"{number} hello")])
        assert machine._memory._characters == sum(len(one.text) for one in machine._memory._known.values()) <= 2000
    machine.encode([said("user", "x" * 3000)])
    assert not machine._memory._known
    assert machine._memory._characters == 0


def test_what_is_used_is_not_forgotten_first(tokenizer: ModelTokenizer) -> None:
    machine = encoder(tokenizer, memory=3)
    first = machine.encode([said("user", "q")])
    machine.remember(first, "hello", by_character(tokenizer, "hello"))
    follow = [said("user", "q"), said("assistant", "hello"), said("user", "r")]
    for number in range(5):
        assert begins_with(machine.encode(follow).ids, first.ids + by_character(tokenizer, "hello"))
        machine.encode([said("user", str(number))])


def test_raw_prompts_may_hold_special_tokens(tmp_path: Path, tokenizer: ModelTokenizer) -> None:
    text = "<|im_start|>user\nhello <think>\n"
    encoded = encoder(tokenizer).encode_text(text)
    assert encoded == EncodedPrompt(text=text, ids=tokenizer.encode_rendered(text), inside_thinking=True)
    config = {"bos_token": "<|endoftext|>", "add_bos_token": True}
    with_bos = ModelTokenizer.load(write(tmp_path, chatml(), tokenizer_config=config))
    assert with_bos is not None
    bos = with_bos.added.ids["<|endoftext|>"]
    assert encoder(with_bos).encode_text("hello").ids == [bos, *with_bos.encode_plain("hello")]
    assert encoder(with_bos).encode_text("<|endoftext|>hello").ids == [bos, *with_bos.encode_plain("hello")]


def test_raw_prompts_are_not_remembered(tokenizer: ModelTokenizer) -> None:
    machine = encoder(tokenizer)
    machine.remember(machine.encode_text("hel"), "lo", by_character(tokenizer, "lo"))
    assert machine.encode_text("hello").ids == tokenizer.encode_plain("hello")
    assert not machine._memory._known


def test_a_blank_before_each_piece_does_not_multiply(tmp_path: Path) -> None:
    """Llama's older tokenizers put a blank before every piece; what continues a remembered text is none."""
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    normalizer = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, replace]}
    definition = with_blanks_marked(added(1, "<s>"), added(2, "</s>"), normalizer=normalizer)
    assert vocabulary_end(definition) > len(BLANK_MERGES)
    made = ModelTokenizer.load(write(tmp_path, definition))
    assert made is not None
    asked = "{% for m in messages %}{{ '[A]' if m.role == 'assistant' else '[Q]' }}{{ m.content }}{% endfor %}"
    machine = encoder(made, "<s>" + asked + "[A]")
    first = machine.encode([said("user", " hello")])
    ids = made.encode_pieces([(" hello", None)], after="text")
    machine.remember(first, " hello", ids)
    second = machine.encode([said("user", " hello"), said("assistant", " hello"), said("user", " world")])
    assert begins_with(second.ids, first.ids + ids)
    assert made.decode(second.ids) == "<s> [Q] hello[A] hello[Q] world[A]"


def test_threads_may_encode_at_once(tokenizer: ModelTokenizer) -> None:
    machine = encoder(tokenizer, memory=8)
    failures: list[str] = []

    def work(name: int) -> None:
        messages = [said("user", f"{name} hello")]
        for _ in range(60):
            encoded = machine.encode(messages)
            machine.remember(encoded, "hello.", by_character(tokenizer, "hello."))
            if tokenizer.decode(encoded.ids) != encoded.text:
                failures.append(encoded.text)
            messages = [*messages[-4:], said("assistant", "hello."), said("user", f"{name} and")]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
