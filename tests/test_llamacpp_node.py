"""The node with the real model: llama.cpp in its worker process, asked over HTTP."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import openai
import psutil
import pytest
from openai.types.chat import ChatCompletionMessageParam

from support import BUILTIN_MODEL, Node, StartNode, wait_until

pytestmark = pytest.mark.slow
QUESTION = "Why is the sky blue?"
GREEDY = {"temperature": 0, "seed": 1}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, model_store: Path) -> Iterator[Node]:
    folder = tmp_path_factory.mktemp("node")
    with Node("--models-dir", str(model_store), folder=folder) as running:
        yield running


@pytest.fixture
def client(node: Node) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{node.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def worker_of(node: Node) -> psutil.Process:
    found = [child for child in psutil.Process(node.pid).children() if "llamacpp" in " ".join(child.cmdline())]
    assert len(found) == 1
    return found[0]


def deltas(response: str) -> list[str]:
    lines = [line.removeprefix("data: ") for line in response.splitlines() if line.startswith("data: {")]
    return [choice["delta"].get("content", "") for line in lines for choice in json.loads(line)["choices"]]


def test_the_official_client_gets_real_text_whole_and_streamed_alike(client: openai.OpenAI) -> None:
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": QUESTION}]
    whole = client.chat.completions.create(
        model=BUILTIN_MODEL,
        messages=messages,
        max_tokens=40,
        temperature=0,
    )
    stream = client.chat.completions.create(
        model=BUILTIN_MODEL,
        messages=messages,
        max_tokens=40,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = whole.choices[0].message.content
    assert text is not None
    assert "light" in text
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == text
    usage = chunks[-1].usage
    assert whole.usage is not None
    assert usage is not None
    assert usage.completion_tokens == whole.usage.completion_tokens == 40
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert whole.choices[0].finish_reason == "length"


def test_the_official_client_raises_what_it_should(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match=BUILTIN_MODEL):
        client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "hi"}])
    with pytest.raises(openai.BadRequestError, match="messages"):
        client.chat.completions.create(model=BUILTIN_MODEL, messages=[])
    assert [model.id for model in client.models.list()] == [BUILTIN_MODEL]


def test_a_prompt_over_the_context_is_400_with_both_numbers(node: Node) -> None:
    response = node.chat("word " * 6000)
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (400, "context_length_exceeded")
    assert "4096" in error["message"]
    assert "60" in error["message"]


def test_stop_strings_and_limits_are_exact(node: Node) -> None:
    one = node.chat(QUESTION, max_tokens=1, **GREEDY).json()
    assert (one["choices"][0]["finish_reason"], one["usage"]["completion_tokens"]) == ("length", 1)
    full = node.chat(QUESTION, max_tokens=60, **GREEDY).json()["choices"][0]["message"]["content"]
    stop = full[20:34]  # lies across several tokens
    cut = node.chat(QUESTION, max_tokens=60, stop=[stop], **GREEDY).json()["choices"][0]
    assert (cut["message"]["content"], cut["finish_reason"]) == (full[: full.index(stop)], "stop")
    messages = [{"role": "user", "content": QUESTION}]
    body = {"model": BUILTIN_MODEL, "messages": messages, "max_tokens": 60, "stop_sequences": ["\0", stop], **GREEDY}
    told = node.http.post("/v1/messages", json=body).json()
    assert (told["stop_reason"], told["stop_sequence"]) == ("stop_sequence", stop), told


def test_a_seed_makes_sampling_reproducible(node: Node) -> None:
    def say(seed: int) -> str:
        body = node.chat(QUESTION, max_tokens=24, temperature=1.5, seed=seed).json()
        return str(body["choices"][0]["message"]["content"])

    assert say(7) == say(7)
    assert len({say(1), say(2), say(3), say(-4)}) > 1


def test_the_next_turn_of_a_conversation_finds_its_prompt_in_the_cache(node: Node) -> None:
    messages = [{"role": "user", "content": "Name three colours of the rainbow, please, and nothing else."}]
    first = node.http.post("/v1/chat/completions", json={"messages": messages, "max_tokens": 30, **GREEDY}).json()
    messages += [first["choices"][0]["message"], {"role": "user", "content": "And one more?"}]
    second = node.http.post("/v1/chat/completions", json={"messages": messages, "max_tokens": 5, **GREEDY}).json()
    usage = second["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] >= first["usage"]["prompt_tokens"]
    assert usage["prompt_tokens"] > usage["prompt_tokens_details"]["cached_tokens"]


def test_four_requests_decode_at_the_same_time(node: Node) -> None:
    started = [threading.Event() for _ in range(4)]
    overlapped = []

    def ask(number: int) -> None:
        body = {"messages": [{"role": "user", "content": f"Count from {number}"}], "max_tokens": 150, "stream": True}
        with node.http.stream("POST", "/v1/chat/completions", json=body) as response:
            for line in response.iter_lines():
                if '"content":"' in line and line.count('"content":""') == 0:
                    started[number].set()
        overlapped.append(all(event.is_set() for event in started))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert overlapped == [True] * 4  # every one had begun before the first one ended


def test_a_client_that_leaves_stops_the_decoding(node: Node) -> None:
    worker = worker_of(node)
    body = {"messages": [{"role": "user", "content": "Write a long story."}], "max_tokens": 3500, "stream": True}
    with node.http.stream("POST", "/v1/chat/completions", json=body) as response:
        for number, _ in enumerate(response.iter_lines()):
            if number > 10:
                break

    def idle() -> bool:
        return bool(worker.cpu_percent(interval=0.2) < 5)

    wait_until(idle, timeout=5, what="the worker to stop computing")
    metrics = node.http.get("/metrics").text
    assert f'exo_requests_total{{model="{BUILTIN_MODEL}",status="499"}} 1.0' in metrics
    assert "exo_requests_in_progress 0.0" in metrics


def test_a_killed_worker_costs_the_requests_in_hand_and_nothing_else(start_node: StartNode, model_store: Path) -> None:
    node = start_node("--models-dir", str(model_store))
    for _ in range(2):
        worker = worker_of(node)
        body = {"messages": [{"role": "user", "content": "Write a long story."}], "max_tokens": 3000, "stream": True}
        with node.http.stream("POST", "/v1/chat/completions", json=body) as response:
            lines = response.iter_lines()
            for number, _ in enumerate(lines):
                if number > 6:
                    break
            os.kill(worker.pid, signal.SIGKILL)
            rest = list(lines)
        assert "engine_worker_died" in rest[-2] or "engine_worker_died" in rest[-1]
        assert "SIGKILL" in "".join(rest)
        assert "data: [DONE]" not in rest
        again = node.chat(QUESTION, max_tokens=5)
        assert again.status_code == 200
        assert worker_of(node).pid != worker.pid
    assert node.http.get("/ready").status_code == 200
    assert "Traceback" not in node.log


def test_the_node_ends_with_0_and_leaves_no_worker(start_node: StartNode, model_store: Path) -> None:
    node = start_node("--models-dir", str(model_store))
    worker = worker_of(node)
    assert node.stop() == 0
    assert not worker.is_running()
    assert "Traceback" not in node.log


def test_a_worker_does_not_outlive_a_killed_node(start_node: StartNode, model_store: Path) -> None:
    node = start_node("--models-dir", str(model_store))
    worker = worker_of(node)
    node.kill()
    wait_until(lambda: not worker.is_running(), timeout=10, what="the worker to end")


BROKEN_FILES = {"truncated": "incomplete", "not-a-model": "not a GGUF model", "empty": "not a GGUF model"}


@pytest.mark.parametrize("kind", sorted(BROKEN_FILES))
def test_a_broken_model_file_is_named_and_the_node_stays_up(
    start_node: StartNode, model_store: Path, tmp_path: Path, kind: str
) -> None:
    good = next((model_store / BUILTIN_MODEL).glob("*.gguf"))
    file = tmp_path / "models" / BUILTIN_MODEL / good.name
    file.parent.mkdir(parents=True)
    content = {"truncated": good.read_bytes()[:5_000_000], "not-a-model": b"hello", "empty": b""}[kind]
    file.write_bytes(content)
    node = start_node("--models-dir", str(tmp_path / "models"), ready=False)
    wait_until(lambda: BROKEN_FILES[kind] in node.http.get("/ready").text, timeout=20, what="the reason in /ready")
    assert node.http.get("/ready").status_code == 503
    refused = node.chat(QUESTION)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "model_load_failed")
    assert BROKEN_FILES[kind] in refused.json()["error"]["message"]
    assert node.http.get("/healthcheck").status_code == 200
    assert "Traceback" not in node.log
    shutil.copyfile(good, file)
    assert node.chat(QUESTION, max_tokens=3).status_code == 200
    assert node.http.get("/ready").status_code == 200


def test_a_file_that_vanishes_is_named(start_node: StartNode, model_store: Path, tmp_path: Path) -> None:
    folder = tmp_path / "models" / "mine"
    shutil.copytree(model_store / BUILTIN_MODEL, folder)
    node = start_node("--models-dir", str(tmp_path / "models"), "--no-preload")
    shutil.rmtree(folder)
    response = node.chat(QUESTION, model="mine")
    assert response.status_code == 404
    assert node.chat(QUESTION).json()["error"]["code"] == "model_load_failed"


def test_two_models_take_turns_in_memory_for_one(start_node: StartNode, model_store: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    shutil.copytree(model_store / BUILTIN_MODEL, models / BUILTIN_MODEL)
    shutil.copytree(model_store / BUILTIN_MODEL, models / "another")
    node = start_node("--models-dir", str(models), "--default-model", BUILTIN_MODEL)
    assert [model["id"] for model in node.http.get("/v1/models").json()["data"]] == [BUILTIN_MODEL, "another"]
    answers = []

    def ask(model: str) -> None:
        answers.append(node.chat("Say hello", model=model, max_tokens=10))

    threads = [threading.Thread(target=ask, args=(model,)) for model in (BUILTIN_MODEL, "another") * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.status_code for answer in answers] == [200] * 6
    assert {answer.json()["model"] for answer in answers} == {BUILTIN_MODEL, "another"}
    assert len(node.http.get("/ready").json()["loaded"]) == 1
    worker_of(node)  # one process, not two


def test_what_cannot_fit_is_refused_before_the_worker_sees_it(node: Node) -> None:
    worker = worker_of(node)
    before = worker.cpu_times().user
    many = [{"role": "user", "content": "x"}] * 20_000
    for body in ({"messages": many}, {"messages": [{"role": "user", "content": "x" * 8_000_000}]}):
        response = node.http.post("/v1/chat/completions", json=body)
        assert (response.status_code, response.json()["error"]["code"]) == (400, "context_length_exceeded")
        assert "at least" in response.json()["error"]["message"]
    assert worker.cpu_times().user - before < 1


def test_a_worker_that_cannot_come_back_is_told_at_once(
    start_node: StartNode, model_store: Path, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    shutil.copytree(model_store / BUILTIN_MODEL, models / "m")
    node = start_node("--models-dir", str(models))
    file = next((models / "m").glob("*.gguf"))
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content[:5_000_000])
    worker_of(node).kill()
    wait_until(lambda: node.http.get("/ready").status_code == 503, timeout=20, what="/ready to tell")
    refused = node.chat(QUESTION)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "model_load_failed")
    assert "incomplete" in refused.json()["error"]["message"]
    file.write_bytes(content)
    wait_until(lambda: node.http.get("/ready").status_code == 200, timeout=40, what="the worker to come back")
    assert node.chat(QUESTION, max_tokens=3).status_code == 200
