"""The paths of Ollama's dialect that answer and list."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from exo import __version__
from exo.api.answering import answer_request, log_prompt, streamed, whole
from exo.api.decoding import decode
from exo.api.endpoint import Endpoint
from exo.api.exchange import cancelled_when_gone, exchange_of, read_body, send_json
from exo.api.ollama.answer import LineCollector, LineWriter, MakeLine, chat_line, generate_line, without_run
from exo.api.ollama.clock import nanoseconds
from exo.api.ollama.library import OllamaLibrary
from exo.api.ollama.listing import describe, process_of, show_of, tag_of
from exo.api.ollama.names import needed
from exo.api.ollama.options import refuse_longer_context
from exo.api.ollama.request import chat_request, embedding_request, generate_request
from exo.api.ollama.schema import (
    AnswerLine,
    OllamaChatRequest,
    OllamaEmbedAnswer,
    OllamaEmbeddingsAnswer,
    OllamaEmbeddingsRequest,
    OllamaEmbedRequest,
    OllamaGenerateRequest,
    OllamaShowRequest,
    OllamaToolCallOut,
    Options,
    ProcessList,
    TagList,
    Version,
)
from exo.api.settings import HttpSettings
from exo.inference import Answer, InferenceService
from exo.inference.automatic import OPEN_MODEL
from exo.types import ChatRequest, CompletionRequest, Embeddings, ModelCard, UnsupportedParameter, Usage

T = TypeVar("T")
MakeNamedLine = Callable[[str, str, str, list[OllamaToolCallOut]], AnswerLine]
"""As MakeLine, with the name of the model before the rest."""
logger = logging.getLogger(__name__)


class Ollama:
    """The endpoints, as ASGI applications."""

    def __init__(self, service: InferenceService, settings: HttpSettings) -> None:
        self._service = service
        self._settings = settings

    def routes(self) -> list[Route]:
        return [
            Route("/api/chat", Endpoint(self.chat), methods=["POST"]),
            Route("/api/generate", Endpoint(self.generate), methods=["POST"]),
            Route("/api/embed", Endpoint(self.embed), methods=["POST"]),
            Route("/api/embeddings", Endpoint(self.embeddings), methods=["POST"]),
            Route("/api/tags", Endpoint(self.tags), methods=["GET"]),
            Route("/api/show", Endpoint(self.show), methods=["POST"]),
            Route("/api/ps", Endpoint(self.processes), methods=["GET"]),
            Route("/api/version", Endpoint(self.version), methods=["GET"]),
            *OllamaLibrary(self._service, self._settings).routes(),
        ]

    async def chat(self, scope: Scope, receive: Receive, send: Send) -> None:
        wire = await self._inference(scope, receive, OllamaChatRequest)
        model = await self._model(scope, wire.model, wire.options, open_if=bool(wire.messages))
        request = chat_request(wire, model=model, request_id=exchange_of(scope).id)
        if wire.messages:
            await self._answer(wire, request, chat_line, scope=scope, receive=receive, send=send)
        else:
            await self._answer_without_run(request, functools.partial(chat_line, wire.model), receive, send)

    async def generate(self, scope: Scope, receive: Receive, send: Send) -> None:
        wire = await self._inference(scope, receive, OllamaGenerateRequest)
        model = await self._model(scope, wire.model, wire.options, open_if=bool(wire.prompt))
        request = generate_request(wire, model=model, request_id=exchange_of(scope).id)
        if wire.prompt:
            await self._answer(wire, request, generate_line, scope=scope, receive=receive, send=send)
        else:
            await self._answer_without_run(request, functools.partial(generate_line, wire.model), receive, send)

    async def embed(self, scope: Scope, receive: Receive, send: Send) -> None:
        wire = await self._inference(scope, receive, OllamaEmbedRequest)
        found = await self._embeddings(wire, scope, receive)
        answer = OllamaEmbedAnswer(
            model=wire.model,
            embeddings=found.vectors,
            total_duration=nanoseconds(time.monotonic() - exchange_of(scope).started),
            load_duration=0,
            prompt_eval_count=found.usage.prompt_tokens,
        )
        await send_json(send, 200, answer)

    async def embeddings(self, scope: Scope, receive: Receive, send: Send) -> None:
        wire = await self._inference(scope, receive, OllamaEmbeddingsRequest)
        found = await self._embeddings(wire, scope, receive)
        await send_json(send, 200, OllamaEmbeddingsAnswer(embedding=found.vectors[0] if found.vectors else ()))

    async def tags(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's shape
        cards = await self._service.models()
        engine = self._service.engine
        await send_json(send, 200, TagList(models=[tag_of(await describe(engine, card)) for card in cards]))

    async def processes(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's shape
        engine = self._service.engine
        cards = {card.id: card for card in await self._service.models()}
        models = [
            process_of(resident, await describe(engine, cards.get(resident.id) or ModelCard(id=resident.id)))
            for resident in engine.resident()
        ]
        await send_json(send, 200, ProcessList(models=models))

    async def show(self, scope: Scope, receive: Receive, send: Send) -> None:
        wire = decode(await read_body(scope, receive, self._settings), OllamaShowRequest)
        for name in ("system", "template", "options"):
            if getattr(wire, name):
                raise UnsupportedParameter(f"{name} changes nothing of what is shown here; leave it out.", param=name)
        card = await self._service.resolve(needed(wire.model, wire.name))
        await send_json(send, 200, show_of(await self._service.engine.describe(card.id)))

    async def version(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's shape
        await send_json(send, 200, Version(version=__version__))

    async def _inference(self, scope: Scope, receive: Receive, kind: type[T]) -> T:
        exchange_of(scope).inference = True
        body = await read_body(scope, receive, self._settings)
        wire = decode(body, kind)
        if logger.isEnabledFor(logging.DEBUG):
            _log_unknown_options(body)
        return wire

    async def _model(self, scope: Scope, name: str, options: Options | None, *, open_if: bool = False) -> str:
        """The id of the model that a request names, if its context is as long as the request wants it.

        OPEN_MODEL where it is to be chosen, which needs a text, so only if `open_if`.
        """
        model = await self._service.target(name) if open_if else (await self._service.resolve_for_use(name)).id
        if model == OPEN_MODEL:
            return model
        exchange_of(scope).model = model
        if options is not None and options.num_ctx is not None:
            refuse_longer_context(options, await self._service.engine.describe(model))
        return model

    async def _answer(
        self,
        wire: OllamaChatRequest | OllamaGenerateRequest,
        request: ChatRequest | CompletionRequest,
        make: MakeNamedLine,
        *,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        exchange = exchange_of(scope)
        log_prompt(request, self._settings)
        ask: Callable[[], Awaitable[Answer]]
        if isinstance(request, ChatRequest):
            ask = functools.partial(self._service.chat, request)
        else:
            ask = functools.partial(self._service.complete, request)
        thinking = wire.think is not False

        def line_of(answer: Answer) -> MakeLine:
            """The name comes back as it was sent, unless it left the model open."""
            return functools.partial(make, wire.model if answer.choice is None else answer.model)

        if wire.stream is not False:
            lines = functools.partial(LineWriter, started=exchange.started, thinking=thinking)
            deliver = streamed(send, exchange, lambda answer: lines(line_of(answer)))
        else:
            line = functools.partial(LineCollector, started=exchange.started, thinking=thinking)
            heartbeat = self._settings.heartbeat
            deliver = whole(send, exchange, lambda answer: line(line_of(answer)), heartbeat=heartbeat)
        await answer_request(scope, receive, send, ask=ask, deliver=deliver)

    async def _answer_without_run(
        self, request: ChatRequest | CompletionRequest, make: MakeLine, receive: Receive, send: Send
    ) -> None:
        """Without a text the model is loaded, or with a keep_alive of 0 unloaded; one object also in a stream."""
        unload = request.keep_alive == 0
        async with cancelled_when_gone(receive):
            if unload:
                await self._service.unload(request.model)
            else:
                await self._service.load(request.model, request.keep_alive)
        await send_json(send, 200, without_run(make, "unload" if unload else "load"))

    async def _embeddings(
        self, wire: OllamaEmbedRequest | OllamaEmbeddingsRequest, scope: Scope, receive: Receive
    ) -> Embeddings:
        model = await self._model(scope, wire.model, wire.options)
        exchange = exchange_of(scope)
        request = embedding_request(wire, model=model, request_id=exchange.id)
        async with cancelled_when_gone(receive):
            if not request.inputs:
                await self._service.load(model, request.keep_alive)
                return Embeddings(vectors=(), usage=Usage())
            found = await self._service.embed(request)
        exchange.usage = found.usage
        return found


class _OptionNames(msgspec.Struct):
    options: dict[str, Any] | None = None


def _log_unknown_options(body: bytes) -> None:
    """Ollama ignores them as well, and says so in its log."""
    given = msgspec.json.decode(body, type=_OptionNames).options or {}
    unknown = sorted(set(given) - set(Options.__struct_fields__))
    if unknown:
        logger.debug("unknown options without effect: %s", ", ".join(unknown))
