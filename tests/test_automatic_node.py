"""The model `auto` on real nodes: a quick and a reasoning model on a simulated board whose memory holds one of them."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest
from npu_board import SimBoard

from support import RKLLAMA, Node, StartNode

pytestmark = pytest.mark.slow

QUICK, REASONING = "qwen2.5-1.5b-rkllm", "deepseek-r1-1.5b-rkllm"
"""Folder names by which the cards, and so the roles, are found."""
EASY = "Translate 'good morning' into French."
HARD = "Prove that there are infinitely many prime numbers, step by step."


@pytest.fixture
def board(tmp_path: Path) -> SimBoard:
    board = SimBoard(tmp_path)
    board.env["RKLLM_MAX_MODELS"] = "1"
    for model in (QUICK, REASONING):
        board.add_model(model)
    return board


def ask(node: Node, text: str, **fields: object) -> httpx2.Response:
    messages = [{"role": "user", "content": text}]
    body = {"model": "auto", "messages": messages, "max_tokens": 400, **fields}
    response: httpx2.Response = node.http.post("/v1/chat/completions", json=body)
    assert response.status_code == 200, response.text
    return response


def test_each_request_gets_the_model_that_its_text_calls_for(board: SimBoard, start_node: StartNode) -> None:
    node = start_node("--default-model", QUICK, env=board.env)
    for text, model, role in ((EASY, QUICK, "quick"), (HARD, REASONING, "reasoning")):
        response = ask(node, text)
        assert response.json()["model"] == model
        assert response.headers["x-exo-route"].startswith(f'model="{model}", role={role}, rule=')
    assert f'exo_routing_decisions_total{{model="{REASONING}",rule="text-proof"}} 1.0' in node.http.get("/metrics").text


def test_auto_can_be_the_default_model(board: SimBoard, start_node: StartNode) -> None:
    node = start_node("--default-model", "auto", env=board.env)
    assert node.http.get("/ready").json()["loaded"] == [QUICK], "the quick one is loaded first"
    assert " run auto " in node.log
    response = node.chat(HARD)
    assert response.json()["model"] == REASONING
    assert "x-exo-route" in response.headers


def test_what_a_client_says_outright_comes_before_the_text(board: SimBoard, start_node: StartNode) -> None:
    node = start_node("--default-model", QUICK, env=board.env)
    assert ask(node, HARD, reasoning_effort="low").json()["model"] == QUICK
    assert ask(node, EASY, reasoning_effort="high").json()["model"] == REASONING


def test_a_follow_up_stays_with_its_model(board: SimBoard, start_node: StartNode) -> None:
    node = start_node("--default-model", QUICK, env=board.env)
    answer = ask(node, HARD).json()["choices"][0]["message"]
    messages = [{"role": "user", "content": HARD}, answer, {"role": "user", "content": "and why?"}]
    response = ask(node, "", messages=messages)
    assert response.json()["model"] == REASONING


def test_the_other_model_answers_where_one_cannot_be_loaded(board: SimBoard, start_node: StartNode) -> None:
    (board.store / REASONING / f"{REASONING}.rkllm").write_text("no model at all\n")
    node = start_node("--default-model", QUICK, env=board.env)
    response = ask(node, HARD)
    assert response.json()["model"] == QUICK
    header = response.headers["x-exo-route"]
    assert f'rule=fallback, fallback-from="{REASONING}"' in header
    assert ask(node, EASY).json()["model"] == QUICK


def test_rules_of_ones_own(board: SimBoard, start_node: StartNode, tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text('[kinds.translation]\nrole = "reasoning"\n')
    node = start_node("--default-model", QUICK, "--routing-rules", str(rules), env=board.env)
    assert ask(node, EASY).json()["model"] == REASONING


def test_alternating_requests_do_not_load_a_model_each(board: SimBoard, start_node: StartNode) -> None:
    node = start_node("--default-model", QUICK, env=board.env)
    before = len(board.calls("rkllm_init"))
    for number in range(50):
        ask(node, f"{HARD if number % 2 else EASY} ({number})", max_tokens=500)
    loads = len(board.calls("rkllm_init")) - before
    assert 2 <= loads <= 7, "three to begin with, and one for each 12 requests"


def test_rkllama_chooses_too(board: SimBoard, tmp_path: Path) -> None:
    with Node(folder=tmp_path / "node", env=board.env, command=(RKLLAMA, "serve")) as node:
        body = {"model": "auto", "messages": [{"role": "user", "content": HARD}], "stream": False}
        assert node.http.post("/api/chat", json=body).json()["model"] == REASONING
        earlier = node.http.post("/generate", json={"model": "auto", "messages": EASY, "stream": False})
        assert earlier.headers["x-exo-route"].startswith(f'model="{QUICK}"')


@pytest.mark.parametrize("path", ["/api/delete", "/rm"])
def test_auto_cannot_be_deleted(board: SimBoard, tmp_path: Path, path: str) -> None:
    with Node(folder=tmp_path / "node", env=board.env, command=(RKLLAMA, "serve", "--default-model", "auto")) as node:
        response = node.http.request("DELETE", path, json={"model": "auto"})
        assert response.status_code == 404, response.text
        created = node.http.post("/api/copy", json={"source": QUICK, "destination": "auto"})
        assert created.status_code == 400, created.text
    assert sorted(folder.name for folder in board.store.iterdir()) == sorted((QUICK, REASONING))
