"""The child process of a llama model, with a stand-in for llama.cpp and with the real one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from sim_gguf_files import metadata, real_model, write_gguf
from tokenizers import Tokenizer

from rkllm_sim import gguf_tokenizer

GREEDY = "0 40 0.9 1.0 0"
TIMEOUT = 20.0

NATIVE = """
import json, os, sys
from types import SimpleNamespace

def CommonParams():
    return SimpleNamespace(model=SimpleNamespace())

class Server:
    def __init__(self, params):
        os.write(1, b"native noise on stdout\\n")
        print("more noise", flush=True)
        shown = {**vars(params), "model": params.model.path, "spins": os.environ["GOMP_SPINCOUNT"]}
        print(json.dumps(shown), file=sys.stderr, flush=True)

    def handle_completions(self, body):
        print(json.dumps(body), file=sys.stderr, flush=True)
        if body["prompt"][-1] == 7:
            return {"error": {"message": "no"}}
        end = "eos" if body["top_k"] == 9 else "limit"
        return {"__verbose": {"tokens": [body["prompt"][-1] + 1], "stop_type": end}}
"""
"""A stand-in for the native package, which prints what it is given to stderr."""


class Child:
    """The real program."""

    def __init__(self, *, path: Path | None = None, log: Path = Path(os.devnull)) -> None:
        own = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "rkllm_sim.llama"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env={**own, "PYTHONPATH": os.pathsep.join(filter(None, [str(path or ""), own.get("PYTHONPATH", "")]))},
            )

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())
        self.process.stdin.flush()

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode().rstrip("\n")

    def run(
        self, ids: Sequence[int], most: int, sampling: str = GREEDY, *, abort_after: int = 0
    ) -> tuple[list[str], str]:
        """The token lines, and the last one."""
        self.say(f"run {len(ids)} {most} {sampling} {' '.join(map(str, ids))}")
        tokens: list[str] = []
        while (line := self.line()).startswith("token "):
            tokens.append(line)
            if len(tokens) == abort_after:
                self.say("abort")
        return tokens, line

    def close(self) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        code = self.process.wait(TIMEOUT)
        self.process.stdout.close()
        return code


@pytest.fixture
def child() -> Iterator[Child]:
    made = Child()
    yield made
    if made.process.poll() is None:
        assert made.close() == 0


def test_the_process_ends_with_its_input(child: Child) -> None:
    child.say("fly")
    assert child.line() == "error unknown line 'fly'"
    assert child.close() == 0


def test_files_that_are_no_models_are_answered(child: Child, tmp_path: Path) -> None:
    child.say(f"load {tmp_path / 'none.gguf'} 512")
    assert child.line() == f"error {tmp_path / 'none.gguf'} cannot be read: No such file or directory."


@pytest.fixture
def stand_in(tmp_path: Path) -> Iterator[Child]:
    (tmp_path / "xllamacpp.py").write_text(NATIVE)
    made = Child(path=tmp_path, log=tmp_path / "log")
    yield made
    assert made.close() == 0


def test_what_llama_cpp_is_asked_and_that_its_noise_stays_off_stdout(stand_in: Child, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", metadata())
    stand_in.say(f"load {path} 512")
    assert stand_in.line() == "ok"
    assert stand_in.run([4, 5], 1, "0.5 6 0.25 1.125 70") == (["token 6 27"], "end cap")
    assert stand_in.run([4, 5], 1, "0.5 9 0.25 1.125 70") == ([], "end eos")
    assert stand_in.run([7], 1) == ([], "error llama.cpp answered {'error': {'message': 'no'}}")
    told = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines() if line.startswith("{")]
    params, first = told[:2]
    assert (params["model"], params["n_ctx"], params["n_parallel"], params["spins"]) == (str(path), 512, 1, "3000")
    assert not Path(params["hostnames"][0]).parent.exists()
    assert first == {
        "prompt": [4, 5],
        "max_tokens": 1,
        "cache_prompt": True,
        "return_tokens": True,
        "verbose": True,
        "temperature": 0.5,
        "top_k": 6,
        "top_p": 0.25,
        "min_p": 0.0,
        "repeat_penalty": 1.125,
        "seed": 72,
    }


@pytest.mark.slow
def test_a_file_without_tensors_is_answered(child: Child, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", metadata())
    child.say(f"load {path} 512")
    assert child.line().startswith(f"error llama.cpp cannot load {path}: ")
    child.say("fly")
    assert child.line() == "error unknown line 'fly'"


def ids_of(lines: Sequence[str]) -> list[int]:
    return [int(line.split()[1]) for line in lines]


@pytest.fixture(scope="module")
def smollm() -> Path:
    return real_model()


@pytest.fixture
def loaded(child: Child, smollm: Path) -> Child:
    child.say(f"load {smollm} 512")
    assert child.line() == "ok"
    return child


@pytest.fixture(scope="module")
def prompts(smollm: Path) -> list[list[int]]:
    """A question that has a short answer, and a beginning that goes on with characters of several tokens."""
    tokenizer = Tokenizer.from_buffer(gguf_tokenizer.read(smollm).tokenizer.files["tokenizer.json"])
    question = "<|im_start|>user\nTell me about rivers, with one emoji.<|im_end|>\n<|im_start|>assistant\n"
    return [tokenizer.encode(text).ids for text in (question, "Emoji: \U0001f600 \U0001f600 \U0001f600 \U0001f600")]


@pytest.mark.slow
def test_greedy_ids_are_those_of_llama_cpps_server(
    child: Child, smollm: Path, prompts: list[list[int]], tmp_path: Path
) -> None:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(smollm)
    params.hostnames = [str(tmp_path / "llama.sock")]
    params.port, params.ui, params.n_ctx, params.n_parallel, params.verbosity = 0, False, 512, 1, 0
    server = xllamacpp.Server(params)
    options = {"max_tokens": 24, "temperature": 0, "verbose": True, "return_tokens": True}
    answers = [server.handle_completions({"prompt": prompt, **options})["__verbose"] for prompt in prompts]
    del server  # its waiting threads would take the cores
    child.say(f"load {smollm} 512")
    assert child.line() == "ok"
    for prompt, told in zip(prompts, answers, strict=True):
        ended = told["stop_type"] == "eos"
        for sampling in (GREEDY, "0.8 1 0.9 1.0 5"):
            tokens, end = child.run(prompt, 24, sampling)
            assert ids_of(tokens) == told["tokens"][: -1 if ended else None]
            assert end == ("end eos" if ended else "end cap")


@pytest.mark.slow
def test_bytes_make_the_text_and_the_seed_decides(loaded: Child, smollm: Path, prompts: list[list[int]]) -> None:
    known = gguf_tokenizer.vocabulary(smollm)
    tokens, end = loaded.run(prompts[1], 24)
    assert end == "end cap"
    assert [bytes.fromhex(line.split()[2]) for line in tokens] == [known.pieces[token] for token in ids_of(tokens)]
    warm = [loaded.run(prompts[0], 16, f"1.5 0 1.0 1.0 {seed}")[0] for seed in (1, 1, 2)]
    assert warm[0] == warm[1] != warm[2]


@pytest.mark.slow
def test_a_run_is_aborted_and_the_next_one_is_served(loaded: Child, prompts: list[list[int]]) -> None:
    whole, _ = loaded.run(prompts[1], 40)
    tokens, end = loaded.run(prompts[1], -1, abort_after=5)
    assert end == "end aborted"
    assert 5 <= len(tokens) < 400
    assert tokens[:40] == whole[: len(tokens)]
    assert loaded.run(prompts[1], 40) == (whole, "end cap")


@pytest.mark.slow
def test_a_run_fills_the_context_and_ends(loaded: Child, prompts: list[list[int]]) -> None:
    prompt = (prompts[1] * 100)[:500]
    tokens, end = loaded.run(prompt, -1)
    assert (len(tokens), end) == (12, "end cap")
