"""The paths of OpenAI's dialect."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import TypeVar

from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from exo.api.answering import (
    Deliver,
    StreamWriter,
    WholeWriter,
    answer_request,
    log_prompt,
    send_late,
    streamed,
    whole,
)
from exo.api.decoding import decode
from exo.api.endpoint import Endpoint
from exo.api.exchange import cancelled_when_gone, exchange_of, read_body, send_json
from exo.api.listing import listed_models, shown_model
from exo.api.openai.answer import chunk_writer, collector, error_body
from exo.api.openai.answer_schema import ModelList, ModelOut
from exo.api.openai.choices import joined, of_one_model
from exo.api.openai.completions import completion_requests, text_collector, text_writer
from exo.api.openai.embeddings import embedding_request, embeddings_body
from exo.api.openai.request import chat_request, names_of
from exo.api.openai.schema import ChatCompletionRequest, CompletionRequestIn, EmbeddingRequestIn
from exo.api.openai.shared import asks_for_usage, named_as_sent, repeated
from exo.api.settings import HttpSettings
from exo.inference import Answer, InferenceService
from exo.types import ChatRequest, CompletionRequest, EmbeddingRequest, NotFound

T = TypeVar("T", ChatCompletionRequest, CompletionRequestIn, EmbeddingRequestIn)


class OpenAI:
    """The endpoints, as ASGI applications."""

    def __init__(self, service: InferenceService, settings: HttpSettings) -> None:
        self._service = service
        self._settings = settings
        self._created = int(time.time())

    def routes(self) -> list[Route]:
        return [
            Route("/v1/chat/completions", Endpoint(self.chat_completions), methods=["POST"]),
            Route("/chat/completions", Endpoint(self.chat_completions), methods=["POST"]),
            Route("/v1/completions", Endpoint(self.completions), methods=["POST"]),
            Route("/v1/embeddings", Endpoint(self.embeddings), methods=["POST"]),
            Route("/v1/models", Endpoint(self.list_models), methods=["GET"]),
            Route("/models", Endpoint(self.list_models), methods=["GET"]),
            Route("/v1/models/{model:path}", Endpoint(self.show_model), methods=["GET"]),
        ]

    async def list_models(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's shape
        cards = await listed_models(self._service)
        await send_json(send, 200, ModelList(data=[self._model(card.id) for card in cards]))

    async def show_model(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's shape
        name = scope["path_params"]["model"]
        if not name:
            raise NotFound("A model's id is missing; /v1/models lists them.")
        card = await shown_model(self._service, name)
        await send_json(send, 200, self._model(card.id))

    async def chat_completions(self, scope: Scope, receive: Receive, send: Send) -> None:
        wire, model = await self._read(scope, receive, ChatCompletionRequest)
        request = chat_request(wire, model=model, request_id=exchange_of(scope).id)
        log_prompt(request, self._settings)
        count = wire.n or 1
        asks = of_one_model(functools.partial(self._chat, names=names_of(wire)), repeated(request, count))
        if wire.stream:
            usage = asks_for_usage(wire)
            deliver = self._streamed(scope, send, functools.partial(chunk_writer, count=count, include_usage=usage))
        else:
            deliver = self._whole(scope, send, functools.partial(collector, count=count))
        await answer_request(scope, receive, send, ask=joined(asks, for_each_prompt=count), deliver=deliver)

    async def completions(self, scope: Scope, receive: Receive, send: Send) -> None:
        wire, model = await self._read(scope, receive, CompletionRequestIn)
        requests = completion_requests(wire, model=model, request_id=exchange_of(scope).id)
        count = wire.n or 1
        for request in requests[::count]:
            log_prompt(request, self._settings)
        echoes = [request.prompt if wire.echo else "" for request in requests]
        asks = of_one_model(self._complete, requests)
        if wire.stream:
            usage = asks_for_usage(wire)
            deliver = self._streamed(scope, send, lambda answering: text_writer(answering, echoes, include_usage=usage))
        else:
            deliver = self._whole(scope, send, lambda answering: text_collector(answering, echoes))
        await answer_request(scope, receive, send, ask=joined(asks, for_each_prompt=count), deliver=deliver)

    async def embeddings(self, scope: Scope, receive: Receive, send: Send) -> None:
        wire, model = await self._read(scope, receive, EmbeddingRequestIn)
        exchange = exchange_of(scope)
        request = embedding_request(wire, model=model, request_id=exchange.id)
        async with cancelled_when_gone(receive):
            making = self._embed(scope, request, wire.encoding_format)
            last = await send_late(send, making, error_body, exchange, heartbeat=self._settings.heartbeat)
        for message in last:
            await send(message)

    async def _read(self, scope: Scope, receive: Receive, kind: type[T]) -> tuple[T, str]:
        """The request, and the id of its model, or OPEN_MODEL where that is to be chosen."""
        exchange = exchange_of(scope)
        exchange.inference = True
        wire = decode(await read_body(scope, receive, self._settings), kind)
        if isinstance(wire, EmbeddingRequestIn):
            exchange.model = (await self._service.resolve_for_use(wire.model)).id
            return wire, exchange.model
        model = await self._service.target(wire.model)
        exchange.model = model
        return wire, model

    def _streamed(self, scope: Scope, send: Send, make: Callable[[str], StreamWriter]) -> Deliver:
        return streamed(send, exchange_of(scope), lambda answer: make(answer.model))

    def _whole(self, scope: Scope, send: Send, make: Callable[[str], WholeWriter]) -> Deliver:
        heartbeat = self._settings.heartbeat
        return whole(send, exchange_of(scope), lambda answer: make(answer.model), heartbeat=heartbeat)

    async def _chat(self, request: ChatRequest, names: dict[str, str]) -> Answer:
        with named_as_sent(names):
            return await self._service.chat(request)

    async def _complete(self, request: CompletionRequest) -> Answer:
        with named_as_sent({"messages": "prompt"}):
            return await self._service.complete(request)

    async def _embed(self, scope: Scope, request: EmbeddingRequest, encoding_format: str | None) -> bytes:
        with named_as_sent({"messages": "input"}):
            found = await self._service.embed(request)
        exchange_of(scope).usage = found.usage
        return embeddings_body(found, model=request.model, encoding_format=encoding_format)

    def _model(self, model: str) -> ModelOut:
        return ModelOut(id=model, created=self._created)
