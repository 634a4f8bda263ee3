"""The engine against its contract, on the simulated runtime."""

from __future__ import annotations

import asyncio
import functools
import math
import os
from contextlib import aclosing
from pathlib import Path

import pytest
from npu_board import NEWEST, SimBoard
from npu_engine import answer, ask, running, until

from exo.types import (
    ChatRequest,
    CompletionRequest,
    ConfigurationError,
    ContextOverflow,
    EmbeddingRequest,
    EngineUnavailable,
    InvalidRequest,
    Limits,
    Message,
    ModelLoadError,
    RunFailed,
    Sampling,
    UnsupportedParameter,
    WorkerDied,
)
from exo_rkllm.engine import RKLLMInferenceEngine


@pytest.fixture
def board(tmp_path: Path) -> SimBoard:
    return SimBoard(tmp_path)


async def test_the_models_are_those_of_both_stores(board: SimBoard) -> None:
    board.add_model("m")
    board.add_model("phi-3-mini-rkllm")
    async with running(board) as engine:
        own = engine.context.store.root / "m"
        own.mkdir(parents=True)
        (own / "other.rkllm").write_text("of the node")
        cards = {card.id: card for card in await engine.models()}
        assert set(cards) == {"m", "phi-3-mini-rkllm"}
        assert cards["phi-3-mini-rkllm"].display_name == "Phi-3 mini 4K (RKLLM)"
        assert cards["m"].files == {"rkllm": str(own / "other.rkllm")}, "the node's own store comes first"
        assert engine.loaded() == []
        assert str(board.store) in engine.no_model_hint


async def test_available_says_what_it_found(board: SimBoard) -> None:
    found = RKLLMInferenceEngine.available(board.env)
    assert found.ok
    assert found.reason.startswith("librkllmrt 1.3.0 at ")
    missing = RKLLMInferenceEngine.available({**board.env, "RKLLM_LIB": "/nowhere/librkllmrt.so"})
    assert not missing.ok
    assert "/nowhere/librkllmrt.so" in missing.reason


def relative(path: Path) -> str:
    return os.path.relpath(path)


async def test_paths_may_be_relative(board: SimBoard, monkeypatch: pytest.MonkeyPatch) -> None:
    board.add_model()
    library = Path(board.env["RKLLM_LIB"])
    monkeypatch.chdir(library.parent)
    home = relative(board.home)
    for named in (library.name, "."):
        async with running(board, RKLLM_LIB=named, RKLLAMA_HOME=home) as engine:
            assert (await answer(engine, ask()))[0]


async def test_a_setting_that_makes_no_sense_is_named(board: SimBoard) -> None:
    with pytest.raises(ConfigurationError, match="RKLLM_RUN_TIMEOUT"):
        async with running(board, RKLLM_RUN_TIMEOUT="soon"):
            pass


async def test_usage_and_timings(board: SimBoard) -> None:
    board.add_model(prefill_ms=2, decode_ms=2)
    async with running(board) as engine:
        _, last = await answer(engine, ask())
        run = board.runs()[0]
        assert last.usage is not None
        assert last.timings is not None
        assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (run["n_tokens"], run["generated"])
        assert last.timings.prefill == pytest.approx(run["t_first"] - run["t_enter"], abs=0.05)
        assert last.timings.decode > 0.01


async def test_raw_completions(board: SimBoard) -> None:
    board.add_model()
    async with running(board) as engine:
        request = CompletionRequest(model="m", prompt="<|im_start|>user\nHi", limits=Limits(max_tokens=4))
        async with aclosing(engine.complete(request)) as stream:
            deltas = [delta async for delta in stream]
        assert deltas[-1].finish_reason == "length"
        assert board.runs()[0]["tokens"][0] == 2257, "special tokens of a raw prompt are special"


async def test_tokenize_and_count(board: SimBoard) -> None:
    board.add_model()
    async with running(board) as engine:
        assert len(await engine.tokenize("m", "<|im_end|>")) == len("<|im_end|>")
        counted = await engine.count(ask())
        await answer(engine, ask())
        assert board.runs()[0]["n_tokens"] == counted


async def test_embeddings_have_length_one(board: SimBoard) -> None:
    board.add_model(embd=16)
    async with running(board) as engine:
        found = await engine.embed(EmbeddingRequest(model="m", inputs=("Hello", "World", "Hello")))
        assert [len(vector) for vector in found.vectors] == [16] * 3
        assert found.vectors[0] == found.vectors[2] != found.vectors[1]
        assert math.hypot(*found.vectors[0]) == pytest.approx(1)
        assert found.usage.prompt_tokens == len("HelloWorldHello")
        with pytest.raises(UnsupportedParameter, match="empty text"):
            await engine.embed(EmbeddingRequest(model="m", inputs=("",)))
        with pytest.raises(ContextOverflow):
            await engine.embed(EmbeddingRequest(model="m", inputs=("x" * 5000,)))


