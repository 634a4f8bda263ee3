"""Asks a server in OpenAI's dialect and takes the time. The HTTP client and the clock are the caller's."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping
from typing import Any, final

import httpx2

from exo.benchmark.answer import LONGEST_MESSAGE, AnswerTimer, Clock, RequestFailed, message_of
from exo.benchmark.plan import Question
from exo.benchmark.results import Identity, Part, Sample, Settings
from exo.types import ConfigurationError, NodeFailed
from exo.types.printable import escaped, one_line

_CHAT = "/v1/chat/completions"
_OK = 200
_UNAUTHORIZED = (401, 403)
_PORTS = range(1, 2**16)
_LONGEST_LINE = _LONGEST_BODY = 2**20
"""In bytes, of a stream and of what is no stream: a server cannot fill the memory."""
_log = logging.getLogger(__name__)


def base_of(url: str) -> str:
    """The address without /v1 and slashes at its end. Raises ConfigurationError if it is no address."""
    try:
        parsed = httpx2.URL(url)
    except (httpx2.InvalidURL, ValueError):
        parsed = httpx2.URL("")
    is_port = parsed.port is None or parsed.port in _PORTS
    if parsed.scheme not in ("http", "https") or not parsed.host or not is_port:
        shown = without_secrets(url)
        raise ConfigurationError(f"{shown!r} is no address of a server: write it like http://127.0.0.1:52415.")
    return str(parsed.copy_with(query=None, fragment=None)).rstrip("/").removesuffix("/v1").rstrip("/")


def without_secrets(url: str) -> str:
    """The address without a user and a password in it."""
    scheme, mark, rest = url.partition("://") if "://" in url else ("", "", url)
    host, slash, path = rest.partition("/")
    return f"{scheme}{mark}{host.rpartition('@')[2]}{slash}{path}"


@final
class Server:
    """A server at `base`, see `base_of`. `http` carries the key; `clock` is read at each token.

    A request takes `longest` seconds in all, however often something comes; None is no limit.
    """

    def __init__(self, base: str, http: httpx2.AsyncClient, clock: Clock, longest: float | None = None) -> None:
        self._base = base
        self._http = http
        self._clock = clock
        self._longest = longest
        self._start = clock()
        self._asks_for_usage = True

    async def identity(self) -> Identity:
        """Raises NodeFailed if nothing answers, or if what answers refuses to list its models."""
        listed = await self._models()
        version = await self._optional("/version")  # vLLM
        program = "vLLM" if "version" in version else ""
        if not program:
            version = await self._optional("/api/version")  # Ollama and what speaks its dialect
            program = "Ollama" if "version" in version else _text(listed[0].get("owned_by") if listed else None)
        ready = await self._optional("/ready")
        node = _own_node(await self._optional("/v1/topology"), ready)
        machine = _at(node, "capabilities", "machine")
        return Identity(
            url=without_secrets(self._base),
            program="exo" if node else program,
            version=_text(ready.get("version") if node else version.get("version")),
            engine=_text(node.get("engine")),
            machine=_text(machine.get("model")) or _text(machine.get("cpu_model")),
            models=tuple(_text(model.get("id")) for model in listed),
            loaded=tuple(map(_text, _list(ready.get("loaded")))) if node else (),
        )

    async def ask(self, question: Question, model: str, settings: Settings, *, part: Part, level: int) -> Sample:
        """What became of one request; a failed one is a sample with an error."""
        body = {
            "model": model,
            "messages": [{"role": "user", "content": question.text}],
            "stream": True,
            "max_tokens": question.max_tokens,
            "temperature": settings.temperature,
        }
        measured = AnswerTimer(self._clock, question.max_tokens)
        error = None
        try:
            await asyncio.wait_for(self._stream(body, measured), self._longest)
        except RequestFailed as failure:
            error = str(failure)
        except asyncio.TimeoutError:
            error = f"the answer took more than {self._longest:g} s in all"
        except Exception as failure:  # noqa: BLE001 - whatever a server says, it must not end what others are asked
            _log.debug("A request of the benchmark failed.", exc_info=True)
            said = one_line(f"{type(failure).__name__} {failure}")
            error = f"the answer could not be read: {said[:LONGEST_MESSAGE]}"
        return Sample(
            part=part,
            model=escaped(model),
            name=question.name,
            repeat=question.repeat,
            level=level,
            started=measured.started - self._start,
            error=error,
            **measured.fields(),
        )

    async def _stream(self, body: Mapping[str, Any], measured: AnswerTimer) -> None:
        more = {"stream_options": {"include_usage": True}} if self._asks_for_usage else {}
        measured.start_again()
        try:
            async with self._http.stream("POST", self._base + _CHAT, json={**body, **more}) as response:
                if response.status_code != _OK:
                    content = await _beginning(response)
                    if not (self._asks_for_usage and b"stream_options" in content):
                        raise RequestFailed(f"status {response.status_code}: {message_of(content)}")
                else:
                    async for line in _lines(response.aiter_bytes()):
                        if line.startswith(b"data:"):
                            measured.take(line[5:].strip())
                    measured.check_end()
                    return
        except httpx2.HTTPError as failure:
            said = one_line(str(failure))[:LONGEST_MESSAGE]
            raise RequestFailed(f"the connection broke: {said or type(failure).__name__}") from None
        self._asks_for_usage = False
        await self._stream(body, measured)

    async def _models(self) -> list[Mapping[str, Any]]:
        where = without_secrets(self._base)
        try:
            status, content = await self._get("/v1/models")
        except (httpx2.HTTPError, asyncio.TimeoutError) as error:
            raise NodeFailed(
                f"Nothing answers on {where} ({str(error) or type(error).__name__}): start a node with `exo`, or name "
                "another server with --url."
            ) from None
        if status in _UNAUTHORIZED:
            raise NodeFailed(f"{where} asks for an API key that it knows: give it with --api-key or in EXO_API_KEY.")
        try:
            if status == _OK:
                listed = json.loads(content)["data"]
                return [model for model in listed if isinstance(model, dict)]
        except (ValueError, KeyError, TypeError, RecursionError):
            pass
        raise NodeFailed(
            f"What answers on {where} does not list models at /v1/models (status {status}): name a server that speaks "
            "OpenAI's dialect with --url."
        )

    async def _optional(self, path: str) -> Mapping[str, Any]:
        """An object, empty if the server has none there."""
        try:
            status, content = await self._get(path)
            found = json.loads(content) if status in (_OK, 503) else {}
        except (httpx2.HTTPError, asyncio.TimeoutError, ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    async def _get(self, path: str) -> tuple[int, bytes]:
        """The status, and the body or its beginning."""

        async def got() -> tuple[int, bytes]:
            async with self._http.stream("GET", f"{self._base}{path}") as response:
                return response.status_code, await _beginning(response)

        return await asyncio.wait_for(got(), self._longest)


async def _beginning(response: httpx2.Response) -> bytes:
    """The body, of a long one the beginning."""
    read = bytearray()
    async for piece in response.aiter_bytes():
        read += piece
        if len(read) > _LONGEST_BODY:
            break
    return bytes(read[:_LONGEST_BODY])


async def _lines(content: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Between newlines only: a text may have U+2028, at which str.splitlines would cut.

    Raises RequestFailed if one has no end.
    """
    begun = bytearray()
    async for piece in content:
        *ends, rest = piece.split(b"\n")
        for end in ends:
            yield bytes(begun) + end
            begun.clear()
        begun += rest
        if len(begun) > _LONGEST_LINE:
            raise RequestFailed(f"the answer has a line of more than {_LONGEST_LINE} bytes")
    yield bytes(begun)


def _own_node(topology: Mapping[str, Any], ready: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of exo's topology the node that answers itself."""
    nodes = [node for node in _list(topology.get("nodes")) if isinstance(node, dict)]
    return next((node for node in nodes if node.get("name") == ready.get("name")), {})


def _at(found: Any, *keys: str) -> Mapping[str, Any]:
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: object) -> str:
    return one_line(value)[:LONGEST_MESSAGE] if isinstance(value, str) else ""
