"""Reasoning that has had its tokens is ended, and the answer comes all the same."""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path

import pytest
from npu_board import SimBoard
from npu_engine import ask, running

from exo.types import Delta, Limits

SCRIPT = """
when "</think>"
text "Here it is."
otherwise
text "<think>\\n"
repeat 40 "so "
text "\\n</think>\\n\\nAt last."
"""


@pytest.fixture(params=["1.1.4", "1.2.3", "1.3.0"])
def board(request: pytest.FixtureRequest, tmp_path: Path) -> SimBoard:
    made = SimBoard(tmp_path, request.param)
    made.add_model(lm="script", script=SCRIPT, thinking=True)
    return made


async def play(board: SimBoard, **fields: object) -> tuple[str, str, Delta]:
    """Reasoning, answer and last delta."""
    async with running(board) as engine, aclosing(engine.chat(ask(**fields))) as stream:  # type: ignore[arg-type]
        deltas = [delta async for delta in stream]
    return "".join(delta.reasoning for delta in deltas), "".join(delta.text for delta in deltas), deltas[-1]


async def test_the_reasoning_ends_with_its_budget(board: SimBoard) -> None:
    free_reasoning, free_text, free = await play(board)
    assert free_text == "At last."
    assert free.usage is not None
    reasoning, text, last = await play(board, think_budget=10)
    assert text == "Here it is."
    assert free_reasoning.startswith(reasoning)
    assert last.usage is not None
    assert (last.usage.reasoning_tokens, last.finish_reason) == (10, "stop")
    assert last.usage.prompt_tokens == free.usage.prompt_tokens
    assert last.usage.completion_tokens < free.usage.completion_tokens
    assert len(board.runs()) == 3


async def test_a_model_that_reasons_again_behind_the_end_is_let_go_on(tmp_path: Path) -> None:
    board = SimBoard(tmp_path, "1.3.0")
    again = 'text "<think>\\n"\nrepeat 20 "so "\ntext "\\n</think>\\n\\nAt last."\n'
    board.add_model(lm="script", script=again, thinking=True)
    reasoning, text, last = await play(board, think_budget=5)
    assert text == "At last."
    assert reasoning.count("so") > 20
    assert last.usage is not None
    assert last.usage.reasoning_tokens > 20


async def test_a_budget_that_is_not_used_up_changes_nothing(board: SimBoard) -> None:
    *said, last = await play(board, think_budget=1000)
    *freely, free = await play(board)
    assert (said, last.usage, last.finish_reason) == (freely, free.usage, free.finish_reason)
    assert len(board.runs()) == 2


async def test_a_budget_of_nothing_switches_reasoning_off(board: SimBoard) -> None:
    reasoning, text, _ = await play(board, think_budget=0)
    assert (reasoning, text, len(board.runs())) == ("", "Here it is.", 1)


async def test_the_cap_counts_both_parts(board: SimBoard) -> None:
    _, text, last = await play(board, think_budget=10, limits=Limits(max_tokens=12))
    assert last.usage is not None
    assert (last.usage.completion_tokens, last.finish_reason) == (12, "length")
    assert "Here it is.".startswith(text)


async def test_without_tokenizer_files_the_prompt_goes_on_as_text(board: SimBoard) -> None:
    script = SCRIPT.replace('text "<think>', 'text "')  # as this family's template has it in the prompt
    board.add_model("DeepSeek-R1-1.5B", lm="script", script=script, with_tokenizer=False)
    reasoning, text, last = await play(board, model="DeepSeek-R1-1.5B", think_budget=10)
    assert (text, last.finish_reason) == ("Here it is.", "stop")
    assert reasoning.startswith("so so so")
    assert last.usage is not None
    assert last.usage.reasoning_tokens == 10
