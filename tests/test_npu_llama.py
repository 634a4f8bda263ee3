"""The same model through the NPU path and through llamacpp: the same text."""

from __future__ import annotations

from pathlib import Path

import pytest
from npu_board import ABIS, SimBoard

from support import BUILTIN_MODEL, Node, StartNode

pytestmark = pytest.mark.slow

QUESTIONS = [
    "What is the capital of France?",
    "Write a haiku about a lighthouse.",
    "List 3 prime numbers, one in each line.",
]
GREEDY = "TEMPERATURE=0\nTOP_K=1\nREPEAT_PENALTY=1.0\n"


@pytest.fixture(scope="module")
def expected(model_store: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    with Node(
        "--inference-engine",
        "llamacpp",
        "--models-dir",
        str(model_store),
        folder=tmp_path_factory.mktemp("llamacpp"),
        env={"EXO_LLAMACPP_SLOTS": "1"},
    ) as node:
        return [answer(node, question) for question in QUESTIONS]


def answer(node: Node, question: str) -> str:
    """Greedy, with no penalty."""
    model = BUILTIN_MODEL if node.engine == "llamacpp" else "m"
    response = node.chat(question, model=model, temperature=0, repeat_penalty=1.0, max_tokens=48)
    assert response.status_code == 200, response.text
    return str(response.json()["choices"][0]["message"]["content"])


@pytest.mark.parametrize("abi", ABIS)
def test_the_npu_path_gives_the_text_that_llamacpp_gives(
    abi: str, expected: list[str], model_store: Path, tmp_path: Path, start_node: StartNode
) -> None:
    (gguf,) = (model_store / BUILTIN_MODEL).glob("*.gguf")
    board = SimBoard(tmp_path, abi)
    board.add_model("m", lm="llama", gguf=gguf, modelfile=GREEDY)
    node = start_node("--inference-engine", "rkllm", env=board.env, timeout=180)
    assert [answer(node, question) for question in QUESTIONS] == expected
    assert all(run["end"] in ("eos", "cap", "aborted") for run in board.runs())
