"""The OpenAPI document of the node, made from the same types that decode requests and encode answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from exo import __version__
from exo.api.anthropic.operations import ANTHROPIC_OPERATIONS
from exo.api.ollama.operations import OLLAMA_OPERATIONS
from exo.api.openai.operations import openai_operations
from exo.api.operation import Operation
from exo.api.responses.operations import responses_operations
from exo.inference import Readiness
from exo.topology import NodeCapabilities

_REF = "#/components/schemas/{name}"


class ErrorDetail(msgspec.Struct):
    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(msgspec.Struct):
    error: ErrorDetail


class Health(msgspec.Struct):
    status: str


class TopologyNode(msgspec.Struct):
    version: str
    engine: str
    slots: int
    models: list[str]
    capabilities: NodeCapabilities


class Topology(msgspec.Struct):
    nodes: list[TopologyNode]


_OPERATIONS = (
    *openai_operations(ErrorBody),
    *responses_operations(ErrorBody),
    *ANTHROPIC_OPERATIONS,
    *OLLAMA_OPERATIONS,
    Operation("get", "/", "The process answers, to people and to clients of Ollama.", {200: "text/plain"}),
    Operation("get", "/healthcheck", "The process answers. Needs no key.", {200: Health}),
    Operation(
        "get",
        "/ready",
        "Whether a request would be accepted now; slots, queue and models. Needs no key.",
        {200: Readiness, 503: Readiness},
    ),
    Operation("get", "/metrics", "Metrics for Prometheus.", {200: "text/plain"}),
    Operation("get", "/v1/topology", "The nodes that this node knows, and what they run on.", {200: Topology}),
    Operation("get", "/openapi.json", "This document.", {200: "application/json"}),
    Operation("get", "/docs", "This document, for people.", {200: "text/html"}),
)


def document(title: str = "exo node", further: Sequence[Operation] = ()) -> dict[str, Any]:
    """The OpenAPI 3.1 document. `further` operations come behind the node's own, or in the place of one of them."""
    operations = {(operation.path, operation.method): operation for operation in (*_OPERATIONS, *further)}.values()
    types = {
        kind for op in operations for kind in (*op.answers.values(), op.request, op.stream) if isinstance(kind, type)
    }
    schemas, components = msgspec.json.schema_components(
        sorted(types, key=lambda kind: kind.__name__), ref_template=_REF
    )
    refs = dict(zip(sorted(types, key=lambda kind: kind.__name__), schemas))
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method] = _operation(operation, refs)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": title,
            "version": __version__,
            "description": "Language models over HTTP. Keys, if the node has any, go into the Authorization header.",
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}, {}],
    }


def _operation(operation: Operation, refs: dict[type, dict[str, Any]]) -> dict[str, Any]:
    answers = {}
    for status, kind in operation.answers.items():
        content = {kind: {}} if isinstance(kind, str) else {"application/json": {"schema": refs[kind]}}
        if operation.stream is not None and status == 200:
            content[operation.stream_type] = {"schema": refs[operation.stream]}
        answers[str(status)] = {"description": "Success" if status == 200 else "Refused or failed", "content": content}
    found: dict[str, Any] = {"summary": operation.summary, "responses": answers}
    if operation.request is not None:
        found["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": refs[operation.request]}},
        }
    if operation.parameters:
        found["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in operation.parameters
        ]
    return found
