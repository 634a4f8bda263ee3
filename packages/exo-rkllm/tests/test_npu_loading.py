"""Which models the engine has in memory, and with how much context."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

import pytest
from npu_board import SimBoard
from npu_engine import answer, ask, running, until

from exo.types import ContextOverflow, InsufficientMemory, ModelLoadError


@pytest.fixture
def board(tmp_path: Path) -> SimBoard:
    return SimBoard(tmp_path)


async def test_a_model_that_was_converted_for_less_context_gets_what_it_can_have(board: SimBoard) -> None:
    (board.add_model(context=1024).parent / "Modelfile").unlink()
    async with running(board) as engine:
        with pytest.raises(ContextOverflow) as caught:
            await answer(engine, ask("x" * 1100))
        assert caught.value.context_tokens == 1024
        assert (await answer(engine, ask()))[0]


async def test_more_context_than_the_model_has_is_a_failed_load_if_somebody_asked_for_it(board: SimBoard) -> None:
    board.add_model(context=1024, modelfile="NUM_CTX=2048\n")
    async with running(board) as engine:
        with pytest.raises(ModelLoadError, match="at most 1024 tokens: NUM_CTX in its Modelfile is greater"):
            await engine.load("m")


async def test_an_idle_model_is_unloaded(board: SimBoard) -> None:
    board.add_model()
    async with running(board, RKLLM_KEEP_ALIVE="100ms") as engine:
        await answer(engine, ask())
        assert engine.loaded() == ["m"]
        await until(lambda: not engine.loaded())
        await until(lambda: bool(board.calls("rkllm_destroy")))
        assert (await answer(engine, ask()))[0], "and comes back when it is asked"


async def test_a_model_in_use_is_not_idle(board: SimBoard) -> None:
    board.add_model(answer=(40, 40), decode_ms=10)
    async with running(board, RKLLM_KEEP_ALIVE="100ms") as engine:
        text, _ = await answer(engine, ask())
        assert len(text.split()) == 40
        assert len(board.calls("rkllm_init")) == 1


async def test_a_model_can_be_kept_for_ever(board: SimBoard) -> None:
    board.add_model()
    async with running(board, RKLLM_KEEP_ALIVE="-1") as engine:
        await answer(engine, ask())
        assert engine.resident()[0].expires_in == math.inf


def give_memory(board: SimBoard, mib: float) -> None:
    (board.root / "proc").mkdir(exist_ok=True)
    (board.root / "proc" / "meminfo").write_text(f"MemTotal: 8000000 kB\nMemAvailable: {int(mib * 1024)} kB\n")


async def test_a_model_that_does_not_fit_is_refused_with_the_numbers(board: SimBoard) -> None:
    board.add_model()
    give_memory(board, 100)
    async with running(board) as engine:
        with pytest.raises(InsufficientMemory, match=r"only 100 MiB are available") as caught:
            await engine.load("m")
        assert caught.value.needed > caught.value.available == 100 << 20
        assert board.calls() == []
    async with running(board, RKLLM_MEMORY_CHECK="no") as engine:
        await engine.load("m")


@pytest.mark.parametrize("asked", ["", "NUM_CTX=4096\n"])
async def test_context_that_nobody_asked_for_gives_way_to_short_memory(board: SimBoard, asked: str) -> None:
    folder = board.add_model(modelfile=asked).parent
    if not asked:
        (folder / "Modelfile").unlink()
    (folder / "config.json").write_text('{"num_hidden_layers": 10, "num_attention_heads": 10, "head_dim": 128}')
    give_memory(board, 200)  # 50 kB for each token, and the margin of 128 MB
    async with running(board) as engine:
        if asked:
            with pytest.raises(InsufficientMemory):
                await engine.load("m")
            return
        await engine.load("m")
        context = (await engine.describe("m")).context_length
        assert context is not None
        assert 1024 <= context < 2048
        assert context % 256 == 0


@pytest.mark.slow
async def test_an_idle_model_makes_room_and_a_busy_one_does_not(board: SimBoard) -> None:
    for name in "abc":
        board.add_model(name, answer=(100, 100), decode_ms=10)
    give_memory(board, 200)
    async with running(board) as engine:
        await engine.load("a")
        await engine.load("b")
        give_memory(board, 10)
        busy = asyncio.ensure_future(answer(engine, ask(model="a")))
        await until(lambda: bool(board.runs()))
        await engine.load("c")
        assert sorted(engine.loaded()) == ["a", "c"]
        assert len((await busy)[0].split()) == 100


async def test_health_tells_of_a_worker_that_cannot_be_started(board: SimBoard) -> None:
    board.add_model()
    async with running(board) as engine:
        await engine.load("m")
        assert (await engine.health()).ready
        board.set_faults("load_fails", "kill_at=1")
        with pytest.raises(Exception, match="SIGKILL"):
            await answer(engine, ask())
        model = engine._pool.models["m"]
        await until(lambda: model.problem != "")
        health = await engine.health()
        assert not health.ready
        assert "the worker of m cannot be started" in health.detail


async def test_one_run_at_a_time_on_the_board_even_after_a_client_has_left(board: SimBoard) -> None:
    """The slot is the node's; it may go on only when the runtime has ended what was aborted."""
    board.add_model("a", answer=(1000, 1000), decode_ms=5)
    board.add_model("b")
    async with running(board) as engine:
        await engine.load("b")
        board.set_faults("abort_ignored_ms=400")
        stream = engine.chat(ask(model="a"))
        await anext(stream)
        await stream.aclose()
        board.set_faults()
        await answer(engine, ask(model="b"))
        left, next_one = board.runs()
        assert left["t"] <= next_one["t_enter"]


async def test_a_model_in_memory_is_described_with_the_context_it_has(board: SimBoard) -> None:
    (board.add_model(context=1024).parent / "Modelfile").unlink()
    async with running(board) as engine:
        assert (await engine.describe("m")).context_length == 4096
        await engine.load("m")
        assert (await engine.describe("m")).context_length == 1024


async def test_a_model_that_is_refused_costs_no_other_its_place(board: SimBoard) -> None:
    board.add_model("a")
    board.add_model("b")
    async with running(board, RKLLM_MAX_MODELS="1") as engine:
        give_memory(board, 200)
        await engine.load("a")
        give_memory(board, 0)
        (board.store / "b" / "config.json").write_text(
            '{"num_hidden_layers": 100, "num_attention_heads": 100, "head_dim": 128}'
        )
        with pytest.raises(InsufficientMemory):
            await engine.load("b")
        assert engine.loaded() == ["a"]
        (board.store / "b" / "config.json").unlink()
        await engine.load("b")
        assert engine.loaded() == ["b"]


async def test_no_more_models_than_are_allowed(board: SimBoard) -> None:
    for name in "abc":
        board.add_model(name)
    async with running(board, RKLLM_MAX_MODELS="2", RKLLM_MEMORY_CHECK="no") as engine:
        for name in "abac":
            await engine.load(name)
        assert engine.loaded() == ["a", "c"]
