"""Answers in OpenAI's dialect, for everything that asks a server in it.

They are read leniently: a field that is missing or null is empty.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import msgspec

from exo.types import Delta, FinishReason, Timings, TokenChance, TokenLogprob, ToolCallDelta, Usage

_FINISH_REASONS: Mapping[str, FinishReason] = {
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
}
"""Whatever else a server says, the model has ended its answer."""
_UNLIKELY = -9999.0
"""What OpenAI writes for a probability of zero, whose logarithm JSON has no number for."""
Byte = Annotated[int, msgspec.Meta(ge=0, le=255)]


class FunctionPiece(msgspec.Struct):
    """`arguments` is JSON text, or a fragment of it; some servers send the object itself."""

    name: str | None = None
    arguments: Any = None


class ToolCallPiece(msgspec.Struct):
    """A piece of a call, or a whole one. Servers leave out what they do not need."""

    index: int | None = None
    id: str | None = None
    function: FunctionPiece | None = None


class WireChance(msgspec.Struct):
    """A token and its probability, `bytes` being those of its text."""

    token: str | None = None
    logprob: float | None = None
    bytes: Sequence[Byte] | None = None
    top_logprobs: Sequence[WireChance] | None = None


class WireLogprobs(msgspec.Struct):
    """Chats have `content`, as do the raw completions of llama.cpp; those of others have the lists."""

    content: Sequence[WireChance] | None = None
    tokens: Sequence[str] | None = None
    token_logprobs: Sequence[float | None] | None = None
    top_logprobs: Sequence[Mapping[str, float | None] | None] | None = None


class Piece(msgspec.Struct):
    """What is added to an answer. Servers have two names for what the model reasons."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: Sequence[ToolCallPiece] | None = None


class Choice(msgspec.Struct):
    """One of the answers; `message` stands for `delta` where a server does not stream, `text` continues a prompt.

    `logprobs` is what `logprobs_of` reads.
    """

    finish_reason: str | None = None
    delta: Piece | None = None
    message: Piece | None = None
    text: str | None = None
    logprobs: Any = None

    @property
    def said(self) -> tuple[str, str]:
        """The text and the reasoning of this piece."""
        piece = self.delta or self.message
        if piece is None:
            return self.text or "", ""
        return piece.content or self.text or "", piece.reasoning_content or piece.reasoning or ""

    @property
    def finish(self) -> FinishReason | None:
        """Why the answer ends, None while it does not."""
        return _FINISH_REASONS.get(self.finish_reason, "stop") if self.finish_reason else None


class PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None


class CompletionDetails(msgspec.Struct):
    reasoning_tokens: int | None = None


