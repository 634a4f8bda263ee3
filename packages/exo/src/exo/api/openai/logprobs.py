"""The probabilities of tokens, in the shape of chat and in the older one of completions."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from exo.api.openai.answer_schema import ChanceOut, ChoiceLogprobs, LogprobOut, TextLogprobs
from exo.types import TokenChance, TokenLogprob

LEAST = -9999.0
"""OpenAI's value for a probability that is as good as none; JSON has no infinity."""


def chat_logprobs(tokens: Sequence[TokenLogprob]) -> ChoiceLogprobs:
    return ChoiceLogprobs(content=[_token(token) for token in tokens])


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


def _token(token: TokenLogprob) -> LogprobOut:
    chosen = token.chosen
    return LogprobOut(
        token=_name(chosen),
        logprob=_finite(chosen.logprob),
        bytes=list(_bytes(chosen)),
        top_logprobs=[
            ChanceOut(token=_name(other), logprob=_finite(other.logprob), bytes=list(_bytes(other)))
            for other in token.top
        ],
    )


def _name(chance: TokenChance) -> str:
    """The token's text, or for one that holds a part of a character its bytes as OpenAI writes them: `\\xe2\\x82`."""
    return chance.text or "".join(f"\\x{byte:02x}" for byte in chance.raw)


def _bytes(chance: TokenChance) -> bytes:
    return chance.raw or chance.text.encode()


def _finite(logprob: float) -> float:
    return max(LEAST, logprob)  # in this order also for what is no number
