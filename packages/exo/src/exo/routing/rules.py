"""The rules of the automatic choice, as they stand in rules.toml."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec

from exo.types import ModelRole

Shape = Literal[
    "short",
    "long",
    "question",
    "statements",
    "numbers",
    "many-numbers",
    "quantities",
    "detailed",
    "brief",
    "told",
    "exclaimed",
    "numbers-and-question",
    "story",
    "conditions",
    "formula",
    "mathematical",
    "sum",
    "code",
    "call",
    "data",
    "pasted",
    "list",
]
"""What a prompt looks like, see exo.routing.shapes."""
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Factor = Annotated[float, msgspec.Meta(ge=0.1, le=100)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=1_000_000)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Words = tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=100)], ...]


class Cue(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Phrases that speak for a kind of task.

    `also` are further phrases, for a file that adds to the packaged one. `head`: counts in full at the beginning of a
    sentence only, that is `within` so many words of it, and by the factor `elsewhere` further on; TextRules has both
    for cues without their own. `claims`: says what is to be done with a text, whose own words then hardly count. Up to
    `most` different phrases count. `given` and `unless` are shapes that the prompt must have, or must not.
    """

    weight: float
    words: Words
    also: Words = ()
    head: bool = False
    within: Annotated[int, msgspec.Meta(ge=1, le=50)] | None = None
    elsewhere: Share | None = None
    claims: bool = False
    most: Annotated[int, msgspec.Meta(ge=1, le=10)] = 1
    given: tuple[Shape, ...] = ()
    unless: tuple[Shape, ...] = ()


class Kind(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A kind of task, and which role of a model it calls for."""

    role: ModelRole
    bias: float = 0.0
    shapes: Mapping[Shape, float] = {}
    cues: Mapping[str, Cue] = {}


class TextRules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the words of a prompt count. `end` characters are read from the beginning, and as many from the end.

    The factors: `elsewhere` for a cue of heads further on in its sentence, `middle` for sentences between the first and
    the last, `payload` for a text that was brought along, `claimed` for all other sentences once a cue claims the text.
    `pool` is how much of the weaker kinds of a role is added to its strongest. `threshold` is by how much the reasoning
    kinds have to be ahead, `margin` how close to it a decision counts as weak. `written_out` says what abbreviations
    stand for.
    """

    end: Annotated[int, msgspec.Meta(ge=100, le=100_000)]
    head: Annotated[int, msgspec.Meta(ge=1, le=50)]
    elsewhere: Share
    middle: Share
    payload: Share
    claimed: Share
    pool: Share
    threshold: float
    margin: NotNegative
    skipped: Words
    written_out: Mapping[str, str] = {}


class ShapeRules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From when on a prompt has a shape. Lengths are in words, two Chinese characters are one."""

    short: Count
    long: Count
    numbers: Count
    many_numbers: Count
    statements: Count
    conditions: Count
    detailed: Count
    brief: Count
    quantities: Count
    condition_words: Words
    number_words: Words
    units: Words
    how_many: Words
    mathematical_words: Words
    personal_words: Words
    question_words: Words
    request_words: Words


class Signals(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a request says besides its text.

    `quick_max_tokens`: with fewer tokens a reasoning model could not end its thinking. `quick_think_budget` as well.
    `quick_deadline` is in seconds, compared with the time limit of the node where a request has none. `tools` and
    `format` are what is added to the quick side of the scale.
    """

    quick_max_tokens: Count
    quick_think_budget: Count
    quick_deadline: NotNegative
    tools: float
    format: float


class FollowUps(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a conversation changes its model.

    `to_reasoning` and `to_quick`: how far ahead the other role must be for that. `short`: messages of at most that many
    words stay if they begin with one of `words`. `replayed`: how many earlier messages are looked at if nobody knows
    the model of before.
    """

    to_reasoning: NotNegative
    to_quick: NotNegative
    short: Count
    replayed: Annotated[int, msgspec.Meta(ge=1, le=20)]
    words: Words
    also: Words = ()


class Cost(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`seconds_per_request`: how long a request that waits is taken to need, where nothing was measured; `load_seconds`
    likewise for a load. `answer_tokens` is the length of an answer that no limit cuts off. `characters_per_token` is of
    ASCII text, `characters_per_token_elsewhere` of all other letters that are no ideographs.
    """

    loads_per_request: Annotated[float, msgspec.Meta(ge=0, le=1000)]
    load_burst: Annotated[int, msgspec.Meta(ge=0, le=1000)]
    idle_seconds_per_load: Annotated[float, msgspec.Meta(ge=1)]
    load_seconds: Seconds
    seconds_per_request: Seconds
    answer_tokens: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
    tokens_per_s: Annotated[float, msgspec.Meta(ge=0.01, le=1_000_000)]
    reasoning_factor: Factor
    characters_per_token: Factor
    characters_per_token_elsewhere: Factor
    tokens_per_ideograph: Factor


class Rules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of them. `roles` are by patterns of models' ids, `*` being anything; the last pattern that fits counts."""

    text: TextRules
    shapes: ShapeRules
    signals: Signals
    follow_ups: FollowUps
    cost: Cost
    roles: Mapping[str, ModelRole]
    kinds: Annotated[Mapping[str, Kind], msgspec.Meta(min_length=1)]
