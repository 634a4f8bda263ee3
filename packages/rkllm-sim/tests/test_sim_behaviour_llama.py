"""lm llama of the simulated library, with a child process that counts instead of a model."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import sim_ctypes
from sim_ctypes import Bench, every_release, until
from sim_models import model_text, quoted

libraries, bench = sim_ctypes.libraries, sim_ctypes.bench

SUPPORT = Path(sim_ctypes.__file__).parent
CHILD = SUPPORT / "fake_child.py"


def llama_model(folder: Path, *lines: str, gguf: str = "counting.gguf", child: str = "") -> Path:
    command = child or " ".join(quoted(str(part)) for part in (sys.executable, CHILD, folder / "child.log"))
    path = folder / "llama.rkllm"
    path.write_text(model_text(f"gguf {gguf}", f"child {command}", *lines, lm="llama"), encoding="utf-8")
    return path


def told(bench: Bench) -> list[str]:
    """The lines that the child has read."""
    return (bench.folder / "child.log").read_text(encoding="utf-8").splitlines()


def children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(one) for one in (task / "children").read_text(encoding="ascii").split()]
    return found


@every_release
def test_the_childs_tokens_are_delivered(abi: str, bench: Bench) -> None:
    model = bench.load(abi, llama_model(bench.folder, "seed 7"), temperature=0.25, top_k=3, max_context_len=200)
    outcome = model.run([5, 94])
    assert outcome.states == ["normal"] * 4 + ["finish"]
    assert outcome.ids == [95, 96, 97, 98]
    assert outcome.text == " t95 t96 t97 t98"
    assert bench.last_run()["end"] == "eos"
    assert told(bench) == [f"load {bench.folder}/counting.gguf 200", "run 2 198 0.25 3 0.9 1.1 7 5 94"]
    model.run([5, 94, 95, 96, 97, 98, 1])
    line = bench.last_run()
    assert (line["reused"], line["prefilled"]) == ((0, 7) if abi == "1.1.4" else (6, 1))


def test_an_id_without_bytes_has_an_empty_text(bench: Bench) -> None:
    model = bench.load("1.3.0", llama_model(bench.folder))
    assert [call.text for call in model.run([28], max_new_tokens=3).calls] == [b" t29", b"", b" t31", None]
    assert bench.last_run()["end"] == "cap"


def test_the_cap_and_the_sampling_of_a_run_reach_the_child(bench: Bench) -> None:
    model = bench.load("1.3.0", llama_model(bench.folder), max_new_tokens=50)
    sampling = model.types.SamplingParam(top_k=1, temperature=0, top_p=0.5, repeat_penalty=1)
    assert model.run([10], max_new_tokens=2, sampling_params=sampling).ids == [11, 12]
    assert told(bench)[-1] == "run 1 2 0 1 0.5 1 1 10"
    assert model.run([10], max_new_tokens=1).ids == [11]
    assert "abort" not in told(bench)


def test_an_answer_ends_where_the_context_does(bench: Bench) -> None:
    model = bench.load("1.3.0", llama_model(bench.folder), max_context_len=16)
    assert len(model.run([200] * 10).ids) == 6
    assert bench.last_run()["end"] == "cap"


def test_history_goes_to_the_child_as_a_whole(bench: Bench) -> None:
    model = bench.load("1.3.0", llama_model(bench.folder), max_context_len=100)
    model.run([96], keep_history=1)
    model.run([1], keep_history=1, max_new_tokens=1)
    assert told(bench)[-1].endswith(" 96 97 98 1")


def test_abort_reaches_the_child_and_the_next_run_is_sound(bench: Bench) -> None:
    model = bench.load("1.3.0", llama_model(bench.folder, "decode_ms 1"))
    outcome = model.run([100], answer=lambda call: model.call("abort") if len(model.calls) == 3 else 0)
    assert outcome.states == ["normal"] * 3 + ["finish"]
    assert model.run([95]).ids == [96, 97, 98]
    assert told(bench)[2] == "abort"
    assert model.run([97], answer=lambda call: model.call("abort")).ids == [98]
    assert model.run([95]).ids == [96, 97, 98]


def test_an_error_of_the_child_ends_the_run_only(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    model = bench.load("1.3.0", llama_model(bench.folder))
    outcome = model.run([498])
    assert (outcome.ret, outcome.states) == (-1, ["normal", "error"])
    assert "it broke" in capfd.readouterr().out
    assert model.run([97]).ids == [98]


def test_a_child_that_dies_fails_this_run_and_the_next(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    model = bench.load("1.3.0", llama_model(bench.folder))
    for _ in range(2):
        assert model.run([598]).ret == -1
    assert "the child process has ended" in capfd.readouterr().out
    assert model.destroy() == 0
    bench.loaded.clear()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"gguf": "bad.gguf"}, "error cannot load"),
        ({"child": '"/bin/false"'}, "ended while it loaded"),
        ({"child": '"/no/such/program"'}, "ended while it loaded"),
    ],
)
def test_a_child_that_cannot_load_fails_the_load(
    options: dict[str, str], words: str, bench: Bench, capfd: pytest.CaptureFixture[str]
) -> None:
    assert bench.try_to_load("1.3.0", llama_model(bench.folder, **options)).ret == -1
    assert words in capfd.readouterr().out
    assert children(os.getpid()) == []


def test_the_child_ends_with_the_handle(bench: Bench) -> None:
    before = set(children(os.getpid()))
    model = bench.load("1.3.0", llama_model(bench.folder))
    assert len(set(children(os.getpid())) - before) == 1
    model.destroy()
    bench.loaded.clear()
    assert set(children(os.getpid())) == before


def test_the_child_outlives_the_thread_that_has_loaded_it(bench: Bench) -> None:
    """The kernel's parent-death signal is bound to a thread: it must not be the caller's."""
    loading = threading.Thread(target=lambda: bench.load("1.3.0", llama_model(bench.folder)))
    loading.start()
    loading.join()
    for _ in range(20):
        assert bench.loaded[0].run([97]).ids == [98]


def test_the_child_dies_with_its_process(bench: Bench) -> None:
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from sim_ctypes import Model\n"
        "model = Model(Path(sys.argv[1]), '1.3.0', model_path=sys.argv[2])\n"
        "print('loaded' if model.ret == 0 else 'failed', flush=True)\n"
        "sys.stdin.read()\n"
    )
    deaf = '"/bin/sh" "-c" "read line; echo ok; exec sleep 1000"'  # it does not notice the end of its stdin
    model = llama_model(bench.folder, child=deaf)
    command = [sys.executable, "-c", program, str(bench.libraries("1.3.0")), str(model)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env={"PYTHONPATH": str(SUPPORT)}, text=True, **pipes) as process:  # type: ignore[call-overload]  # the pipes of both
        assert any(line == "loaded\n" for line in process.stdout)
        (child,) = children(process.pid)
        process.send_signal(signal.SIGKILL)
    until(lambda: not Path(f"/proc/{child}/cmdline").exists() or not Path(f"/proc/{child}/cmdline").read_bytes())


def test_embeddings_are_not_for_a_real_model(bench: Bench) -> None:
    model = bench.load("1.3.0", llama_model(bench.folder, "embd 2"))
    assert model.run([[1.0, 2.0]]).ret == -1
