"""A server in OpenAI's dialect for the benchmark: what it sends and how long it takes is the test's choice."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2

from exo.benchmark.results import Identity, Run, Sample, Settings

Step = bytes | float | Exception | asyncio.Event | Callable[[], None]
"""Bytes are sent, seconds pass on the clock, an exception is raised, an event is waited for, a function is called."""


@dataclass
class Clock:
    """Passes only where a test says so."""

    now: float = 100.0

    def __call__(self) -> float:
        return self.now


def event(body: object) -> bytes:
    """A server-sent event."""
    return f"data: {body if isinstance(body, str) else json.dumps(body)}\n\n".encode()


def said(text: str | None = None, *, finish: str | None = None, **delta: Any) -> bytes:
    """An event with a piece of the answer."""
    return event({"choices": [{"index": 0, "delta": {"content": text, **delta}, "finish_reason": finish}]})


def usage(prompt: int = 9, completion: int = 5, cached: int | None = None) -> bytes:
    """The event with the counted tokens."""
    details = {} if cached is None else {"prompt_tokens_details": {"cached_tokens": cached}}
    return event(
        {"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": completion, **details}},
    )


DONE = event("[DONE]")
ANSWER: tuple[Step, ...] = (0.5, said("a"), 1.0, said("b"), said(finish="stop"), usage(), DONE)


@dataclass
class MeasuredServer:
    """Answers chats with `answers`, the last one again and again; `paths` are what else it has.

    A refusal takes `refusing` seconds.
    """

    clock: Clock = field(default_factory=Clock)
    answers: list[Sequence[Step] | httpx2.Response] = field(default_factory=lambda: [ANSWER])
    paths: dict[str, Any] = field(default_factory=lambda: {"/v1/models": {"data": [{"id": "one"}]}})
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[httpx2.Headers] = field(default_factory=list)
    refusing: float = 0.0
    at_a_time: int = 0
    most_at_a_time: int = 0

    def transport(self) -> httpx2.MockTransport:
        return httpx2.MockTransport(self._answer)

    async def _answer(self, request: httpx2.Request) -> httpx2.Response:
        self.headers.append(request.headers)
        if request.url.path != "/v1/chat/completions":
            found = self.paths.get(request.url.path)
            if isinstance(found, Exception):
                raise found
            if isinstance(found, httpx2.Response):
                return found
            return httpx2.Response(404 if found is None else 200, json=found or {"error": {"message": "no such path"}})
        self.bodies.append(json.loads(await request.aread()))
        answer = self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)
        if isinstance(answer, httpx2.Response):
            self.clock.now += self.refusing
            return httpx2.Response(answer.status_code, content=answer.content)
        return httpx2.Response(200, stream=_Played(answer, self))


class _Played(httpx2.AsyncByteStream):
    def __init__(self, steps: Sequence[Step], server: MeasuredServer) -> None:
        self._steps, self._server = steps, server

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self._server.at_a_time += 1
        self._server.most_at_a_time = max(self._server.most_at_a_time, self._server.at_a_time)
        try:
            for step in self._steps:
                await asyncio.sleep(0)
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, asyncio.Event):
                    await step.wait()
                elif isinstance(step, bytes):
                    yield step
                elif callable(step):
                    step()
                else:
                    self._server.clock.now += step
        finally:
            self._server.at_a_time -= 1


def sample(name: str = "Math", **fields: Any) -> Sample:
    """Half a second to the first token, then four in two seconds."""
    usual = {"part": "prompts", "model": "one", "repeat": 0, "started": 0.0, "first_token": 0.5, "first_answer": 0.5}
    return Sample(name=name, **{**usual, "total": 2.5, "prompt_tokens": 10, "completion_tokens": 5, **fields})


def measured(samples: Sequence[Sample], *, settings: Settings | None = None, **fields: Any) -> Run:
    """A run with these samples."""
    return Run(
        exo_version="1.2.3",
        started=fields.pop("started", "2026-01-02T03:04:05+00:00"),
        complete=fields.pop("complete", True),
        settings=settings or Settings(models=tuple(dict.fromkeys(one.model for one in samples))),
        server=Identity(url="http://server", **fields),
        samples=tuple(samples),
    )
