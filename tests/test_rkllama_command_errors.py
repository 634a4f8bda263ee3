"""The commands of `rkllama` against servers that want a key, are none, or are not there; and mistakes of settings."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, final

import pytest
from npu_board import SimBoard

from rkllama_support import Rkllama, command, hashes, one_sentence, serve

pytestmark = pytest.mark.slow

NOBODY = "1"
"""A port on which nothing listens."""


def test_keys(tmp_path: Path) -> None:
    board = SimBoard(tmp_path / "board")
    board.add_model("one")
    with serve(board, tmp_path, RKLLAMA_API_KEYS="sesame") as node:
        port = Rkllama(board, node).port
        asking = (
            ["list"],
            ["ps"],
            ["show", "one"],
            ["rm", "one"],
            ["cp", "one", "x"],
            ["pull", "a/b"],
            ["stop", "one"],
        )
        for arguments in asking:
            assert "--api-key" in one_sentence(command(board, *arguments, RKLLAMA_PORT=port))
            refused = one_sentence(command(board, *arguments, RKLLAMA_PORT=port, RKLLAMA_API_KEY="guess"))
            assert refused == "rkllama: The server does not know the API key that was given."
        assert "--api-key" in command(board, "run", "one", "Hello", RKLLAMA_PORT=port).stderr
        refused = one_sentence(command(board, "run", "one", "Hello", RKLLAMA_PORT=port, RKLLAMA_API_KEY="guess"))
        assert "does not know the API key" in refused
        assert "guess" not in refused
        assert "one" in command(board, "list", RKLLAMA_PORT=port, RKLLAMA_API_KEY="sesame").stdout
        assert "one" in command(board, "list", "--port", port, "--api-key", "sesame").stdout
        assert command(board, "run", "one", "Hello", RKLLAMA_PORT=port, RKLLAMA_API_KEY="sesame").stdout.strip()
        assert (board.store / "one/one.rkllm").exists()


@final
class Broken:
    """A server on a free port that sends the same bytes whatever it is asked, and hangs up."""

    def __init__(self, status: int, content: bytes, *, length: int | None = None) -> None:
        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", 0)))
                self.send_response(status)
                self.send_header("Content-Length", str(len(content) if length is None else length))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_DELETE = answer  # noqa: N815 - the library's names

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        self.port = str(self._http.server_address[1])

    def __enter__(self) -> Broken:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


@pytest.mark.parametrize(
    "broken",
    [
        {"status": 200, "content": b"<html>It works!</html>"},
        {"status": 200, "content": b'{"models": [{"size": "large"}]}\n'},
        {"status": 500, "content": b'{"error": {"message": 1}}'},
        {"status": 200, "content": b'{"status": "pul', "length": 1000},
    ],
)
def test_something_else_answers(tmp_path: Path, broken: dict[str, Any]) -> None:
    board = SimBoard(tmp_path / "board")
    board.add_model("one")
    before = hashes(board.store)
    with Broken(**broken) as server:
        assert server.port in one_sentence(command(board, "list", "--port", server.port))
        pull = command(board, "pull", "a/b/c.rkllm", "--port", server.port)
        assert server.port in one_sentence(pull, after_steps=True)
    assert hashes(board.store) == before


def test_mistakes_of_settings(tmp_path: Path) -> None:
    board = SimBoard(tmp_path / "board")
    assert "RKLLAMA_PORT" in one_sentence(command(board, "list", RKLLAMA_PORT="many"))
    assert "RKLLM_CONTEXT" in one_sentence(command(board, "list", RKLLAMA_PORT=NOBODY, RKLLM_CONTEXT="long"))
    unknown = command(board, "frobnicate")
    assert (unknown.returncode, "Traceback" in unknown.stderr) == (2, False)
    nowhere = command(board, "list", "--models", tmp_path / "nowhere", RKLLAMA_PORT=NOBODY)
    assert (nowhere.returncode, nowhere.stdout) == (0, "NAME  PARAMETERS  TYPE  SIZE  MODIFIED\n")
    board.add_model("one")
    file = board.store / "one/one.rkllm"
    assert f"{file}" in one_sentence(command(board, "list", "--models", file, RKLLAMA_PORT=NOBODY))
    assert f"{file}" in one_sentence(command(board, "serve", "--models", file, RKLLAMA_PORT="0"))
    elsewhere = command(board, "rm", "one", "--host", "0.0.0.1", "--port", NOBODY)
    assert "0.0.0.1" in one_sentence(elsewhere)  # a model of this machine is not meant
    no_library = command(board, "run", "one", "Hello", RKLLAMA_PORT=NOBODY, RKLLM_LIB="/nowhere/librkllmrt.so")
    assert (no_library.returncode, "/nowhere/librkllmrt.so" in no_library.stderr) == (2, True)
    assert "Traceback" not in no_library.stderr
