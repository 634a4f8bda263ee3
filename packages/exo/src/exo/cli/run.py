"""`exo run MODEL [prompt]`: a chat in the terminal, with a running node or, if none answers, an engine of its own."""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import sys
import urllib.parse
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import httpx2

from exo.cli import logs, settings
from exo.cli.build import build_service, choose_engine
from exo.cli.chat import Ask, chat_in_terminal
from exo.inference import InferenceService
from exo.types import (
    AuthenticationFailed,
    ChatRequest,
    ConfigurationError,
    Delta,
    EngineError,
    ExoError,
    Message,
    RequestError,
    host_and_port,
)

Refusal = Callable[[bytes], ExoError]
"""What the body of a refused request says."""


def run(flags: argparse.Namespace, env: Mapping[str, str]) -> int:
    logs.set_up("warning", as_json=False)
    chosen = settings.read(settings.RUN_SETTINGS, flags, env)
    return chat_in_terminal(_connect(flags.model, chosen, env), " ".join(flags.prompt))


@contextlib.asynccontextmanager
async def _connect(model: str, chosen: Mapping[str, Any], env: Mapping[str, str]) -> AsyncIterator[Ask]:
    url = f"http://{host_and_port(chosen['host'], chosen['port'])}"
    async with ask_node(url, chosen["api_key"], model) as ask:
        if ask is not None:
            if chosen["engine"] is not None:
                print(f"A node answers on {url}; --inference-engine has no effect.", file=sys.stderr)
            yield ask
            return
    print(f"No node answers on {url}; the model runs in this process.", file=sys.stderr)
    plugins, choice = choose_engine(chosen["engine"], env)
    make_chooser = settings.make_chooser(None)
    service = build_service(plugins, choice, settings.models_dir(chosen), env, make_chooser=make_chooser)
    try:
        yield ask_service(service, await service.target(model))
    finally:
        await service.close()


@contextlib.asynccontextmanager
async def ask_node(
    url: str, key: str | None, model: str, *, key_variable: str = "EXO_API_KEY"
) -> AsyncIterator[Ask | None]:
    """Chats with the node at `url`; None if nothing answers there.

    Raises ConfigurationError if it is no address, RequestError or EngineError if the node does not serve the model.
    """
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        client = httpx2.AsyncClient(base_url=url, headers=headers, timeout=None, trust_env=False)
    except httpx2.InvalidURL:
        raise ConfigurationError(f"{url} is no address of a node: give --host a name or an IP address.") from None
    async with client:
        if not await _is_running(client):
            yield None
            return
        refusal = functools.partial(_refusal, key=key, key_variable=key_variable)
        await _check_model(client, model, refusal)
        yield functools.partial(_ask_node, client, model, refusal)


def ask_service(service: InferenceService, model: str) -> Ask:
    """Chats with a model in this process."""
    return functools.partial(_ask_service, service, model)


async def _is_running(client: httpx2.AsyncClient) -> bool:
    try:
        answer = await client.get("/healthcheck", timeout=2.0)
    except httpx2.TransportError:
        return False
    return answer.status_code == httpx2.codes.OK


async def _check_model(client: httpx2.AsyncClient, model: str, refusal: Refusal) -> None:
    """Before the first prompt: who has typed a long message wants no answer that there is no such model."""
    try:
        answer = await client.get(f"/v1/models/{urllib.parse.quote(model)}")
    except httpx2.TransportError as error:
        raise EngineError(f"The connection to {client.base_url} broke: {error}.") from error
    if answer.status_code != httpx2.codes.OK:
        raise refusal(answer.content)


async def _ask_node(
    client: httpx2.AsyncClient, model: str, refusal: Refusal, messages: list[Message]
) -> AsyncIterator[Delta]:
    body = {
        "model": model,
        "stream": True,
        "messages": [{"role": message.role, "content": message.content} for message in messages],
    }
    try:
        async with client.stream("POST", "/v1/chat/completions", json=body) as response:
            if response.status_code != httpx2.codes.OK:
                raise refusal(await response.aread())
            async for line in _lines(response.aiter_bytes()):
                if line.startswith(b"data: {"):
                    yield _piece_of(line)
    except httpx2.TransportError as error:
        raise EngineError(f"The connection to {client.base_url} broke: {error}.") from error


async def _lines(content: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Between newlines only: the client's own lines end at U+0085 and U+2028 too, which a text may have."""
    begun = b""
    async for piece in content:
        *lines, begun = (begun + piece).split(b"\n")
        for line in lines:
            yield line
    yield begun


def _piece_of(line: bytes) -> Delta:
    chunk = json.loads(line.removeprefix(b"data: ").decode(errors="replace"))
    if "error" in chunk:
        raise EngineError(chunk["error"]["message"])
    deltas = [choice["delta"] for choice in chunk["choices"]]
    return Delta(
        text="".join(delta.get("content") or "" for delta in deltas),
        reasoning="".join(delta.get("reasoning_content") or "" for delta in deltas),
    )


def _refusal(body: bytes, *, key: str | None, key_variable: str) -> ExoError:
    try:
        error = json.loads(body)["error"]
        if error["code"] == AuthenticationFailed.code:
            said = "The node does not know the API key that was given" if key else "The node asks for an API key"
            return RequestError(f"{said}: give one that it knows with --api-key or in {key_variable}.")
        return RequestError(error["message"])
    except (ValueError, KeyError, TypeError):
        return EngineError("Something that is not an exo node answers at this address.")


async def _ask_service(service: InferenceService, model: str, messages: list[Message]) -> AsyncIterator[Delta]:
    answer = await service.chat(ChatRequest(model=model, messages=tuple(messages)))
    try:
        async for delta in answer:
            yield delta
    finally:
        await answer.aclose()
