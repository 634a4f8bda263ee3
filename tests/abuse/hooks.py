"""What schemathesis needs to know of the node. Loaded by it, in its own environment, which has nothing of exo."""

from __future__ import annotations

import json
import os
from typing import Any

import jsonschema_rs
import schemathesis

MODEL = os.environ["ABUSE_MODEL"]
"""A model that can be asked. Nearly all requests name it, else nothing but their model would ever be refused."""
NAMES = ("model", "model_name", "source", "from")
DELETING = frozenset({"/api/delete", "/rm"})
"""Paths that name another one."""
DRAIN = "/v1/drain"
"""Whose true has every later request refused."""
_TALK: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello"}]}
ASKED: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": _TALK,
    "/v1/completions": {"prompt": "Hello"},
    "/v1/embeddings": {"input": ["Hello", "you"]},
    "/v1/responses": {"input": "Hello"},
    "/v1/messages": _TALK | {"max_tokens": 8},
    "/v1/messages/count_tokens": _TALK,
    "/api/chat": _TALK,
    "/api/generate": {"prompt": "Hello"},
    "/api/embed": {"input": ["Hello", "you"]},
    "/api/embeddings": {"prompt": "Hello"},
    "/generate": _TALK,
}
"""What every second request to these paths asks, so that answers are seen, whole and streamed, not only refusals."""
HOW = ("n", "echo", "max_tokens", "stop", "temperature", "store", "metadata", "think")
"""The fields that such a request keeps of what was generated."""
_LINES = frozenset({"application/x-ndjson", "text/plain"})


def map_body(context: Any, body: Any) -> Any:
    path = context.operation.path
    if not isinstance(body, dict):
        return body
    number = len(json.dumps(body))
    if path in ASKED and number % 2:
        kept = {name: body[name] for name in HOW if name in body}
        body = ASKED[path] | kept | {"model": MODEL, "stream": number % 4 == 1}
    if path == DRAIN and isinstance(body.get("drain"), bool):
        return body | {"drain": False}
    if path in DELETING:
        return body | {name: "nobody" for name in ("model", "name") if isinstance(body.get(name), str)}
    return body | {name: MODEL for name in NAMES if isinstance(body.get(name), str)}


def map_path_parameters(context: Any, path_parameters: Any) -> Any:
    return path_parameters | {"model": MODEL} if "model" in (path_parameters or {}) else path_parameters


def every_line_fits(context: Any, response: Any, case: Any) -> None:
    """The objects of a stream that come on lines of their own; streams of events schemathesis reads itself."""
    document = case.operation.schema.raw_schema
    answers = document["paths"][case.operation.path][case.operation.method.lower()]["responses"]
    content_type = response.headers.get("content-type", [""])[0].partition(";")[0]
    schema = answers.get(str(response.status_code), {}).get("content", {}).get(content_type, {}).get("schema")
    if schema is None or content_type not in _LINES:
        return
    schema = {**schema.get("contentSchema", schema), "components": document["components"]}
    validator = jsonschema_rs.validator_for(schema)
    for line in filter(None, response.content.decode().splitlines()):
        wrong = next(validator.iter_errors(json.loads(line)), None)
        assert wrong is None, f"{line}: {wrong}"


schemathesis.hook(map_body)
schemathesis.hook(map_path_parameters)
schemathesis.check(every_line_fits)
