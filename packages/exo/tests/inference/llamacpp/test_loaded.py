"""The loaded model, with a few lines of Python in place of llama.cpp's server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import psutil
import pytest

from exo.inference import supervisor
from exo.inference.llamacpp.loaded import LoadedModel, WorkerSettings
from exo.types import ChatRequest, ContextOverflow, Message, ModelCard, ModelLoadError, WorkerDied

Until = Callable[[Callable[[], bool]], Awaitable[None]]

SERVER = r"""
import json, os, socket, sys
config = json.loads(sys.stdin.readline())
server = socket.socket(socket.AF_UNIX)
server.bind(config["socket"])
server.listen()
os.write(1, b"ready\n")
REFUSAL = b'{"error": {"message": "x", "n_prompt_tokens": 9, "n_ctx": 8}}'
def chunk(event):
    return b"%x\r\n%s\r\n" % (len(event), event)
USAGE = chunk(b'data: {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}\n\n')
WORD = chunk(b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n')
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
kept = []
while True:
    connection, _ = server.accept()
    kept.append(connection)
    asked = connection.recv(65536)
    while b"\r\n\r\n" not in asked or not (asked.startswith(b"GET") or asked.rstrip().endswith(b"}")):
        asked += connection.recv(65536) or sys.exit()
    if asked.startswith(b"GET"):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
    elif b"die" in asked:
        connection.sendall(HEAD + WORD)
        os.kill(os.getpid(), 9)
    elif b"refuse" in asked:
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\n\r\n" % len(REFUSAL) + REFUSAL)
    elif b"cut" in asked:
        connection.sendall(HEAD[:-4])
        connection.close()
    elif b"hang" in asked:
        connection.sendall(HEAD + WORD)
    else:
        connection.sendall(HEAD + WORD + USAGE)
        connection.close()
"""
SETTINGS = WorkerSettings(slots=2, context=4096, threads=3, cache_mib=5)


def request(text: str) -> ChatRequest:
    return ChatRequest(model="m", messages=(Message(role="user", content=text),))


async def say(model: LoadedModel, text: str) -> str:
    async with contextlib.aclosing(model.chat(request(text))) as deltas:
        return "".join([delta.text async for delta in deltas])


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], LoadedModel]:
    """A model whose worker runs the given program; it is not started yet."""
    monkeypatch.setattr(supervisor, "_STOP_GRACE", 0.05)

    def made(program: str) -> LoadedModel:
        real = LoadedModel._command

        def command(self: LoadedModel) -> tuple[Sequence[str], bytes]:
            return (sys.executable, "-I", "-S", "-c", program), real(self)[1]

        monkeypatch.setattr(LoadedModel, "_command", command)
        return LoadedModel(ModelCard(id="m"), Path("m.gguf"), SETTINGS, {})

    return made


@pytest.fixture
async def model(make: Callable[[str], LoadedModel]) -> AsyncIterator[LoadedModel]:
    found = make(SERVER)
    await found.start()
    yield found
    await found.close()


async def test_an_answer(model: LoadedModel) -> None:
    assert model.ready
    assert await say(model, "hi") == "a"


async def test_a_worker_that_dies_costs_its_request_and_nothing_more(model: LoadedModel) -> None:
    pid = model.worker_pid
    deltas = model.chat(request("die"))
    assert (await anext(deltas)).text == "a"
    with pytest.raises(WorkerDied, match=r"the llamacpp worker of m was ended by SIGKILL during this request"):
        await anext(deltas)
    assert await say(model, "hi") == "a"
    assert model.worker_pid not in (pid, None)


async def test_the_other_requests_of_a_dead_worker_are_told_too(model: LoadedModel) -> None:
    others = [model.chat(request("hang")) for _ in range(3)]
    for other in others:
        assert (await anext(other)).text == "a"
    with pytest.raises(WorkerDied):
        await say(model, "die")
    for other in others:
        with pytest.raises(WorkerDied, match="was ended by SIGKILL during this request"):
            await anext(other)


async def test_a_refusal_is_no_death(model: LoadedModel) -> None:
    pid = model.worker_pid
    with pytest.raises(ContextOverflow):
        await say(model, "refuse")
    assert await say(model, "hi") == "a"
    assert model.worker_pid == pid


async def test_a_connection_cut_by_a_living_worker(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_EXIT_WAIT", 0.01)
    with pytest.raises(WorkerDied, match="closed the connection during this request"):
        await say(model, "cut")
    assert await say(model, "hi") == "a"


async def test_a_success_between_two_deaths_keeps_restarts_immediate(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    counted: list[int] = []

    def restart_delay(failures: int) -> float:
        counted.append(failures)
        return 0.0

    monkeypatch.setattr(supervisor, "restart_delay", restart_delay)
    for text in ("die", "hi", "die", "die", "refuse", "die"):
        with contextlib.suppress(WorkerDied, ContextOverflow):
            await say(model, text)
    await until(lambda: len(counted) == 4)
    assert counted == [1, 1, 2, 3]


async def test_requests_wait_for_the_restart(model: LoadedModel, until: Until) -> None:
    assert model.worker_pid is not None
    os.kill(model.worker_pid, signal.SIGKILL)
    await until(lambda: not model.ready)
    assert await say(model, "hi") == "a"


async def test_close_leaves_neither_process_nor_folder(make: Callable[[str], LoadedModel]) -> None:
    model = make(SERVER)
    await model.start()
    process = psutil.Process(model.worker_pid)
    folder = model._folder
    assert folder.stat().st_mode & 0o777 == 0o700
    await model.close()
    assert not process.is_running()
    assert not folder.exists()


async def test_a_model_that_cannot_be_loaded_leaves_nothing(make: Callable[[str], LoadedModel]) -> None:
    model = make("import sys; sys.exit('error: no such architecture')")
    with pytest.raises(ModelLoadError, match="the llamacpp worker of m exited with code 1: error: no such arch"):
        await model.start()
    assert not model._folder.exists()


async def test_idle_waits_for_the_last_user(make: Callable[[str], LoadedModel]) -> None:
    model = make(SERVER)
    model.users = 2
    idle = asyncio.create_task(model.idle())
    for _ in range(2):
        await asyncio.sleep(0)
        assert not idle.done()
        await model.leave()
    await asyncio.wait_for(idle, 5)
    await model.close()


@pytest.mark.parametrize(("card", "context"), [(0, 4096), (2048, 2048), (8192, 4096)])
async def test_a_slot_has_no_more_context_than_the_model(card: int, context: int) -> None:
    model = LoadedModel(ModelCard(id="m", context_length=card), Path("m.gguf"), SETTINGS, {})
    assert model._config["context"] == context
    assert (model._config["slots"], model._config["threads"], model._config["cache_mib"]) == (2, 3, 5)
    await model.close()


async def test_the_path_of_the_socket_fits_whatever_the_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(deep))
    model = LoadedModel(ModelCard(id="m"), Path("m.gguf"), SETTINGS, {})
    assert len(os.fsencode(model._config["socket"])) < 104
    await model.close()
