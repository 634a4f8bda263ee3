from __future__ import annotations

import re

from exo.inference.plugins import BUILTIN_ENGINES
from exo.models import cards_by_id
from exo.models.builtin import BUILTIN_MODELS
from exo.models.pull import WheelFile


def test_the_built_in_cards_fit_together() -> None:
    cards, problems = cards_by_id([("exo", BUILTIN_MODELS)])
    assert cards == BUILTIN_MODELS
    assert problems == []


def test_each_built_in_file_can_be_pulled_and_checked() -> None:
    for card in BUILTIN_MODELS.values():
        assert set(card.files) <= set(BUILTIN_ENGINES)
        assert all("==" in WheelFile.parse(source).requirement for source in card.files.values()), "a pinned version"
        assert re.fullmatch(r"[0-9a-f]{64}", card.sha256)
        assert card.licence
