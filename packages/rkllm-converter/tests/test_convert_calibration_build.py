# ruff: noqa: RUF001 - the bars in the tokens of DeepSeek are full-width ones
"""Which entries are chosen, how they are written with a template, and what is said of their number."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from converter_templates import DEEPSEEK_R1, FAMILIES, GEMMA2, LLAMA3, PHI3, QWEN2, QWEN3

from rkllm_converter import calibration
from rkllm_converter.calibration import DEFAULT_SAMPLES, ChatTemplate, advice, build, dataset_hash
from rkllm_converter.calibration.build import default_set
from rkllm_converter.errors import BadCalibration, IllegalOptions

EVERYTHING = len(default_set())


def template_of(family: str) -> ChatTemplate:
    return ChatTemplate(FAMILIES[family], special={"bos_token": "<s>", "eos_token": "</s>"})


def file_of(folder: Path, *values: object) -> Path:
    path = folder / "data.json"
    path.write_text(json.dumps(values), encoding="utf-8")
    return path


def made(folder: Path, source: str | None, *values: object) -> list[dict[str, str]]:
    return build(file_of(folder, *values), ChatTemplate(source) if source else None, samples=100, seed=0)


def chosen(seed: int, samples: int = DEFAULT_SAMPLES) -> list[int]:
    """Indices in the default set, found by the question."""
    questions = [one.chat.messages[-1]["content"] for one in default_set()]
    dataset = build(None, ChatTemplate("{{ messages[-1].content }}"), samples=samples, seed=seed)
    return [next(place for place, text in enumerate(questions) if entry["input"].endswith(text)) for entry in dataset]


@pytest.mark.parametrize("family", list(FAMILIES))
def test_every_family_takes_the_whole_default_set(family: str) -> None:
    dataset = build(None, template_of(family), samples=1000, seed=0)
    assert len(dataset) == EVERYTHING
    for entry, one in zip(dataset, default_set(), strict=True):
        assert entry.keys() == {"input", "target"}
        for message in one.chat.messages:
            assert message["content"].strip() in entry["input"]
        assert one.chat.answer is not None
        assert entry["target"].endswith(one.chat.answer["content"])
        assert one.chat.answer["content"] not in entry["input"]


def test_the_choice_is_even_for_any_seed() -> None:
    default = default_set()
    there = Counter(one.language for one in default)
    kinds = {one.kind for one in default}
    for seed in range(100):
        picked = [default[index] for index in chosen(seed)]
        assert len(picked) == DEFAULT_SAMPLES
        languages = Counter(one.language for one in picked)
        most = max(languages.values())
        assert all(languages[language] >= min(most - 1, there[language]) for language in there)
        counts = Counter(one.kind for one in picked)
        assert counts.keys() == kinds
        assert max(counts.values()) <= 5


def test_the_seed_decides_and_nothing_is_taken_twice() -> None:
    assert chosen(1) == chosen(1)
    assert len({tuple(chosen(seed)) for seed in range(20)}) > 15
    for samples in (1, 9, EVERYTHING - 1, EVERYTHING, EVERYTHING + 1):
        picked = chosen(5, samples)
        assert picked == sorted(set(picked))
        assert len(picked) == min(samples, EVERYTHING)


def test_entries_of_a_file_are_chosen_by_the_seed_and_keep_their_order(tmp_path: Path) -> None:
    path = file_of(tmp_path, *({"prompt": f"question {number}"} for number in range(50)))
    template = ChatTemplate("{{ messages[0].content.split()[1] }}")
    picks = [[int(entry["input"]) for entry in build(path, template, samples=10, seed=seed)] for seed in (0, 0, 1)]
    assert picks[0] == picks[1] != picks[2]
    assert all(pick == sorted(set(pick)) and len(pick) == 10 for pick in picks)
    every = [int(entry["input"]) for entry in build(path, template, samples=51, seed=0)]
    assert every == list(range(50))


def test_no_samples_are_refused() -> None:
    with pytest.raises(IllegalOptions, match="--samples 0"):
        build(None, None, samples=0, seed=0)


def test_the_toolkits_own_form_stays_as_it_is(tmp_path: Path) -> None:
    entries = [{"input": f" <|user|>{number}\n", "target": "x \n" * (number % 2)} for number in range(40)]
    path = file_of(tmp_path, *entries)
    for template in (None, ChatTemplate(PHI3)):
        assert build(path, template, samples=3, seed=0) == entries


@pytest.mark.parametrize(
    ("there", "asked", "said"),
    [
        (20, 20, None),
        (32, 32, None),
        (200, 200, None),
        (3, 32, "data.json: only 3 texts to calibrate with; 20 to 60 are advised."),
        (1, 32, "data.json: only 1 text to calibrate with; 20 to 60 are advised."),
        (3, 3, "--samples 3: only 3 texts to calibrate with; 20 to 60 are advised."),
        (20, 21, "data.json: there are only 20 texts to calibrate with, not 21."),
        (40, 32, "data.json is all in the toolkit's own form, so all of its 40 texts are taken, not 32 of them."),
    ],
)
def test_what_is_said_of_the_number_of_entries(there: int, asked: int, said: str | None) -> None:
    entries = [{"input": "a", "target": "b"}] * there
    assert advice(entries, asked, Path("data.json")) == said


def test_the_built_in_set_is_named_as_such() -> None:
    entries = build(None, None, samples=1000, seed=0)
    said = f"The built-in set: there are only {EVERYTHING} texts to calibrate with, not 1000."
    assert advice(entries, 1000, None) == said
    assert advice(build(None, None, samples=DEFAULT_SAMPLES, seed=0), DEFAULT_SAMPLES, None) is None


def test_the_default_set_is_read_once() -> None:
    assert default_set() is default_set()


def test_own_form_and_chats_may_stand_together(tmp_path: Path) -> None:
    ready = {"input": "a", "target": "b"}
    assert made(tmp_path, PHI3, ready, {"prompt": "Hi", "response": " Hello\n"}) == [
        ready,
        {"input": "<|user|>\nHi<|end|>\n<|assistant|>\n", "target": "Hello"},
    ]


HARD = {
    "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}],
    "reasoning": "A greeting.",
}
EASY = {"prompt": "Hi", "response": "Hello"}
BARE = {"prompt": "Hi"}


def test_a_prompt_that_ends_in_an_open_block_has_its_reasoning_in_the_target(tmp_path: Path) -> None:
    prompt = "<｜User｜>Hi<｜Assistant｜><think>\n"
    assert made(tmp_path, DEEPSEEK_R1, HARD, EASY, BARE, {**EASY, "response": ""}) == [
        {"input": prompt, "target": "A greeting.\n</think>\n\nHello"},
        {"input": prompt, "target": "\n</think>\n\nHello"},
        *[{"input": prompt, "target": ""}] * 2,
    ]


def test_half_of_the_chats_think_where_that_can_be_switched(tmp_path: Path) -> None:
    on = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    off = f"{on}<think>\n\n</think>\n\n"
    thinking = {"input": on, "target": "<think>\nA greeting.\n</think>\n\nHello"}
    not_thinking = {"input": off, "target": "Hello"}
    assert made(tmp_path, QWEN3, HARD, HARD, HARD, HARD) == [thinking, not_thinking] * 2
    assert made(tmp_path, QWEN3, EASY, EASY, HARD) == [not_thinking, not_thinking, thinking]
    assert made(tmp_path, QWEN3, BARE, BARE) == [{"input": on, "target": ""}, {"input": off, "target": ""}]
    targets = [entry["target"] for entry in build(None, ChatTemplate(QWEN3), samples=DEFAULT_SAMPLES, seed=3)]
    assert sum(target.startswith("<think>") for target in targets) == DEFAULT_SAMPLES / 2


def test_reasoning_is_left_out_where_the_model_has_none(tmp_path: Path) -> None:
    assert [entry["target"] for entry in made(tmp_path, QWEN2, HARD)] == ["Hello"]


def test_a_template_that_takes_reasoning_away_tells_of_a_model_that_writes_it(tmp_path: Path) -> None:
    source = "{% for m in messages %}{{ m.content.split('</think>')[-1] + '|' }}{% endfor %}"
    assert made(tmp_path, source, HARD) == [{"input": "Hi|", "target": "<think>\nA greeting.\n</think>\n\nHello"}]


def test_tools_reach_the_template_and_a_call_is_the_target(tmp_path: Path) -> None:
    call = {"function": {"name": "f", "arguments": '{"a": "ü"}'}}
    value: dict[str, Any] = {
        "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": None, "tool_calls": [call]}],
        "tools": [{"name": "f"}],
    }
    assert made(tmp_path, QWEN2, value) == [
        {
            "input": '<|im_start|>system\n<tools>{"name": "f"}</tools><|im_end|>\n'
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
            "target": '<tool_call>\n{"name": "f", "arguments": {"a": "ü"}}\n</tool_call>',
        }
    ]


def test_texts_are_prompts_without_an_answer(tmp_path: Path) -> None:
    assert made(tmp_path, PHI3, {"text": "Hi"}) == [{"input": "<|user|>\nHi<|end|>\n<|assistant|>\n", "target": ""}]


@pytest.mark.parametrize(
    ("value", "first", "rest"),
    [
        ({"text": "one two three four"}, "one two three", " four"),
        ({"text": "天地玄黄"}, "天地", "玄黄"),
        ({"text": "x"}, "x", ""),
        ({"prompt": "one two", "response": "three"}, "one two", "three"),
        ({"prompt": "one two", "response": "three", "system": "Count."}, "Count.\n\none two", "three"),
        ({"prompt": "one two", "response": ""}, "one", " two"),
    ],
)
def test_base_models_get_the_texts_as_they_are(value: object, first: str, rest: str, tmp_path: Path) -> None:
    assert made(tmp_path, None, value) == [{"input": first, "target": rest}]


def test_a_template_that_takes_nothing_is_named() -> None:
    template = ChatTemplate("{{ raise_exception('never') }}", name="model/chat_template.jinja")
    with pytest.raises(BadCalibration, match=r"^model/chat_template\.jinja .*never"):
        build(None, template, samples=4, seed=0)


def test_default_chats_that_a_template_refuses_are_passed_over() -> None:
    fussy = "{% if messages | length > 1 %}{{ raise_exception('one at a time') }}{% endif %}" + PHI3
    assert len(build(None, ChatTemplate(fussy), samples=DEFAULT_SAMPLES, seed=0)) == DEFAULT_SAMPLES
    refused = sum(sum(message["role"] == "assistant" for message in one.chat.messages) for one in default_set())
    assert len(build(None, ChatTemplate(fussy), samples=1000, seed=0)) == EVERYTHING - refused


def test_an_own_chat_that_a_template_refuses_is_an_error(tmp_path: Path) -> None:
    two = {"messages": [{"role": "assistant", "content": "Yes?"}, {"role": "user", "content": "Hi"}]}
    with pytest.raises(BadCalibration, match="take turns"):
        made(tmp_path, GEMMA2, EASY, two)


def test_the_hash_is_of_the_contents_and_their_order() -> None:
    first, second = {"input": "ä", "target": "b"}, {"input": "c", "target": ""}
    assert dataset_hash([first]) == "cb56a793f67ee7545f80ba9a66beceae2eca53e40c0de308716f8115c5fb2006"
    assert dataset_hash([{"target": "b", "input": "ä"}]) == dataset_hash([first])
    assert len({dataset_hash(data) for data in ([first], [second], [first, second], [second, first], [])}) == 5


def test_every_python_makes_the_same_data() -> None:
    """The hash changes with the default set and with QWEN2; nothing else may change it."""
    dataset = build(None, ChatTemplate(QWEN2), samples=DEFAULT_SAMPLES, seed=0)
    assert dataset_hash(dataset) == "24d462b4d11b2b50ee2da650cc140ba71613ba7cd84030f8c76c20a65335c9e0"


HASHES = """
import sys
from rkllm_converter.calibration import ChatTemplate, build, dataset_hash
for line in sys.stdin.read().split("\\0"):
    print(dataset_hash(build(None, ChatTemplate(line), samples=20, seed=7)))
"""


@pytest.mark.slow
@pytest.mark.parametrize("hash_seed", ["0", "1234"])
def test_another_process_makes_the_same_data(hash_seed: str) -> None:
    sources = (QWEN2, QWEN3, DEEPSEEK_R1, LLAMA3)
    done = subprocess.run(
        [sys.executable, "-c", HASHES],
        input="\0".join(sources),
        text=True,
        capture_output=True,
        check=True,
        timeout=60,
        env={"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": hash_seed, "PYTHONUTF8": "1", "TZ": "Asia/Tokyo"},
    )
    assert done.stdout.split() == [
        dataset_hash(build(None, ChatTemplate(source), samples=20, seed=7)) for source in sources
    ]


def test_what_is_public() -> None:
    assert set(calibration.__all__) == {"DEFAULT_SAMPLES", "ChatTemplate", "advice", "build", "dataset_hash"}
