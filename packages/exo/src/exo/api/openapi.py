"""The OpenAPI document of the node, made from the same types that decode requests and encode answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from exo import __version__
from exo.api.anthropic.operations import ANTHROPIC_OPERATIONS
from exo.api.anthropic.schema import AnthropicError
from exo.api.errors import anthropic_error, error_shape, openai_error, plain_error
from exo.api.extension import Extension
from exo.api.guard import OPEN_PATHS
from exo.api.node_schema import ChallengeAnswer, DrainBody, Health, NodeReadiness, Topology
from exo.api.ollama.operations import OLLAMA_OPERATIONS
from exo.api.ollama.schema import PlainError
from exo.api.openai.operations import OPENAI_OPERATIONS
from exo.api.operation import Answer, Operation
from exo.api.responses.operations import RESPONSES_OPERATIONS
from exo.cluster.membership.challenge import CHALLENGE_PATH, ChallengeBody

_REF = "#/components/schemas/{name}"
_JSON = "application/json"
_EVENTS = "text/event-stream"
_LINES = "application/x-ndjson"
_ANYWHERE = (403, 500)
"""A foreign Host or Origin, or a key whose scope is too small; a failure that nobody has foreseen."""
_WITH_KEYS = (401,)
_WITH_BODIES = (400, 408, 413)
_BEFORE_THE_PATH: Mapping[int, dict[str, Any]] = {400: {"text/plain": {}}, 431: {}}
"""The content of what is answered to bytes that are no HTTP, and to too many headers."""


class ErrorDetail(msgspec.Struct):
    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(msgspec.Struct):
    error: ErrorDetail


_ERROR_TYPES: Mapping[Callable[..., Any], type[msgspec.Struct]] = {
    openai_error: ErrorBody,
    plain_error: PlainError,
    anthropic_error: AnthropicError,
}
_OPERATIONS = (
    *OPENAI_OPERATIONS,
    *RESPONSES_OPERATIONS,
    *ANTHROPIC_OPERATIONS,
    *OLLAMA_OPERATIONS,
    Operation("get", "/", "The process answers, to people and to clients of Ollama.", {200: "text/plain"}),
    Operation("get", "/healthcheck", "The process answers. Needs no key.", {200: Health}),
    Operation(
        "get",
        "/ready",
        "Whether a request would be accepted now; slots, queue and models. Needs no key.",
        {200: NodeReadiness, 503: NodeReadiness},
    ),
    Operation("get", "/metrics", "Metrics for Prometheus.", {200: "text/plain"}),
    Operation("get", "/v1/topology", "The nodes that this node knows, and what it runs on.", {200: Topology}),
    Operation(
        "post",
        "/v1/drain",
        "Refuse new requests and let the accepted ones go on, or take new ones again.",
        {200: NodeReadiness},
        request=DrainBody,
    ),
    Operation(
        "post",
        CHALLENGE_PATH,
        "Prove that the node knows the secret of its cluster. Needs no key.",
        {200: ChallengeAnswer},
        refusals=(404,),
        request=ChallengeBody,
    ),
    Operation("get", "/openapi.json", "This document.", {200: _JSON}),
    Operation("get", "/docs", "This document, for people.", {200: "text/html"}),
)


def document(extension: Extension | None = None) -> dict[str, Any]:
    """The OpenAPI 3.1 document. Operations of an extension come behind the node's own, or in the place of one."""
    extension = extension or Extension()
    everything = (*_OPERATIONS, *extension.operations)
    operations = {(operation.path, operation.method): operation for operation in everything}.values()
    schemas = _Schemas(operations)
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        error = error_type(operation.path, extension.plain_error_paths)
        paths.setdefault(operation.path, {})[operation.method] = _operation(operation, error, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": extension.title,
            "version": __version__,
            "description": "Language models over HTTP. Keys, if the node has any, go into the Authorization header.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer"},
                "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
        "security": [{"key": []}, {"x-api-key": []}, {}],
    }


