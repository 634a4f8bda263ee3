"""`exo run MODEL [prompt]`: a chat in the terminal, with a running node or, if none answers, an engine of its own."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import json
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

import httpx2

from exo.cli import logs, settings
from exo.cli.build import build_service, choose_engine
from exo.inference import InferenceService
from exo.types import AuthenticationFailed, ChatRequest, Delta, EngineError, ExoError, Message, RequestError

Ask = Callable[[list[Message]], AsyncIterator[Delta]]
_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"
_HELP = "Type a message; an empty line does nothing. /clear forgets the conversation, /bye or Ctrl-D ends."


def run(flags: argparse.Namespace, env: Mapping[str, str]) -> int:
    logs.set_up("warning", as_json=False)
    chosen = settings.read(settings.RUN_SETTINGS, flags, env)
    return asyncio.run(_run(flags.model, " ".join(flags.prompt), chosen, env))


async def _run(model: str, prompt: str, chosen: Mapping[str, Any], env: Mapping[str, str]) -> int:
    async with _connect(model, chosen, env) as ask:
        return await chat_in_terminal(ask, prompt)


async def chat_in_terminal(ask: Ask, prompt: str) -> int:
    """One answer, or without a prompt a conversation. Returns 0, or 130 for a single answer that Ctrl-C has ended."""
    if not prompt:
        await _converse(ask)
        return 0
    _, complete = await _answer(ask, [Message(role="user", content=prompt)])
    return 0 if complete else 130


async def _converse(ask: Ask) -> None:
    if sys.stdin.isatty():
        print(_HELP, file=sys.stderr)
    history: list[Message] = []
    while True:
        with _ctrl_c_ends_the_program():
            line = await asyncio.get_running_loop().run_in_executor(None, _read_line)
        if line is None or line == "/bye":
            return
        if line == "/clear":
            history = []
        elif line.startswith("/"):
            print(_HELP, file=sys.stderr)
        elif line:
            history.append(Message(role="user", content=line))
            try:
                text, _ = await _answer(ask, history)
            except (RequestError, EngineError) as error:
                print(error.message, file=sys.stderr)
                history.pop()
            else:
                history.append(Message(role="assistant", content=text))


@contextlib.contextmanager
def _ctrl_c_ends_the_program() -> Iterator[None]:
    """At the prompt, where a thread waits for a line and cannot be told to stop."""
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _read_line() -> str | None:
    try:
        return input(">>> " if sys.stdin.isatty() else "").strip()
    except EOFError:
        return None


async def _answer(ask: Ask, messages: list[Message]) -> tuple[str, bool]:
    """Print an answer as it comes; return it, and whether it is complete: Ctrl-C ends an answer, not a conversation."""
    text: list[str] = []

    async def show() -> None:
        show_piece = _Terminal() if sys.stdout.isatty() else _answer_only
        async with contextlib.aclosing(ask(messages)) as pieces:  # type: ignore[type-var]  # generators, as asked for
            async for piece in pieces:
                text.append(piece.text)
                print(show_piece(piece), end="", flush=True)

    showing = asyncio.create_task(show())
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, showing.cancel)
    complete = True
    try:
        await showing
    except asyncio.CancelledError:
        complete = False
        print(" [stopped]", end="")
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        print()
    return "".join(text), complete


def _answer_only(piece: Delta) -> str:
    return piece.text


class _Terminal:
    """The answer, and before it the reasoning, dimmed, with an empty line between the two."""

    def __init__(self) -> None:
        self._in_reasoning = False

    def __call__(self, piece: Delta) -> str:
        shown = f"{_DIM}{piece.reasoning}{_PLAIN}" if piece.reasoning else ""
        self._in_reasoning = self._in_reasoning or bool(piece.reasoning)
        if piece.text and self._in_reasoning:
            self._in_reasoning = False
            shown += "\n\n"
        return shown + piece.text


@contextlib.asynccontextmanager
async def _connect(model: str, chosen: Mapping[str, Any], env: Mapping[str, str]) -> AsyncIterator[Ask]:
    host = f"[{chosen['host']}]" if ":" in chosen["host"] else chosen["host"]
    url = f"http://{host}:{chosen['port']}"
    async with ask_node(url, chosen["api_key"], model) as ask:
        if ask is not None:
            if chosen["engine"] is not None:
                print(f"A node answers on {url}; --inference-engine has no effect.", file=sys.stderr)
            yield ask
            return
    print(f"No node answers on {url}; the model runs in this process.", file=sys.stderr)
    plugins, choice = choose_engine(chosen["engine"], env)
    service = build_service(plugins, choice, settings.models_dir(chosen), env)
    try:
        card = await service.resolve(model)
        yield ask_service(service, card.id)
    finally:
        await service.close()


@contextlib.asynccontextmanager
async def ask_node(
    url: str, key: str | None, model: str, *, key_variable: str = "EXO_API_KEY"
) -> AsyncIterator[Ask | None]:
    """Chats with the node at `url`; None if nothing answers there."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with httpx2.AsyncClient(base_url=url, headers=headers, timeout=None, trust_env=False) as client:
        ask = functools.partial(_ask_node, client, model, key_variable)
        yield ask if await _is_running(client) else None


def ask_service(service: InferenceService, model: str) -> Ask:
    """Chats with a model in this process."""
    return functools.partial(_ask_service, service, model)


async def _is_running(client: httpx2.AsyncClient) -> bool:
    try:
        answer = await client.get("/healthcheck", timeout=2.0)
    except httpx2.TransportError:
        return False
    return answer.status_code == httpx2.codes.OK


async def _ask_node(
    client: httpx2.AsyncClient, model: str, key_variable: str, messages: list[Message]
) -> AsyncIterator[Delta]:
    body = {
        "model": model,
        "stream": True,
        "messages": [{"role": message.role, "content": message.content} for message in messages],
    }
    try:
        async with client.stream("POST", "/v1/chat/completions", json=body) as response:
            if response.status_code != httpx2.codes.OK:
                raise _refusal(await response.aread(), key_variable)
            async for line in response.aiter_lines():
                if line.startswith("data: {"):
                    yield _piece_of(line)
    except httpx2.TransportError as error:
        raise EngineError(f"The connection to {client.base_url} broke: {error}.") from error


def _piece_of(line: str) -> Delta:
    chunk = json.loads(line.removeprefix("data: "))
    if "error" in chunk:
        raise EngineError(chunk["error"]["message"])
    deltas = [choice["delta"] for choice in chunk["choices"]]
    return Delta(
        text="".join(delta.get("content") or "" for delta in deltas),
        reasoning="".join(delta.get("reasoning_content") or "" for delta in deltas),
    )


def _refusal(body: bytes, key_variable: str) -> ExoError:
    try:
        error = json.loads(body)["error"]
        if error["code"] == AuthenticationFailed.code:
            return RequestError(f"It asks for an API key: give it with --api-key or in {key_variable}.")
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
