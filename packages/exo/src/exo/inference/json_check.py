"""Whether a text is JSON that fits a schema."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any

from exo.inference import schema_check
from exo.types import InvalidRequest

Check = Callable[[str], Awaitable[str]]
"""Says what is wrong with a text, as a sentence; nothing if it fits."""

_TIMEOUT = 10.0
_LONGEST_LINE = 1 << 20
_LARGEST_SCHEMA = 1 << 16
"""Characters. Some are told to the model, whose context is smaller; of others llama.cpp makes a grammar, which holds up
all its answers, and takes minutes for one with 100,000 names."""


@contextlib.asynccontextmanager
async def checking(schema: Mapping[str, Any] | None, *, param: str) -> AsyncGenerator[Check, None]:
    """The check of texts against a JSON Schema, without one for any JSON object.

    A schema may take long, or all memory, and so it is followed in a process of its own. Raises InvalidRequest about
    the field `param` for a schema that is none, or that cannot be followed.
    """
    if schema is None:
        yield _problem_of_object
        return
    refuse_large(schema, param=param)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        schema_check.__file__,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        limit=_LONGEST_LINE,
    )
    try:
        await _exchange(process, schema, param)

        async def check(text: str) -> str:
            return (await _exchange(process, text, param))["problem"]

        yield check
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def refuse_large(schema: Mapping[str, Any], *, param: str) -> None:
    """Raises InvalidRequest about the field `param` for a schema that nobody here should work on."""
    if len(json.dumps(schema)) > _LARGEST_SCHEMA:
        raise InvalidRequest(f"The schema has over {_LARGEST_SCHEMA} characters.", param=param)


async def _problem_of_object(text: str) -> str:
    return schema_check.problem_of(text, schema_check.object_problem)


async def _exchange(process: asyncio.subprocess.Process, value: Any, param: str) -> dict[str, str]:
    """One line there and one back. Raises InvalidRequest for what the process refuses, or does not survive."""
    assert process.stdin is not None  # noqa: S101 - for mypy: both are pipes
    assert process.stdout is not None  # noqa: S101 - as above
    line = b""
    with contextlib.suppress(ConnectionError, asyncio.TimeoutError, ValueError):  # the last: a line that never ends
        process.stdin.write(json.dumps(value).encode() + b"\n")
        await process.stdin.drain()
        line = await asyncio.wait_for(process.stdout.readline(), _TIMEOUT)
    answer: dict[str, str] = (
        json.loads(line) if line else {"refused": "it takes too long, or too much memory, to check"}
    )
    if "refused" in answer:
        raise InvalidRequest(f"The schema cannot be used: {answer['refused']}.", param=param)
    return answer
