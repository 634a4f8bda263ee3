"""The paths of OpenAI's dialect."""

from __future__ import annotations

import functools
import time
from collections.abc import Awaitable, Callable

from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from exo.api.answering import answer_request, log_prompt, send_stream, send_whole
from exo.api.decoding import decode
from exo.api.endpoint import Endpoint
from exo.api.exchange import exchange_of, read_body, send_json
from exo.api.openai.answer import ChunkWriter, Collector
from exo.api.openai.request import chat_request
from exo.api.openai.schema import ChatCompletionRequest, ModelList, ModelOut
from exo.api.settings import HttpSettings
from exo.inference import Answer, InferenceService
from exo.types import NotFound


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
            Route("/v1/models", Endpoint(self.list_models), methods=["GET"]),
            Route("/models", Endpoint(self.list_models), methods=["GET"]),
            Route("/v1/models/{model:path}", Endpoint(self.show_model), methods=["GET"]),
        ]

    async def list_models(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's shape
        cards = await self._service.models()
        await send_json(send, 200, ModelList(data=[self._model(card.id) for card in cards]))

    async def show_model(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's shape
        name = scope["path_params"]["model"]
        if not name:
            raise NotFound("A model's id is missing; /v1/models lists them.")
        card = await self._service.resolve(name)
        await send_json(send, 200, self._model(card.id))

    async def chat_completions(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = exchange_of(scope)
        exchange.inference = True
        wire = decode(await read_body(scope, receive, self._settings), ChatCompletionRequest)
        card = await self._service.resolve(wire.model)
        exchange.model = card.id
        request = chat_request(wire, model=card.id, request_id=exchange.id)
        log_prompt(request, self._settings)
        deliver: Callable[[Answer], Awaitable[list[Message]]]
        if wire.stream:
            include_usage = wire.stream_options is not None and wire.stream_options.include_usage
            writer = ChunkWriter(card.id, include_usage=include_usage)
            deliver = functools.partial(send_stream, send, writer=writer, exchange=exchange)
        else:
            heartbeat, collector = self._settings.heartbeat, Collector(card.id)
            deliver = functools.partial(send_whole, send, writer=collector, exchange=exchange, heartbeat=heartbeat)
        ask = functools.partial(self._service.chat, request)
        await answer_request(scope, receive, send, ask=ask, deliver=deliver)

    def _model(self, model: str) -> ModelOut:
        return ModelOut(id=model, created=self._created)
