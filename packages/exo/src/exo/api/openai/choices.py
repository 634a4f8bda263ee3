"""Several answers to one request, as one stream."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import ClassVar, Generic, Protocol, TypeVar

import msgspec

from exo.api.answering import EVENT_STREAM, StreamWriter
from exo.inference import Answer
from exo.inference.automatic import OPEN_MODEL
from exo.inference.caller import current_caller
from exo.types import ChatRequest, CompletionRequest, Delta, ExoError, InvalidRequest, Timings, Usage

Ask = Callable[[], Awaitable[Answer]]
ChoiceT = TypeVar("ChoiceT")
Open = TypeVar("Open", ChatRequest, CompletionRequest)
"""A request that may leave its model open."""
ChoiceT_co = TypeVar("ChoiceT_co", covariant=True)
_AHEAD = 16
"""How many deltas may wait for a client that reads slowly, before the engine has to wait for it too."""


def joined(asks: Sequence[Ask], *, for_each_prompt: int) -> Ask:
    """What asks for all of them at the same time; a single one is left as it is. Arguments as for Choices.

    Raises InvalidRequest for more than the caller may ever have at the same time.
    """
    if len(asks) == 1:
        return asks[0]
    caller = current_caller()
    if caller.requests is not None and len(asks) > caller.requests:
        raise InvalidRequest(
            f"This request is for {len(asks)} answers, of which the key {caller.name!r} may have {caller.requests} at "
            "once. Ask for fewer.",
            param="n",
        )
    return Choices(asks, for_each_prompt=for_each_prompt).begin


def of_one_model(ask: Callable[[Open], Awaitable[Answer]], requests: Sequence[Open]) -> list[Ask]:
    """What asks for each of them, all of the same model: where it is open, the first one's answer decides it."""
    if len(requests) == 1 or requests[0].model != OPEN_MODEL:
        return [functools.partial(ask, request) for request in requests]
    known: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def lead() -> Answer:
        answer = await ask(requests[0])
        known.set_result(answer.model)
        return answer

    async def follow(request: Open) -> Answer:
        """If the first one fails, that is the failure of all, and cancels this."""
        return await ask(msgspec.structs.replace(request, model=await asyncio.shield(known)))

    return [lead, *(functools.partial(follow, request) for request in requests[1:])]


class ChoiceDelta(Delta, frozen=True, kw_only=True):
    """A piece of the choice `index`. Of its other fields it has what an Answer counts, and no finish reason."""

    index: int
    piece: Delta


class Choices:
    """Asks for several answers at the same time. A choice is the answer to one of `asks`, in their order.

    The first refusal or failure of any of them is that of all, and ends the others. `for_each_prompt` is how many
    choices in a row have the same prompt: its tokens count once.
    """

    def __init__(self, asks: Sequence[Ask], *, for_each_prompt: int) -> None:
        self._asks = asks
        self._for_each_prompt = for_each_prompt
        self._answers: dict[int, Answer] = {}
        self._failures: list[Exception] = []
        self._deltas: asyncio.Queue[ChoiceDelta | None] = asyncio.Queue(_AHEAD)

    async def begin(self) -> Answer:
        """An answer whose deltas are each a ChoiceDelta, but for the last one: it has the usage of all choices."""
        joined = Answer(self._joined(), on_end=lambda _: None)
        await joined.begin()
        first = next(iter(self._answers.values()))
        joined.model, joined.choice = first.model, first.choice
        return joined

    async def _joined(self) -> AsyncGenerator[Delta, None]:
        tasks = [
            asyncio.create_task(self._play(index, ask), name=f"choice {index}") for index, ask in enumerate(self._asks)
        ]
        left = len(tasks)
        try:
            while left:
                delta = await self._deltas.get()
                if self._failures:
                    raise self._failures[0]
                if delta is None:
                    left -= 1
                else:
                    yield delta
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        yield Delta(finish_reason="stop", usage=self._usage(), timings=self._timings())

    async def _play(self, index: int, ask: Ask) -> None:
        """Put the deltas of one choice into the queue, and None behind the last."""
        try:
            async with contextlib.aclosing(await ask()) as answer:
                self._answers[index] = answer
                async for delta in answer:
                    await self._deltas.put(_of_choice(index, delta))
        except Exception as error:  # noqa: BLE001 - raised again by _joined
            self._failures.append(error)
        await self._deltas.put(None)

    def _usage(self) -> Usage:
        first, every = self._firsts(), self._answers.values()
        return Usage(
            prompt_tokens=sum(answer.usage.prompt_tokens for answer in first),
            cached_tokens=sum(answer.usage.cached_tokens for answer in first),
            completion_tokens=sum(answer.usage.completion_tokens for answer in every),
            reasoning_tokens=sum(answer.usage.reasoning_tokens for answer in every),
        )

    def _timings(self) -> Timings:
        first, every = self._firsts(), self._answers.values()
        return Timings(
            load=max(answer.timings.load for answer in every),
            prefill=sum(answer.timings.prefill for answer in first),
            decode=sum(answer.timings.decode for answer in every),
        )

    def _firsts(self) -> list[Answer]:
        """The first answer to each prompt."""
        return [answer for index, answer in self._answers.items() if index % self._for_each_prompt == 0]


def _of_choice(index: int, delta: Delta) -> ChoiceDelta:
    return ChoiceDelta(
        index=index,
        piece=delta,
        text=delta.text,
        reasoning=delta.reasoning,
        tool_calls=delta.tool_calls,
        sampling=delta.sampling,
    )


class ChoicesWriter:
    """Makes the events of a stream of choices; `writers` has one for each, all of the same answer."""

    content_type: ClassVar[bytes] = EVENT_STREAM

    def __init__(self, writers: Sequence[StreamWriter]) -> None:
        self._writers = writers

    def first(self) -> bytes:
        return b"".join(writer.first() for writer in self._writers)

    def delta(self, delta: Delta) -> bytes:
        return self._writers[delta.index].delta(delta.piece) if isinstance(delta, ChoiceDelta) else b""

    def last(self, answer: Answer) -> bytes:
        return self._writers[0].last(answer)

    def error(self, error: ExoError) -> bytes:
        return self._writers[0].error(error)


class ChoiceCollector(Protocol[ChoiceT_co]):
    """Gathers the deltas of one choice that is not streamed."""

    def add(self, delta: Delta) -> None: ...
    def choice(self) -> ChoiceT_co: ...


class ChoicesCollector(Generic[ChoiceT]):
    """Gathers choices that are not streamed; `make_body` makes one JSON body of them all."""

    def __init__(
        self,
        collectors: Sequence[ChoiceCollector[ChoiceT]],
        *,
        make_body: Callable[[list[ChoiceT], Answer], bytes],
        make_error: Callable[[ExoError], bytes],
    ) -> None:
        self._collectors = collectors
        self._make_body = make_body
        self.error = make_error

    def add(self, delta: Delta) -> None:
        if isinstance(delta, ChoiceDelta):
            self._collectors[delta.index].add(delta.piece)

    def body(self, answer: Answer) -> bytes:
        return self._make_body([collector.choice() for collector in self._collectors], answer)
