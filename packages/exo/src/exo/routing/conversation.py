"""Follow-up turns: a conversation stays with its model unless its task changes."""

from __future__ import annotations

from dataclasses import dataclass

from exo.routing.cues import PhraseIndex
from exo.routing.judgement import Judge, Judgement
from exo.routing.passages import Sentence
from exo.routing.rules import FollowUps
from exo.routing.text import has_ideographs, length_in_words, simplified, words_of
from exo.types import Message, ModelRole

_LONGEST = 300
"""Characters of a message that only goes on with what was said before."""


@dataclass(frozen=True, slots=True)
class Turns:
    """The messages of a user, the newest last. `answered`: there were answers before the newest of them.

    `under_way`: the newest message of all is not the user's, such as the result of a tool.
    """

    messages: tuple[str, ...]
    answered: bool
    under_way: bool


def turns_of(messages: tuple[Message, ...]) -> Turns:
    spoken = [message for message in messages if message.role != "system"]
    users = [number for number, message in enumerate(spoken) if message.role == "user"]
    newest = users[-1] if users else len(spoken)
    return Turns(
        tuple(spoken[number].content for number in users),
        answered=any(message.role == "assistant" for message in spoken[:newest]),
        under_way=newest < len(spoken) - 1 or not users,
    )


class FollowUpFinder:
    """Says which role a conversation is in, and when that changes."""

    def __init__(self, rules: FollowUps, judge: Judge) -> None:
        self._rules = rules
        self._judge = judge
        self._index = PhraseIndex((phrase, True) for phrase in (*rules.words, *rules.also))

    def goes_on(self, text: str) -> bool:
        """Whether a message makes sense only with what was said before: "shorter please"."""
        if len(text) > _LONGEST or length_in_words(text) > self._rules.short:
            return False
        plain = simplified(text)
        sentence = Sentence(plain, words_of(plain), is_question=False, weight=1.0, ideographs=has_ideographs(plain))
        return any(hit.at <= 1 for hit in self._index.hits(sentence))

    def changes(self, text: str, judged: Judgement, before: ModelRole) -> bool:
        """Whether the newest message, judged by itself, is clearly of another role than the conversation was."""
        needed = self._rules.to_quick if before == "reasoning" else self._rules.to_reasoning
        return judged.role != before and abs(judged.lead) >= needed and not self.goes_on(text)

    def replayed(self, messages: tuple[str, ...]) -> ModelRole | None:
        """The role after these messages of a user, None without any."""
        role: ModelRole | None = None
        for text in messages[-self._rules.replayed :]:
            judged = self._judge.judge(text)
            if role is None or self.changes(text, judged, role):
                role = judged.role
        return role