class WireUsage(msgspec.Struct):
    """Counted tokens."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None


class WireTimings(msgspec.Struct):
    """Milliseconds, which llama.cpp and exo add to the last piece; the load only exo.

    llama.cpp adds them to each piece if it is asked to: then `predicted_n` counts the tokens of the answer up to there.
    """

    predicted_n: int = 0
    prompt_ms: float = 0.0
    predicted_ms: float = 0.0
    load_ms: float = 0.0


class Verbose(msgspec.Struct):
    """What llama.cpp tells of the end of an answer if it is asked to be verbose."""

    stop_type: str | None = None
    stopping_word: str | None = None


class Chunk(msgspec.Struct):
    """One event of a streamed answer."""

    choices: list[Choice] | None = None
    usage: WireUsage | None = None
    timings: WireTimings | None = None
    error: Any = None
    verbose: Verbose | None = msgspec.field(default=None, name="__verbose")


class AnswerReader:
    """Reads one answer, chunk by chunk. `logprobs` as in ChatRequest."""

    def __init__(self, logprobs: int | None) -> None:
        self.finish: FinishReason | None = None
        self.usage: WireUsage | None = None
        self.timings: WireTimings | None = None
        self.lacks_logprobs = False
        """There was text, and never a probability, although they were asked for."""
        self._logprobs = logprobs
        self._was_told = False
        self._calls = ToolCallReader()
        self._reasoning_tokens = 0
        self._stop: str | None = None

    def read(self, chunk: Chunk) -> Iterator[Delta]:
        """What a chunk adds: a delta for each choice that adds something."""
        for choice in chunk.choices or ():
            text, reasoning = choice.said
            calls = self._calls.read(choice)
            chances = () if self._logprobs is None else logprobs_of(choice, self._logprobs)
            self._note(text, chances)
            if reasoning and chunk.timings is not None:
                self._reasoning_tokens = chunk.timings.predicted_n
            if text or reasoning or calls or chances:
                yield Delta(text=text, reasoning=reasoning, tool_calls=calls, logprobs=chances)
            self.finish = choice.finish or self.finish
        if chunk.verbose is not None and chunk.verbose.stop_type == "word":
            self._stop = chunk.verbose.stopping_word
        self.usage = chunk.usage or self.usage
        self.timings = chunk.timings or self.timings

    def last(self) -> Delta:
        """The last delta.

        There are servers that say `stop` behind a call. llama.cpp does not count the tokens of reasoning: they are all
        up to its last piece, as far as the pieces tell.
        """
        finish, usage = self.finish or "stop", usage_of(self.usage)
        if self._reasoning_tokens and not usage.reasoning_tokens:
            usage = msgspec.structs.replace(
                usage, reasoning_tokens=min(self._reasoning_tokens, usage.completion_tokens)
            )
        return Delta(
            finish_reason="tool_calls" if self._calls.count and finish == "stop" else finish,
            stop=self._stop,
            usage=usage,
            timings=timings_of(self.timings),
        )

    def _note(self, text: str, chances: tuple[TokenLogprob, ...]) -> None:
        self._was_told = self._was_told or bool(chances)
        asked = self._logprobs is not None
        self.lacks_logprobs = asked and not self._was_told and (self.lacks_logprobs or bool(text))


class ToolCallReader:
    """Reads the calls of one answer, piece by piece.

    A call gets an id if the server gives none. `count` is how many have begun.
    """

    def __init__(self) -> None:
        self.count = 0
        self._places: dict[int, int] = {}
        self._ids: list[str | None] = []

    def read(self, choice: Choice) -> tuple[ToolCallDelta, ...]:
        """What a choice adds."""
        said = choice.delta or choice.message
        return self.add((said and said.tool_calls) or ())

    def add(self, pieces: Sequence[ToolCallPiece]) -> tuple[ToolCallDelta, ...]:
        """What pieces add: id and name of a call come first and alone, its arguments follow as they come."""
        return tuple(delta for piece in pieces for delta in self._deltas(piece))

    def _deltas(self, piece: ToolCallPiece) -> Iterator[ToolCallDelta]:
        function = piece.function or FunctionPiece()
        place = self._place_of(piece, function)
        if place is None:
            place = self._begin(piece)
            yield ToolCallDelta(index=place, id=piece.id or new_call_id(), name=function.name or "")
        if text := arguments_text(function.arguments):
            yield ToolCallDelta(index=place, arguments=text)

    def _place_of(self, piece: ToolCallPiece, function: FunctionPiece) -> int | None:
        """The call that a piece goes on with, None for a new one.

        There are servers that give every call the same index, that give none, and that repeat a call's id and name.
        """
        if piece.index is None:
            return self.count - 1 if self.count and not function.name else None
        place = self._places.get(piece.index)
        if place is None or not function.name or not piece.id or piece.id == self._ids[place]:
            return place
        return None

    def _begin(self, piece: ToolCallPiece) -> int:
        place = self.count
        self.count += 1
        self._ids.append(piece.id)
        if piece.index is not None:
            self._places[piece.index] = place
        return place


def new_call_id() -> str:
    """An id for a call that came without one."""
    return f"call_{secrets.token_hex(12)}"


def arguments_text(arguments: Any) -> str:
    """Arguments as JSON text: as it is, or of the object that came in its place; empty for none."""
    if arguments is None or isinstance(arguments, str):
        return arguments or ""
    return msgspec.json.encode(arguments).decode()


def logprobs_of(choice: Choice, others: int) -> tuple[TokenLogprob, ...]:
    """The probabilities that come with a piece, each with at most so many others; none where nobody can read them."""
    try:
        told = msgspec.convert(choice.logprobs, WireLogprobs)
    except msgspec.ValidationError:  # null, or a number in its place
        return ()
    if told.content is not None:
        return tuple(token_logprob(chance, others) for chance in told.content)
    listed = itertools.zip_longest(told.tokens or (), told.token_logprobs or (), told.top_logprobs or ())
    return tuple(
        token_logprob(WireChance(token, logprob, top_logprobs=_most_likely(tops or {})), others)
        for token, logprob, tops in listed
    )


def token_logprob(told: WireChance, others: int) -> TokenLogprob:
    """A token, and at most so many others in its place. Ollama's dialect has the same shape."""
    return TokenLogprob(chosen=_chance(told), top=tuple(map(_chance, (told.top_logprobs or ())[:others])))


def _chance(told: WireChance) -> TokenChance:
    """Bytes count before the text, which servers fill with other signs where the bytes are no UTF-8 alone."""
    text = told.token or ""
    raw = text.encode(errors="surrogatepass")
    if told.bytes:
        raw = bytes(told.bytes)
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            text = ""
    return TokenChance(text=text, logprob=_UNLIKELY if told.logprob is None else told.logprob, raw=raw)


def _most_likely(told: Mapping[str, float | None]) -> list[WireChance]:
    """The others of a raw completion, which have no order there."""
    chances = [WireChance(token, logprob) for token, logprob in told.items()]
    return sorted(chances, key=lambda chance: _UNLIKELY if chance.logprob is None else chance.logprob, reverse=True)


def usage_of(usage: WireUsage | None) -> Usage:
    """The counts; 0 for what a server does not count."""
    if usage is None:
        return Usage()
    prompt, completion = usage.prompt_tokens_details, usage.completion_tokens_details
    return Usage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        cached_tokens=(prompt and prompt.cached_tokens) or 0,
        reasoning_tokens=(completion and completion.reasoning_tokens) or 0,
    )


def timings_of(timings: WireTimings | None) -> Timings | None:
    """The durations in seconds, None where a server tells none."""
    if timings is None:
        return None
    return Timings(load=timings.load_ms / 1000, prefill=timings.prompt_ms / 1000, decode=timings.predicted_ms / 1000)
