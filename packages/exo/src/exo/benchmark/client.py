"""Asks a server in OpenAI's dialect and takes the time. The HTTP client and the clock are the caller's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, final

import httpx2

from exo.benchmark.answer import AnswerTimer, Clock, RequestFailed, message_of, printable
from exo.benchmark.plan import Question
from exo.benchmark.results import Identity, Part, Sample, Settings
from exo.types import ConfigurationError, NodeFailed

_OK = 200
_UNAUTHORIZED = (401, 403)


def base_of(url: str) -> str:
    """The address without /v1 and slashes at its end. Raises ConfigurationError if it is no address."""
    try:
        parsed = httpx2.URL(url)
    except (httpx2.InvalidURL, ValueError):
        parsed = httpx2.URL("")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ConfigurationError(f"{url!r} is no address of a server: write it like http://127.0.0.1:52415.")
    return str(parsed.copy_with(query=None, fragment=None)).rstrip("/").removesuffix("/v1").rstrip("/")


def without_secrets(url: str) -> str:
    """The address without a user and a password in it."""
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


@final
class Server:
    """A server at `base`, see `base_of`. `http` carries the key; `clock` is read at each token."""

    def __init__(self, base: str, http: httpx2.AsyncClient, clock: Clock) -> None:
        self._base = base
        self._http = http
        self._clock = clock
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
        measured = AnswerTimer(self._clock)
        error = None
        try:
            await self._stream(question, model, settings, measured)
        except RequestFailed as failure:
            error = str(failure)
        return Sample(
            part=part,
            model=model,
            name=question.name,
            repeat=question.repeat,
            level=level,
            started=measured.started - self._start,
            error=error,
            **measured.fields(),
        )

    async def _stream(self, question: Question, model: str, settings: Settings, measured: AnswerTimer) -> None:
        body: dict[str, Any] = {
            "model": model,
            "messages": [{"role": "user", "content": question.text}],
            "stream": True,
            "max_tokens": question.max_tokens,
            "temperature": settings.temperature,
        }
        if self._asks_for_usage:
            body["stream_options"] = {"include_usage": True}
        try:
            async with self._http.stream("POST", f"{self._base}/v1/chat/completions", json=body) as response:
                if response.status_code != _OK:
                    content = await response.aread()
                    if not (self._asks_for_usage and b"stream_options" in content):
                        raise RequestFailed(f"status {response.status_code}: {message_of(content)}")
                else:
                    async for line in _lines(response.aiter_bytes()):
                        if line.startswith(b"data:"):
                            measured.take(line[5:].strip())
                    measured.check_end()
                    return
        except httpx2.HTTPError as failure:
            raise RequestFailed(f"the connection broke: {str(failure) or type(failure).__name__}") from None
        self._asks_for_usage = False
        measured.start_again()
        await self._stream(question, model, settings, measured)

    async def _models(self) -> list[Mapping[str, Any]]:
        where = without_secrets(self._base)
        try:
            answer = await self._http.get(f"{self._base}/v1/models")
        except httpx2.HTTPError as error:
            raise NodeFailed(
                f"Nothing answers on {where} ({str(error) or type(error).__name__}): start a node with `exo`, or name "
                "another server with --url."
            ) from None
        if answer.status_code in _UNAUTHORIZED:
            raise NodeFailed(f"{where} asks for an API key that it knows: give it with --api-key or in EXO_API_KEY.")
        try:
            if answer.status_code == _OK:
                listed = answer.json()["data"]
                return [model for model in listed if isinstance(model, dict)]
        except (ValueError, KeyError, TypeError):
            pass
        raise NodeFailed(
            f"What answers on {where} does not list models at /v1/models (status {answer.status_code}): name a server "
            "that speaks OpenAI's dialect with --url."
        )

    async def _optional(self, path: str) -> Mapping[str, Any]:
        """An object, empty if the server has none there."""
        try:
            answer = await self._http.get(f"{self._base}{path}")
            found = answer.json() if answer.status_code in (_OK, 503) else {}
        except (httpx2.HTTPError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


async def _lines(content: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Between newlines only: a text may have U+2028, at which str.splitlines would cut."""
    begun = b""
    async for piece in content:
        *lines, begun = (begun + piece).split(b"\n")
        for line in lines:
            yield line
    yield begun


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
    return printable(value) if isinstance(value, str) else ""
