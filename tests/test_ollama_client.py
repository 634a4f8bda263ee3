"""Ollama's own Python client, every call of it, against rkllama on the simulator and against a node."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, cast

import ollama
import pytest
from fake_hub import FakeHub
from npu_board import SimBoard
from tokenizers import Tokenizer

from rkllama_support import serve
from support import BUILTIN_MODEL, Node, wait_until

pytestmark = pytest.mark.slow
THINKING = 'text "<think>Hm, let me see.</think>The answer is 4."\n'
AGE = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
JSON_ANSWERS = 'when "That was wrong"\ntext "{\\"age\\": 22}"\notherwise\ntext "He is 22."\n'
TALK = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def hub() -> Iterator[FakeHub]:
    with FakeHub() as hub:
        yield hub


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> SimBoard:
    board = SimBoard(tmp_path_factory.mktemp("board"))
    board.add_model("hash", modelfile='SYSTEM="Be brief."\nTEMPERATURE=0.5\n')
    board.add_model("slow", decode_ms=30, answer=(200, 300))
    board.add_model("deepseek-r1-1.5b-rkllm", lm="script", script=THINKING, thinking=True)
    board.add_model("ages", lm="script", script=JSON_ANSWERS)
    board.add_model("prose", lm="script", script='text "No JSON at all."\n')
    board.add_model("broken", lm="script", script='text "one two"\nerror\n')
    return board


@pytest.fixture(scope="module")
def server(board: SimBoard, hub: FakeHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with serve(board, tmp_path_factory.mktemp("server"), HF_ENDPOINT=hub.url) as node:
        yield node


@pytest.fixture
def client(server: Node) -> Iterator[ollama.Client]:
    with ollama.Client(server.url) as client:
        yield client


def prompt_of(run: dict[str, Any], board: SimBoard) -> str:
    """What the runtime was given, as text."""
    tokenizer = Tokenizer.from_file(str(board.store / "hash/tokenizer.json"))
    return str(tokenizer.decode(run["tokens"], skip_special_tokens=False))


def create_from_text(server: Node, name: str, modelfile: str) -> dict[str, Any]:
    """As older clients of Ollama did it; the newer ones send its parts."""
    body = {"model": name, "modelfile": modelfile, "stream": False}
    found: dict[str, Any] = server.http.post("/api/create", json=body).json()
    return found


def refused(call: Any, *arguments: Any, **options: Any) -> ollama.ResponseError:
    def to_the_end() -> None:
        found = call(*arguments, **options)
        if options.get("stream"):
            list(found)

    with pytest.raises(ollama.ResponseError) as caught:
        to_the_end()
    return caught.value


# --- chat and generate ---


def test_chat_whole_and_streamed(client: ollama.Client, board: SimBoard) -> None:
    whole = client.chat("hash", TALK)
    assert (whole.model, whole.message.role, whole.done, whole.done_reason) == ("hash", "assistant", True, "stop")
    assert whole.message.content
    run = board.runs()[-1]
    assert whole.prompt_eval_count == run["n_tokens"]
    assert whole.eval_count == run["generated"]
    assert (whole.total_duration or 0) >= (whole.load_duration or 0) > 0
    assert whole.prompt_eval_duration is not None
    assert whole.eval_duration is not None
    *pieces, last = list(client.chat("hash", TALK, stream=True))
    assert len(pieces) > 3
    assert not any(piece.done for piece in pieces)
    assert "".join(piece.message.content or "" for piece in pieces) == whole.message.content
    assert (last.done, last.eval_count, last.prompt_eval_count) == (True, whole.eval_count, whole.prompt_eval_count)
    assert datetime.fromisoformat((last.created_at or "")[:19]).year >= 2026


def test_a_conversation_is_sent_as_a_whole(client: ollama.Client, board: SimBoard) -> None:
    first = client.chat("hash", TALK).message
    client.chat("hash", [*TALK, first, {"role": "user", "content": "And now?"}])
    run = board.runs()[-1]
    assert run["reused"] > 0
    assert run["n_tokens"] > run["prefilled"]


def test_thinking_is_apart_and_can_be_switched_off(client: ollama.Client, board: SimBoard) -> None:
    model = "deepseek-r1-1.5b-rkllm"
    found = client.chat(model, TALK)
    assert (found.message.thinking, found.message.content) == ("Hm, let me see.", "The answer is 4.")
    assert client.chat(model, TALK, think=True).message.thinking == "Hm, let me see."
    silent = client.chat(model, TALK, think=False)
    assert silent.message.thinking is None
    assert "<think>" not in (silent.message.content or "")
    pieces = list(client.generate(model, "Hello", think=True, stream=True))
    assert "".join(piece.thinking or "" for piece in pieces) == "Hm, let me see."
    assert "".join(piece.response or "" for piece in pieces) == "The answer is 4."
    assert refused(client.chat, "hash", TALK, think=True).status_code == 400


def test_options(client: ollama.Client) -> None:
    found = client.chat("hash", TALK, options={"num_predict": 3, "temperature": 0, "num_ctx": 2048, "num_gpu": 1})
    assert (found.eval_count, found.done_reason) == (3, "length")
    stop = (client.chat("hash", TALK).message.content or "").split()[1]
    assert stop not in (client.chat("hash", TALK, options={"stop": [stop]}).message.content or "")
    assert "num_ctx" in refused(client.chat, "hash", TALK, options={"num_ctx": 100_000}).error
    assert "mirostat" in refused(client.chat, "hash", TALK, options={"mirostat": 2}).error


def test_format_json_and_schema(client: ollama.Client, board: SimBoard) -> None:
    runs = len(board.runs())
    found = client.chat("ages", TALK, format=AGE)
    assert json.loads(found.message.content or "") == {"age": 22}
    assert len(board.runs()) == runs + 2, "the first answer did not fit"
    assert json.loads(client.generate("ages", "How old?", format="json").response or "") == {"age": 22}
    streamed = "".join(piece.message.content or "" for piece in client.chat("ages", TALK, format=AGE, stream=True))
    assert json.loads(streamed) == {"age": 22}
    error = refused(client.chat, "prose", TALK, format=AGE)
    assert (error.status_code, "format" in error.error) == (500, True)
    assert refused(client.chat, "ages", TALK, format={"type": "nonsense"}).status_code == 400


def test_generate_with_its_own_system_and_template(client: ollama.Client, board: SimBoard) -> None:
    client.generate("hash", "Hello")
    assert "Be brief." in prompt_of(board.runs()[-1], board)
    client.generate("hash", "Hello", system="Be long.")
    assert "Be long." in prompt_of(board.runs()[-1], board)
    assert "Be brief." not in prompt_of(board.runs()[-1], board)
    client.generate("hash", "Hello", system="S", template="{{ .System }}|{{ .Prompt }}|{{ .Response }}")
    assert prompt_of(board.runs()[-1], board) == "S|Hello|"
    found = client.generate("hash", "<|im_start|>user\nraw", raw=True)
    assert prompt_of(board.runs()[-1], board) == "<|im_start|>user\nraw"
    assert found.response
    assert found.context is None


def test_what_cannot_be_done_is_refused_by_name(client: ollama.Client) -> None:
    picture = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    for word, error in {
        "images": refused(client.chat, "hash", [{**TALK[0], "images": [picture]}]),
        "probabilities": refused(client.chat, "hash", TALK, logprobs=True),
        "context": refused(client.generate, "hash", "Hello", context=[1, 2]),
        "suffix": refused(client.generate, "hash", "Hello", suffix="end"),
    }.items():
        assert error.status_code == 400
        assert word in error.error.lower()


def test_an_unknown_model_and_an_error_in_mid_stream(client: ollama.Client) -> None:
    unknown = refused(client.chat, "gpt-4", TALK)
    assert unknown.status_code == 404
    assert "gpt-4" in unknown.error
    pieces: list[ollama.ChatResponse] = []
    with pytest.raises(ollama.ResponseError, match="rkllm_run"):
        pieces.extend(client.chat("broken", TALK, stream=True))
    assert refused(client.chat, "broken", TALK).status_code == 500
    assert client.chat("hash", TALK).done


def test_leaving_a_stream_stops_the_run(client: ollama.Client, board: SimBoard) -> None:
    with contextlib.closing(cast("Any", client.chat("slow", TALK, stream=True))) as stream:
        next(stream)
    wait_until(lambda: bool(board.runs()[-1].get("aborted")), timeout=10, what="the abort")


async def test_the_asynchronous_client(server: Node) -> None:
    async with ollama.AsyncClient(server.url) as client:
        whole = await client.chat("hash", TALK)
        streamed = [piece.message.content or "" async for piece in await client.chat("hash", TALK, stream=True)]
        assert "".join(streamed) == whole.message.content
        assert (await client.list()).models


# --- keep_alive, ps ---


def test_keep_alive_and_ps(client: ollama.Client) -> None:
    assert client.chat("hash", [], keep_alive="1h").done_reason == "load"
    (found,) = [model for model in client.ps().models if model.model == "hash"]
    assert found.expires_at is not None
    left = found.expires_at - datetime.now(timezone.utc)
    assert timedelta(minutes=59) < left <= timedelta(hours=1)
    assert (found.context_length, found.details is not None and found.details.format) == (4096, "rkllm")
    client.generate("hash", "Hello", keep_alive=-1)
    (found,) = [model for model in client.ps().models if model.model == "hash"]
    assert found.expires_at is not None
    assert found.expires_at.year > 2200
    assert client.generate("hash", "", keep_alive=0).done_reason == "unload"
    wait_until(lambda: all(model.model != "hash" for model in client.ps().models), timeout=10, what="the unload")
    client.generate("hash", "Hello", keep_alive=0)
    wait_until(lambda: all(model.model != "hash" for model in client.ps().models), timeout=10, what="the unload")


# --- the store ---


def test_list_and_show(client: ollama.Client) -> None:
    listed = {model.model: model for model in client.list().models}
    assert {"hash", "deepseek-r1-1.5b-rkllm"} <= set(listed)
    assert (listed["hash"].size or 0) > 1000
    assert len(listed["hash"].digest or "") == 64
    assert listed["hash"].modified_at is not None
    shown = client.show("hash")
    assert "SYSTEM" in (shown.modelfile or "")
    assert "temperature" in (shown.parameters or "")
    assert "<|im_start|>" in (shown.template or "")
    assert (shown.details is not None and shown.details.format) == "rkllm"
    assert shown.capabilities == ["completion", "tools"]
    assert client.show("deepseek-r1-1.5b-rkllm").capabilities == ["completion", "tools", "thinking"]
    assert refused(client.show, "gpt-4").status_code == 404


def test_copy_create_and_delete(client: ollama.Client, board: SimBoard, server: Node) -> None:
    assert client.copy("hash", "twin").status == "success"
    assert client.chat("twin", TALK).message.content == client.chat("hash", TALK).message.content
    assert refused(client.copy, "hash", "twin").status_code == 409
    assert refused(client.copy, "gpt-4", "other").status_code == 404
    assert refused(client.copy, "hash", "../outside").status_code == 400
    *_, last = list(
        client.create("pirate", from_="hash", system="Talk like a pirate.", parameters={"num_ctx": 512}, stream=True)
    )
    assert last.status == "success"
    assert client.create("mate", from_="twin", template="{{ .Prompt }}").status == "success"
    client.chat("pirate", TALK)
    assert "Talk like a pirate." in prompt_of(board.runs()[-1], board)
    assert refused(client.create, "pirate", from_="hash").status_code == 409
    assert refused(client.create, "x", from_="gpt-4").status_code in (400, 404)
    shown = (client.show("pirate").modelfile or "").replace("FROM pirate", "FROM twin")
    assert "Talk like a pirate." in shown
    assert create_from_text(server, "again", shown) == {"status": "success"}
    for name in ("twin", "pirate", "mate", "again"):
        assert client.delete(name).status == "success"
        assert not (board.store / name).exists()
    assert refused(client.delete, "twin").status_code == 404
    assert client.chat("hash", TALK).done, "the copies shared the file, the original is still there"


def test_pull(client: ollama.Client, board: SimBoard, hub: FakeHub) -> None:
    folder = board.store / "hash"
    hub.add("me/converted", {"tiny.rkllm": (folder / "hash.rkllm").read_bytes()}, base_model="me/original")
    hub.add("me/original", {name: (folder / name).read_bytes() for name in ("tokenizer.json", "tokenizer_config.json")})
    steps = list(client.pull("me/converted/tiny.rkllm:pulled", stream=True))
    assert steps[0].status == "pulling manifest"
    assert steps[-1].status == "success"
    assert any(step.total and step.completed == step.total for step in steps)
    assert client.chat("pulled", TALK).message.content
    assert (board.store / "pulled/tokenizer.json").is_file()
    assert client.pull("me/converted/tiny.rkllm:again").status == "success"
    assert refused(client.pull, "me/converted/tiny.rkllm:again").status_code == 409
    assert refused(client.pull, "me/nothing/x.rkllm").status_code == 404
    assert refused(client.pull, "me/nothing/x.rkllm", stream=True).status_code in (-1, 502)


def test_push_and_blobs_are_refused(client: ollama.Client, tmp_path: Path) -> None:
    assert refused(client.push, "hash").status_code == 400
    file = tmp_path / "x.gguf"
    file.write_bytes(b"GGUF")
    assert refused(client.create_blob, file).status_code == 400


def test_embeddings(client: ollama.Client) -> None:
    found = client.embed("hash", ["one", "two"])
    assert len(found.embeddings) == 2
    assert found.prompt_eval_count
    (single,) = client.embed("hash", "one").embeddings
    assert single == found.embeddings[0]
    assert client.embeddings("hash", "one").embedding == single
    assert abs(sum(value * value for value in single) - 1) < 1e-3


# --- the node ---


@pytest.mark.timeout(300)
def test_a_node_with_llamacpp(model_store: Path, tmp_path: Path) -> None:
    with Node("--models-dir", str(model_store), folder=tmp_path) as node, ollama.Client(node.url) as client:
        model = f"{BUILTIN_MODEL}:latest"
        options = {"temperature": 0, "num_predict": 12}
        whole = client.chat(model, TALK, options=options)
        assert (whole.eval_count, whole.done_reason) == (12, "length")
        assert (whole.eval_duration or 0) > 0
        streamed = list(client.chat(model, TALK, options=options, stream=True))
        assert "".join(piece.message.content or "" for piece in streamed) == whole.message.content
        assert len(streamed) > 5
        schema = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
        formed = client.chat(model, TALK, format=schema, options={"temperature": 0, "num_predict": 40})
        assert isinstance(json.loads(formed.message.content or "")["age"], int)
        raw = client.generate(model, "The capital of France is", raw=True, options=options)
        assert "Paris" in raw.response
        assert [shown.model for shown in client.list().models] == [BUILTIN_MODEL]
        assert [shown.model for shown in client.ps().models] == [BUILTIN_MODEL]
        assert (client.show(model).details or {})["format"] == "gguf"
        assert refused(client.chat, model, TALK, think=True).status_code == 400
        assert len(client.embed(model, ["one", "two"]).embeddings) == 2
        client.generate(model, "", keep_alive=0)
        wait_until(lambda: not client.ps().models, timeout=20, what="the unload")
        assert client.chat(model, TALK, options=options).message.content == whole.message.content
