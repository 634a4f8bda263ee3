"""Servers that answer too much, too slowly, elsewhere, or with an error that they call a success."""

from __future__ import annotations

import asyncio
import contextlib
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from remote_server import END, EVENTS, NDJSON, RemoteServer, Step, answer, chunk, until_error

from exo.inference.remote import link as link_module
from exo.inference.remote.link import Link
from exo.inference.remote.ollama import OllamaClient
from exo.inference.remote.openai import OpenAIClient
from exo.types import ChatRequest, ExoError, Message, RemoteFailed, RunTimedOut

REQUEST = ChatRequest(model="m", messages=(Message(role="user", content="hi"),))
OLLAMA, OPENAI = "/api/chat", "/v1/chat/completions"
MIB = 1 << 20


async def error_of_chat(server: RemoteServer, link: Link, *script: Step) -> list[ExoError]:
    """How chats end in both dialects, if the server plays `script` to them."""
    found = []
    for path, client in ((OLLAMA, OllamaClient(link)), (OPENAI, OpenAIClient(link))):
        server.routes[path] = script
        text, error = await until_error(client.chat(REQUEST))
        assert text == ""
        assert error is not None
        found.append(error)
    return found


class Trickle(list[Step]):
    """White space for so many seconds, and then an answer."""

    def __init__(self, seconds: float) -> None:
        super().__init__([END])
        self.seconds = seconds

    def __iter__(self) -> Iterator[Step]:
        clock = asyncio.get_running_loop().time
        end = clock() + self.seconds
        yield NDJSON
        while clock() < end:
            yield chunk(b" ")
        yield chunk(b'{"a": 1}')
        yield END


