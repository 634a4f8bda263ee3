# ruff: noqa: RUF001 - the bars in the tokens of DeepSeek are full-width ones
"""Chat templates: where they are found, what they make of a chat, and what they may not do."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

import pytest
from converter_templates import DEEPSEEK_R1, FAMILIES, GEMMA2, LLAMA3, PARTS, PHI3, QWEN2, QWEN3, model_folder

from rkllm_converter.calibration import ChatTemplate, build, sandbox
from rkllm_converter.calibration.sandbox import TemplateEnvironment
from rkllm_converter.calibration.template import TooSlow
from rkllm_converter.errors import BadCalibration

USER = {"role": "user", "content": "Hi <b> & 'you'"}
SYSTEM = {"role": "system", "content": "Be brief."}
ANSWER = {"role": "assistant", "content": "Hello"}
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Köln"}'}}
CALLING = {"role": "assistant", "content": None, "tool_calls": [CALL]}
TOOL = {"role": "tool", "content": "rain", "tool_call_id": "c1"}


def show(source: str, *messages: dict[str, Any], **variables: Any) -> str:
    return ChatTemplate(source).render(messages or (USER,), **variables)


def test_a_folder_without_a_template_has_none(tmp_path: Path) -> None:
    assert ChatTemplate.of(model_folder(tmp_path, tokenizer_config={"bos_token": "<s>"})) is None
    assert ChatTemplate.of(tmp_path / "none") is None


def test_the_places_of_a_template_in_their_order(tmp_path: Path) -> None:
    folder = model_folder(tmp_path, tokenizer_config={"chat_template": "config"})
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "default.jinja").write_text("additional")
    found = []
    for files in ({}, {"chat_template": {"chat_template": "json"}}, {"chat_template": "jinja"}):
        template = ChatTemplate.of(model_folder(tmp_path, **files))
        assert template is not None
        found.append((template.text, Path(template.name).name))
    assert found == [
        ("config", "tokenizer_config.json"),
        ("json", "chat_template.json"),
        ("jinja", "chat_template.jinja"),
    ]


@pytest.mark.parametrize(
    ("named", "text"),
    [
        ([{"name": "tool_use", "template": "a"}, {"name": "default", "template": "b"}], "b"),
        ([{"name": "rag", "template": "a"}, {"name": "tool_use", "template": "b"}], "a"),
        ({"rag": "a", "default": "b"}, "b"),
    ],
)
def test_of_several_templates_the_default_one(named: object, text: str, tmp_path: Path) -> None:
    template = ChatTemplate.of(model_folder(tmp_path, tokenizer_config={"chat_template": named}))
    assert template is not None
    assert template.text == text


@pytest.mark.parametrize("damaged", [[], {}, 3, None, [{"name": "default"}], ["text"]])
def test_a_template_that_is_no_text_is_none(damaged: object, tmp_path: Path) -> None:
    assert ChatTemplate.of(model_folder(tmp_path, tokenizer_config={"chat_template": damaged})) is None


def test_special_tokens_come_from_both_files_and_in_both_forms(tmp_path: Path) -> None:
    template = ChatTemplate.of(
        model_folder(
            tmp_path,
            chat_template="{{ bos_token }} {{ eos_token }} {{ pad_token }} {{ unk_token }}{{ messages[0].content }}",
            tokenizer_config={"bos_token": {"content": "<s>"}, "eos_token": "</s>", "unk_token": None},
            special_tokens_map={"eos_token": "<old>", "pad_token": {"content": "<pad>"}},
        )
    )
    assert template is not None
    assert template.render([USER]) == f"<s> </s> <pad> {USER['content']}"


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("tokenizer_config.json", b"{", "Expecting"),
        ("tokenizer_config.json", b"[]", "no JSON object"),
        ("special_tokens_map.json", b"\xff", "utf-8"),
        ("special_tokens_map.json", b"[" * 100_000, "recursion|depth"),
        ("tokenizer.json", b"[]", "no JSON object"),
        ("chat_template.jinja", b"\xff", "utf-8"),
        ("chat_template.jinja", b"{% if a %}\n{% endfor %}", "line 2"),
        ("chat_template.jinja", b"{{ a | nofilter }}", "nofilter"),
        ("chat_template.jinja", b"{% for i in a %}" * 30 + b"{% endfor %}" * 30, "nested"),
    ],
)
def test_a_damaged_file_is_named(name: str, content: bytes, problem: str, tmp_path: Path) -> None:
    model_folder(tmp_path, tokenizer_config={}, chat_template="{{ messages }}")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadCalibration, match=rf"(?s){re.escape(str(tmp_path / name))}.*({problem})"):
        ChatTemplate.of(tmp_path)


@pytest.mark.parametrize(
    ("text", "files", "markers"),
    [
        (QWEN2, {}, None),
        (QWEN3, {}, ("<think>", "</think>")),
        (DEEPSEEK_R1, {}, ("<think>", "</think>")),
        ("{{ messages[0].content.split('[/THINK]') }}", {}, ("[THINK]", "[/THINK]")),
        ("{{ '<|channel>thought\\n<channel|>' }}", {}, ("<|channel>thought", "<channel|>")),
        ("", {"tokenizer_config": {"added_tokens_decoder": {"7": {"content": "[/THINK]"}}}}, ("[THINK]", "[/THINK]")),
        ("</seed:think>", {}, ("<seed:think>", "</seed:think>")),
        ("", {"added_tokens": {"<think>": 5, "</think>": 6}}, ("<think>", "</think>")),
        ("", {"tokenizer": {"added_tokens": [{"id": 7, "content": "[/THINK]"}]}}, ("[THINK]", "[/THINK]")),
        ("", {"tokenizer": {"added_tokens": [{"content": 3}, None]}, "added_tokens": {}}, None),
        ("</thought>", {"added_tokens": {"</think>": 6}}, ("<thought>", "</thought>")),
    ],
)  # fmt: skip
def test_markers_of_reasoning(text: str, files: dict[str, Any], markers: object, tmp_path: Path) -> None:
    template = ChatTemplate.of(model_folder(tmp_path, chat_template=text, **files))
    assert template is not None
    assert template.thinking == markers


@pytest.mark.parametrize(
    ("source", "switch"),
    [
        (QWEN3, "enable_thinking"),
        ("{%- if not thinking is defined %}{% set thinking = false %}{% endif %}{{ thinking }}", "thinking"),
        ("{# enable_thinking #}{% set ns = namespace(thinking=1) %}{{ ns.thinking }}", None),
        (DEEPSEEK_R1, None),
    ],
)
def test_whether_reasoning_can_be_switched(source: str, switch: str | None) -> None:
    assert ChatTemplate(source).switch == switch


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("qwen2", "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"),
        ("qwen3", "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"),
        ("deepseek-r1", "<s>Be brief.<｜User｜>{}<｜Assistant｜><think>\n"),
        ("phi-3", "<|system|>\nBe brief.<|end|>\n<|user|>\n{}<|end|>\n<|assistant|>\n"),
        (
            "llama-3",
            (
                "<s><|start_header_id|>system<|end_header_id|>\n\nToday: 15 Jun 2025<|eot_id|>"
                "<|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
                "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>"
                "<|start_header_id|>assistant<|end_header_id|>\n\n"
            ),
        ),
        ("gemma-2", "<s><start_of_turn>user\nBe brief.\n\n{}<end_of_turn>\n<start_of_turn>model\n"),
        ("parts", "SYSTEM: Be brief. USER: {} ASSISTANT:"),
    ],
)
def test_a_chat_in_the_words_of_a_family(family: str, expected: str) -> None:
    template = ChatTemplate(FAMILIES[family], special={"bos_token": "<s>", "eos_token": "</s>"})
    assert template.render([SYSTEM, USER]) == expected.format(USER["content"])


def test_without_the_prompt_for_an_answer() -> None:
    assert ChatTemplate(PHI3, special={"eos_token": "</s>"}).render([USER, ANSWER], add_generation_prompt=False) == (
        f"<|user|>\n{USER['content']}<|end|>\n<|assistant|>\nHello<|end|>\n</s>"
    )


def test_what_transformers_hands_to_templates() -> None:
    source = "{{ tools is none }} {{ documents is none }} {{ messages | tojson }} {{ {'a': 1} | tojson(indent=1) }}"
    assert show(source) == f'True True {json.dumps([USER])} {{\n "a": 1\n}}'
    assert show("a\n  {% if true %}\nb\n  {% endif %}\nc {{ messages[0].content }}").startswith("a\nb\nc Hi")
    broken = "{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}{{ messages[0].content }}"
    assert show(broken) == f"01{USER['content']}"
    assert show("{% generation %}{{ messages[0].content }}{% endgeneration %}") == USER["content"]
    assert show("{{ tools[0].name + messages[0].content }}", tools=[{"name": "f"}]) == f"f{USER['content']}"


def test_the_messages_stay_as_they_were() -> None:
    messages: list[dict[str, Any]] = [dict(SYSTEM), dict(USER), dict(CALLING), dict(TOOL), dict(USER)]
    before = json.dumps(messages)
    ChatTemplate(PARTS).render(messages)
    assert json.dumps(messages) == before


def test_instructions_that_a_template_leaves_out_go_into_the_question() -> None:
    silent = "{% for m in messages if m.role != 'system' %}{{ m.role + '=' + m.content + ';' }}{% endfor %}"
    assert show(silent, SYSTEM, USER, ANSWER) == f"user=Be brief.\n\n{USER['content']};assistant=Hello;"


def test_neighbours_of_one_role_are_joined_only_where_turns_are_wanted() -> None:
    two = (USER, {"role": "user", "content": "Well?"})
    assert f"<start_of_turn>user\n{USER['content']}\n\nWell?<end_of_turn>" in show(GEMMA2, *two)
    assert show(PHI3, *two).count("<|user|>") == 2
    no_system = "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}" + PHI3
    assert show(no_system, SYSTEM, *two).count("<|user|>") == 2


@pytest.mark.parametrize(
    "source",
    [
        "{% for call in messages[1].tool_calls %}{{ call.function.name + ' ' + call.function.arguments }}{% endfor %}",
        "{% if messages[1].content is none %}{{ messages[1].tool_calls[0].function.name }}{% endif %}",
        "{{ messages[1].content + messages[1].tool_calls[0].function.name }}",
        "{{ messages[1].tool_calls[0].function.arguments.city + messages[1].tool_calls[0].function.name }}",
    ],
)
def test_calls_come_in_the_shape_that_a_template_takes(source: str) -> None:
    assert "weather" in show(source, USER, CALLING, TOOL)


@pytest.mark.parametrize("arguments", ["[1]", "no json", "", "{" * 10_000, None])
def test_arguments_that_are_no_object_do_no_harm(arguments: object) -> None:
    call = {"function": {"name": "weather", "arguments": arguments}}
    assert "weather" in show(QWEN2, USER, {"role": "assistant", "content": "", "tool_calls": [call]})


def test_an_answer_that_calls_is_written_as_the_template_writes_it() -> None:
    source = "{% for m in messages %}[{{ m.content }}{% for c in m.tool_calls %}!{{ c.function.name }}{% endfor %}]"
    assert ChatTemplate(source + "{% endfor %}").answer([USER], CALLING) == "!weather"
    assert ChatTemplate(source + "{% endfor %}").answer([USER], {**CALLING, "content": "So "}) == "So!weather"
    assert ChatTemplate(source + "{% endfor %}").answer([USER], ANSWER) == "Hello"
    elsewhere = "{{ 'calls follow' if messages[-1].tool_calls }}" + source + "{% endfor %}"
    assert ChatTemplate(elsewhere).answer([USER], CALLING).startswith("<tool_call>")


@pytest.mark.parametrize("source", [QWEN2, QWEN3, PHI3, GEMMA2])
def test_an_answer_that_calls_is_never_lost(source: str) -> None:
    text = '<tool_call>\n{"name": "weather", "arguments": {"city": "Köln"}}\n</tool_call>'
    assert ChatTemplate(source).answer([USER], CALLING) == text
    assert ChatTemplate(source).answer([USER], {**CALLING, "content": " I look.\n"}) == f"I look.\n{text}"


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("{{ raise_exception('no such chats') }}", "no such chats"),
        ("{{ messages[0].nothing.more }}", "nothing"),
        ("{{ 1 // 0 }}", "ZeroDivisionError"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe|not safely callable"),
        ("{{ [1, 2] | random }}", "random"),
        ("{{ range(10000000) }}", "counts"),
        ("{{ 'x' * 100000000 }}", "repeats"),
        ("{{ 9 ** 999999999 }}", "power"),
        ("{{ '%900000000d' % 1 }}", "width"),
        ("{{ 'a %s %-*d' % (1, 900000000, 1) }}", "width"),
        ("{{ '%900000000d' | format(1) }}", "width"),
        ("{{ 'x'.ljust(1000000000) }}", "more than"),
        ("{% for a in range(20) %}{{ 'x' * 100000 }}{% endfor %}", "writes more"),
        ("{% macro f(s) %}{{ f(s) }}{% endmacro %}{{ f('x') }}", "recursion|depth|Recursion"),
    ],
)
def test_a_template_that_does_not_work_is_named_with_what_it_says(source: str, problem: str) -> None:
    with pytest.raises(BadCalibration, match=rf"^model/x does not work .*({problem}).*--dataset"):
        ChatTemplate(source, name="model/x").render([USER])


def test_the_reason_is_that_of_the_messages_as_they_were() -> None:
    source = "{{ raise_exception(messages[0].role) }}"
    with pytest.raises(BadCalibration, match="system"):
        show(source, SYSTEM, USER)


def test_endless_work_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    source = "{% for i in range(50000) %}{% if messages[0].role == 'nobody' %}x{% endif %}{% endfor %}"
    assert show(source + "{{ messages[0].content }}") == USER["content"]
    monkeypatch.setattr(sandbox, "MOST_SECONDS", 0.001)
    with pytest.raises(TooSlow, match="takes too long"):
        show(source)


ENDLESS = (
    "{% set x = 'x' * 1000000 %}{% for a in x %}{% for b in x %}{% for c in x %}{% endfor %}{% endfor %}{% endfor %}"
)


def test_a_loop_that_does_nothing_is_stopped_and_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "MOST_SECONDS", 0.05)
    begun = []
    written = TemplateEnvironment.written

    def counted(environment: TemplateEnvironment, pieces: Callable[[], Any]) -> str:
        begun.append(pieces)
        return written(environment, pieces)

    monkeypatch.setattr(TemplateEnvironment, "written", counted)
    with pytest.raises(TooSlow, match=r"^The chat template does not work with a chat .*takes too long.*--dataset"):
        build(None, ChatTemplate(ENDLESS), samples=5, seed=0)
    assert len(begun) == 1


def test_all_renderings_of_a_template_have_a_time_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "MOST_SECONDS_IN_ALL", 0.05)
    with pytest.raises(TooSlow):
        show(ENDLESS)
    slow = ChatTemplate("{% for i in range(20000) %}{{ i }}{% endfor %}{{ messages[0].content }}")
    with pytest.raises(TooSlow):  # each of them is fast enough
        deque((slow.render([USER]) for _ in range(1000)), maxlen=0)


def test_timers_and_handlers_of_others_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "MOST_SECONDS", 0.05)
    rung = []
    handler = signal.signal(signal.SIGALRM, lambda *_: rung.append(1))
    before = signal.setitimer(signal.ITIMER_REAL, 500, 70)
    try:
        with pytest.raises(TooSlow):
            show(ENDLESS)
        left, again = signal.getitimer(signal.ITIMER_REAL)
        assert 400 < left < 500
        assert again == 70
        assert rung == []
        signal.raise_signal(signal.SIGALRM)
        assert rung == [1]
    finally:
        signal.setitimer(signal.ITIMER_REAL, *before)
        signal.signal(signal.SIGALRM, handler)


def test_in_another_thread_there_is_no_alarm() -> None:
    with ThreadPoolExecutor() as pool:
        assert pool.submit(show, "{{ messages[0].content }}").result() == USER["content"]


@pytest.mark.parametrize("source", ["", "{{ bos_token }}You help.", "{% if false %}{{ messages }}{% endif %}"])
def test_a_template_that_writes_nothing_of_a_chat(source: str) -> None:
    with pytest.raises(BadCalibration, match="it writes nothing of it"):
        show(source)
    assert show("{{ messages[0].content | upper }}") == "HI <B> & 'YOU'"


def test_a_template_that_wants_more_memory_than_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> NoReturn:
        raise MemoryError

    monkeypatch.setattr(TemplateEnvironment, "from_string", fail)
    with pytest.raises(BadCalibration, match="MemoryError"):
        ChatTemplate("text")


@pytest.mark.parametrize("name", ["tokenizer_config", "special_tokens_map"])
def test_a_half_of_a_surrogate_pair_is_damage(name: str, tmp_path: Path) -> None:
    files = {"tokenizer_config": {}, name: {"eos_token": "\ud800"}}
    model_folder(tmp_path, chat_template="{{ messages[0].content }}", **files)
    with pytest.raises(BadCalibration, match=rf"{name}\.json cannot be used: its eos_token has half of a surrogate"):
        ChatTemplate.of(tmp_path)


def test_a_template_with_a_half_of_a_surrogate_pair(tmp_path: Path) -> None:
    model_folder(tmp_path, tokenizer_config={"chat_template": "{{ messages[0].content }}\ud800"})
    with pytest.raises(BadCalibration, match=r"tokenizer_config\.json cannot be used: the template has half"):
        ChatTemplate.of(tmp_path)
    with pytest.raises(BadCalibration, match="writes half of a surrogate pair"):
        show("{{ messages[0].content + '\\ud800' }}")


def test_arguments_with_a_half_of_a_surrogate_pair_stay_text() -> None:
    call = {"function": {"name": "weather", "arguments": '{"city": "\\ud800"}'}}
    calling = {"role": "assistant", "content": "", "tool_calls": [call]}
    for source in (QWEN2, PHI3):
        ChatTemplate(source).answer([USER], calling).encode()


def test_a_message_cannot_be_a_template() -> None:
    assert show("{{ messages[0].content }}", {"role": "user", "content": "{{ 1 + 1 }}"}) == "{{ 1 + 1 }}"


def test_the_date_does_not_depend_on_the_day() -> None:
    assert show("{{ strftime_now('%Y-%m-%d') }} {{ messages[0].content }}").startswith("2025-06-15 Hi")
    assert "15 Jun 2025" in show(LLAMA3)


@pytest.mark.slow
def test_jinja2_is_loaded_with_the_first_template() -> None:
    program = (
        "import sys; from rkllm_converter.calibration import ChatTemplate; assert 'jinja2' not in sys.modules; "
        "ChatTemplate(''); assert 'jinja2' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, env={"PYTHONPATH": ":".join(sys.path)})
