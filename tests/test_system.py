"""What needs root, Debian packages or npm: a fresh clone as another user, and the JavaScript client."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fake_hub import FakeHub
from npu_board import SimBoard

from rkllama_support import serve
from support import REPOSITORY, StartNode, run_well, wait_until

pytestmark = pytest.mark.system
PORT = 52415
USER = "exo-test"
KEPT_VARIABLES = ("PIP_CERT", "PIP_DEFAULT_TIMEOUT", "PIP_FIND_LINKS", "PIP_INDEX_URL", "SSL_CERT_FILE", "HTTPS_PROXY")


@pytest.fixture
def stranger() -> Iterator[Path]:
    """The home of a user who was just made and has nothing; removed at the end."""
    subprocess.run(["userdel", "--force", "--remove", USER], capture_output=True, check=False)
    run_well("useradd", "--create-home", "--shell", "/bin/bash", USER)
    try:
        yield Path(pwd.getpwnam(USER).pw_dir)
    finally:
        subprocess.run(["userdel", "--force", "--remove", USER], capture_output=True, check=False)


@contextlib.contextmanager
def as_stranger(home: Path, folder: Path, *command: str) -> Iterator[subprocess.Popen[str]]:
    """A command of the user `USER`, with Debian's own programs only; ended with all its children."""
    kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    log = home / "log"
    with log.open("a+") as out:
        process = subprocess.Popen(
            command,
            user=USER,
            group=USER,
            extra_groups=[],
            cwd=folder,
            env={"HOME": str(home), "PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", **kept},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def readme_blocks(language: str) -> list[str]:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.mark.timeout(900)
def test_a_stranger_clones_types_make_serve_and_gets_an_answer(stranger: Path) -> None:
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", PORT)) != 0, f"port {PORT} is taken; the README's commands need it"
    clone = stranger / "exo-rkllama"
    run_well("git", "clone", "--quiet", REPOSITORY, clone)
    run_well("chown", "-R", f"{USER}:{USER}", clone)
    first, second = readme_blocks("sh")[0].strip().splitlines()
    assert (first.split()[:2], second.split()[:2]) == (["make", "serve"], ["make", "test"])

    with as_stranger(stranger, clone, "make", "serve") as serve:
        log = stranger / "log"

        def ready() -> bool:
            assert serve.poll() is None, log.read_text()
            with contextlib.suppress(httpx2.TransportError):
                return httpx2.get(f"http://127.0.0.1:{PORT}/ready", trust_env=False).status_code == httpx2.codes.OK
            return False

        wait_until(ready, timeout=600, what=f"make serve to be ready; see {log}")
        curl = readme_blocks("sh")[1]
        answer = json.loads(run_well("bash", "-c", curl))
        assert len(answer["choices"][0]["message"]["content"]) > 20
        streamed = run_well(sys.executable, "-c", readme_blocks("python")[0])
        assert len(streamed.split()) > 5
        greeting = log.read_text()
        assert f"http://127.0.0.1:{PORT}" in greeting
        assert "exo run" in greeting
    assert (clone / ".venv/bin/exo").exists()


@pytest.mark.timeout(300)
def test_the_official_javascript_client(start_node: StartNode, model_store: Path, javascript: Path) -> None:
    node = start_node("--models-dir", str(model_store))
    seen = json.loads(run_well("node", "chat.mjs", node.url, cwd=javascript))
    assert seen["models"] == ["smollm2-135m-instruct"]
    assert seen["streamed"] == seen["whole"]
    assert len(seen["whole"]) > 10
    assert seen["usage"]["completion_tokens"] == 12
    assert seen["refused"] == {"name": "NotFoundError", "status": 404, "code": "model_not_found"}
    wait_until(lambda: "status=499" in node.log, timeout=10, what="the node to see that the client left")


def check_ollama(seen: dict[str, Any], model: str) -> None:
    """What holds of Ollama's client for every server."""
    assert model in seen["models"]
    assert model in seen["running"]
    assert seen["streamed"] == {"text": seen["chat"]["text"], "eval": seen["chat"]["eval"]}
    assert (seen["chat"]["done"], seen["chat"]["eval"]) == (True, 12)
    assert seen["chat"]["reason"] == "length"
    assert seen["generated"]["text"] == seen["generatedStream"] != ""
    assert all(duration > 0 for duration in seen["generated"]["durations"])
    assert seen["raw"]
    assert (seen["loaded"], seen["unloaded"]) == ("load", "unload")
    assert {seen[key] for key in ("copied", "created", "createdWhole")} == {"success"}
    assert {seen[f"deleted js-{name}"] for name in ("copy", "made", "whole")} == {"success"}
    assert seen["madeAnswers"] is True
    assert seen["taken"].startswith("409: ")
    for key in ("unknown", "unknownStream"):
        assert seen[key].startswith("404: ")
        assert "gpt-4" in seen[key]
    assert seen["push"].startswith("400: ")
    assert seen["tools"] is None
    assert (seen["vectors"], seen["embed"], seen["embeddings"]) == (2, None, None)
    assert seen["vector"] > 0
    assert seen["noModel"].startswith("404: ")
    assert "abort" in seen["aborted"]


@pytest.mark.timeout(300)
def test_ollamas_javascript_client_and_rkllama(javascript: Path, tmp_path: Path) -> None:
    board = SimBoard(tmp_path / "board")
    model = board.add_model("tiny", answer=(30, 40))
    with FakeHub() as hub, serve(board, tmp_path / "server", HF_ENDPOINT=hub.url) as server:
        hub.add("me/converted", {"x.rkllm": model.read_bytes()})
        reference = "me/converted/x.rkllm:pulled"
        seen = json.loads(run_well("node", "ollama.mjs", server.url, "tiny", reference, cwd=javascript))
        check_ollama(seen, "tiny")
        assert seen["pulled"] == {"first": "pulling manifest", "last": "success"}
        assert seen["pulledModel"] is True
        assert seen["shown"] == "rkllm"
        assert sorted(path.name for path in board.store.iterdir()) == ["pulled", "tiny"]


@pytest.mark.timeout(300)
def test_ollamas_javascript_client_and_a_node(
    start_node: StartNode, model_store: Path, javascript: Path, tmp_path: Path
) -> None:
    store = tmp_path / "models"
    shutil.copytree(model_store, store)
    node = start_node("--models-dir", str(store))
    seen = json.loads(run_well("node", "ollama.mjs", node.url, "smollm2-135m-instruct", cwd=javascript))
    check_ollama(seen, "smollm2-135m-instruct")
    assert seen["shown"] == "gguf"
