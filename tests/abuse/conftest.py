"""The nodes that are abused."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest
from fake_hub import FakeHub
from npu_board import SimBoard

from support import EXO, RKLLAMA, Node

collect_ignore = ["hooks.py"]  # schemathesis loads it, in its own environment

KEY = "key-of-the-abused"
_ONE_HEAP = {"MALLOC_ARENA_MAX": "1"}
"""Else each thread that is the first time the one to load a model makes a heap of its own, megabytes at any time."""
_CALL = 'assistant\n<tool_call>\n{"name": "'
"""How a prompt ends whose answer has to be a call."""


@dataclass(frozen=True)
class Abused:
    """A node that runs, and a model of it that answers at once. `node.http` sends the key that it wants."""

    node: Node
    model: str


class StartAbused(Protocol):
    """The fixture `start_abused`; the test's end ends the node."""

    def __call__(self, command: str, engine: str) -> Abused: ...


@pytest.fixture
def start_abused(tmp_path: Path) -> Iterator[StartAbused]:
    """Starts `exo` or `rkllama`, with the engine dummy or on a simulated board, and with a hub that has nothing."""
    with contextlib.ExitStack() as running:

        def start(command: str, engine: str) -> Abused:
            board = SimBoard(tmp_path / "board")
            board.add_model("talker", lm="script", script=_script())
            hub = running.enter_context(FakeHub())
            keys = {"EXO_API_KEYS": KEY, "RKLLAMA_API_KEYS": KEY}
            env = board.env | keys | _ONE_HEAP | {"HF_ENDPOINT": hub.url, "EXO_DUMMY_RATE": "0"}
            model = "dummy" if engine == "dummy" else "talker"
            chosen = ("--inference-engine", engine) if command == "exo" else ()
            program = (EXO,) if command == "exo" else (RKLLAMA, "serve")
            node = Node(*chosen, "--default-model", model, folder=tmp_path, env=env, command=program)
            node.http.headers["Authorization"] = f"Bearer {KEY}"
            return Abused(running.enter_context(node), model)

        yield start


def _script() -> str:
    """The answer is JSON, and a call where there has to be one: what a client asks for is not what fails."""
    named = _when(f'{_CALL}Hello", "arguments":', " {}}\n</tool_call>")
    unnamed = _when(_CALL, 'Hello", "arguments": {}}\n</tool_call>')
    return f'{named}{unnamed}otherwise\ntext "{{}}"\n'


def _when(prompt: str, text: str) -> str:
    return f"when {json.dumps(prompt)}\ntext {json.dumps(text)}\n"
