"""A client of an rkllama server, for programs of one's own."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from exo.inference.remote import OllamaClient
from exo.types import (
    AnswerFormat,
    ChatRequest,
    CompletionRequest,
    Delta,
    InvalidRequest,
    Limits,
    Message,
    ModelLoadError,
    RemoteFailed,
    RemoteUnavailable,
    RunTimedOut,
    Sampling,
    UnsupportedParameter,
)
from exo_rkllm.settings import DEFAULT_SERVER_HOST, DEFAULT_SERVER_PORT
from exo_rkllm.ways import url_of

Callback = Callable[[str, bool], Awaitable[None] | None]
"""Called with each piece of text and whether the answer ends with it; it may be a coroutine function."""

_SAMPLING = frozenset(field.name for field in msgspec.structs.fields(Sampling))
_CHAT_ONLY = frozenset({"think", "format"})
_BOTH = frozenset({"max_tokens", "stop", "keep_alive"})


@dataclass(frozen=True)
class RKLLMServerConfig:
    """Where the server is. `timeout` is the longest pause between two pieces of an answer, in seconds."""

    host: str = DEFAULT_SERVER_HOST
    port: int = DEFAULT_SERVER_PORT
    timeout: float = 300.0
    api_key: str = ""

    @property
    def base_url(self) -> str:
        return url_of(self.host, self.port)


class RKLLMHTTPClient:
    """Asks one rkllama server; an async context manager. It connects with the first question.

    Messages are `Message`s, or mappings with the same fields (`role`, `content`, ...); the whole conversation is sent
    each time. `model` is a model's name; without it the one that is loaded, else the first one listed. Options are the
    fields of Sampling, `max_tokens`, `stop` (one string or several), `keep_alive` (seconds), and for chats `think` and
    `format` ("json", or a JSON Schema). Everything that goes wrong is raised as an ExoError.
    """

    def __init__(self, config: RKLLMServerConfig | None = None) -> None:
        self.config = config or RKLLMServerConfig()
        self._ollama = OllamaClient.at(self.config.base_url, api_key=self.config.api_key, timeout=self.config.timeout)

    async def __aenter__(self) -> RKLLMHTTPClient:  # noqa: PYI034 - Self needs a dependency on Python 3.10
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def health_check(self) -> bool:
        """Whether the server answers."""
        try:
            await self._ollama.version()
        except (RemoteUnavailable, RemoteFailed, RunTimedOut):
            return False
        return True

    async def list_models(self) -> list[str]:
        """The models that the server can run."""
        return [model.id for model in await self._ollama.models()]

    async def get_current_model(self) -> str | None:
        """The loaded model, the one that was used last if there are several; None if none is."""
        return next((model.id for model in await self._ollama.resident()), None)

    async def load_model(self, name: str) -> None:
        """Load a model; returns when it is ready."""
        await self._ollama.load(name)

    async def unload_model(self, name: str | None = None) -> None:
        """Unload a model, without a name the loaded one. Nothing happens if none is loaded."""
        name = name or await self.get_current_model()
        if name is not None:
            await self._ollama.unload(name)

    async def generate(
        self, messages: Sequence[Message | Mapping[str, Any]], model: str | None = None, **options: Any
    ) -> str:
        """The answer to a conversation, its text only."""
        return await _text(self.generate_stream(messages, None, model, **options))

    async def generate_stream(
        self,
        messages: Sequence[Message | Mapping[str, Any]],
        callback: Callback | None = None,
        model: str | None = None,
        **options: Any,
    ) -> AsyncGenerator[tuple[str, bool], None]:
        """The answer as it comes: pieces of text and False, then an empty text and True. Closing it ends the run."""
        _refuse_unknown(options, _SAMPLING | _BOTH | _CHAT_ONLY)
        request = ChatRequest(
            model=await self._model(model),
            messages=tuple(_message(message, number) for number, message in enumerate(messages)),
            think=options.get("think"),
            format=_format(options.get("format")),
            **_common(options),
        )
        async with contextlib.aclosing(_pieces(self._ollama.chat(request), callback)) as pieces:
            async for piece in pieces:
                yield piece

    async def generate_from_prompt(self, prompt: str, model: str | None = None, **options: Any) -> str:
        """The continuation of a prompt that has its template already; it reaches the model as it is."""
        return await _text(self.generate_from_prompt_stream(prompt, None, model, **options))

    async def generate_from_prompt_stream(
        self, prompt: str, callback: Callback | None = None, model: str | None = None, **options: Any
    ) -> AsyncGenerator[tuple[str, bool], None]:
        """As generate_stream, for a prompt that has its template already."""
        _refuse_unknown(options, _SAMPLING | _BOTH)
        request = CompletionRequest(model=await self._model(model), prompt=prompt, **_common(options))
        async with contextlib.aclosing(_pieces(self._ollama.complete(request), callback)) as pieces:
            async for piece in pieces:
                yield piece

    async def close(self) -> None:
        """Close the connections; the client is not used again."""
        await self._ollama.close()

    async def _model(self, name: str | None) -> str:
        found = name or await self.get_current_model() or next(iter(await self.list_models()), None)
        if found is None:
            raise ModelLoadError(f"The server at {self.config.base_url} has no model. Pull one there, or name one.")
        return found


async def _pieces(
    deltas: AsyncGenerator[Delta, None], callback: Callback | None
) -> AsyncGenerator[tuple[str, bool], None]:
    async with contextlib.aclosing(deltas):
        async for delta in deltas:
            finished = delta.finish_reason is not None
            if not (delta.text or finished):
                continue
            if callback is not None:
                waiting = callback(delta.text, finished)
                if inspect.isawaitable(waiting):
                    await waiting
            yield delta.text, finished


async def _text(pieces: AsyncGenerator[tuple[str, bool], None]) -> str:
    async with contextlib.aclosing(pieces):
        return "".join([text async for text, _ in pieces])


def _refuse_unknown(options: Mapping[str, Any], known: frozenset[str]) -> None:
    for name in options:
        if name not in known:
            raise UnsupportedParameter(f"There is no option {name}; known are {', '.join(sorted(known))}.", param=name)


def _common(options: Mapping[str, Any]) -> dict[str, Any]:
    stop = options.get("stop") or ()
    limits = {"max_tokens": options.get("max_tokens"), "stop": [stop] if isinstance(stop, str) else stop}
    try:
        return {
            "sampling": msgspec.convert({name: options[name] for name in options if name in _SAMPLING}, Sampling),
            "limits": msgspec.convert(limits, Limits),
            "keep_alive": msgspec.convert(options.get("keep_alive"), float | None),
        }
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"An option makes no sense: {error}.") from None


def _format(form: Any) -> AnswerFormat | None:
    if form is None or isinstance(form, AnswerFormat):
        return form
    if form == "json":
        return AnswerFormat()
    if isinstance(form, Mapping):
        return AnswerFormat(schema=form)
    raise InvalidRequest(f'format has to be "json" or a JSON Schema, not {form!r}.', param="format")


def _message(message: Message | Mapping[str, Any], number: int) -> Message:
    if isinstance(message, Message):
        return message
    path = f"messages[{number}]"
    unknown = set(message) - set(Message.__struct_fields__)
    if unknown:
        raise InvalidRequest(f"{path} has fields that are not sent: {', '.join(sorted(unknown))}.", param=path)
    try:
        return msgspec.convert(message, Message)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"{path} is no message: {error}.", param=path) from None
