"""/openapi.json, and /docs: the same document as one plain page without scripts."""

from __future__ import annotations

import functools
from html import escape
from typing import Any

from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from exo.api.endpoint import Endpoint
from exo.api.exchange import send_bytes, send_json
from exo.api.extension import Extension
from exo.api.openapi import document

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h2 { border-top: 1px solid #ccc; padding-top: 1rem; font-size: 1.1rem; }
code { font-family: ui-monospace, monospace; }
.method { background: #264; color: #fff; border-radius: .25rem; padding: .1rem .4rem; text-transform: uppercase; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
td, th { border: 1px solid #ddd; padding: .25rem .5rem; text-align: left; vertical-align: top; }
@media (prefers-color-scheme: dark) { body { background: #181818; color: #ddd; } td, th, h2 { border-color: #444; } }
"""
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title><style>{style}</style></head>
<body><h1>{title} {version}</h1><p>{description} Also as an <a href="/openapi.json">OpenAPI document</a>.</p>
{operations}
<h1>Types</h1>
{types}
</body></html>
"""


class Docs:
    """The endpoints, as ASGI applications. Both documents are made at the first request."""

    def __init__(self, extension: Extension) -> None:
        self._document = functools.cache(functools.partial(document, extension))
        self._page = functools.cache(lambda: render(self._document()).encode())

    def routes(self) -> list[Route]:
        return [
            Route("/openapi.json", Endpoint(self.openapi), methods=["GET"]),
            Route("/docs", Endpoint(self.page), methods=["GET"]),
        ]

    async def openapi(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's shape
        await send_json(send, 200, self._document())

    async def page(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's shape
        await send_bytes(send, 200, self._page(), b"text/html; charset=utf-8")


def render(doc: dict[str, Any]) -> str:
    """An OpenAPI document as HTML."""
    operations = [
        _operation(method, path, operation) for path, item in doc["paths"].items() for method, operation in item.items()
    ]
    types = [_type(name, schema) for name, schema in doc["components"]["schemas"].items()]
    return _PAGE.format(
        title=escape(doc["info"]["title"]),
        version=escape(doc["info"]["version"]),
        description=escape(doc["info"]["description"]),
        style=_STYLE,
        operations="\n".join(operations),
        types="\n".join(types),
    )


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    lines = [f'<h2><span class="method">{method}</span> <code>{escape(path)}</code></h2>']
    lines.append(f"<p>{escape(operation['summary'])}</p><ul>")
    lines += [f"<li>{_parameter(parameter)}</li>" for parameter in operation.get("parameters", ())]
    body = operation.get("requestBody", {}).get("content", {})
    lines += [f"<li>request: {_shape(media.get('schema', {}))}</li>" for media in body.values()]
    answers: dict[str, list[str]] = {}
    for status, answer in operation["responses"].items():
        content = answer.get("content", {})
        shapes = [f"{escape(kind)} {_shape(media.get('schema', {}))}".strip() for kind, media in content.items()]
        answers.setdefault(" or ".join(shapes) or "nothing", []).append(status)
    lines += [f"<li>{', '.join(statuses)}: {shapes}</li>" for shapes, statuses in answers.items()]
    return "".join(lines) + "</ul>"


def _parameter(parameter: dict[str, Any]) -> str:
    effect = f": {escape(parameter['description'])}" if "description" in parameter else ""
    return f"{parameter['in']} <code>{escape(parameter['name'])}</code> {_shape(parameter['schema'])}{effect}"


def _type(name: str, schema: dict[str, Any]) -> str:
    required = set(schema.get("required", ()))
    rows = [
        f"<tr><td><code>{escape(field)}</code></td><td>{_shape(shape)}</td>"
        f"<td>{'required' if field in required else ''}</td></tr>"
        for field, shape in schema.get("properties", {}).items()
    ]
    note = f"<p>{escape(schema['description'])}</p>" if "description" in schema else ""
    return f'<h2 id="{escape(name)}">{escape(name)}</h2>{note}<table>{"".join(rows)}</table>'


def _shape(schema: dict[str, Any]) -> str:
    """A schema in a few words, with links to named types."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    inner = schema.get("contentSchema") or schema.get("properties", {}).get("data")  # the data of a stream's event
    if inner is not None:
        return _shape(inner)
    if "anyOf" in schema:
        return " or ".join(_shape(choice) for choice in schema["anyOf"])
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if values is not None:
        return escape(", ".join(str(value) or "(empty)" for value in values))
    words = escape(str(schema.get("type", "")))
    items = _shape(schema.get("items", {})) if schema.get("type") == "array" else ""
    if items:
        words += f" of {items}"
    limits = [f"{sign} {schema[key]}" for key, sign in _LIMITS if key in schema]
    return f"{words} {escape(', '.join(limits))}".strip()


_LIMITS = (
    ("minimum", "≥"),
    ("exclusiveMinimum", ">"),
    ("maximum", "≤"),
    ("minItems", "items ≥"),
    ("maxItems", "items ≤"),
)
