"""The chats that are shipped: whole, in all languages and kinds, and right where a machine can tell."""

from __future__ import annotations

import ast
import itertools
import json
import operator
import re
from collections import Counter
from collections.abc import Iterator
from importlib import resources
from typing import Any

import pytest

from rkllm_converter import calibration
from rkllm_converter.calibration.build import Default, default_set

CHATS = default_set()
KINDS = {
    "code",
    "conversation",
    "creative",
    "explanation",
    "extraction",
    "instructions",
    "mathematics",
    "question",
    "summary",
    "tool",
    "translation",
}
SCRIPTS = {
    "zh": re.compile(r"[\u4e00-\u9fff]"),
    "ja": re.compile(r"[\u3040-\u30ff]"),
    "ar": re.compile(r"[\u0600-\u06ff]"),
    "ru": re.compile(r"[\u0400-\u04ff]"),
}
OPERATORS = {"+": operator.add, "-": operator.sub, "\N{MULTIPLICATION SIGN}": operator.mul, "/": operator.truediv}
EQUATION = re.compile(r"(\d+(?:\.\d+)?) ([-+\xd7/]) (\d+(?:\.\d+)?) = (\d+(?:\.\d+)?)")


def of_kind(kind: str) -> Iterator[Default]:
    return (one for one in CHATS if one.kind == kind)


def answer(one: Default) -> str:
    assert one.chat.answer is not None
    return str(one.chat.answer["content"])


def tokens(text: str) -> float:
    """A guess: a token is four Latin letters, two of another alphabet, or one and a half signs of Chinese."""
    return sum(1 / 4 if ord(sign) < 0x250 else 1 / 2 if ord(sign) < 0x2000 else 2 / 3 for sign in text)


def test_there_are_enough_of_each_language_and_kind() -> None:
    counts = Counter(one.language for one in CHATS)
    assert len(CHATS) >= 60
    assert {language: counts[language] for language in ("en", "zh", "de", "es", "fr")} == dict.fromkeys(
        ("en", "zh", "de", "es", "fr"), len(KINDS)
    )
    assert {language for language in counts if counts[language] < len(KINDS)} == {"ja", "pt", "ar", "ru"}
    assert {one.kind for one in CHATS} == KINDS
    for language in ("en", "zh", "de", "es", "fr"):
        assert {one.kind for one in CHATS if one.language == language} == KINDS


def test_no_text_comes_twice() -> None:
    texts = [str(message["content"]) for one in CHATS for message in one.chat.messages if message["role"] != "system"]
    texts += [answer(one) for one in CHATS] + [one.chat.reasoning for one in CHATS]
    assert [text for text, count in Counter(texts).items() if count > 1] == []


def test_the_lines_are_json_as_it_is_written_here() -> None:
    text = resources.files(calibration).joinpath("default.jsonl").read_text(encoding="utf-8")
    assert text.endswith("}\n")
    for line in text.splitlines():
        value: dict[str, Any] = json.loads(line)
        assert json.dumps(value, ensure_ascii=False) == line
        assert list(value) == ["language", "kind", "messages", "reasoning"]


@pytest.mark.parametrize("one", CHATS, ids=lambda one: f"{one.language}-{one.kind}")
def test_each_chat_is_short_and_complete(one: Default) -> None:
    written = [str(message["content"]) for message in one.chat.messages] + [answer(one)]
    assert 30 <= tokens("".join(written)) <= 250
    assert one.chat.reasoning
    assert all(text == text.strip() for text in written)
    roles = [message["role"] for message in one.chat.messages if message["role"] != "system"] + ["assistant"]
    assert roles == ["user", "assistant"] * (len(roles) // 2)
    assert (len(roles) > 2) == (one.kind == "conversation")
    assert (one.chat.messages[0]["role"] == "system") == (one.kind in ("instructions", "tool"))


@pytest.mark.parametrize("language", list(SCRIPTS))
def test_each_language_is_in_its_own_script(language: str) -> None:
    for one in CHATS:
        texts = "".join(str(message["content"]) for message in one.chat.messages)
        assert bool(SCRIPTS[language].search(texts)) == (one.language in (language, {"zh": "ja"}.get(language)))


def test_the_sums_are_right() -> None:
    for one in of_kind("mathematics"):
        equations = EQUATION.findall(answer(one))
        assert len(equations) == answer(one).count("=") >= 2
        for left, sign, right, result in equations:
            assert OPERATORS[sign](float(left), float(right)) == float(result), answer(one)
        assert equations[-1][3] in answer(one)


def test_extracted_data_is_json_of_words_from_the_text() -> None:
    for one in of_kind("extraction"):
        value = json.loads(answer(one))
        question = str(one.chat.messages[-1]["content"])
        assert len(value) == 4
        assert all(key in question for key in value)
        for word in (word for word in value.values() if isinstance(word, str) and word != "Bürostuhl"):
            assert word in question


def test_calls_are_json_and_call_what_there_is() -> None:
    for one in of_kind("tool"):
        found = re.fullmatch(r"<tool_call>\n(.*)\n</tool_call>", answer(one))
        assert found is not None
        call = json.loads(found[1])
        described = f"{call['name']}({', '.join(call['arguments'])})"
        assert described in str(one.chat.messages[0]["content"])


def test_code_runs_and_does_what_was_asked() -> None:
    functions: dict[str, Any] = {}
    for one, block in itertools.product(of_kind("code"), (re.compile(r"```(\w+)\n(.*?)```", re.DOTALL),)):
        ((language, source),) = block.findall(answer(one))
        if language == "python":
            ast.parse(source)
            exec(compile(source, one.language, "exec"), functions)
    assert functions["longest_word"]("to be or not") == "not"
    assert functions["longest_word"]("ab cd e") == "ab"
    assert functions["longest_word"]("") == ""
    assert functions["is_palindrome"]("Never odd or even")
    assert not functions["is_palindrome"]("Never odd")
    assert functions["count_words"]("Öl und öl, Und?") == {"öl": 2, "und": 2}
    assert functions["even_numbers"]([3, 4, 7, 10]) == [4, 10]


def test_limits_that_a_question_sets_are_kept() -> None:
    asked = {(one.language, one.kind): answer(one) for one in CHATS}
    assert len(asked["zh", "creative"]) <= 80
    assert len(re.findall(r"[.!?](?:\s|$)", asked["de", "creative"])) == 5
    assert len(re.findall(r"[.!?](?:\s|$)", asked["ru", "creative"])) == 5
    assert len(asked["fr", "instructions"].splitlines()) == 2
    assert len(asked["zh", "instructions"].splitlines()) == 3
    assert len(asked["en", "instructions"].splitlines()) == 5
