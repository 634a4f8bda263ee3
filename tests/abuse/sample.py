"""Values that fit a schema of an OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from random import Random
from typing import Any

_LIKELY = 0.25
"""How likely a field comes that may be left out."""
_DEEPEST = 6


def sample(schema: Mapping[str, Any], document: Mapping[str, Any], random: Random, depth: int = 0) -> Any:
    """A value that fits the schema, short and not nested more than it has to be."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return sample(document["components"]["schemas"][name], document, random, depth)
    if "anyOf" in schema:
        return sample(random.choice(schema["anyOf"]), document, random, depth)
    if "const" in schema or "enum" in schema:
        return random.choice(schema.get("enum", [schema.get("const")]))
    kind = schema.get("type")
    if kind == "object":
        return _object(schema, document, random, depth + 1)
    if kind == "array":
        return _array(schema, document, random, depth + 1)
    least = schema.get("minimum", schema.get("exclusiveMinimum", 0))
    plain: dict[Any, Any] = {
        "string": "Hello",
        "integer": int(least) + 1,
        "number": least + 0.5,
        "boolean": random.random() < 0.5,
    }
    return plain.get(kind)


def _object(schema: Mapping[str, Any], document: Mapping[str, Any], random: Random, depth: int) -> dict[str, Any]:
    required = schema.get("required", ())
    return {
        name: sample(shape, document, random, depth)
        for name, shape in schema.get("properties", {}).items()
        if name in required or (depth < _DEEPEST and random.random() < _LIKELY)
    }


def _array(schema: Mapping[str, Any], document: Mapping[str, Any], random: Random, depth: int) -> list[Any]:
    if "prefixItems" in schema:
        return [sample(shape, document, random, depth) for shape in schema["prefixItems"]]
    if depth > _DEEPEST or not isinstance(schema.get("items"), Mapping):
        return []
    return [sample(schema["items"], document, random, depth) for _ in range(max(1, schema.get("minItems", 0)))]


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a value where another one can be put: the object or list, and the name or number in it."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in list(items):
        yield value, name
        yield from places(inner)
