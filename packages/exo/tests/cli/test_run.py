"""What `exo run` shows."""

from __future__ import annotations

import functools
import json

import httpx2
import pytest
from measured_server import DONE, MeasuredServer

from exo.cli.run import _piece_of, _refusal, ask_node
from exo.types import ConfigurationError, Delta, EngineError, Message


def test_a_chunk_of_a_node() -> None:
    line = (
        b'data: {"choices": [{"delta": {"reasoning_content": "Hm.", "content": null}}, {"delta": {"content": "Yes"}}]}'
    )
    assert _piece_of(line) == Delta(reasoning="Hm.", text="Yes")


@pytest.mark.parametrize("size", [1, 1000])
async def test_a_text_may_have_separators_of_lines(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    text = "a\u2028b\u0085c\u2029d"
    chunks = [{"choices": [{"delta": {"content": piece}}]} for piece in (text, "e")]
    stream = b"".join(f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n".encode() for chunk in chunks) + DONE
    pieces = [stream[place : place + size] for place in range(0, len(stream), size)]
    server = MeasuredServer(answers=[pieces], paths={"/healthcheck": {"ok": True}, "/v1/models/m": {"id": "m"}})
    monkeypatch.setattr(httpx2, "AsyncClient", functools.partial(httpx2.AsyncClient, transport=server.transport()))
    async with ask_node("http://node", None, "m") as ask:
        assert ask is not None
        found = [delta.text async for delta in ask([Message(role="user", content="?")])]
    assert found == [text, "e"]


@pytest.mark.parametrize("host", ["[x:y]", "[[::1]", "ö..ö"])
async def test_an_address_that_is_none(host: str) -> None:
    with pytest.raises(ConfigurationError, match="--host"):
        async with ask_node(f"http://{host}:1", None, "m"):
            pass


@pytest.mark.parametrize(("key", "said"), [(None, "The node asks for"), ("guess", "does not know the API key")])
def test_a_refused_key(key: str | None, said: str) -> None:
    refused = _refusal(b'{"error": {"code": "invalid_api_key", "message": "x"}}', key=key, key_variable="MY_KEY")
    assert said in str(refused)
    assert "--api-key or in MY_KEY" in str(refused)
    assert "guess" not in str(refused)


def test_an_answer_of_something_else() -> None:
    assert isinstance(_refusal(b"<html>", key=None, key_variable="MY_KEY"), EngineError)
