from __future__ import annotations

import pytest

from exo.models import cards_by_id
from exo.types import ModelCard, ThinkingMarkers
from exo_rkllm.models import NPU_CARDS, RKLLM_MODELS, RKLLM_PRETTY_NAMES, npu_card

LAYERS = {
    "qwen2.5-1.5b-rkllm": 28,
    "qwen2.5-1.5b-instruct-rkllm": 28,
    "qwen2.5-3b-rkllm": 36,
    "qwen2.5-7b-rkllm": 28,
    "deepseek-r1-1.5b-rkllm": 28,
    "phi-3-mini-rkllm": 32,
}
MAKERS = {"Qwen", "deepseek-ai", "microsoft"}


def cards() -> dict[str, ModelCard]:
    found, problems = cards_by_id([("exo-rkllm", RKLLM_MODELS)])
    assert problems == []
    return found


def test_the_node_accepts_every_card() -> None:
    assert {card.id: card.layers for card in cards().values()} == LAYERS
    assert set(RKLLM_PRETTY_NAMES) == set(NPU_CARDS) == set(LAYERS)
    assert {card.id: card.display_name for card in cards().values()} == dict(RKLLM_PRETTY_NAMES)


def test_every_card_is_complete() -> None:
    for card in cards().values():
        assert card.parameters > 1_000_000_000
        assert card.licence
        assert card.family == NPU_CARDS[card.id].family


def test_the_context_is_what_files_are_converted_with() -> None:
    assert {card.context_length for card in cards().values()} == {4096}


def test_no_card_names_a_stranger() -> None:
    """What a card names could be pulled: it is the makers' repository, whose tokenizer the model needs."""
    for card in cards().values():
        assert card.files == {"RKLLMInferenceEngine": NPU_CARDS[card.id].tokenizer}
        assert card.files["RKLLMInferenceEngine"].split("/")[0] in MAKERS


def test_only_the_reasoning_model_thinks() -> None:
    thinking = {
        card.id: (card.role, card.thinking) for card in cards().values() if card.thinking or card.role != "quick"
    }
    assert thinking == {"deepseek-r1-1.5b-rkllm": ("reasoning", ThinkingMarkers(open="<think>", close="</think>"))}
    assert NPU_CARDS["deepseek-r1-1.5b-rkllm"].max_new_tokens == 8192


def test_padding_is_beyond_the_vocabulary() -> None:
    card = NPU_CARDS["deepseek-r1-1.5b-rkllm"]
    assert 151_664 < card.vocabulary <= 151_935


@pytest.mark.parametrize("model_id", LAYERS)
def test_the_geometry_fits_the_card(model_id: str) -> None:
    card = NPU_CARDS[model_id]
    assert card.kv.layers == LAYERS[model_id]
    assert card.kv.bytes_per_position == 2 * 2 * card.kv.layers * card.kv.kv_heads * card.kv.head_dim


@pytest.mark.parametrize(
    ("name", "tokenizer", "model_id"),
    [
        ("deepseek-r1-1.5b-rkllm", "", "deepseek-r1-1.5b-rkllm"),
        ("DeepSeek-R1-1.5B", "", "deepseek-r1-1.5b-rkllm"),
        ("qwen2.5-1.5b-INSTRUCT", "", "qwen2.5-1.5b-instruct-rkllm"),
        ("Qwen2.5-7B-Instruct", "microsoft/Phi-3-mini-4k-instruct", "qwen2.5-7b-rkllm"),
        ("my-own-name", "microsoft/phi-3-mini-4k-instruct", "phi-3-mini-rkllm"),
    ],
)
def test_a_card_is_found_by_folder_or_tokenizer(name: str, tokenizer: str, model_id: str) -> None:
    assert npu_card(name, tokenizer) is NPU_CARDS[model_id]


@pytest.mark.parametrize(("name", "tokenizer"), [("my-own-name", ""), ("", ""), ("gemma", "google/gemma-2-2b-it")])
def test_what_is_not_known_has_no_card(name: str, tokenizer: str) -> None:
    assert npu_card(name, tokenizer) is None
