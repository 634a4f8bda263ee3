"""One question in every dialect, and what each answer says that it has cost."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from support import Node

Body = dict[str, Any]


@dataclass(frozen=True)
class Question:
    """A turn with a system text, at temperature 0.

    `begin` is the beginning of its prompt as text: nothing where the tokenizer adds the token for it by itself.
    """

    text: str
    system: str = "Answer in one sentence."
    cap: int | None = None
    stop: str | None = None
    begin: str = "<|im_start|>"

    @property
    def chat(self) -> list[dict[str, str]]:
        return [{"role": "system", "content": self.system}, {"role": "user", "content": self.text}]

    @property
    def rendered(self) -> str:
        """What the templates of the kind ChatML make of it."""
        turns = "".join(f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>\n" for turn in self.chat)
        return self.begin + f"{turns}<|im_start|>assistant\n".removeprefix("<|im_start|>")


@dataclass(frozen=True)
class Cost:
    """What an answer says. `finish` in OpenAI's words; None for what a dialect does not tell."""

    text: str
    finish: str
    prompt: int
    completion: int
    cached: int | None = None
    reasoning: int | None = None


@dataclass(frozen=True)
class Dialect:
    """`read` and `read_stream` take a whole answer and the objects of a stream."""

    path: str
    body: Callable[[Question], Body]
    read: Callable[[Body], Cost]
    read_stream: Callable[[list[Body]], Cost]
    streamed: Mapping[str, Any]
    can_stop: bool = True


def ask(node: Node, dialect: Dialect, model: str, question: Question, *, stream: bool, **fields: Any) -> Cost:
    body = {"model": model, **dialect.body(question), **fields, **(dialect.streamed if stream else {"stream": False})}
    response = node.http.post(dialect.path, json=body)
    assert response.status_code == 200, response.text
    return dialect.read_stream(_objects(response.text)) if stream else dialect.read(response.json())


def counted(node: Node, model: str, question: Question) -> int:
    """What the node counts without an answer."""
    body = {"model": model, "system": question.system, "messages": question.chat[1:]}
    response = node.http.post("/v1/messages/count_tokens", json=body)
    assert response.status_code == 200, response.text
    return int(response.json()["input_tokens"])


def _objects(text: str) -> list[Body]:
    """Of lines of JSON, or of server-sent events."""
    lines = (line.removeprefix("data: ") for line in text.split("\n"))
    return [json.loads(line) for line in lines if line.startswith("{")]


def _openai_fields(question: Question) -> Body:
    fields = {"max_tokens": question.cap, "stop": question.stop}
    return {"temperature": 0, **{name: value for name, value in fields.items() if value is not None}}


def _openai_cost(text: str, finish: str, usage: Body) -> Cost:
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    return Cost(
        text,
        finish,
        usage["prompt_tokens"],
        usage["completion_tokens"],
        usage["prompt_tokens_details"]["cached_tokens"],
        usage["completion_tokens_details"]["reasoning_tokens"],
    )


def _chat(question: Question) -> Body:
    return {"messages": question.chat, **_openai_fields(question)}


def _read_chat(answer: Body) -> Cost:
    (choice,) = answer["choices"]
    return _openai_cost(choice["message"]["content"], choice["finish_reason"], answer["usage"])


def _read_chat_stream(events: list[Body]) -> Cost:
    choices = [choice for event in events for choice in event["choices"]]
    text = "".join(choice["delta"].get("content") or "" for choice in choices)
    return _openai_cost(text, choices[-1]["finish_reason"], events[-1]["usage"])


def _completion(question: Question) -> Body:
    return {"prompt": question.rendered, **_openai_fields(question)}


def _read_completion(answer: Body) -> Cost:
    (choice,) = answer["choices"]
    return _openai_cost(choice["text"], choice["finish_reason"], answer["usage"])


def _read_completion_stream(events: list[Body]) -> Cost:
    choices = [choice for event in events for choice in event["choices"]]
    return _openai_cost(
        "".join(choice["text"] for choice in choices), choices[-1]["finish_reason"], events[-1]["usage"]
    )


