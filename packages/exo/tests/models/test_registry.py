from __future__ import annotations

from typing import Any

import pytest

from exo.models import card_from_short_shape, cards_by_id
from exo.types import ModelCard, PluginError


def test_the_short_shape() -> None:
    card = card_from_short_shape("qwen", {"layers": 28, "repo": {"RKLLMInferenceEngine": "hub/repo"}})
    assert card == ModelCard(id="qwen", layers=28, files={"RKLLMInferenceEngine": "hub/repo"})


def test_the_short_shape_takes_every_field_of_a_card() -> None:
    entry = {"family": "qwen2", "aliases": ["q"], "thinking": {"open": "<t>"}, "role": "reasoning", "files": {"e": "f"}}
    card = card_from_short_shape("qwen", entry)
    assert (card.family, card.aliases, card.role, card.files) == ("qwen2", ("q",), "reasoning", {"e": "f"})
    assert card.thinking is not None
    assert (card.thinking.open, card.thinking.close) == ("<t>", "</think>")


def test_the_entry_of_a_plugin_is_left_as_it_was() -> None:
    entry: dict[str, Any] = {"repo": {"e": "f"}}
    card_from_short_shape("m", entry)
    assert entry == {"repo": {"e": "f"}}


@pytest.mark.parametrize(
    ("entry", "word"),
    [
        ({"layer": 28}, "layer"),
        ({"layers": "28"}, "layers"),
        ({"role": "poet"}, "poet"),
        ({"repo": "hub/repo"}, "files"),
    ],
)
def test_what_does_not_fit_is_named(entry: dict[str, Any], word: str) -> None:
    with pytest.raises(PluginError, match="model 'm'") as caught:
        card_from_short_shape("m", entry)
    assert word in caught.value.message


def test_cards_of_several_sources_come_together() -> None:
    ready = ModelCard(id="b", aliases=("bee",))
    cards, problems = cards_by_id([("one", {"a": {"layers": 1}}), ("two", {"b": ready})])
    assert cards == {"a": ModelCard(id="a", layers=1), "b": ready}
    assert problems == []


@pytest.mark.parametrize(
    "later",
    [ModelCard(id="a"), ModelCard(id="x", aliases=("a",)), ModelCard(id="ay"), ModelCard(id="x", aliases=("y", "ay"))],
)
def test_the_first_source_of_a_name_keeps_it(later: ModelCard) -> None:
    first = ModelCard(id="a", aliases=("ay",))
    cards, problems = cards_by_id([("one", {"a": first}), ("two", {later.id: later, "free": {}})])
    assert cards == {"a": first, "free": ModelCard(id="free")}
    (problem,) = problems
    assert problem.startswith("two: ")
    assert problem.endswith("a model of one.")


def test_the_aliases_of_a_refused_card_stay_free() -> None:
    refused = ModelCard(id="a", aliases=("nick",))
    cards, problems = cards_by_id([("one", {"a": {}}), ("two", {"a": refused}), ("three", {"nick": {}})])
    assert list(cards) == ["a", "nick"]
    assert len(problems) == 1


GARBAGE: list[Any] = [5, None, "text", ["list"], {1: "x"}, {1: "x", "b": "y"}, {"layers": 1.5}, object()]


@pytest.mark.parametrize("entry", GARBAGE, ids=lambda entry: type(entry).__name__)
def test_garbage_is_left_out_and_named(entry: Any) -> None:
    cards, problems = cards_by_id([("plugin", {"bad": entry, "good": {}})])
    assert list(cards) == ["good"]
    assert len(problems) == 1
    assert problems[0].startswith("plugin: ")
    assert "'bad'" in problems[0]
