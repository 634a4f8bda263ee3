"""Names of what a batch makes."""

from __future__ import annotations

import pytest

from rkllm_converter.batch.names import default_name
from rkllm_converter.result.names import name_fault


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("Qwen/Qwen2.5-1.5B-Instruct", "qwen2.5-1.5b-instruct-rk3588-w8a8"),
        ("/models/My Model (2)/", "my-model-2-rk3588-w8a8"),
        ("/models/sub/..", "models-rk3588-w8a8"),
        ("/models/Tiny.Q4_0.GGUF", "tiny.q4_0-rk3588-w8a8"),
        ("/models/.hidden", "hidden-rk3588-w8a8"),
        ("/models/模型", "rk3588-w8a8"),
        ("/", "rk3588-w8a8"),
    ],
)
def test_a_default_name_can_be_a_models(model: str, expected: str) -> None:
    assert default_name(model, "rk3588", "w8a8") == expected
    assert name_fault(expected) is None


@pytest.mark.parametrize(
    ("name", "is_right"),
    [
        ("a", True),
        ("A.b_c:d+e-f9", True),
        ("a" * 200, True),
        ("a" * 201, False),
        ("", False),
        (".a", False),
        ("-a", False),
        ("_a", False),
        ("a/b", False),
        ("a b", False),
        ("a\n", False),
        ("é", False),
        ("a.partial", False),
        ("Auto", False),
        ("auto-1", True),
    ],
)
def test_which_names_rkllama_takes(name: str, is_right: bool) -> None:  # noqa: FBT001 - a parameter of the cases
    assert (name_fault(name) is None) is is_right
