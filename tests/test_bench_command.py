"""`exo bench` as people type it, against a real node."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from pathlib import Path

import pytest
from npu_board import SimBoard

from support import BUILTIN_MODEL, EXO, Node, StartNode, environment, run, run_well, wait_until
from terminal_support import Terminal

pytestmark = pytest.mark.slow


def port_of(node: Node) -> str:
    return node.url.rpartition(":")[2]


def test_a_run_with_all_sweeps_and_a_comparison(dummy_node: Node, tmp_path: Path) -> None:
    short = ("--port", port_of(dummy_node), "--repeat", "2", "--max-tokens", "4", "--requests", "4")
    sweeps = ("--concurrency", "1,4", "--prompt-lengths", "64,256")
    shown = run_well(EXO, "bench", *short, *sweeps, "--output", tmp_path / "first")
    assert "Engine: dummy" in shown
    found = json.loads((tmp_path / "first/bench.json").read_bytes())
    assert found["server"]["program"] == "exo"
    assert found["settings"]["models"] == ["dummy"]
    assert [one["error"] for one in found["samples"]] == [None] * (1 + 10 + 8 + 4)
    assert {one["completion_tokens"] for one in found["samples"]} == {4}
    alone, four = (one["total_tokens_per_s"] for one in found["summary"] if one["part"] == "concurrency")
    assert four > alone, "requests at a time do not run at the same time"
    short_prompt, long_prompt = (one["prompt_tokens"] for one in found["summary"] if one["part"] == "lengths")
    assert long_prompt["minimum"] > short_prompt["maximum"]

    shown = run_well(EXO, "bench", *short, *sweeps, "--compare", tmp_path / "first/bench.json")
    for title in ("prompts", "concurrency", "prompt lengths"):
        assert f"Compared with before: {title}" in shown
    assert "The settings of both runs are the same." in shown


def test_an_address_with_v1_and_a_key(start_node: StartNode) -> None:
    node = start_node("--inference-engine", "dummy", env={"EXO_API_KEYS": "open"})
    arguments = ("bench", "--url", f"{node.url}/v1/", "--repeat", "1", "--max-tokens", "2")
    assert "0 of 5" in run_well(EXO, *arguments, "--api-key", "open")
    refused = run(EXO, *arguments, env={"EXO_API_KEY": "guess"})
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "asks for an API key that it knows: give it with --api-key" in refused.stderr


def test_nobody_answers() -> None:
    done = run(EXO, "bench", "--port", "1")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("exo: Nothing answers on http://127.0.0.1:1 (")
    assert done.stderr.count("\n") == 1


def test_a_model_that_is_not_there(dummy_node: Node) -> None:
    done = run(EXO, "bench", "--port", port_of(dummy_node), "--model", "absent")
    assert done.returncode == 1
    assert "exo: absent answered no request: status 404: The model 'absent' was not found here." in done.stderr


def test_ctrl_c_leaves_what_was_measured(dummy_node: Node, tmp_path: Path) -> None:
    log = tmp_path / "progress"
    with log.open("wb") as stderr:
        running = subprocess.Popen(
            [EXO, "bench", "--port", port_of(dummy_node), "--repeat", "1000", "--output", tmp_path],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=stderr,
        )
    try:
        wait_until(lambda: log.read_text().count("\n") >= 3, timeout=60, what="three requests")
        running.send_signal(signal.SIGINT)
        shown, _ = running.communicate(timeout=60)
    finally:
        running.kill()
        running.wait()
    assert running.returncode == 130
    assert b"The run was interrupted" in shown
    found = json.loads((tmp_path / "bench.json").read_bytes())
    assert not found["complete"]
    assert len(found["samples"]) >= 3
    wait_until(lambda: dummy_node.http.get("/ready").json()["running"] == 0, timeout=10, what="the last request ends")


def test_on_a_terminal_there_is_a_bar_and_a_spread_stays_in_one_piece(dummy_node: Node) -> None:
    command = (EXO, "bench", "--port", port_of(dummy_node), "--repeat", "3", "--max-tokens", "4")
    with Terminal(*command, columns=72) as terminal:
        terminal.wait_for("/16")
        terminal.wait_for("Warm-up")
        assert terminal.end() == 0
    assert "dummy: Math" in terminal.shown
    report = terminal.shown.split("Server: ")[-1]
    assert re.search(r"^ mean +\d+ ms +[\d.]+ ", report, re.MULTILINE), report
    assert re.search(r"^ +\([\d.]+ to [\d.]+\)", report, re.MULTILINE), report
    assert max(map(len, report.splitlines())) <= 72


def test_auto_says_which_models_it_chose(start_node: StartNode, tmp_path: Path) -> None:
    board = SimBoard(tmp_path)
    for model in ("qwen2.5-1.5b-rkllm", "deepseek-r1-1.5b-rkllm"):
        board.add_model(model)
    node = start_node("--default-model", "auto", env=board.env)
    arguments = ("--model", "auto", "--repeat", "1", "--max-tokens", "8", "--output", tmp_path / "report")
    shown = run_well(EXO, "bench", "--port", port_of(node), *arguments)
    samples = json.loads((tmp_path / "report/bench.json").read_bytes())["samples"]
    names = {one["answered_by"] for one in samples if one["part"] == "prompts"}
    assert names
    assert names <= {"qwen2.5-1.5b-rkllm", "deepseek-r1-1.5b-rkllm"}
    (note,) = re.findall(r"Note: auto was answered by: (.*)\.\n", shown)
    assert set(re.findall(r"(\S+) \(\d\)", note)) == names


def test_the_built_in_model(start_node: StartNode, model_store: Path, tmp_path: Path) -> None:
    node = start_node("--default-model", BUILTIN_MODEL, env={"EXO_MODELS_DIR": str(model_store)})
    arguments = ("--model", BUILTIN_MODEL, "--repeat", "2", "--max-tokens", "16", "--prompt-lengths", "128")
    run_well(EXO, "bench", "--port", port_of(node), *arguments, "--output", tmp_path)
    found = json.loads((tmp_path / "bench.json").read_bytes())
    assert {one["error"] for one in found["samples"]} == {None}
    assert found["server"]["engine"] == "llamacpp"
    assert all(one["tokens_per_s"]["minimum"] > 0 for one in found["summary"] if one["part"] == "prompts")
    lengths = [one for one in found["samples"] if one["part"] == "lengths"]
    assert all(90 <= one["prompt_tokens"] <= 170 for one in lengths), "a word is not about a token"
    own = [one["prompt_tokens"] - one["cached_tokens"] for one in lengths]
    assert min(own) > 64, "the cache of prompts knew a prompt"
