"""Files of calibration data: their endings, their entries in every form, and what is said of a wrong one."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rkllm_converter.calibration import chats, readers
from rkllm_converter.calibration.chats import Chat, Entry, Ready, Text
from rkllm_converter.calibration.readers import read
from rkllm_converter.errors import BadCalibration

QUESTION = {"role": "user", "content": "Hi"}
ANSWER = {"role": "assistant", "content": "Hello"}
CHAT = Chat((QUESTION,), ANSWER)
CALLS = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read_one(folder: Path, value: object) -> Entry:
    (entry,) = read(write(folder, "one.jsonl", json.dumps(value)))
    return entry


@pytest.mark.parametrize(
    ("value", "entry"),
    [
        ({"messages": [QUESTION, ANSWER]}, CHAT),
        ({"messages": [QUESTION]}, Chat((QUESTION,))),
        ({"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]}, CHAT),
        ({"conversation": [QUESTION, ANSWER], "id": 7}, CHAT),
        ({"prompt": "Hi", "response": "Hello"}, CHAT),
        ({"prompt": "Hi", "completion": "Hello"}, CHAT),
        ({"prompt": "Hi"}, Chat((QUESTION,))),
        (
            {"prompt": "Hi", "response": None, "system": "Be brief."},
            Chat(({"role": "system", "content": "Be brief."}, QUESTION), {"role": "assistant", "content": ""}),
        ),
        ({"instruction": "Hi", "input": "", "output": "Hello"}, CHAT),
        (
            {"instruction": "Add.", "input": "1, 2", "output": "3"},
            Chat(({"role": "user", "content": "Add.\n\n1, 2"},), {"role": "assistant", "content": "3"}),
        ),
        ({"text": "Once upon a time."}, Text("Once upon a time.")),
        ("Once upon a time.", Text("Once upon a time.")),
        ({"input": "<|user|>Hi ", "target": "Hello\n"}, Ready("<|user|>Hi ", "Hello\n")),
        ({"input": "Hi", "target": ""}, Ready("Hi", "")),
        ({"messages": [QUESTION, {**ANSWER, "reasoning_content": "Hm."}]}, Chat((QUESTION,), ANSWER, "Hm.")),
        ({"messages": [QUESTION, ANSWER], "reasoning": " Hm.\n"}, Chat((QUESTION,), ANSWER, "Hm.")),
        (
            {"messages": [QUESTION, {"role": "assistant", "content": "<think>\nHm.\n</think>\n\nHello"}]},
            Chat((QUESTION,), ANSWER, "Hm."),
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]}]},
            Chat((QUESTION,)),
        ),
        (
            {"messages": [QUESTION, {"role": "assistant", "content": None, "tool_calls": CALLS}], "tools": [{"a": 1}]},
            Chat((QUESTION,), {"role": "assistant", "content": "", "tool_calls": CALLS}, tools=({"a": 1},)),
        ),
        (
            {"messages": [QUESTION, {"role": "tool", "content": "3", "tool_call_id": "c"}]},
            Chat((QUESTION, {"role": "tool", "content": "3", "tool_call_id": "c"})),
        ),
    ],
)
def test_the_forms_of_an_entry(value: object, entry: Entry, tmp_path: Path) -> None:
    assert read_one(tmp_path, value) == entry


LINE = json.dumps({"prompt": "Hi", "response": "Hello"})


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", f"{LINE}\n\n  {LINE}\n"),
        ("a.JSONL", f"{LINE}\r\n{LINE}\r\n"),
        ("a.ndjson", f"\ufeff{LINE}\n{LINE}"),
        ("a.json", f"[{LINE}, {LINE}]"),
        ("a.json", f" [ {LINE}\n,\n{LINE} ] \n"),
        ("a.json", f"{LINE}\n{LINE}\n"),
        ("a.jsonl", f"[{LINE},\n{LINE}]"),
        ("a.json", json.dumps(json.loads(LINE), indent=2) * 2),
    ],
)
def test_files_of_json_are_known_by_their_content(name: str, content: str, tmp_path: Path) -> None:
    assert read(write(tmp_path, name, content)) == [CHAT, CHAT]


@pytest.mark.parametrize("name", ["a.txt", "a.TXT"])
def test_paragraphs_are_prompts(name: str, tmp_path: Path) -> None:
    content = "\n\nWhy is\nthe sky blue?\n \t\r\n  What is 1 + 1?  \n\n\n\nEnd"
    texts = [Text("Why is\nthe sky blue?"), Text("What is 1 + 1?"), Text("End")]
    assert read(write(tmp_path, name, content)) == texts


@pytest.mark.parametrize("name", ["d.csv", "d.parquet", "d.md", "d", ".json", "d.json.gz"])
def test_other_endings_are_refused_with_the_legal_ones(name: str, tmp_path: Path) -> None:
    with pytest.raises(BadCalibration, match=r"one of \.txt, \.json, \.jsonl, \.ndjson") as caught:
        read(write(tmp_path, name, f"[{LINE}]"))
    assert caught.value.message.startswith(str(tmp_path / name))


def test_a_text_file_may_begin_with_a_bracket(tmp_path: Path) -> None:
    assert read(write(tmp_path, "a.txt", "[1] is a reference.")) == [Text("[1] is a reference.")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", f'{LINE}\n{{"prompt": }}\n', r"a\.jsonl, line 2, column 12: Expecting value"),
        ("a.jsonl", f'{LINE}\n{{"prompt": "Hi"\n{LINE}', r"line 2, column 16: "),
        ("a.jsonl", f"{LINE}\n{LINE} {LINE}", r"line 2, column \d+: Extra data"),
        ("a.json", f"[{LINE},\n {LINE}\n {LINE}]", r"line 3, column 2: Expecting ',' or ']'"),
        ("a.json", f"[{LINE}\n,]", r"line 2, column 2: Expecting value"),
        ("a.json", f"[{LINE}] x", "Extra data"),
        ("a.json", f"[{LINE}", "Expecting ',' or ']'"),
        ("a.json", "[", "Expecting value"),
        ("a.json", "text", "line 1, column 1: Expecting value"),
        ("a.json", "9" * 5000, "digits"),
        ("a.json", "[" * 100_000, "nested too deep"),
        ("a.jsonl", '{"a":' * 100_000, "nested too deep"),
        ("a.txt", b"one\n\ntw\xe9\n", r"a\.txt, line 3: it is not UTF-8 \(byte 0xe9\)"),
        ("a.json", b"\xff\xfe[\x00]\x00", "line 1: it is not UTF-8"),
        ("a.txt", " \n\t\n", "nothing in it"),
        ("a.json", "[]", "nothing in it"),
        ("a.jsonl", "", "nothing in it"),
        ("a.json", f"[{LINE},\n\n3]", r"line 3, \[1\]: it is a number, not an object"),
        ("a.json", f'[{LINE},\n{{"messages":\n [1]}}]', r"line 2, \[1\]\.messages\[0\]: it is a number, not an object"),
        ("a.jsonl", f"{LINE}\n\nnull", "line 3: it is null, not an object"),
        ("a.txt", "a\n\n" + "x" * 100_001, r"line 3: it has 100003 characters, and 100000 are allowed"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_line(
    name: str, content: str | bytes, message: str, tmp_path: Path
) -> None:
    with pytest.raises(BadCalibration, match=message) as caught:
        read(write(tmp_path, name, content))
    assert str(tmp_path / name) in caught.value.message


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([[]], r"\[0\]: it is a list, not an object"),
        ({}, "it has none of"),
        ({"question": "Hi"}, 'it has none of "messages"'),
        ("", "the text is empty"),
        ({"text": " "}, "text: it is empty"),
        ({"prompt": ""}, "prompt: it is empty"),
        ({"prompt": 3}, "prompt: it is a number, not a text"),
        ({"prompt": "Hi", "response": True}, "response: it is true or false, not a text"),
        ({"instruction": "\n"}, "instruction: it is empty"),
        ({"input": "", "target": "x"}, "input: it is empty"),
        ({"input": "x", "target": ["x"]}, "target: it is a list, not a text"),
        ({"sample": "a.pkl", "token_nums": 3}, "sample: data of images"),
        ({"messages": {}}, "messages: it is an object, not a list"),
        ({"messages": []}, "messages: there are no messages"),
        ({"messages": [ANSWER]}, "no message of a user"),
        ({"messages": [ANSWER, {"role": "system", "content": "x"}]}, "no message of a user"),
        ({"messages": [QUESTION, {"content": "x"}]}, r"messages\[1\]\.role: it has to be one of system"),
        ({"messages": [{"role": "king", "content": "x"}]}, r"messages\[0\]\.role: it has to be one of system"),
        ({"messages": [{"role": "user", "content": " \n"}]}, r"messages\[0\]\.content: the prompt is empty"),
        ({"messages": [{"role": "user", "content": 3}]}, r"messages\[0\]\.content: it is a number"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, r"content\[0\]: .*images"),
        ({"conversations": [{"from": ["x"]}]}, r"conversations\[0\]\.from: it has to be"),
        ({"conversations": [{"from": "human", "value": None}]}, r"conversations\[0\]\.value: the prompt is empty"),
        ({"messages": [QUESTION, {**ANSWER, "tool_calls": "f()"}]}, r"messages\[1\]\.tool_calls: it is a text"),
        ({"messages": [QUESTION, {**ANSWER, "tool_calls": [{}]}]}, r"tool_calls\[0\]: it is no call"),
        ({"messages": [QUESTION], "tools": "f"}, "tools: it is a text, not a list"),
        ({"prompt": "\ud800"}, "surrogate"),
        ({"prompt": "x" * 100_001}, "characters, and 100000 are allowed"),
    ],
)
def test_what_is_wrong_with_an_entry_is_said_with_its_path(value: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(BadCalibration, match=rf"line 1\W.*{message}.*Mend or remove"):
        read_one(tmp_path, value)


def test_a_user_has_to_speak_before_the_answer(tmp_path: Path) -> None:
    assert read_one(tmp_path, {"messages": [ANSWER, QUESTION]}) == Chat((ANSWER, QUESTION))
    assert read_one(tmp_path, {"messages": [QUESTION, QUESTION, ANSWER]}) == Chat((QUESTION, QUESTION), ANSWER)


def test_a_longest_entry_passes(tmp_path: Path) -> None:
    text = "ä" * (chats.LONGEST_ENTRY - 2)
    assert read_one(tmp_path, text) == Text(text)


def test_files_that_cannot_be_read_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "folder.txt").mkdir()
    for name in ("none.txt", "folder.txt", "pipe.txt", f"{'x' * 300}.txt"):
        with pytest.raises(BadCalibration, match=r"no such file|cannot be read"):
            read(tmp_path / name)
    monkeypatch.setattr(readers, "LARGEST_FILE", 1 << 20)
    fits = write(tmp_path, "a.txt", b"fits\n\n" + b"\n" * ((1 << 20) - 6))
    assert read(fits) == [Text("fits")]
    with pytest.raises(BadCalibration, match="more than 1 MB"):
        read(write(tmp_path, "a.txt", b"x" * ((1 << 20) + 1)))


def test_many_blanks_take_no_time(tmp_path: Path) -> None:
    begin = time.process_time()
    path = write(tmp_path, "a.txt", "one\ntwo\n\n" + " " * 200_000 + "\n  three \n")
    assert read(path) == [Text("one\ntwo"), Text("three")]
    assert time.process_time() - begin < 1


WORDS = """
messages conversations prompt response instruction input output text target role content from value tools
tool_calls function name arguments reasoning reasoning_content system user assistant"""
KEYS = st.sampled_from(WORDS.split())
LEAVES = st.none() | st.booleans() | st.floats() | st.text(max_size=5) | KEYS
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=20
)
CHATS = st.fixed_dictionaries(
    {"messages": st.lists(st.fixed_dictionaries({"role": KEYS, "content": LEAVES}, optional={"tool_calls": VALUES}))}
)
NAMES = st.sampled_from(("a.txt", "a.json", "a.jsonl"))
settings.register_profile("converter", deadline=None, database=None, print_blob=True)
FUZZED = settings(
    settings.get_profile("converter"), max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def read_or_refuse(path: Path) -> None:
    with contextlib.suppress(BadCalibration):
        assert read(path)


@FUZZED
@given(name=NAMES, data=st.binary() | st.text().map(str.encode) | st.text('[]{},:"\\ \n0aé\r').map(str.encode))
def test_any_bytes_are_read_or_refused(name: str, data: bytes, tmp_path: Path) -> None:
    read_or_refuse(write(tmp_path, name, data))


@FUZZED
@given(name=NAMES, values=st.lists(VALUES | CHATS, max_size=4))
def test_any_json_is_read_or_refused(name: str, values: list[Any], tmp_path: Path) -> None:
    for content in (json.dumps(values), "\n".join(map(json.dumps, values))):
        read_or_refuse(write(tmp_path, name, content))


@FUZZED
@given(entries=st.lists(st.text(min_size=1).filter(str.strip), min_size=1, max_size=5), indent=st.none() | st.just(1))
def test_each_entry_comes_once_and_in_its_order(entries: list[str], indent: int | None, tmp_path: Path) -> None:
    values = [{"input": text, "target": text[::-1]} for text in entries]
    expected = [Ready(text, text[::-1]) for text in entries]
    assert read(write(tmp_path, "a.json", json.dumps(values, indent=indent))) == expected
    assert read(write(tmp_path, "a.jsonl", "\n".join(map(json.dumps, values)))) == expected
