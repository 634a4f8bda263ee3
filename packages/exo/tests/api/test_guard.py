from __future__ import annotations

import httpx2
import pytest
from scripted_server import running

from exo.api import HttpSettings
from exo.api.guard import host_allowed, host_of, is_loopback, origin_allowed

LOCAL = HttpSettings()
OPEN = HttpSettings(host="0.0.0.0", allowed_hosts=frozenset({"board.lan"}))


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "127.8.8.8", "::1", "app.localhost"])
def test_loopback_names(name: str) -> None:
    assert is_loopback(name)


@pytest.mark.parametrize(
    "name", ["", "example.com", "10.0.0.1", "localhost.evil.example", "127.0.0.1.nip.io", "0.0.0.0"]
)
def test_other_names(name: str) -> None:
    assert not is_loopback(name)


@pytest.mark.parametrize(
    ("header", "host"),
    [("localhost:80", "localhost"), ("[::1]:80", "::1"), ("A.B", "a.b"), ("[", ""), ("a]b", ""), ("", "")],
)
def test_host_of(header: str, host: str) -> None:
    assert host_of(header) == host


def test_a_loopback_node_answers_to_loopback_hosts_only() -> None:
    assert host_allowed("localhost:52415", LOCAL)
    assert host_allowed("", LOCAL)
    assert not host_allowed("evil.example:52415", LOCAL)
    assert host_allowed("board.lan", HttpSettings(allowed_hosts=frozenset({"board.lan"})))
    assert host_allowed("evil.example", OPEN)


ORIGINS = [
    ("http://localhost:3000", "localhost:52415", LOCAL, True),
    ("http://127.0.0.1:52415", "127.0.0.1:52415", LOCAL, True),
    ("http://evil.example", "localhost:52415", LOCAL, False),
    ("null", "localhost:52415", LOCAL, False),
    ("http://[", "localhost:52415", LOCAL, False),
    ("", "localhost:52415", LOCAL, False),
    ("http://10.0.0.5:52415", "10.0.0.5:52415", OPEN, True),
    ("http://10.0.0.6", "10.0.0.5:52415", OPEN, False),
    ("http://rebound.example:52415", "rebound.example:52415", OPEN, False),
    ("http://board.lan:52415", "board.lan:52415", OPEN, True),
    ("http://localhost:3000", "10.0.0.5:52415", OPEN, False),
    ("https://ui.example", "localhost", HttpSettings(allowed_origins=frozenset({"https://ui.example"})), True),
    ("https://other.example", "localhost", HttpSettings(allowed_origins=frozenset({"*"})), True),
]


@pytest.mark.parametrize(("origin", "host", "settings", "allowed"), ORIGINS)
def test_origins(origin: str, host: str, settings: HttpSettings, *, allowed: bool) -> None:
    assert origin_allowed(origin, host, settings) is allowed


async def test_foreign_pages_and_hosts_get_403_on_every_path() -> None:
    async with running() as node, httpx2.AsyncClient(base_url=node.url) as client:
        for path in ("/v1/models", "/healthcheck", "/metrics", "/nowhere"):
            page = await client.get(path, headers={"origin": "http://evil.example"})
            host = await client.get(path, headers={"host": "evil.example"})
            assert (page.status_code, page.json()["error"]["code"]) == (403, "origin_not_allowed")
            assert (host.status_code, host.json()["error"]["code"]) == (403, "host_not_allowed")


async def test_local_pages_get_the_headers_that_browsers_need() -> None:
    origin = {"origin": "http://localhost:3000"}
    async with running() as node, httpx2.AsyncClient(base_url=node.url) as client:
        got = await client.get("/v1/models", headers=origin)
        preflight = {
            "access-control-request-method": "POST",
            "access-control-request-headers": "x-api-key,x-stainless-os",
        }
        asked = await client.options("/v1/chat/completions", headers={**origin, **preflight})
    assert got.headers["access-control-allow-origin"] == "http://localhost:3000"
    assert asked.status_code == 204
    assert asked.headers["access-control-allow-headers"] == "x-api-key,x-stainless-os"


async def test_pages_can_read_errors_too() -> None:
    async with running() as node, httpx2.AsyncClient(base_url=node.url) as client:
        answer = await client.post("/v1/chat/completions", content=b"{", headers={"origin": "http://localhost:3000"})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (400, "http://localhost:3000")
