"""The Responses API in the OpenAPI document."""

from __future__ import annotations

from exo.api.operation import Operation
from exo.api.responses import schema
from exo.api.responses.events import ResponseEvent


def responses_operations(error: type) -> tuple[Operation, ...]:
    """`error` is the type of a refusal's body, OpenAI's."""
    run = dict.fromkeys((400, 404, 408, 413, 429, 500, 502, 503, 504), error)
    return (
        Operation(
            "post",
            "/v1/responses",
            "Answer a conversation, whole or as a stream of server-sent events, and store the response.",
            {200: schema.ResponseObject, **run},
            request=schema.ResponsesRequest,
            stream=ResponseEvent,
        ),
        Operation(
            "get",
            "/v1/responses/{id}",
            "A stored response.",
            {200: schema.ResponseObject, 400: error, 404: error},
            parameters=("id",),
        ),
        Operation(
            "delete",
            "/v1/responses/{id}",
            "Forget a stored response.",
            {200: schema.DeletedResponse, 404: error},
            parameters=("id",),
        ),
        Operation(
            "get",
            "/v1/responses/{id}/input_items",
            "The items of the input of a stored response, the latest first unless order is asc.",
            {200: schema.ResponseItems, 400: error, 404: error},
            parameters=("id",),
        ),
    )