def error_type(path: str, plain_paths: frozenset[str] = frozenset()) -> type[msgspec.Struct]:
    """The type of an error's body on a path."""
    shape: Any = error_shape(path, plain_paths)
    return _ERROR_TYPES[getattr(shape, "func", shape)]


class _Schemas:
    """The JSON Schemas of all types that operations name."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        types = set(_ERROR_TYPES.values()) | {kind for operation in operations for kind in _types_of(operation)}
        ordered = sorted(types, key=lambda kind: kind.__name__)
        schemas, self.components = msgspec.json.schema_components(ordered, ref_template=_REF)
        self._schemas = dict(zip(ordered, schemas))

    def of(self, kinds: Sequence[type]) -> dict[str, Any]:
        """The schema of a value that is of one of these types."""
        found = [self._schemas[kind] for kind in kinds]
        return found[0] if len(found) == 1 else {"anyOf": found}


def _types_of(operation: Operation) -> list[type]:
    answers = [kind for answer in operation.answers.values() for kind in _kinds(answer)]
    return [*answers, *(kind for kind in (operation.request, operation.stream) if kind is not None)]


def _kinds(answer: Answer) -> tuple[type, ...]:
    if isinstance(answer, str):
        return ()
    return answer if isinstance(answer, tuple) else (answer,)


def _operation(operation: Operation, error: type, schemas: _Schemas) -> dict[str, Any]:
    found: dict[str, Any] = {"summary": operation.summary, "responses": _responses(operation, error, schemas)}
    if operation.request is not None:
        found["requestBody"] = {
            "required": operation.request_required,
            "content": {_JSON: {"schema": schemas.of([operation.request])}},
        }
    parameters = list(_parameters(operation))
    if parameters:
        found["parameters"] = parameters
    if operation.path in OPEN_PATHS:
        found["security"] = []
    return found


def _parameters(operation: Operation) -> Iterable[dict[str, Any]]:
    for name in operation.parameters:
        yield {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    for name, effect in operation.headers.items():
        yield {"name": name, "in": "header", "description": effect, "schema": {"type": "string"}}
    if operation.query is not None:
        components = msgspec.json.schema_components([operation.query], ref_template=_REF)[1]
        for name, schema in components[operation.query.__name__]["properties"].items():
            yield {"name": name, "in": "query", "schema": schema}


def _responses(operation: Operation, error: type, schemas: _Schemas) -> dict[str, Any]:
    contents: dict[int, dict[str, Any]] = {}
    for status, answer in operation.answers.items():
        contents[status] = {answer: {}} if isinstance(answer, str) else {_JSON: {"schema": schemas.of(_kinds(answer))}}
    if operation.stream is not None:
        piece = schemas.of([operation.stream, error])  # what fails after the first piece is told as the last one
        contents[200][operation.stream_type] = {"schema": _stream(piece, operation)}
    for status in (*operation.refusals, *_common_refusals(operation)):
        contents.setdefault(status, {}).setdefault(_JSON, {"schema": schemas.of([error])})
    for status, content in _BEFORE_THE_PATH.items():
        contents[status] = contents.get(status, {}) | content
    return {
        str(status): {"description": _description(status), **({"content": content} if content else {})}
        for status, content in sorted(contents.items())
    }


def _common_refusals(operation: Operation) -> tuple[int, ...]:
    with_keys = () if operation.path in OPEN_PATHS else _WITH_KEYS
    return (*_ANYWHERE, *with_keys, *(() if operation.request is None else _WITH_BODIES))


def _stream(piece: dict[str, Any], operation: Operation) -> dict[str, Any]:
    """The schema of one piece of a stream: the object of a line, or of an event, whose data are text with JSON."""
    if operation.stream_type == _LINES:
        return piece
    text: dict[str, Any] = {"type": "string", "contentMediaType": _JSON, "contentSchema": piece}
    if operation.stream_type != _EVENTS:
        return text
    data = text if operation.stream_end is None else {"anyOf": [{"const": operation.stream_end}, text]}
    return {"type": "object", "properties": {"event": {"type": "string"}, "data": data}, "required": ["data"]}


def _description(status: int) -> str:
    return "Success" if status < 400 else "Refused" if status < 500 else "Failed"
