"""The probabilities of tokens, in the shape of chat and in the older one of completions."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from exo.api.openai.answer_schema import ChanceOut, ChoiceLogprobs, LogprobOut, TextLogprobs
from exo.types import Delta, TokenChance, TokenLogprob

LEAST = -9999.0
"""OpenAI's value for a probability that is as good as none; JSON has no infinity."""


def of_text(delta: Delta) -> Sequence[TokenLogprob]:
    """The probabilities of what belongs to the text of a chat's answer: not those of reasoning and of calls."""
    return delta.logprobs if delta.text or not (delta.reasoning or delta.tool_calls) else ()


def chat_logprobs(tokens: Sequence[TokenLogprob]) -> ChoiceLogprobs:
    return ChoiceLogprobs(content=[logprob_out(token) for token in tokens])


def logprob_out(token: TokenLogprob) -> LogprobOut:
    chosen = _chance(token.chosen)
    return LogprobOut(
        token=chosen.token,
        logprob=chosen.logprob,
        bytes=chosen.bytes,
        top_logprobs=[_chance(other) for other in token.top],
    )


class TextLogprobsWriter:
    """Makes the older shape, where each token knows its place in the whole text."""

    def __init__(self) -> None:
        self._offset = 0
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode

    def write(self, tokens: Sequence[TokenLogprob]) -> TextLogprobs:
        """The next tokens of the text."""
        made = TextLogprobs(tokens=[], token_logprobs=[], top_logprobs=[], text_offset=[])
        for token in tokens:
            name, logprob = _name(token.chosen), _finite(token.chosen.logprob)
            made.tokens.append(name)
            made.token_logprobs.append(logprob)
            made.top_logprobs.append({_name(other): _finite(other.logprob) for other in token.top} | {name: logprob})
            made.text_offset.append(self._offset)
            self._offset += len(self._decode(_bytes(token.chosen)))
        return made


def _chance(chance: TokenChance) -> ChanceOut:
    return ChanceOut(token=_name(chance), logprob=_finite(chance.logprob), bytes=list(_bytes(chance)))


def _name(chance: TokenChance) -> str:
    """The token's text, or for one that holds a part of a character its bytes as OpenAI writes them: `\\xe2\\x82`."""
    return chance.text or "".join(f"\\x{byte:02x}" for byte in chance.raw)


def _bytes(chance: TokenChance) -> bytes:
    return chance.raw or chance.text.encode()


def _finite(logprob: float) -> float:
    return max(LEAST, logprob)  # in this order also for what is no number
