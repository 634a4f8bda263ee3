"""What kind of task a text is, and which role of a model it calls for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from exo.routing.cues import Hit, PhraseIndex
from exo.routing.passages import Sentence, Weights, passages_of
from exo.routing.rules import Cue, Rules, Shape
from exo.routing.shapes import Label, ShapeFinder, labelled_words
from exo.routing.text import bounded, simplified, words_of
from exo.types import ModelRole

_HEAD_CHARACTERS = 14
"""Of a sentence in ideographs; what it says at its very end counts as well."""
_TAIL_CHARACTERS = 8
_CLAUSE_CHARACTERS = 4
_ERRAND: frozenset[Shape] = frozenset({"brief", "pasted"})
"""Few words and a text that was brought along: something is to be done with it."""
_NO_ERRAND: frozenset[Shape] = frozenset({"question", "code"})
_CLAUSE = re.compile(r"[,;:\u2013\u2014](?!\d)|\s-\s")


@dataclass(frozen=True, slots=True)
class Counted:
    """A cue or a shape that counted for a kind; a negative weight speaks against it. A shape has no `phrases`."""

    kind: str
    cue: str
    weight: float
    phrases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Judgement:
    """`lead` is by how much the reasoning kinds are ahead of the quick ones, beyond the threshold."""

    kind: str
    role: ModelRole
    lead: float
    counted: tuple[Counted, ...] = ()


@dataclass(frozen=True, slots=True)
class _Owner:
    kind: str
    name: str
    cue: Cue


@dataclass(frozen=True, slots=True)
class _Weighted:
    """A phrase of a cue in the sentence `number`, and how much it counts there."""

    number: int
    owner: int
    phrase: str
    factor: float


class Judge:
    """Judges texts by rules."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._shapes = ShapeFinder(rules.shapes)
        self._skipped = frozenset(rules.text.skipped)
        owners = [
            _Owner(kind, name, cue)
            for kind, table in rules.kinds.items()
            for name, cue in table.cues.items()
            if cue.weight
        ]
        self._index: PhraseIndex[int | Label] = PhraseIndex(
            [
                *(
                    (phrase, number)
                    for number, owner in enumerate(owners)
                    for phrase in (*owner.cue.words, *owner.cue.also)
                ),
                *labelled_words(rules.shapes),
            ]
        )
        self._owners = owners
        written_out = {short: words_of(simplified(long)) for short, long in rules.text.written_out.items()}
        self._weights = Weights(rules.text.middle, rules.text.payload, written_out)

    def judge(self, text: str) -> Judgement:
        text = bounded(text, self._rules.text.end)
        passages = passages_of(text, self._weights)
        sentences = (*passages.asked, *passages.brought)
        found = [tuple(self._index.hits(sentence)) for sentence in sentences]
        asked = len(passages.asked)
        shapes = self._shapes.shapes_of(text, passages, _labels(found[:asked]), _labels(found[asked:]))
        hits = list(self._weighted(sentences, found, shapes))
        claimed = self._claimed(hits, shapes, len(passages.asked))
        counted = [*self._cues_in(hits, claimed), *self._kinds_by_shape(shapes, claimed)]
        scores = {name: kind.bias for name, kind in self._rules.kinds.items()}
        for item in counted:
            scores[item.kind] += item.weight
        return self._weighed(scores, tuple(counted))

    def _claimed(self, hits: list[_Weighted], shapes: frozenset[Shape], asked: int) -> set[int]:
        """The numbers of the sentences that say what is to be done with a text; the first `asked` are not of it.

        Where a text was brought along, a cue further on in its sentence will do unless reasoning is asked for in full.
        """
        own = [(hit, self._owners[hit.owner]) for hit in hits if hit.number < asked]
        reasoning = [(hit, owner) for hit, owner in own if owner.cue.weight > 0 and self._role_of(owner) == "reasoning"]
        least = 1.0
        if "pasted" in shapes and not any(owner.cue.head and hit.factor == 1.0 for hit, owner in reasoning):
            least = self._rules.text.elsewhere
        claimed = {hit.number for hit, owner in own if owner.cue.claims and hit.factor >= least}
        if "code" in shapes and "pasted" not in shapes:
            claimed -= {hit.number for hit, owner in reasoning if owner.cue.head and hit.factor == 1.0}
        if claimed or reasoning or not shapes >= _ERRAND or not shapes.isdisjoint(_NO_ERRAND):
            return claimed
        return set(range(asked)) if any(owner.cue.weight > 0 for _, owner in own) else claimed

    def _role_of(self, owner: _Owner) -> ModelRole:
        return self._rules.kinds[owner.kind].role

    def _weighed(self, scores: dict[str, float], counted: tuple[Counted, ...]) -> Judgement:
        reasoning = self._of_role(scores, "reasoning")
        quick = self._of_role(scores, "quick")
        lead = reasoning - quick - self._rules.text.threshold
        role: ModelRole = "reasoning" if lead > 0 else "quick"
        kinds = [name for name, kind in self._rules.kinds.items() if kind.role == role]
        return Judgement(max(kinds or scores, key=scores.__getitem__), role, lead, counted)

    def _of_role(self, scores: dict[str, float], role: ModelRole) -> float:
        own = sorted((scores[name] for name, kind in self._rules.kinds.items() if kind.role == role), reverse=True)
        if not own:
            return 0.0
        return own[0] + self._rules.text.pool * sum(score for score in own[1:] if score > 0)

    def _kinds_by_shape(self, shapes: frozenset[Shape], claimed: set[int]) -> Iterator[Counted]:
        factor = self._rules.text.claimed if claimed else 1.0
        for name, kind in self._rules.kinds.items():
            for shape, weight in kind.shapes.items():
                if shape in shapes and weight:
                    yield Counted(name, shape, round(weight * factor, 2))

    def _cues_in(self, hits: list[_Weighted], claimed: set[int]) -> Iterator[Counted]:
        best: dict[int, dict[str, float]] = {}
        for hit in hits:
            factor = hit.factor if not claimed or hit.number in claimed else hit.factor * self._rules.text.claimed
            phrases = best.setdefault(hit.owner, {})
            phrases[hit.phrase] = max(factor, phrases.get(hit.phrase, 0.0))
        for number in sorted(best):
            owner = self._owners[number]
            strongest = sorted(best[number].items(), key=lambda item: -item[1])[: owner.cue.most]
            weight = owner.cue.weight * sum(factor for _, factor in strongest)
            yield Counted(owner.kind, owner.name, round(weight, 2), tuple(phrase for phrase, _ in strongest))

    def _weighted(
        self, sentences: Sequence[Sentence], found: Sequence[Iterable[Hit[int | Label]]], shapes: frozenset[Shape]
    ) -> Iterator[_Weighted]:
        for number, (sentence, hits) in enumerate(zip(sentences, found)):
            heads: tuple[int, ...] | None = None
            for hit in hits:
                if isinstance(hit.owner, str):
                    continue
                cue = self._owners[hit.owner].cue
                if not (shapes.issuperset(cue.given) and shapes.isdisjoint(cue.unless)):
                    continue
                factor = sentence.weight
                if cue.head:
                    heads = heads or self._heads_of(sentence)
                    factor *= self._share_of_head(cue, hit, sentence, heads)
                if factor > 0:
                    yield _Weighted(number, hit.owner, hit.phrase, factor)

    def _share_of_head(self, cue: Cue, hit: Hit[int | Label], sentence: Sentence, heads: tuple[int, ...]) -> float:
        if self._is_at_head(hit, sentence, heads, cue.within or self._rules.text.head):
            return 1.0
        return self._rules.text.elsewhere if cue.elsewhere is None else cue.elsewhere

    def _heads_of(self, sentence: Sentence) -> tuple[int, ...]:
        """The numbers of the words with which its clauses begin, those that are merely polite not counted."""
        heads, at = [], 0
        clauses = _CLAUSE.split(sentence.text)
        for clause in clauses:
            words = words_of(clause) if len(clauses) > 1 else sentence.words
            polite = next((number for number, word in enumerate(words) if word not in self._skipped), 0)
            heads.append(at + polite)
            at += len(words)
        return tuple(heads)

    def _is_at_head(self, hit: Hit[int | Label], sentence: Sentence, heads: tuple[int, ...], near: int) -> bool:
        if hit.is_ideographs:
            clause = _CLAUSE.split(sentence.text[: hit.at])[-1]
            first = len(clause) == hit.at
            return (
                len(clause) < (_HEAD_CHARACTERS if first else _CLAUSE_CHARACTERS)
                or hit.at > len(sentence.text) - _TAIL_CHARACTERS
            )
        # German says what is to be done with the last word of a sentence.
        return (
            (near > 1 and hit.at == len(sentence.words) - 1)
            or any(
                head <= hit.at < head + (1 if number else near)
                for number, head in enumerate(heads[: 1 if near == 1 else None])
            )
            or hit.at < heads[0]
        )


def _labels(found: Iterable[Iterable[Hit[int | Label]]]) -> Counter[Label]:
    return Counter(hit.owner for hits in found for hit in hits if isinstance(hit.owner, str))
