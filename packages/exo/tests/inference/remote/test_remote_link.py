from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from remote_server import END, NDJSON, RemoteServer, answer, chunk

from exo.inference.remote.link import Link
from exo.types import (
    ExoError,
    InvalidRequest,
    ModelNotFound,
    QueueFull,
    RemoteFailed,
    RemoteUnavailable,
    RunTimedOut,
    Sampling,
)

Until = Callable[[Callable[[], bool]], Awaitable[None]]
OK = answer({"ok": True})


async def lines(link: Link, path: str = "/s") -> list[bytes]:
    async with link.stream(path, {}, "r1") as stream:
        return [line async for line in stream.lines()]


async def test_a_question_and_its_headers(server: RemoteServer, link: Link) -> None:
    server.routes["/q"] = [OK]
    assert await link.post("/q", {"a": 1}, dict[str, Any]) == {"ok": True}
    (asked,) = server.asked
    assert (asked.method, asked.body) == ("POST", {"a": 1})
    assert asked.headers["authorization"] == "Bearer secret"
    assert asked.headers["accept-encoding"] == "identity"
    assert asked.headers["content-type"] == "application/json"


async def test_the_requests_id_goes_along(server: RemoteServer, link: Link) -> None:
    server.routes["/s"] = [NDJSON, END]
    await lines(link)
    assert server.asked[0].headers["x-request-id"] == "r1"


@pytest.mark.parametrize("request_id", ["", "a b", "ü", "a\r\nx: y", "x" * 300])
async def test_an_id_that_no_header_can_carry_stays_here(server: RemoteServer, link: Link, request_id: str) -> None:
    server.routes["/s"] = [NDJSON, END]
    async with link.stream("/s", {}, request_id):
        pass
    assert "x-request-id" not in server.asked[0].headers


async def test_a_path_in_front_of_the_servers_own(server: RemoteServer) -> None:
    server.routes["/llm/q"] = [OK]
    link = Link(f"{server.url}/llm")
    assert await link.get("/q", dict[str, bool]) == {"ok": True}
    await link.close()


async def test_kept_connections_are_used_again(server: RemoteServer, link: Link) -> None:
    server.routes["/q"] = [OK]
    server.routes["/s"] = [NDJSON, chunk(b"a\n"), END]
    for _ in range(3):
        await link.get("/q", dict[str, bool])
        assert await lines(link) == [b"a"]
    assert server.connections == 1


async def test_a_connection_that_was_closed_meanwhile_does_not_fail_a_request(server: RemoteServer, link: Link) -> None:
    server.routes["/q"] = [OK]
    await link.get("/q", dict[str, bool])
    server.hang_up()
    await link.get("/q", dict[str, bool])
    assert server.connections == 2


async def test_a_request_is_sent_again_when_it_met_a_closing_connection(server: RemoteServer, link: Link) -> None:
    """The server closes just as the request arrives: only the first connection has served one before."""
    server.routes["/q"] = [OK]
    await link.get("/q", dict[str, bool])
    server.routes["/s"] = ["cut"]
    with pytest.raises(RemoteFailed, match="broke off"):
        await lines(link)
    assert server.paths() == ["/q", "/s", "/s"]
    assert server.connections == 2, "the second one was fresh, so there was no third try"


async def test_a_fresh_connection_that_breaks_is_not_tried_again(server: RemoteServer, link: Link) -> None:
    server.routes["/s"] = ["cut"]
    with pytest.raises(RemoteFailed, match=f"127.0.0.1:{server.port} broke off, before it answered"):
        await lines(link)
    assert server.paths() == ["/s"]


async def test_a_begun_answer_is_never_asked_for_again(server: RemoteServer, link: Link) -> None:
    server.routes["/q"] = [OK]
    await link.get("/q", dict[str, bool])
    server.routes["/s"] = [NDJSON, chunk(b"a\n"), "cut"]
    with pytest.raises(RemoteFailed, match="after 0 pieces"):
        await lines(link)
    assert server.paths() == ["/q", "/s"]


async def test_nobody_listens(link: Link, server: RemoteServer) -> None:
    await server.stop()
    with pytest.raises(RemoteUnavailable, match=f"127.0.0.1:{server.port} cannot be reached"):
        await lines(link)


async def test_a_name_that_is_no_host() -> None:
    link = Link("http://no-such-host.invalid:8080")
    with pytest.raises(RemoteUnavailable, match=r"no-such-host.invalid:8080"):
        await link.get("/q", dict[str, bool])
    await link.close()


async def test_tls_to_a_server_without_it() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer(b"", "400 Bad Request"))
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as plain:
        link = Link(f"https://127.0.0.1:{plain.sockets[0].getsockname()[1]}")
        with pytest.raises(RemoteUnavailable, match="cannot be reached"):
            await link.get("/q", dict[str, bool])
        await link.close()


@pytest.mark.parametrize("begun", [False, True])
async def test_silence_is_not_borne_for_ever(server: RemoteServer, *, begun: bool) -> None:
    server.routes["/s"] = [NDJSON, chunk(b"a\n"), "stay"] if begun else ["stay"]
    link = Link(server.url, timeout=0.05)
    with pytest.raises(RunTimedOut, match="EXO_REMOTE_TIMEOUT"):
        await lines(link)
    await link.close()


