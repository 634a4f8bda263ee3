"""What each release can do."""

from __future__ import annotations

import inspect

import pytest

from rkllm_facts.abi import SUPPORTED, Features, Version, layout
from rkllm_facts.errors import UnknownVersion

NO, YES = False, True
ANSWERS: dict[str, tuple[int, ...]] = {
    "init_takes_callback_struct": (NO, NO, NO, NO, YES),
    "init_may_hide_failure": (YES, NO, NO, NO, NO),
    "has_n_keep": (NO, YES, YES, YES, YES),
    "has_ignore_eos_token": (NO, NO, NO, NO, YES),
    "has_embed_flash": (NO, YES, YES, YES, YES),
    "has_cpu_mask": (NO, YES, YES, YES, YES),
    "has_batch": (NO, NO, NO, YES, YES),
    "image_tags_in_param": (YES, YES, YES, YES, NO),
    "image_tags_in_input": (NO, NO, NO, NO, YES),
    "has_tokenizer_callback": (NO, NO, NO, NO, YES),
    "has_embed_callback": (NO, NO, NO, NO, YES),
    "safe_base_domain": (NO, YES, YES, YES, YES),
    "several_models_in_process": (NO, NO, NO, NO, YES),
    "has_role": (NO, NO, NO, YES, YES),
    "has_enable_thinking": (NO, NO, NO, YES, YES),
    "has_keep_history": (NO, YES, YES, YES, YES),
    "sampling_per_run": (NO, NO, NO, NO, YES),
    "max_new_tokens_per_run": (NO, NO, NO, NO, YES),
    "has_logits_mode": (NO, YES, YES, YES, YES),
    "reuses_prefix": (NO, YES, YES, YES, YES),
    "reuses_prefix_of_embeddings": (NO, NO, NO, NO, YES),
    "run_without_userdata_takes_that_of_init": (NO, NO, NO, NO, YES),
    "result_callback_returns_int": (NO, NO, NO, YES, YES),
    "callback_may_drop_output": (NO, NO, NO, NO, YES),
    "hidden_layer_has_own_state": (YES, NO, NO, NO, NO),
    "has_logits": (NO, YES, YES, YES, YES),
    "has_perf": (NO, NO, NO, YES, YES),
    "clear_kv_cache_arguments": (0, 2, 2, 4, 4),
    "has_kv_cache_size": (NO, NO, NO, YES, YES),
    "has_chat_template": (NO, YES, YES, YES, YES),
    "has_function_tools": (NO, NO, NO, YES, YES),
    "has_cross_attention": (NO, NO, NO, YES, YES),
}
"""In the order of SUPPORTED, with the version left out."""


def questions() -> dict[str, property]:
    return {name: value for name, value in vars(Features).items() if isinstance(value, property)}


def test_every_question_is_tested_and_names_its_source() -> None:
    assert list(questions()) == list(ANSWERS)
    for name, question in questions().items():
        assert "Source: " in (inspect.getdoc(question) or ""), name


@pytest.mark.parametrize("question", ANSWERS)
def test_answers(question: str) -> None:
    found = [getattr(Features(layout(name)), question) for name in SUPPORTED]
    assert found == list(ANSWERS[question])
    assert [type(one) for one in found] == [type(one) for one in ANSWERS[question]]


@pytest.mark.parametrize(
    ("version", "several_models", "embedding_prefix"),
    [("1.2.1", False, False), ("1.2.2", True, False), ("1.2.3", True, True), ("1.3.0", True, True)],
)
def test_what_differs_between_releases_of_one_layout(
    version: str, *, several_models: bool, embedding_prefix: bool
) -> None:
    features = Features.of(version)
    assert features.several_models_in_process is several_models
    assert features.reuses_prefix_of_embeddings is embedding_prefix


def test_without_a_version_the_oldest_release_counts() -> None:
    assert Features(layout("1.2.3")).version == Version(1, 2, 1)
    assert Features(layout("1.2.3"), "1.2.3").version == Version(1, 2, 3)
    assert Features.of(Version(1, 2, 3)).layout is layout("1.2.3")


@pytest.mark.parametrize("version", ["1.3.0", "1.3.1", "9.9.9", "nonsense"])
def test_a_version_of_another_layout_is_refused(version: str) -> None:
    with pytest.raises(UnknownVersion):
        Features(layout("1.2.3"), version)
