"""The paths of Anthropic's dialect."""

from __future__ import annotations

import functools
from typing import TypeVar

from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from exo.api.answering import answer_request, log_prompt, streamed, whole
from exo.api.anthropic.answer import EventWriter, MessageCollector, Thinking
from exo.api.anthropic.models import AnthropicModels
from exo.api.anthropic.request import chat_request, hides_thinking, omits_thinking
from exo.api.anthropic.schema import CountTokensRequest, MessagesRequest, TokenCount
from exo.api.decoding import decode
from exo.api.endpoint import Endpoint
from exo.api.exchange import cancelled_when_gone, exchange_of, read_body, send_json
from exo.api.settings import HttpSettings
from exo.inference import InferenceService
from exo.types import ChatRequest

REQUEST_ID_HEADER = b"request-id"
"""Where Anthropic's clients look for what others find in x-request-id."""
Wire = TypeVar("Wire", MessagesRequest, CountTokensRequest)


class Anthropic:
    """The endpoints, as ASGI applications."""

    def __init__(self, service: InferenceService, settings: HttpSettings) -> None:
        self._service = service
        self._settings = settings

    def routes(self) -> list[Route]:
        return [
            Route("/v1/messages", Endpoint(self.messages), methods=["POST"]),
            Route("/v1/messages/count_tokens", Endpoint(self.count_tokens), methods=["POST"]),
            *AnthropicModels(self._service).routes(),
        ]

    async def messages(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = exchange_of(scope)
        exchange.inference = True
        wire, request = await self._read(scope, receive, MessagesRequest)
        log_prompt(request, self._settings)
        thinking: Thinking = "omitted" if omits_thinking(wire) else "hidden" if hides_thinking(wire) else "shown"
        if wire.stream:
            events = functools.partial(EventWriter, request_id=exchange.id, thinking=thinking)
            deliver = streamed(send, exchange, lambda answer: events(answer.model))
        else:
            message = functools.partial(MessageCollector, request_id=exchange.id, thinking=thinking)
            heartbeat = self._settings.heartbeat
            deliver = whole(send, exchange, lambda answer: message(answer.model), heartbeat=heartbeat)
        ask = functools.partial(self._service.chat, request)
        await answer_request(scope, receive, send, ask=ask, deliver=deliver)

    async def count_tokens(self, scope: Scope, receive: Receive, send: Send) -> None:
        _, request = await self._read(scope, receive, CountTokensRequest)
        async with cancelled_when_gone(receive):
            count = await self._service.count(request)
        await send_json(send, 200, TokenCount(input_tokens=count))

    async def _read(self, scope: Scope, receive: Receive, kind: type[Wire]) -> tuple[Wire, ChatRequest]:
        exchange = exchange_of(scope)
        exchange.extra_headers.append((REQUEST_ID_HEADER, exchange.id.encode()))
        wire = decode(await read_body(scope, receive, self._settings), kind)
        model = await self._service.target(wire.model)
        exchange.model = model
        capabilities = self._service.engine.capabilities
        return wire, chat_request(wire, model=model, request_id=exchange.id, capabilities=capabilities)