async def test_a_prepared_request_is_not_encoded_again(board: SimBoard, monkeypatch: pytest.MonkeyPatch) -> None:
    board.add_model()
    async with running(board) as engine:
        await engine.prepare(ask())
        assert engine.loaded() == [], "nothing is loaded for a request that only waits"
        await engine.load("m")
        request = ask()
        await engine.prepare(request)
        monkeypatch.setattr(RKLLMInferenceEngine, "_encode", None)
        assert (await answer(engine, request))[0]
        assert not engine._prepared


async def test_prepare_refuses_what_does_not_fit(board: SimBoard) -> None:
    board.add_model()
    async with running(board) as engine:
        await engine.load("m")
        with pytest.raises(ContextOverflow):
            await engine.prepare(ask("x" * 5000))
        assert not engine._prepared


@pytest.mark.parametrize("tokenizer", [True, False])
async def test_an_empty_prompt_is_refused(board: SimBoard, *, tokenizer: bool) -> None:
    board.add_model(with_tokenizer=tokenizer)
    async with running(board) as engine:
        await engine.load("m")
        with pytest.raises(InvalidRequest, match="The prompt is empty"):
            await anext(engine.complete(CompletionRequest(model="m", prompt="")))
        assert board.runs() == []


async def test_requests_that_were_prepared_and_never_came_are_forgotten(board: SimBoard) -> None:
    board.add_model()
    async with running(board) as engine:
        await engine.load("m")
        for number in range(300):
            await engine.prepare(ask(f"{number}"))
        assert len(engine._prepared) == 256


async def test_the_modelfile_is_obeyed(board: SimBoard) -> None:
    text = 'SYSTEM="Be brief."\nNUM_CTX=512\nTOP_K=3\nMAX_NEW_TOKENS=5\n'
    board.add_model(answer=(30, 30), modelfile=text)
    async with running(board) as engine:
        _, last = await answer(engine, ask())
        assert last.finish_reason == "length"
        init, run = board.calls("rkllm_init")[0], board.runs()[0]
        assert init["max_context_len"] == 512
        assert init["sampling"]["top_k"] == 3
        assert run["generated"] == 5
        prompt = await engine.count(ask())
        assert prompt > await engine.count(
            ChatRequest(model="m", messages=(Message(role="system", content=""), Message(role="user", content="Hello")))
        )
        with pytest.raises(ContextOverflow) as caught:
            await answer(engine, ask("x" * 600))
        assert caught.value.context_tokens == 512


async def test_a_modelfile_that_makes_no_sense_is_a_failed_load(board: SimBoard) -> None:
    board.add_model(modelfile="NUM_CTX=many\n")
    async with running(board) as engine:
        with pytest.raises(ModelLoadError, match=r"Modelfile:\d+: NUM_CTX has to be a whole number"):
            await engine.load("m")


async def test_closing_the_iterator_aborts_the_run(board: SimBoard) -> None:
    board.add_model(answer=(1000, 1000), decode_ms=10)
    async with running(board) as engine:
        stream = engine.chat(ask())
        await anext(stream)
        await stream.aclose()
        await until(lambda: bool(board.calls("rkllm_abort")))


async def test_every_run_is_timed_however_it_ends(board: SimBoard) -> None:
    board.add_model(answer=(1000, 1000), decode_ms=10)
    async with running(board) as engine:
        timed = functools.partial(engine.context.registry.get_sample_value, "rkllm_inference_duration_seconds_count")
        stream = engine.chat(ask())
        await anext(stream)
        await stream.aclose()
        assert timed() == 1
        await answer(engine, ask(limits=Limits(max_tokens=2)))
        assert timed() == 2
        board.set_faults("kill_at=3")
        with pytest.raises(WorkerDied):
            await answer(engine, ask())
        assert timed() == 3


@pytest.mark.parametrize("sampling", [Sampling(min_p=0.1), Sampling(seed=1), Sampling(seed=1, temperature=0.5)])
async def test_what_the_runtime_cannot_do_is_refused(board: SimBoard, sampling: Sampling) -> None:
    board.add_model()
    async with running(board) as engine:
        with pytest.raises(UnsupportedParameter):
            await answer(engine, ask(sampling=sampling))
        assert board.runs() == []
        assert (await answer(engine, ask(sampling=Sampling(min_p=0.0, seed=1, temperature=0))))[0]


