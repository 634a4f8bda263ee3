"""The paths of the Responses API."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from urllib.parse import parse_qsl

import msgspec
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from exo.api.answering import answer_request, log_prompt, streamed, whole
from exo.api.decoding import decode
from exo.api.endpoint import Endpoint
from exo.api.exchange import JSON_TYPE, Exchange, exchange_of, read_body, send_bytes, send_json
from exo.api.openai.shared import named_as_sent
from exo.api.responses.answer import Keep, ResponseCollector, ResponseEventWriter
from exo.api.responses.conversation import listed_items, messages_of
from exo.api.responses.request import FIELD_NAMES, chat_request, input_items, response_of
from exo.api.responses.schema import (
    DeletedResponse,
    InputItem,
    ItemsQuery,
    ListedItem,
    ResponseItems,
    ResponseObject,
    ResponsesRequest,
)
from exo.api.responses.store import ResponseStore, StoredResponse, Turn
from exo.api.settings import HttpSettings
from exo.inference import Answer, InferenceService
from exo.types import ChatRequest, InvalidRequest, Message, NotFound, PreviousResponseNotFound, UnsupportedParameter

STORED_HEADER = b"x-exo-response-id"
"""The id of a response that is going to be stored: a proxy sends what goes on from it to the same node."""


class Responses:
    """The endpoints, as ASGI applications."""

    def __init__(self, service: InferenceService, settings: HttpSettings) -> None:
        self._service = service
        self._settings = settings
        self._store = ResponseStore()

    def routes(self) -> list[Route]:
        return [
            Route("/v1/responses", Endpoint(self.create), methods=["POST"]),
            Route("/v1/responses/{id}", Endpoint(self.stored), methods=["GET", "DELETE"]),
            Route("/v1/responses/{id}/input_items", Endpoint(self.list_input_items), methods=["GET"]),
        ]

    async def create(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = exchange_of(scope)
        exchange.inference = True
        wire = decode(await read_body(scope, receive, self._settings), ResponsesRequest)
        model = await self._service.target(wire.model)
        exchange.model = model
        items = input_items(wire)
        messages = messages_of(items)
        earlier = self._earlier(wire, exchange.key)
        conversation = [*(earlier.conversation() if earlier else ()), *messages]
        request = chat_request(wire, conversation, model=model, request_id=exchange.id)
        log_prompt(request, self._settings)
        response = response_of(wire, model=model)
        keep = self._keep(exchange.key, response, items, messages, earlier)
        if wire.stream:
            deliver = streamed(send, exchange, lambda answer: ResponseEventWriter(_by(answer, response), keep))
        else:
            heartbeat = self._settings.heartbeat
            gather = functools.partial(ResponseCollector, keep=keep)
            deliver = whole(send, exchange, lambda answer: gather(_by(answer, response)), heartbeat=heartbeat)
        ask = functools.partial(self._ask, request, exchange, response.id if keep else None)
        await answer_request(scope, receive, send, ask=ask, deliver=deliver)

    async def stored(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's shape
        await (self._delete if scope["method"] == "DELETE" else self._show)(scope, send)

    async def _show(self, scope: Scope, send: Send) -> None:
        if _query(scope).get("stream", "false").lower() != "false":
            raise UnsupportedParameter("A stored response comes whole; leave stream out.", param="stream")
        await send_bytes(send, 200, self._stored(scope).body, JSON_TYPE)

    async def _delete(self, scope: Scope, send: Send) -> None:
        stored = self._stored(scope)
        self._store.remove(exchange_of(scope).key, stored.id)
        await send_json(send, 200, DeletedResponse(id=stored.id))

    async def list_input_items(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's shape
        stored = self._stored(scope)
        try:
            query = msgspec.convert(_query(scope), ItemsQuery, strict=False)
        except msgspec.ValidationError as error:
            what, _, name = str(error).removesuffix("`").partition(" - at `$.")
            raise InvalidRequest(f"{name}: {what}.", param=name) from None
        await send_json(send, 200, page_of(listed_items(stored.items, stored.id), query))

    async def _ask(self, request: ChatRequest, exchange: Exchange, kept_as: str | None) -> Answer:
        with named_as_sent(FIELD_NAMES):
            answer = await self._service.chat(request)
        if kept_as is not None:
            exchange.extra_headers.append((STORED_HEADER, kept_as.encode()))
        return answer

    def _earlier(self, wire: ResponsesRequest, key: str) -> Turn | None:
        if wire.previous_response_id is None:
            return None
        found = self._store.find(key, wire.previous_response_id)
        if found is None:
            raise PreviousResponseNotFound(_not_stored(wire.previous_response_id), param="previous_response_id")
        return found.turn

    def _stored(self, scope: Scope) -> StoredResponse:
        response_id = scope["path_params"]["id"]
        found = self._store.find(exchange_of(scope).key, response_id)
        if found is None:
            raise NotFound(_not_stored(response_id))
        return found

    def _keep(
        self,
        key: str,
        response: ResponseObject,
        items: Sequence[InputItem],
        messages: tuple[Message, ...],
        earlier: Turn | None,
    ) -> Keep | None:
        """What stores the response once it is complete."""
        if not response.store:
            return None

        def keep(body: bytes, answer: Message) -> None:
            turn = Turn((*messages, answer), earlier)
            self._store.keep(key, StoredResponse(response.id, body, items, turn))

        return keep


def page_of(items: Sequence[ListedItem], query: ItemsQuery) -> ResponseItems:
    """The part of a list that a client has asked for. Raises InvalidRequest for an `after` that is not in it."""
    ordered = list(items) if query.order == "asc" else list(reversed(items))
    if query.after is not None:
        ids = [item.id for item in ordered]
        if query.after not in ids:
            raise InvalidRequest(f"after: there is no item {query.after!r} in this list.", param="after")
        ordered = ordered[ids.index(query.after) + 1 :]
    page = ordered[: query.limit]
    return ResponseItems(
        data=page,
        first_id=page[0].id if page else None,
        last_id=page[-1].id if page else None,
        has_more=len(page) < len(ordered),
    )


def _by(answer: Answer, response: ResponseObject) -> ResponseObject:
    """The response with the model that answers, where that was left open."""
    return msgspec.structs.replace(response, model=answer.model)


def _query(scope: Scope) -> dict[str, str]:
    return dict(parse_qsl(scope["query_string"].decode("latin-1")))


def _not_stored(response_id: str) -> str:
    return (
        f"There is no response {response_id!r} here. The node forgets the oldest ones when it has no room for more and "
        "all when it ends, and never keeps those with store false; send the whole conversation."
    )
