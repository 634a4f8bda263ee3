"""`rkllama serve` on a simulated board, its commands, and what is seen of its workers."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pty
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx2
import psutil
from npu_board import SimBoard

from support import RKLLAMA, Node, environment, run, wait_until

MIB = 1 << 20
_MARGIN = 128
"""MiB that a load takes beyond its file, see exo_rkllm.memory; the simulated files are a few KB."""
MODEL_MIB = _MARGIN + 1
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Rkllama:
    """A server and its simulated board."""

    def __init__(self, board: SimBoard, node: Node) -> None:
        self.board = board
        self.node = node
        self.http = node.http

    @property
    def port(self) -> str:
        return self.node.url.rpartition(":")[2]

    def chat(self, model: str, text: str = "Hello", **fields: Any) -> httpx2.Response:
        """POST /api/chat, not streamed."""
        messages = [{"role": "user", "content": text}]
        return self.http.post("/api/chat", json={"model": model, "messages": messages, "stream": False, **fields})

    def answer(self, model: str, text: str = "Hello", **fields: Any) -> str:
        response = self.chat(model, text, **fields)
        assert response.status_code == 200, response.text
        return str(response.json()["message"]["content"])

    def loaded(self) -> list[str]:
        """The models in memory, used most recently first."""
        return [str(model["name"]) for model in self.http.get("/api/ps").json()["models"]]

    def expiry(self, model: str) -> str:
        """`expires_at` of a loaded model."""
        return next(str(one["expires_at"]) for one in self.http.get("/api/ps").json()["models"] if one["name"] == model)

    def workers(self) -> list[psutil.Process]:
        return [child for child in psutil.Process(self.node.pid).children(recursive=True) if is_running(child)]

    def wait_for_loaded(self, *models: str) -> None:
        """Until these models are in memory, and no others."""
        wait_until(lambda: sorted(self.loaded()) == sorted(models), timeout=20, what=f"only {models} in memory")


def serve(board: SimBoard, folder: Path, *flags: str, ready: bool = True, **env: str) -> Node:
    """The command `rkllama serve`, on a free port."""
    return Node(*flags, folder=folder, env=board.env | env, command=(RKLLAMA, "serve"), ready=ready)


def command(board: SimBoard, *arguments: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command of `rkllama` to its end, in a pipe."""
    return run(RKLLAMA, *arguments, env=board.env | env, cwd=board.home)


def on_terminal(board: SimBoard, *arguments: str, columns: int, **env: str) -> tuple[int, str]:
    """Run a command on a pseudo-terminal; returns its exit code, and what it has shown without colours."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [RKLLAMA, *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment(board.env | {"TERM": "xterm", "COLUMNS": str(columns), "LINES": "24"} | env),
        cwd=board.home,
    )
    os.close(theirs)
    shown = b""
    try:
        with contextlib.suppress(OSError):  # the end of a terminal is an error
            while part := os.read(ours, 1 << 16):
                shown += part
        return process.wait(20), _CONTROL.sub("", shown.decode()).replace("\r\n", "\n")
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def set_free(board: SimBoard, mib: int) -> None:
    """From now on the board has this much memory available."""
    path = board.root / "proc/meminfo"
    path.parent.mkdir(exist_ok=True)
    fresh = path.with_name("meminfo.new")
    fresh.write_text(f"MemTotal:       16000000 kB\nMemAvailable:   {mib * 1024} kB\n")
    fresh.rename(path)  # nobody ever reads half a file


def loads(board: SimBoard) -> list[dict[str, Any]]:
    """The loads that went well, oldest first."""
    return [call for call in board.calls("rkllm_init") if call["ret"] == 0]


def model_of(call: dict[str, Any]) -> str:
    """The folder's name of the model that an rkllm_init has loaded."""
    return Path(call["model_path"]).parent.name


def destroyed(board: SimBoard) -> set[int]:
    """The processes that have unloaded their model in good order."""
    return {call["pid"] for call in board.calls("rkllm_destroy")}


def is_running(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def hashes(root: Path) -> dict[str, str]:
    """Every file below a folder with the hash of its content, and the folders."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in sorted(root.rglob("*"))
    }


def pieces(text: str) -> list[dict[str, Any]]:
    """The objects of a stream of `/generate`, between blank lines."""
    return [json.loads(piece) for piece in text.split("\n\n") if piece]


def joined(found: Iterable[dict[str, Any]], field: str = "content") -> str:
    return "".join(choice.get(field) or "" for piece in found for choice in piece["choices"])


def one_sentence(done: subprocess.CompletedProcess[str], *, after_steps: bool = False) -> str:
    """What a command that failed has said: exit code 2, one line on stderr, nothing on stdout.

    `after_steps`: lines about what it has done before may stand above that line.
    """
    assert (done.returncode, done.stdout) == (2, ""), done
    assert "Traceback" not in done.stderr
    *steps, last = done.stderr.splitlines()
    assert after_steps or not steps, done.stderr
    assert last.startswith("rkllama: ")
    return last
