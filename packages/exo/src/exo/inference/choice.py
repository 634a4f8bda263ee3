"""What the automatic choice of a model knows and says. The choice itself is made elsewhere, see exo.routing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import msgspec

from exo.types import ChatRequest, CompletionRequest, ModelCard
from exo.types.card import ModelRole


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A model that can be served now.

    `context` is what it is served with, in tokens, 0 if that is not known. `load_seconds` and `tokens_per_s` are what
    was seen here last, None before that.
    """

    card: ModelCard
    context: int = 0
    loaded: bool = False
    load_seconds: float | None = None
    tokens_per_s: float | None = None


class Situation(msgspec.Struct, frozen=True, kw_only=True):
    """The state of the node that a choice depends on.

    `candidates` is never empty; the default model is the first. `waiting` counts the requests that run or wait, by
    model. `previous` is the model that answered this conversation before, empty if there is none or nobody remembers.
    `may_load` is False while the choice has caused as many loads as it may.
    """

    candidates: tuple[Candidate, ...]
    waiting: Mapping[str, int] = {}
    previous: str = ""
    may_load: bool = True


class ModelChoice(msgspec.Struct, frozen=True, kw_only=True):
    """A decision. `role` is what the request calls for, even if no candidate has it.

    `rule` is the name of what decided, one of few: lower-case letters, digits and hyphens. `reason` is a sentence in
    ASCII, of at most 200 characters, without text of the request. `others` are to be tried, in their order, if `model`
    cannot be loaded. `fallback_from` is the model that should have answered and could not be loaded.
    """

    model: str
    role: ModelRole
    rule: str
    reason: str
    others: tuple[str, ...] = ()
    fallback_from: str = ""


class ModelChooser(Protocol):
    """Chooses the model of a request for `auto`.

    `loads_per_request` is how many loads of models it may cause for each request that it decides, `load_burst` how many
    it may save up. A node that has nothing to do saves up one in each `idle_seconds_per_load` as well. `role_of` is the
    role that a model has for the choice.
    """

    @property
    def loads_per_request(self) -> float: ...
    @property
    def load_burst(self) -> int: ...
    @property
    def idle_seconds_per_load(self) -> float: ...
    def role_of(self, card: ModelCard) -> ModelRole: ...
    def choose(self, request: ChatRequest | CompletionRequest, situation: Situation) -> ModelChoice: ...