async def test_leaving_the_stream_closes_the_connection(server: RemoteServer, link: Link, until: Until) -> None:
    server.routes["/s"] = [NDJSON, chunk(b"a\n"), "stay"]
    async with link.stream("/s", {}, "") as stream, contextlib.aclosing(stream.lines()) as found:
        assert await anext(found) == b"a"
        assert server.open == 1
    await until(lambda: server.open == 0)


async def test_a_stream_that_nobody_reads_is_closed_too(server: RemoteServer, link: Link, until: Until) -> None:
    server.routes["/s"] = [NDJSON, "stay"]
    async with link.stream("/s", {}, ""):
        assert server.open == 1
    await until(lambda: server.open == 0)


@pytest.mark.parametrize("script", [["stay"], [NDJSON, "stay"]], ids=["before the head", "after the head"])
async def test_cancelling_closes_the_connection(
    server: RemoteServer, link: Link, until: Until, script: list[Any]
) -> None:
    server.routes["/s"] = script
    reading = asyncio.create_task(lines(link))
    await until(lambda: len(server.asked) == 1)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await until(lambda: server.open == 0)


async def test_many_requests_do_not_wait_for_each_other(server: RemoteServer, link: Link, until: Until) -> None:
    server.routes["/s"] = [NDJSON, "stay"]
    tasks = [asyncio.create_task(lines(link)) for _ in range(150)]
    await until(lambda: len(server.asked) == 150)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize(
    ("status", "kind"),
    [("400 Bad", InvalidRequest), ("404 No", ModelNotFound), ("429 Busy", QueueFull), ("500 Oops", RemoteFailed)],
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_refusal(
    server: RemoteServer, link: Link, status: str, kind: type[ExoError], *, streamed: bool
) -> None:
    server.routes["/s"] = [answer({"error": "because"}, status, Retry_After="9")]
    with pytest.raises(kind, match="because") as caught:
        await (lines(link) if streamed else link.post("/s", {}, dict[str, Any]))
    if isinstance(caught.value, QueueFull):
        assert caught.value.retry_after == 9


async def test_an_error_after_the_status_was_sent(server: RemoteServer, link: Link) -> None:
    server.routes["/q"] = [answer(b'  {"error": "late", "code": "queue_full"}')]
    with pytest.raises(QueueFull, match="late"):
        await link.post("/q", {}, dict[str, Any])


async def test_an_error_that_is_none(server: RemoteServer, link: Link) -> None:
    server.routes["/q"] = [answer(b'{"error" : null, "a": 1}')]
    assert await link.post("/q", {}, dict[str, Any]) == {"error": None, "a": 1}


@pytest.mark.parametrize("body", [b"<html>", b"\xff", b"[1]"])
async def test_an_answer_that_cannot_be_read(server: RemoteServer, link: Link, body: bytes) -> None:
    server.routes["/q"] = [answer(body)]
    with pytest.raises(RemoteFailed, match="/q"):
        await link.get("/q", dict[str, Any])


async def test_each_exchange_is_told_once(server: RemoteServer) -> None:
    seen: list[tuple[str, str]] = []
    link = Link(server.url, on_exchange=lambda path, status: seen.append((path, status)))
    server.routes |= {"/q": [OK], "/s": [NDJSON, chunk(b"a\n"), END]}
    await link.get("/q", dict[str, bool])
    await lines(link)
    with contextlib.suppress(ExoError):
        await lines(link, "/missing")
    await server.stop()
    with contextlib.suppress(ExoError):
        await lines(link)
    await link.close()
    assert seen == [("/q", "200"), ("/s", "200"), ("/missing", "404"), ("/s", "error")]


async def test_an_endless_line_is_refused(server: RemoteServer, link: Link) -> None:
    server.routes["/s"] = [NDJSON, *[chunk(b"x" * (1 << 20))] * 17, "stay"]
    with pytest.raises(RemoteFailed, match="cannot be read"):
        await lines(link)


@pytest.mark.parametrize(
    ("header", "values"),
    [
        (None, None),
        ("default", Sampling()),
        ("temperature=0.8, top_k=40", Sampling(temperature=0.8, top_k=40)),
        ("top_k=many", None),
    ],
)
async def test_the_servers_own_sampling(
    server: RemoteServer, link: Link, header: str | None, values: Sampling | None
) -> None:
    server.routes["/s"] = [answer(b"", **({} if header is None else {"x_exo_sampling": header}))]
    async with link.stream("/s", {}, "") as stream:
        assert stream.sampling == values


TEXT = "a\n\n\N{SNOWMAN} b\r\n: c\n\r\n\N{GRINNING FACE}".encode()
EXPECTED = [b"a", "\N{SNOWMAN} b".encode(), b": c", "\N{GRINNING FACE}".encode()]


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, len(TEXT)), max_size=8))
async def test_lines_may_be_cut_anywhere(server: RemoteServer, link: Link, cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(TEXT)]
    pieces = [TEXT[start:end] for start, end in itertools.pairwise(edges) if start < end]
    server.routes["/s"] = [NDJSON, *map(chunk, pieces), END]
    assert await lines(link) == EXPECTED
