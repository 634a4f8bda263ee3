"""The Responses API in the OpenAPI document."""

from __future__ import annotations

from exo.api.operation import OF_RUNS, Operation
from exo.api.responses import schema
from exo.api.responses.events import ResponseEvent

RESPONSES_OPERATIONS = (
    Operation(
        "post",
        "/v1/responses",
        "Answer a conversation, whole or as a stream of server-sent events, and store the response.",
        {200: schema.ResponseObject},
        OF_RUNS,
        request=schema.ResponsesRequest,
        stream=ResponseEvent,
    ),
    Operation(
        "get",
        "/v1/responses/{id}",
        "A stored response.",
        {200: schema.ResponseObject},
        (400, 404),
        parameters=("id",),
    ),
    Operation(
        "delete",
        "/v1/responses/{id}",
        "Forget a stored response.",
        {200: schema.DeletedResponse},
        (404,),
        parameters=("id",),
    ),
    Operation(
        "get",
        "/v1/responses/{id}/input_items",
        "The items of the input of a stored response, the latest first unless order is asc.",
        {200: schema.ResponseItems},
        (400, 404),
        parameters=("id",),
        query=schema.ItemsQuery,
    ),
)
