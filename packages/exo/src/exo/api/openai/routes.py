"""The paths of OpenAI's dialect."""

from __future__ import annotations

import logging
import time

from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from exo.api.answering import send_stream, send_whole
from exo.api.endpoint import Endpoint
from exo.api.exchange import (
    SAMPLING_HEADER,
    Exchange,
    cancelled_when_gone,
    exchange_of,
    read_body,
    sampling_text,
    send_json,
)
from exo.api.openai.answer import ChunkWriter, Collector
from exo.api.openai.request import chat_request, decode
from exo.api.openai.schema import ChatCompletionRequest, ModelList, ModelOut
from exo.api.settings import HttpSettings
from exo.inference import Answer, InferenceService
from exo.types import ChatRequest, NotFound, Usage

prompts = logging.getLogger("exo.prompts")


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
        self._log_prompt(request)
        async with cancelled_when_gone(receive):
            answer = await self._service.chat(request)
            if answer.sampling is not None:
                exchange.extra_headers.append((SAMPLING_HEADER, sampling_text(answer.sampling)))
            try:
                if wire.stream:
                    include_usage = wire.stream_options is not None and wire.stream_options.include_usage
                    writer = ChunkWriter(card.id, include_usage=include_usage)
                    last = await send_stream(send, answer, writer, exchange)
                else:
                    heartbeat = self._settings.heartbeat
                    last = await send_whole(send, answer, Collector(card.id), exchange, heartbeat=heartbeat)
            finally:
                await answer.aclose()
                _note(exchange, answer)
        for message in last:
            await send(message)

    def _log_prompt(self, request: ChatRequest) -> None:
        if self._settings.log_prompts:
            text = [f"{message.role}: {message.content}" for message in request.messages]
            prompts.info("prompt", extra={"fields": {"id": request.id, "messages": text}})

    def _model(self, model: str) -> ModelOut:
        return ModelOut(id=model, created=self._created)


def _note(exchange: Exchange, answer: Answer) -> None:
    exchange.usage = answer.usage if answer.finished else Usage(completion_tokens=answer.completion_tokens)
    if answer.first_token is not None:
        exchange.first_token = answer.first_token - exchange.started
