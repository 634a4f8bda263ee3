"""What a model on disk is said to need in memory, before it is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from exo.models import StoredModel
from exo.types import ModelCard
from exo_rkllm.memory import MIB, needed
from exo_rkllm.models import NPU_CARDS
from exo_rkllm.recipe import recipe_for
from exo_rkllm.settings import NpuSettings
from rkllm_facts.architecture import known_model
from rkllm_facts.planner import calibration, plan

DOUBT = calibration().memory_doubt
QWEN = known_model("Qwen2.5-3B")
PLANNED = plan(QWEN.architecture, platform="rk3588", dtype="w8a8", context=2048)


def stored(folder: Path, *, size: int, name: str = "mine") -> StoredModel:
    """The file is as large as it says, and empty."""
    (folder / name).mkdir()
    path = folder / name / "model.rkllm"
    with path.open("wb") as file:
        file.truncate(size)
    return StoredModel(id=name, path=path, size=size, folder=folder / name)


def needs(model: StoredModel) -> int:
    recipe = recipe_for(model, ModelCard(id=model.id), NpuSettings.from_env({}))
    return recipe.with_context(2048).memory_need().total


def test_a_model_with_a_configuration_needs_what_is_planned(tmp_path: Path) -> None:
    model = stored(tmp_path, size=round(PLANNED.file_mb * MIB))
    (tmp_path / "mine/config.json").write_text(json.dumps(dict(QWEN.config)))
    assert needs(model) == pytest.approx((PLANNED.memory_mb * (1 + DOUBT) + 30) * MIB, rel=1e-6)


@pytest.mark.parametrize("name", ["qwen2.5-3b-rkllm", "Qwen2.5-3B-Instruct-rk3588-w8a8-opt-0"])
def test_a_model_that_is_known_by_its_name(tmp_path: Path, name: str) -> None:
    model = stored(tmp_path, size=round(PLANNED.file_mb * MIB), name=name)
    assert needs(model) == pytest.approx((PLANNED.memory_mb * (1 + DOUBT) + 30) * MIB, rel=1e-6)


def test_a_model_that_its_modelfile_knows(tmp_path: Path) -> None:
    model = stored(tmp_path, size=round(PLANNED.file_mb * MIB))
    (tmp_path / "mine/Modelfile").write_text('FROM model.rkllm\nHUGGINGFACE_PATH="Qwen/Qwen2.5-3B-Instruct"\n')
    assert needs(model) == pytest.approx((PLANNED.memory_mb * (1 + DOUBT) + 30) * MIB, rel=1e-6)


def test_a_configuration_counts_more_than_a_name(tmp_path: Path) -> None:
    model = stored(tmp_path, size=round(PLANNED.file_mb * MIB), name="qwen2.5-7b-rkllm")
    (tmp_path / "qwen2.5-7b-rkllm/config.json").write_text(json.dumps(dict(QWEN.config)))
    assert needs(model) == pytest.approx((PLANNED.memory_mb * (1 + DOUBT) + 30) * MIB, rel=1e-6)


@pytest.mark.parametrize(("less", "context"), [(0, 1792), (20, 1280), (50, 2048)])
def test_the_most_context_that_there_is_room_for(tmp_path: Path, less: int, context: int) -> None:
    """A Qwen2.5-3B takes 36 kB for each token. 2048 are asked for, and stay if even 512 are too many."""
    model = stored(tmp_path, size=round(PLANNED.file_mb * MIB), name="qwen2.5-3b-rkllm")
    recipe = recipe_for(model, ModelCard(id=model.id), NpuSettings.from_env({})).with_context(2048)
    room = recipe.memory_need().total - 1 - less * MIB if less < 50 else MIB
    assert recipe.that_fits(room).limits.context == context


def test_a_model_that_nobody_knows_has_a_margin(tmp_path: Path) -> None:
    model = stored(tmp_path, size=1000 * MIB)
    assert needs(model) == needed(1000 * MIB, None, 2048).total


def test_a_file_that_cannot_be_of_the_model_has_a_margin_too(tmp_path: Path) -> None:
    model = stored(tmp_path, size=1000 * MIB, name="qwen2.5-3b-rkllm")
    assert needs(model) == needed(1000 * MIB, NPU_CARDS["qwen2.5-3b-rkllm"].kv, 2048).total
