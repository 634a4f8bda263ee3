"""Continuing raw prompts: OpenAI's request to ours, and our answer to OpenAI's."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from typing import ClassVar

from msgspec import UNSET

from exo.api.answering import EVENT_STREAM, StreamWriter, WholeWriter
from exo.api.errors import openai_error
from exo.api.fields import refuse_unsupported
from exo.api.openai.answer import FINGERPRINT, encode, error_body, event, last_events, new_id
from exo.api.openai.answer_schema import TextChoiceOut, TextCompletion
from exo.api.openai.choices import ChoicesCollector, ChoicesWriter
from exo.api.openai.counts import timings_out, usage_out
from exo.api.openai.fields import COMPLETIONS
from exo.api.openai.logprobs import TextLogprobsWriter
from exo.api.openai.schema import CompletionRequestIn
from exo.api.openai.shared import limits_of, repeated, sampling_of, texts_of
from exo.inference import Answer
from exo.types import (
    CompletionRequest,
    Delta,
    ExoError,
    FinishReason,
    InvalidRequest,
    TokenLogprob,
    UnsupportedParameter,
)

MAX_CHOICES = 128


def completion_requests(wire: CompletionRequestIn, *, model: str, request_id: str) -> list[CompletionRequest]:
    """The internal requests, one for each choice: those of the first prompt, then those of the next.

    Raises InvalidRequest, and UnsupportedParameter for what cannot be honoured.
    """
    refuse_unsupported(wire, COMPLETIONS)
    count = wire.n or 1
    if wire.best_of not in (None, 1, count):
        raise UnsupportedParameter("best_of can be 1 or n here: every answer that is made is sent.", param="best_of")
    if wire.echo and wire.logprobs is not None:
        raise UnsupportedParameter(
            "echo cannot be honoured together with logprobs: those of the prompt are not known.", param="echo"
        )
    prompts = texts_of(wire.prompt, param="prompt", most=MAX_CHOICES)
    if len(prompts) * count > MAX_CHOICES:
        raise InvalidRequest(
            f"{len(prompts)} prompts with n = {count} are {len(prompts) * count} answers; at most {MAX_CHOICES} are "
            "made for one request.",
            param="n",
        )
    requests = [
        CompletionRequest(
            id=request_id,
            model=model,
            prompt=prompt,
            sampling=sampling_of(wire),
            limits=limits_of(wire, wire.max_tokens),
            logprobs=wire.logprobs,
        )
        for prompt in prompts
    ]
    return [choice for request in requests for choice in repeated(request, count)]


def text_collector(model: str, echoes: Sequence[str]) -> WholeWriter:
    """What gathers an answer of as many choices as there are `echoes`, with which their texts begin."""
    collectors = [TextCollector(model, index, echo) for index, echo in enumerate(echoes)]
    if len(collectors) == 1:
        return collectors[0]
    make_body = functools.partial(_completion, model)
    return ChoicesCollector(collectors, make_body=make_body, make_error=error_body)


def text_writer(model: str, echoes: Sequence[str], *, include_usage: bool) -> StreamWriter:
    """What makes the events of as many choices as there are `echoes`, with which their texts begin."""
    piece = TextCompletion(
        id=new_id("cmpl"),
        created=int(time.time()),
        model=model,
        choices=[],
        system_fingerprint=FINGERPRINT,
        usage=None if include_usage else UNSET,
    )
    writers = [TextWriter(piece, index, echo) for index, echo in enumerate(echoes)]
    return writers[0] if len(writers) == 1 else ChoicesWriter(writers)


class TextCollector:
    """Gathers the deltas of a choice that is not streamed."""

    def __init__(self, model: str, index: int = 0, echo: str = "") -> None:
        self._model = model
        self._index = index
        self._text = [echo]
        self._logprobs: list[TokenLogprob] = []
        self._finish: FinishReason = "stop"

    def add(self, delta: Delta) -> None:
        self._text.append(delta.text)
        self._logprobs.extend(delta.logprobs)
        self._finish = delta.finish_reason or self._finish

    def choice(self) -> TextChoiceOut:
        logprobs = TextLogprobsWriter().write(self._logprobs) if self._logprobs else None
        text = "".join(self._text)
        return TextChoiceOut(index=self._index, text=text, logprobs=logprobs, finish_reason=self._finish)

    def body(self, answer: Answer) -> bytes:
        return _completion(self._model, [self.choice()], answer)

    def error(self, error: ExoError) -> bytes:
        return error_body(error)


def _completion(model: str, choices: Sequence[TextChoiceOut], answer: Answer) -> bytes:
    return encode(
        TextCompletion(
            id=new_id("cmpl"),
            created=int(time.time()),
            model=model,
            choices=list(choices),
            usage=usage_out(answer.usage),
            timings=timings_out(answer),
            system_fingerprint=FINGERPRINT,
        )
    )


class TextWriter:
    """Makes the events of one choice: its text, a last one with the finish reason, and the usage if it was asked for.

    `piece` is what all events share.
    """

    content_type: ClassVar[bytes] = EVENT_STREAM

    def __init__(self, piece: TextCompletion, index: int = 0, echo: str = "") -> None:
        self._piece = piece
        self._index = index
        self._echo = echo
        self._logprobs = TextLogprobsWriter()
        # Pieces with nothing but text differ in that text only, so the rest is encoded once.
        self._head, self._tail = self._event("\0").split(b'"\\u0000"')

    def first(self) -> bytes:
        return self._event(self._echo) if self._echo else b""

    def delta(self, delta: Delta) -> bytes:
        """The events of one delta; may be empty."""
        if delta.text and not (delta.logprobs or delta.finish_reason):
            return self._head + encode(delta.text) + self._tail
        if delta.text or delta.logprobs or delta.finish_reason:
            return self._event(delta.text, delta.finish_reason, delta.logprobs)
        return b""

    def last(self, answer: Answer) -> bytes:
        return last_events(self._piece, answer)

    def error(self, error: ExoError) -> bytes:
        """The event that ends a stream which cannot be completed; [DONE] does not follow it."""
        return event(openai_error(error))

    def _event(self, text: str, finish: FinishReason | None = None, logprobs: Sequence[TokenLogprob] = ()) -> bytes:
        written = self._logprobs.write(logprobs) if logprobs else None
        self._piece.choices = [TextChoiceOut(index=self._index, text=text, logprobs=written, finish_reason=finish)]
        return event(self._piece)
