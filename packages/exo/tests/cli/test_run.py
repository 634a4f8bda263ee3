"""What `exo run` shows."""

from __future__ import annotations

import pytest

from exo.cli.run import _piece_of, _refusal, ask_node
from exo.types import ConfigurationError, Delta, EngineError


def test_a_chunk_of_a_node() -> None:
    line = (
        'data: {"choices": [{"delta": {"reasoning_content": "Hm.", "content": null}}, {"delta": {"content": "Yes"}}]}'
    )
    assert _piece_of(line) == Delta(reasoning="Hm.", text="Yes")


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