def _response(question: Question) -> Body:
    fields = {} if question.cap is None else {"max_output_tokens": question.cap}
    return {"instructions": question.system, "input": question.text, "temperature": 0, "store": False, **fields}


def _read_response(answer: Body) -> Cost:
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    texts = [part["text"] for item in answer["output"] if item["type"] == "message" for part in item["content"]]
    reason = (answer["incomplete_details"] or {}).get("reason")
    return Cost(
        "".join(texts),
        {"completed": "stop", "incomplete": "length" if reason == "max_output_tokens" else str(reason)}[
            answer["status"]
        ],
        usage["input_tokens"],
        usage["output_tokens"],
        usage["input_tokens_details"]["cached_tokens"],
        usage["output_tokens_details"]["reasoning_tokens"],
    )


def _message(question: Question) -> Body:
    stop = {} if question.stop is None else {"stop_sequences": [question.stop]}
    cap = 10_000 if question.cap is None else question.cap
    return {"system": question.system, "messages": question.chat[1:], "max_tokens": cap, "temperature": 0, **stop}


def _message_cost(text: str, reason: str, usage: Body) -> Cost:
    return Cost(
        text,
        {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length"}[reason],
        usage["input_tokens"] + usage["cache_read_input_tokens"] + usage["cache_creation_input_tokens"],
        usage["output_tokens"],
        usage["cache_read_input_tokens"],
        usage["output_tokens_details"]["thinking_tokens"],
    )


def _read_message(answer: Body) -> Cost:
    texts = [block["text"] for block in answer["content"] if block["type"] == "text"]
    return _message_cost("".join(texts), answer["stop_reason"], answer["usage"])


def _read_message_stream(events: list[Body]) -> Cost:
    deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    (last,) = [event for event in events if event["type"] == "message_delta"]
    text = "".join(delta["text"] for delta in deltas if delta["type"] == "text_delta")
    return _message_cost(text, last["delta"]["stop_reason"], last["usage"])


def _ollama_fields(question: Question) -> Body:
    options = {"num_predict": question.cap, "stop": question.stop}
    return {"options": {"temperature": 0, **{name: value for name, value in options.items() if value is not None}}}


def _ollama_chat(question: Question) -> Body:
    return {"messages": question.chat, **_ollama_fields(question)}


def _generate(question: Question) -> Body:
    return {"system": question.system, "prompt": question.text, **_ollama_fields(question)}


def _raw(question: Question) -> Body:
    return {"prompt": question.rendered, "raw": True, **_ollama_fields(question)}


def _read_ollama(answer: Body) -> Cost:
    return _read_lines([answer])


def _read_lines(lines: list[Body]) -> Cost:
    last = lines[-1]
    assert last["done"] is True
    text = "".join(line["message"]["content"] if "message" in line else line["response"] for line in lines)
    return Cost(text, last["done_reason"], last["prompt_eval_count"], last["eval_count"])


_WITH_USAGE = {"stream": True, "stream_options": {"include_usage": True}}
_STREAMED = {"stream": True}
DIALECTS = {
    "chat": Dialect("/v1/chat/completions", _chat, _read_chat, _read_chat_stream, _WITH_USAGE),
    "completions": Dialect("/v1/completions", _completion, _read_completion, _read_completion_stream, _WITH_USAGE),
    "responses": Dialect(
        "/v1/responses",
        _response,
        _read_response,
        lambda events: _read_response(events[-1]["response"]),
        _STREAMED,
        can_stop=False,
    ),
    "anthropic": Dialect("/v1/messages", _message, _read_message, _read_message_stream, _STREAMED),
    "ollama chat": Dialect("/api/chat", _ollama_chat, _read_ollama, _read_lines, _STREAMED),
    "ollama generate": Dialect("/api/generate", _generate, _read_ollama, _read_lines, _STREAMED),
    "ollama raw": Dialect("/api/generate", _raw, _read_ollama, _read_lines, _STREAMED),
}
RAW = ("completions", "ollama raw")
"""They continue a prompt as it is; nothing of their answers is taken for reasoning."""