async def test_a_board_without_its_library_is_unavailable(board: SimBoard) -> None:
    board.add_model()
    async with running(board, RKLLM_LIB="/nowhere") as engine:
        with pytest.raises(EngineUnavailable, match="/nowhere"):
            await engine.load("m")


async def test_a_text_prompt_with_a_nul_is_refused(board: SimBoard) -> None:
    board.add_model(with_tokenizer=False)
    async with running(board) as engine:
        with pytest.raises(InvalidRequest, match="NUL"):
            await answer(engine, ask("a\0b"))
        with pytest.raises(UnsupportedParameter, match=r"no tokenizer\.json"):
            await engine.tokenize("m", "text")
        with pytest.raises(UnsupportedParameter, match=r"no tokenizer\.json"):
            await engine.embed(EmbeddingRequest(model="m", inputs=("text",)))


@pytest.mark.parametrize("abi", [pytest.param("1.2.3", marks=pytest.mark.slow), NEWEST])
async def test_a_run_that_fails_before_its_first_token_is_refused_as_a_whole(abi: str, tmp_path: Path) -> None:
    """Whatever is told with the first delta: a status can only be kept while none has come."""
    board = SimBoard(tmp_path, abi)
    board.add_model()
    board.set_faults("error_at=1")
    async with running(board) as engine:
        stream = engine.chat(ask(sampling=Sampling(temperature=1.5)))
        with pytest.raises(RunFailed):
            await anext(stream)
        board.set_faults()
        stream = engine.chat(ask(sampling=Sampling(temperature=1.5)))
        first = await anext(stream)
        await stream.aclose()
        assert (first.sampling is not None) == (abi == "1.2.3")


async def test_a_stop_string_waits_for_the_end_of_the_run(board: SimBoard) -> None:
    board.add_model(answer=(1000, 1000), decode_ms=5)
    async with running(board) as engine:
        words = (await answer(engine, ask(limits=Limits(max_tokens=6))))[0].split()
        board.set_faults("abort_ignored_ms=200")
        text, last = await answer(engine, ask(limits=Limits(stop=(words[4],))))
        assert text.split() == words[:4]
        assert (last.finish_reason, last.stop) == ("stop", words[4])
        assert board.runs()[-1]["event"] == "return"


async def test_what_cannot_fit_is_refused_before_it_is_encoded(
    board: SimBoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    board.add_model()
    async with running(board) as engine:
        await engine.load("m")
        monkeypatch.setattr(engine._pool.models["m"].texts, "encode", None)
        with pytest.raises(ContextOverflow, match="at least 4097"):
            await engine.count(ask("x" * (4097 * 256)))
        many = ChatRequest(model="m", messages=(Message(role="user", content=""),) * 5000)
        with pytest.raises(ContextOverflow, match="at least 5000"):
            await engine.count(many)


async def test_long_chats_do_not_hold_up_the_event_loop(board: SimBoard) -> None:
    board.add_model()
    async with running(board) as engine:
        await engine.load("m")
        encoding = asyncio.ensure_future(engine.count(ask("word " * 60_000)))
        turns = 0
        while not encoding.done():
            await asyncio.sleep(0.001)
            turns += 1
        assert turns > 10
        assert await encoding > 60_000


@pytest.mark.parametrize("abi", ["1.2.3", "1.3.0"])
async def test_a_model_without_tokenizer_counts_its_prompt_by_the_runtime(abi: str, tmp_path: Path) -> None:
    board = SimBoard(tmp_path, abi)
    board.add_model(with_tokenizer=False)
    async with running(board) as engine:
        found = []
        for cap in (None, None, 3 if abi == "1.3.0" else None):  # before 1.3.0 a cut answer may count one too many
            _, last = await answer(engine, ask(limits=Limits(max_tokens=cap)))
            assert last.usage is not None
            found.append((last.usage.prompt_tokens, last.usage.cached_tokens))
        tokens = board.runs()[0]["n_tokens"]
        assert found == [(tokens, 0), (tokens, tokens - 1), (tokens, tokens - 1)]


async def test_the_words_of_the_runtime_are_those_of_this_run(board: SimBoard) -> None:
    board.add_model(with_tokenizer=False)
    async with running(board) as engine:
        for _ in range(3):
            with pytest.raises(RunFailed, match="The runtime said: ") as caught:
                await answer(engine, ask("x" * 5000))
            assert caught.value.message.count("E rkllm") == 1
            assert "RKLLM_LOG_LEVEL" not in caught.value.message
