"""What happens on the wire: disconnects, slow and rude clients, keep-alive, shutdown. Raw sockets on purpose."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
from collections.abc import Mapping

import httpx2
import pytest
from scripted_server import CHAT, Running, ScriptedEngine, running, until

from exo.api import HttpSettings, server


def request(body: Mapping[str, object], *, path: str = "/v1/chat/completions", head: str = "") -> bytes:
    content = json.dumps(body).encode()
    lines = f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{head}Content-Length: {len(content)}\r\n\r\n"
    return lines.encode() + content


async def connect(node: Running) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", node.port)


async def test_a_client_that_goes_away_in_mid_stream_cancels_the_engine() -> None:
    never = asyncio.Event()
    async with running(ScriptedEngine(["one", never])) as node:
        reader, writer = await connect(node)
        writer.write(request({**CHAT, "stream": True}))
        await reader.readuntil(b'"one"')
        writer.close()
        await until(lambda: node.engine.closed_early == 1)
        await until(lambda: node.sample("exo_requests_total", {"model": "one", "status": "499"}) == 1)
        assert node.sample("exo_requests_in_progress") == 0


async def test_a_client_that_goes_away_before_the_first_token_cancels_the_engine() -> None:
    never = asyncio.Event()
    async with running(ScriptedEngine([never])) as node:
        for stream in (True, False):
            _, writer = await connect(node)
            writer.write(request({**CHAT, "stream": stream}))
            await until(lambda: node.engine.requests)
            node.engine.requests.clear()
            writer.close()
            await until(lambda: node.sample("exo_requests_in_progress") == 0)
        assert node.engine.closed_early == 2


async def test_a_client_that_goes_away_in_the_queue_never_reaches_the_engine() -> None:
    never = asyncio.Event()
    async with running(ScriptedEngine([never], slots=1)) as node:
        _, first = await connect(node)
        first.write(request(CHAT))
        await until(lambda: node.engine.requests)
        _, second = await connect(node)
        second.write(request(CHAT))
        await until(lambda: node.sample("exo_requests_queued") == 1)
        second.close()
        await until(lambda: node.sample("exo_requests_queued") == 0)
        first.close()
        await until(lambda: node.sample("exo_requests_in_progress") == 0)
        assert len(node.engine.requests) == 1


async def test_a_full_queue_refuses_at_once() -> None:
    never = asyncio.Event()
    async with running(ScriptedEngine([never], slots=1), queue_limit=1) as node:
        writers = []
        for _ in range(2):
            _, writer = await connect(node)
            writer.write(request(CHAT))
            writers.append(writer)
        await until(lambda: node.sample("exo_requests_in_progress") == 2)
        async with httpx2.AsyncClient(base_url=node.url) as client:
            refused = await client.post("/v1/chat/completions", json=CHAT)
            ready = await client.get("/ready")
        for writer in writers:
            writer.close()
        await until(lambda: node.sample("exo_requests_in_progress") == 0)
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.json()["error"]["code"] == "queue_full"
    assert ready.json()["queued"] == ready.json()["queue_limit"] == 1


async def test_keep_alive_survives_a_stream() -> None:
    async with running() as node:
        reader, writer = await connect(node)
        for _ in range(3):
            writer.write(request({**CHAT, "stream": True}))
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            assert b"\r\ndate: " in head.lower()
            assert b"[DONE]" in await reader.readuntil(b"0\r\n\r\n")
        writer.close()


async def test_a_long_answer_begins_with_white_space() -> None:
    go_on = asyncio.Event()
    settings = HttpSettings(port=0, heartbeat=0.01)
    async with running(ScriptedEngine(["a", go_on, "b"]), settings) as node:
        reader, writer = await connect(node)
        writer.write(request(CHAT, head="Connection: close\r\n"))
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.readuntil(b" \r\n")
        go_on.set()
        rest = await reader.read()
        writer.close()
    body = rest[rest.index(b"{") : rest.rindex(b"}") + 1]
    assert json.loads(body)["choices"][0]["message"]["content"] == "ab"


async def test_slow_headers_are_cut_off() -> None:
    async with running(settings=HttpSettings(port=0, header_timeout=0.05)) as node:
        for sent in (b"", b"GET /healthcheck HTTP/1.1\r\nHost: local"):
            reader, writer = await connect(node)
            writer.write(sent)
            assert await _ended(reader)
            writer.close()


async def test_slow_headers_on_a_used_connection_are_cut_off() -> None:
    async with running(settings=HttpSettings(port=0, header_timeout=0.2)) as node:
        reader, writer = await connect(node)
        writer.write(b"GET /healthcheck HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await reader.readuntil(b'"ok"}')
        writer.write(b"GET /he")
        assert await _ended(reader)
        writer.close()


async def test_a_flood_of_headers_gets_431() -> None:
    async with running(settings=HttpSettings(port=0, max_header=2000)) as node:
        reader, writer = await connect(node)
        writer.write(b"GET /healthcheck HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % i for i in range(1000)))
        answer = await reader.read()
        writer.close()
    assert answer.startswith(b"HTTP/1.1 431")


async def test_a_body_may_be_longer_than_the_headers() -> None:
    async with running(settings=HttpSettings(port=0, max_header=2000)) as node:
        async with httpx2.AsyncClient(base_url=node.url) as client:
            long = {"messages": [{"role": "user", "content": "x" * 100_000}]}
            assert [(await client.post("/v1/chat/completions", json=long)).status_code for _ in range(2)] == [200, 200]


async def test_a_slow_body_gets_408() -> None:
    async with running(settings=HttpSettings(port=0, body_timeout=0.05)) as node:
        reader, writer = await connect(node)
        writer.write(request(CHAT)[:-5])
        answer = await reader.readuntil(b"}}")
        writer.close()
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"body_timeout" in answer


async def test_a_client_that_stops_reading_is_cut_off() -> None:
    endless = ["x" * 100_000] * 1000
    async with running(ScriptedEngine(endless), HttpSettings(port=0, write_timeout=0.1)) as node:
        _, writer = await connect(node)
        writer.write(request({**CHAT, "stream": True}))
        await until(lambda: node.engine.requests)
        await until(lambda: node.sample("exo_requests_in_progress") == 0)
        assert node.engine.closed_early == 1
        writer.close()


async def test_garbage_is_400_and_the_node_lives() -> None:
    async with running() as node:
        for garbage in (
            b"\x16\x03\x01\x02\x00\x01",
            b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"HELLO\r\n\r\n",
        ):
            reader, writer = await connect(node)
            writer.write(garbage)
            writer.write_eof()
            assert (await reader.read())[:12] in (b"HTTP/1.1 400", b"")
            writer.close()
        async with httpx2.AsyncClient(base_url=node.url) as client:
            assert (await client.get("/healthcheck")).json() == {"status": "ok"}


async def test_shutdown_refuses_new_work_and_ends_a_running_stream_with_an_error_event() -> None:
    never = asyncio.Event()
    async with running(ScriptedEngine(["one", never], slots=1), HttpSettings(port=0, grace=0.3)) as node:
        reader, writer = await connect(node)
        writer.write(request({**CHAT, "stream": True}))
        await reader.readuntil(b'"one"')
        _, queued_writer = queued = await connect(node)
        queued_writer.write(request(CHAT))
        await until(lambda: node.sample("exo_requests_queued") == 1)
        async with httpx2.AsyncClient(base_url=node.url) as client:
            node.server._on_signal()
            await asyncio.sleep(0)
            ready = await client.get("/ready")
            refused = await client.post("/v1/chat/completions", json=CHAT)
            assert (await queued[0].readuntil(b"}}")).startswith(b"HTTP/1.1 503")
        rest = await reader.readuntil(b"0\r\n\r\n")
        writer.close()
        queued_writer.close()
    assert ready.status_code == 503
    assert ready.json()["reason"] == "shutting down"
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "shutting_down")
    assert b'"code":"shutting_down"' in rest
    assert b"[DONE]" not in rest


async def test_shutdown_lets_a_running_stream_finish_within_its_grace() -> None:
    go_on = asyncio.Event()
    async with running(ScriptedEngine(["one", go_on, "two"]), HttpSettings(port=0, grace=5.0)) as node:
        reader, writer = await connect(node)
        writer.write(request({**CHAT, "stream": True}))
        await reader.readuntil(b'"one"')
        node.server._on_signal()
        await asyncio.sleep(0)
        go_on.set()
        assert b"[DONE]" in await reader.readuntil(b"0\r\n\r\n")
        writer.close()


async def _ended(reader: asyncio.StreamReader) -> bool:
    try:
        return await asyncio.wait_for(reader.read(), 5) == b""
    except ConnectionError:
        return True


@pytest.mark.slow
async def test_an_unused_connection_is_closed_after_a_while() -> None:
    async with running(settings=HttpSettings(port=0, idle_timeout=1)) as node:
        reader, writer = await connect(node)
        writer.write(b"GET /healthcheck HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await reader.readuntil(b'"ok"}')
        assert await _ended(reader)
        writer.close()


async def test_an_upload_that_nobody_reads_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_BODY_MARGIN", 0.1)
    settings = HttpSettings(port=0, max_body=1000, body_timeout=0.1)
    async with running(settings=settings) as node:
        reader, writer = await connect(node)
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n")
        assert (await reader.readuntil(b"}}")).startswith(b"HTTP/1.1 413")
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()


async def test_small_answers_are_not_held_back_by_nagle() -> None:
    async with running() as node:
        reader, writer = await connect(node)
        writer.write(b"GET /healthcheck HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await reader.readuntil(b'"ok"}')
        (connection,) = node.server.server_state.connections
        sock = connection.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
        writer.close()


async def test_endless_trailers_and_chunk_framing_are_cut_off() -> None:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with running(settings=HttpSettings(port=0, max_header=2000)) as node:
        for start, more in ((b"0\r\n", b"A: bbbbbbbb\r\n"), (b"", b"0" * 100), (b"1;", b"ext=value;" * 10)):
            reader, writer = await connect(node)
            writer.write(head + start)
            with contextlib.suppress(ConnectionError):
                for _ in range(2000):
                    writer.write(more)
                    await writer.drain()
            assert (await _rest(reader))[:12] in (b"", b"HTTP/1.1 400")
            writer.close()
        assert not node.engine.requests


async def test_trailers_are_left_out_and_the_request_is_answered() -> None:
    body = json.dumps(CHAT).encode()
    chunked = b"%x\r\n%s\r\n0\r\nX-Trailer: 1\r\n\r\n" % (len(body), body)
    async with running() as node:
        reader, writer = await connect(node)
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        writer.write(chunked)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        writer.close()


@pytest.mark.parametrize("together", [True, False])
async def test_a_wish_for_another_protocol_is_ignored(*, together: bool) -> None:
    upgrade = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
    head, _, body = request(CHAT, head=upgrade).partition(b"\r\n\r\n")
    async with running() as node:
        reader, writer = await connect(node)
        writer.write(head + b"\r\n\r\n" + (body if together else b""))
        if not together:
            await writer.drain()
            await asyncio.sleep(0.05)  # so that it arrives in a segment of its own
            writer.write(body)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        assert b"Hello world" in await reader.readuntil(b"}")
        writer.write(b"GET /healthcheck HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert await reader.readuntil(b'"ok"}')
        writer.close()
    assert len(node.engine.requests) == 1


async def test_this_is_no_proxy() -> None:
    async with running() as node:
        reader, writer = await connect(node)
        writer.write(b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n")
        assert (await _rest(reader)).startswith(b"HTTP/1.1 400")
        writer.close()


async def test_a_client_that_sends_ahead_and_leaves_cancels_the_engine_at_once() -> None:
    never = asyncio.Event()
    async with running(ScriptedEngine(["one", never])) as node:
        reader, writer = await connect(node)
        writer.write(request({**CHAT, "stream": True}))
        await reader.readuntil(b'"one"')
        writer.write(b"GET /healthcheck HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2)
        await writer.drain()
        await asyncio.sleep(0.05)  # the requests are in the server's hands
        writer.close()
        await until(lambda: node.sample("exo_requests_in_progress") == 0)
        assert node.engine.closed_early == 1


async def test_requests_that_were_sent_ahead_are_answered_in_order_and_too_many_are_not() -> None:
    async with running() as node:
        reader, writer = await connect(node)
        writer.write(request({**CHAT, "stream": True}) * 3)
        for _ in range(3):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            assert b"[DONE]" in await reader.readuntil(b"0\r\n\r\n")
        writer.write(request(CHAT) * 30)
        await _rest(reader)
        writer.close()


async def test_bytes_after_a_request_do_not_cut_its_answer() -> None:
    go_on = asyncio.Event()
    async with running(ScriptedEngine(["one", go_on, "two"]), HttpSettings(port=0, header_timeout=0.1)) as node:
        reader, writer = await connect(node)
        writer.write(request({**CHAT, "stream": True}))
        await reader.readuntil(b'"one"')
        writer.write(b"\r\n")
        await asyncio.sleep(0.3)  # longer than headers may take
        go_on.set()
        assert b"[DONE]" in await reader.readuntil(b"0\r\n\r\n")
        writer.close()


async def _rest(reader: asyncio.StreamReader) -> bytes:
    try:
        return await asyncio.wait_for(reader.read(), 10)
    except ConnectionError:
        return b""


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("127.0.0.1", "ending; running answers may go on for 1000 seconds, a second signal cuts them short\n"),
        ("0.0.0.0", "ending; requests are taken for 3 seconds more, so that proxies notice; then running answers may "),
    ],
)
async def test_the_log_says_what_follows_a_signal(host: str, said: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with running(settings=HttpSettings(host=host, port=0, grace=1000)) as node:
        os.kill(os.getpid(), signal.SIGTERM)
        await until(lambda: said in caplog.text)
        os.kill(os.getpid(), signal.SIGTERM)
        await until(lambda: node.server.should_exit)
