"""Nodes with the engine rkllm on a simulated board, and chats with them over HTTP."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from npu_board import SimBoard

from support import Node

Conversation = list[dict[str, Any]]
"""Messages as in a request's body."""


class Npu:
    """A node and its simulated board."""

    def __init__(self, board: SimBoard, node: Node) -> None:
        self.board = board
        self.node = node

    def ask(self, messages: Conversation | str, **fields: Any) -> httpx2.Response:
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        return self.node.http.post("/v1/chat/completions", json={"model": "hash", "messages": messages, **fields})

    def answer(self, messages: Conversation | str, **fields: Any) -> dict[str, Any]:
        response = self.ask(messages, **fields)
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.json()
        return found

    def stream(self, messages: Conversation | str, **fields: Any) -> list[dict[str, Any]]:
        """The events of a streamed answer, without the end mark, which has to be there."""
        response = self.ask(messages, stream=True, stream_options={"include_usage": True}, **fields)
        assert response.status_code == 200, response.text
        return events(response.text)

    def last_run(self) -> dict[str, Any]:
        return self.board.runs()[-1]


def events(text: str) -> list[dict[str, Any]]:
    *lines, end = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert end == "[DONE]"
    return [json.loads(line) for line in lines]


def text_of(answer: dict[str, Any], field: str = "content") -> str:
    """Of a whole answer."""
    return str(answer["choices"][0]["message"].get(field) or "")


def joined(found: list[dict[str, Any]], field: str = "content") -> str:
    """Of a stream."""
    return "".join(event["choices"][0]["delta"].get(field) or "" for event in found if event["choices"])


def error_of(response: httpx2.Response) -> dict[str, Any]:
    found: dict[str, Any] = response.json()["error"]
    return found


def start(board: SimBoard, folder: Path, *flags: str, **env: str) -> Node:
    """A node whose default model is called hash."""
    return Node("--inference-engine", "rkllm", "--default-model", "hash", *flags, folder=folder, env=board.env | env)


@dataclass(frozen=True)
class Turn:
    """What was asked, the answer's body, and the call log's record of the run."""

    asked: Conversation
    answer: dict[str, Any]
    run: dict[str, Any]

    @property
    def text(self) -> str:
        return text_of(self.answer)


def turn(npu: Npu, messages: Conversation, **fields: Any) -> Turn:
    return Turn(messages, npu.answer(messages, **fields), npu.last_run())


def ten_turns(npu: Npu, topic: str, **fields: Any) -> list[Turn]:
    """A chat of ten turns, in which every answer is sent back."""
    turns: list[Turn] = []
    messages: Conversation = []
    for number in range(10):
        messages = [*messages, {"role": "user", "content": f"{topic} {number}"}]
        turns.append(turn(npu, messages, **fields))
        messages = [*messages, {"role": "assistant", "content": turns[-1].text}]
    return turns
