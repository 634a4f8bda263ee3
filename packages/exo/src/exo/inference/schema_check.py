"""Checks texts against a JSON Schema, in a process that can be ended: a schema may be made to take for ever.

Run as a program of its own it reads lines of JSON, first the schema, then texts, and answers each with a line:
`{"refused": why}` for what is no schema, else `{"problem": what is wrong, or nothing}`. It imports nothing of exo.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Callable
from typing import Any

_CPU_SECONDS = 2
_MEMORY = 1 << 28
_LONGEST_REASON = 300


def main() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_SECONDS, _CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    check: Callable[[Any], str] | None = None
    for line in sys.stdin:
        try:
            if check is None:
                check = checker(json.loads(line))
                check(None)  # what cannot be followed shows with any value
                answer = {"problem": ""}
            else:
                answer = {"problem": problem_of(json.loads(line), check)}
        except Exception as error:  # noqa: BLE001 - the library raises anything for a schema that nobody has thought of
            answer = {"refused": _reason(error)[:_LONGEST_REASON]}
        print(json.dumps(answer), flush=True)  # noqa: T201 - the node reads it


def checker(schema: dict[str, Any]) -> Callable[[Any], str]:
    """What says of a value where it does not fit; nothing if it does. Raises whatever the library does."""
    from jsonschema import validators  # noqa: PLC0415 - not in the node's own process
    from referencing import Registry  # noqa: PLC0415 - as above

    kind = validators.validator_for(schema, default=validators.Draft202012Validator)
    kind.check_schema(schema)
    validator = kind(schema, registry=Registry())  # an empty one: nothing is fetched for a $ref

    def check(value: Any) -> str:
        error = next(iter(validator.iter_errors(value)), None)
        return "" if error is None else f"At {error.json_path}: {error.message[:_LONGEST_REASON]}."

    return check


def _reason(error: Exception) -> str:
    """Errors about a schema tell where in it they are, and add the whole of it to their text."""
    message, path = getattr(error, "message", None), getattr(error, "json_path", None)
    return f"at {path}, {message}" if message and path else f"{type(error).__name__}: {error}"


def problem_of(text: str, check: Callable[[Any], str]) -> str:
    """What is wrong with a text; nothing if it fits."""
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        return f"It is not JSON: {error}."
    return check(value)


def object_problem(value: Any) -> str:
    """The check for "any JSON object"."""
    return "" if isinstance(value, dict) else "It is JSON, but no object."


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


if __name__ == "__main__":
    main()
