"""Counted tokens: the same question costs the same in every dialect, streamed or whole, and what it says is true.

On three nodes: the engine llamacpp with the built-in model, the engine rkllm on the simulator, and the engine remote in
front of that one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from gguf_template import with_template
from npu_board import SimBoard

from npu_support import start
from support import BUILTIN_MODEL, Node
from usage_support import DIALECTS, RAW, Cost, Question, ask, counted

pytestmark = pytest.mark.slow

REASONING = 'text "<think>Hm, let me see.</think>"\n'
ANSWER = 'text "The answer is 4."\n'
CHATML = """{%- for message in messages %}{{ '<|im_start|>' + message.role + '\\n' }}
{{- message.content + '<|im_end|>\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""


@dataclass(frozen=True)
class Served:
    """A node, the model to be asked, and the node that has the tokenizer. `board` where that is a simulated NPU."""

    node: Node
    model: str
    counting: Node
    board: SimBoard | None = None

    @property
    def question(self) -> Question:
        return Question("Why is the sky blue?", begin="" if self.model == "bos" else "<|im_start|>")


@pytest.fixture(scope="module")
def llama_node(model_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """One slot, so that the second request finds the cache of the first."""
    folder = tmp_path_factory.mktemp("usage-llamacpp")
    (own,) = (model_store / BUILTIN_MODEL).glob("*.gguf")
    (folder / "store" / "plain").mkdir(parents=True)
    (folder / "store" / "plain" / own.name).symlink_to(own)
    (folder / "store" / "bos").mkdir()
    with_template(own, folder / "store" / "bos" / own.name, CHATML, adds_bos=True)
    env = {"EXO_LLAMACPP_SLOTS": "1", "EXO_LLAMACPP_CONTEXT": "1024", "EXO_LLAMACPP_MAX_MODELS": "2"}
    with Node("--inference-engine", "llamacpp", "--models-dir", str(folder / "store"), folder=folder, env=env) as node:
        yield node


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> SimBoard:
    board = SimBoard(tmp_path_factory.mktemp("usage-npu"))
    board.add_model("hash", answer=(20, 40))
    board.add_model("think", lm="script", script=REASONING + ANSWER, thinking=True)
    board.add_model("answer", lm="script", script=ANSWER)
    return board


@pytest.fixture(scope="module")
def npu_node(board: SimBoard, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with start(board, tmp_path_factory.mktemp("usage-npu-node")) as node:
        yield node


@pytest.fixture(scope="module")
def front_node(npu_node: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    folder = tmp_path_factory.mktemp("usage-remote")
    env = {"EXO_REMOTE_URL": npu_node.url}
    with Node("--inference-engine", "remote", "--default-model", "hash", folder=folder, env=env) as node:
        yield node


@pytest.fixture(scope="module", params=["llamacpp", "llamacpp with BOS", "rkllm", "remote"])
def served(request: pytest.FixtureRequest) -> Served:
    if request.param.startswith("llamacpp"):
        node: Node = request.getfixturevalue("llama_node")
        return Served(node, "plain" if request.param == "llamacpp" else "bos", node)
    board: SimBoard = request.getfixturevalue("board")
    npu: Node = request.getfixturevalue("npu_node")
    return Served(npu if request.param == "rkllm" else request.getfixturevalue("front_node"), "hash", npu, board)


def in_every_dialect(served: Served, question: Question, model: str | None = None) -> dict[str, Cost]:
    """What the question costs, by dialect and delivery, of those that can ask it."""
    return {
        f"{name}, {'streamed' if stream else 'whole'}": ask(
            served.node, dialect, model or served.model, question, stream=stream
        )
        for name, dialect in DIALECTS.items()
        for stream in (False, True)
        if question.stop is None or dialect.can_stop
    }


def the_same(costs: dict[str, Cost]) -> Cost:
    """What all of them say alike: everything besides what was cached, which differs from one request to the next."""
    alike = {name: replace(cost, cached=None, reasoning=None) for name, cost in costs.items()}
    first = next(iter(alike.values()))
    assert alike == dict.fromkeys(alike, first)
    return first


def test_an_answer_that_ends_by_itself(served: Served) -> None:
    question = replace(served.question, system="Answer in one word.", text="What is the capital of France?")
    cost = the_same(in_every_dialect(served, question))
    assert cost.finish == "stop"
    assert cost.prompt == counted(served.counting, served.model, question)
    if served.board is not None:
        run = served.board.runs()[-1]
        assert (cost.prompt, cost.completion) == (run["n_tokens"], run["generated"])


@pytest.mark.parametrize("cap", [1, 7])
def test_an_answer_that_is_cut_off_has_as_many_tokens_as_it_may(served: Served, cap: int) -> None:
    cost = the_same(in_every_dialect(served, replace(served.question, cap=cap)))
    assert (cost.finish, cost.completion) == ("length", cap)
    assert cost.prompt == counted(served.counting, served.model, served.question)


def test_an_answer_that_a_stop_string_ends(served: Served) -> None:
    whole = ask(served.node, DIALECTS["chat"], served.model, replace(served.question, cap=20), stream=False)
    word = whole.text.split()[4]
    cost = the_same(in_every_dialect(served, replace(served.question, cap=20, stop=word)))
    assert cost.finish == "stop"
    assert cost.text == whole.text[: whole.text.index(word)]
    assert 4 <= cost.completion < whole.completion


@pytest.mark.parametrize("stream", [False, True])
def test_the_second_time_all_but_the_last_token_of_the_prompt_is_cached(served: Served, *, stream: bool) -> None:
    for name, dialect in DIALECTS.items():
        question = replace(served.question, text=f"How many letters has {name}?", cap=2)
        first, second = (ask(served.node, dialect, served.model, question, stream=stream) for _ in range(2))
        assert (second.prompt, second.completion) == (first.prompt, first.completion)
        if second.cached is not None:
            assert first.cached is not None
            assert first.cached < second.cached == second.prompt - 1, name


@pytest.mark.parametrize("front", [False, True], ids=["rkllm", "remote"])
def test_reasoning_and_answer_add_up(npu_node: Node, front_node: Node, board: SimBoard, *, front: bool) -> None:
    served = Served(front_node if front else npu_node, "think", npu_node, board)
    answer = ask(npu_node, DIALECTS["chat"], "answer", served.question, stream=False)
    costs = in_every_dialect(served, served.question)
    cost = the_same({name: one for name, one in costs.items() if not name.startswith(RAW)})
    assert cost.text == answer.text == "The answer is 4."
    assert cost.completion == board.runs()[-1]["generated"]
    told = {one.reasoning for name, one in costs.items() if not name.startswith((*RAW, "ollama"))}
    assert told == {cost.completion - answer.completion}
    assert answer.reasoning == 0
    for name in RAW:
        raw = costs[f"{name}, whole"]
        assert raw == replace(costs[f"{name}, streamed"], cached=raw.cached)
        assert (raw.completion, raw.reasoning or 0) == (cost.completion, 0)


def test_choices_count_their_prompt_once(served: Served) -> None:
    body = {"model": served.model, "messages": served.question.chat, "max_tokens": 3, "n": 2}
    usage = served.node.http.post("/v1/chat/completions", json=body).json()["usage"]
    assert usage["prompt_tokens"] == counted(served.counting, served.model, served.question)
    assert usage["completion_tokens"] == 6


def test_probabilities_are_as_many_as_tokens(llama_node: Node) -> None:
    body = {"model": "plain", "messages": Question("Why?").chat, "max_tokens": 9, "temperature": 0, "logprobs": True}
    answer = llama_node.http.post("/v1/chat/completions", json=body).json()
    assert len(answer["choices"][0]["logprobs"]["content"]) == answer["usage"]["completion_tokens"] == 9
