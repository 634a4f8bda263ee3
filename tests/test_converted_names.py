"""A folder that rkllm-convert takes for a model's is one that a store serves, by its name."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from exo.models.store import is_model_name
from rkllm_converter.result.names import name_fault

PIECES = st.sampled_from(
    ["a", "Z", "0", *"._:+-/ \n\0\x7f", "é", "٣", "auto", "AUTO", ".partial", ".Partial", "a" * 195]
)


@given(st.text() | st.lists(PIECES, max_size=8).map("".join))
@example("a" * 200)
@example("a" * 201)
@example("Auto")
@example("a.partial")
@example("a\n")
def test_both_have_one_rule_for_names(name: str) -> None:
    fault = name_fault(name)
    assert (fault is None) is is_model_name(name)
    assert fault is None or fault.endswith(".")