@contextlib.contextmanager
def bounded(mebibytes: int) -> Iterator[None]:
    """Fails if more memory than that is held at any time."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < mebibytes * MIB
    finally:
        tracemalloc.stop()


# redirects


@pytest.mark.parametrize("status", ["301 Moved Permanently", "302 Found", "307 Temporary Redirect", "308 Permanent"])
async def test_a_redirect_is_not_followed_but_named(server: RemoteServer, link: Link, status: str) -> None:
    moved = answer(b"<a href=x>moved</a>", status, Location=f"{server.url}/elsewhere")
    errors = await error_of_chat(server, link, moved)
    server.routes["/q"] = [moved]
    with pytest.raises(RemoteFailed) as caught:
        await link.get("/q", dict[str, Any])
    for error in (*errors, caught.value):
        assert type(error) is RemoteFailed
        assert f"redirects /{'q' if error is caught.value else ''}" in error.message
        assert f"{server.url}/elsewhere" in error.message
        assert status[:3] in error.message
    assert "/elsewhere" not in server.paths()


@pytest.mark.parametrize("location", ["http://[", "http://a:b/", "ftp://x/y", "//", "?", "http://user:secret@[::1"])
async def test_a_redirect_that_makes_no_sense(server: RemoteServer, link: Link, location: str) -> None:
    for error in await error_of_chat(server, link, answer(b"", "302 Found", Location=location)):
        assert type(error) is RemoteFailed


async def test_a_status_that_is_neither(server: RemoteServer, link: Link) -> None:
    for error in await error_of_chat(server, link, answer(b"", "300 Multiple Choices")):
        assert type(error) is RemoteFailed
        assert "status 300" in error.message


# errors with status 200


@pytest.mark.parametrize(
    "body",
    [
        {"error": "out of tokens"},
        {"code": 7, "error": "out of tokens"},
        {"error": {"message": "out of tokens"}, "models": [], "data": []},
    ],
)
async def test_an_error_that_is_called_a_success(server: RemoteServer, link: Link, body: object) -> None:
    failing = answer(body)
    for error in await error_of_chat(server, link, failing):
        assert type(error) is RemoteFailed
        assert "out of tokens" in error.message
    server.routes |= {path: [failing] for path in ("/api/tags", "/api/ps", "/v1/models", OLLAMA)}
    ollama = OllamaClient(link)
    for asking in (ollama.models(), ollama.resident(), OpenAIClient(link).models(), ollama.load("m")):
        with pytest.raises(RemoteFailed, match="out of tokens"):
            await asking


@pytest.mark.parametrize("body", [{"detail": "no"}, b"<html>log in</html>", "no", None, b""])
async def test_a_success_that_says_something_else_is_no_empty_list(
    server: RemoteServer, link: Link, body: object
) -> None:
    server.routes |= {path: [answer(body)] for path in ("/api/tags", "/api/ps", "/v1/models")}
    ollama = OllamaClient(link)
    for asking in (ollama.models(), ollama.resident(), OpenAIClient(link).models()):
        with pytest.raises(RemoteFailed, match="cannot be read"):
            await asking
    for error in await error_of_chat(server, link, answer(body)):
        assert type(error) is RemoteFailed


async def test_a_list_that_is_null_is_empty(server: RemoteServer, link: Link) -> None:
    server.routes |= {"/api/tags": [answer({"models": None})], "/api/ps": [answer({"models": None})]}
    assert (await OllamaClient(link).models(), await OllamaClient(link).resident()) == ([], [])


async def test_an_answer_that_is_not_packed_as_it_says(server: RemoteServer, link: Link) -> None:
    server.routes["/q"] = [answer({"a": 1}, Content_Encoding="gzip")]
    with pytest.raises(RemoteFailed, match="cannot be read"):
        await link.get("/q", dict[str, Any])


# too much


@pytest.mark.parametrize("head", [NDJSON, EVENTS])
async def test_a_line_without_an_end_ends_with_the_limit(server: RemoteServer, link: Link, head: bytes) -> None:
    endless = [chunk(b"x" * MIB)] * 1000
    with bounded(64):
        errors = await error_of_chat(server, link, head, *endless)
    for error in errors:
        assert type(error) is RemoteFailed
        assert "16 MiB without a line end" in error.message


@pytest.mark.parametrize("status", ["200 OK", "500 Internal Server Error"])
async def test_an_answer_without_an_end(
    server: RemoteServer, link: Link, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "_LONGEST_ANSWER", 8 * MIB)
    server.routes["/q"] = [
        f"HTTP/1.1 {status}\r\nTransfer-Encoding: chunked\r\n\r\n".encode(),
        *[chunk(b"<" * MIB)] * 1000,
    ]
    with bounded(48), pytest.raises(RemoteFailed, match="8 MiB" if status == "200 OK" else "status 500"):
        await link.post("/q", {}, dict[str, Any])


async def test_a_long_refusal_that_can_be_read_is_read(server: RemoteServer, link: Link) -> None:
    server.routes["/q"] = [answer({"detail": "no", "input": "x" * 900_000}, "500 Oops")]
    with pytest.raises(RemoteFailed, match=r"status 500: no$"):
        await link.post("/q", {}, dict[str, Any])


# too slow


async def test_a_limit_is_for_the_whole_exchange(server: RemoteServer) -> None:
    """The pieces keep coming, so that no single pause is long."""
    link = Link(server.url, timeout=10.0, connect_timeout=0.05)
    server.routes["/q"] = Trickle(30.0)
    with pytest.raises(RunTimedOut, match=r"did not answer within 0\.05 seconds") as caught:
        await link.get("/q", dict[str, Any], timeout=0.05)
    assert "EXO_REMOTE_TIMEOUT" not in caught.value.message, "it would not help"
    await link.close()


async def test_a_silent_server_does_not_get_longer(server: RemoteServer) -> None:
    link = Link(server.url, timeout=10.0, connect_timeout=60.0)
    server.routes["/q"] = ["stay"]
    with pytest.raises(RunTimedOut, match=r"did not answer within 0\.05 seconds"):
        await link.get("/q", dict[str, Any], timeout=0.05)
    await link.close()


async def test_without_a_limit_of_its_own_only_silence_counts(server: RemoteServer) -> None:
    link = Link(server.url, timeout=0.3)
    server.routes["/q"] = Trickle(0.4)
    assert await link.post("/q", {}, dict[str, int]) == {"a": 1}
    await link.close()
