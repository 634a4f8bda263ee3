"""Every fault of the simulated library. The ones that end a process run in a process of their own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import sim_ctypes
from sim_ctypes import Bench, Model, every_release, until
from sim_models import FIRST_WORD, PAD, hash_answer, hash_model, script_model

libraries, bench = sim_ctypes.libraries, sim_ctypes.bench

SUPPORT = Path(sim_ctypes.__file__).parent


class Other:
    """Another process. It loads a model, says `loaded` or `failed`, runs it if told to, and ends with its stdin."""

    def __init__(self, bench: Bench, abi: str, model: Path, *, prompt: list[int] | None = None) -> None:
        program = (
            "import json, sys\n"
            "from pathlib import Path\n"
            "from sim_ctypes import Model\n"
            "library, abi, path, prompt = sys.argv[1:]\n"
            "model = Model(Path(library), abi, model_path=path)\n"
            "print('loaded' if model.handle.value else 'failed', flush=True)\n"
            "if json.loads(prompt):\n"
            "    print('returned', model.run(json.loads(prompt)).ret, flush=True)\n"
            "sys.stdin.read()\n"
        )
        command = [sys.executable, "-c", program, str(bench.libraries(abi)), abi, str(model), json.dumps(prompt)]
        env = {"PYTHONPATH": str(SUPPORT), "RKLLM_SIM_LOG": str(bench.log), "RKLLM_SIM_BOARD": str(bench.folder)}
        self.process = subprocess.Popen(
            command, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

    def says(self) -> str:
        """The next line that does not come from the library; empty once the process has ended."""
        assert self.process.stdout
        for line in self.process.stdout:
            if " rkllm: " not in line:
                return line.strip()
        return ""

    def ended(self) -> int:
        assert self.process.stdin
        self.process.stdin.close()
        code = self.process.wait(30)
        assert self.process.stdout
        self.process.stdout.close()
        return code


# --- at load ---


@every_release
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("load_fails", "failed to load model"),
        ("model_newer", "needs rkllm-runtime"),
        ("wrong_platform", "was made for rk3588"),
        ("context_over_limit", "max_context_limit"),
        ("cpu_mask", "enabled_cpus_mask"),
    ],
)
def test_a_load_can_fail(abi: str, fault: str, words: str, bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    model = bench.try_to_load(abi, hash_model(bench.folder, f"fault {fault}"))
    assert (model.ret, model.handle.value) == (-1, None)
    errors = [line for line in capfd.readouterr().out.splitlines() if line.startswith("E rkllm: ")]
    assert len(errors) == 1
    assert words in errors[0]
    assert bench.calls("rkllm_init")[0]["ret"] == -1


@every_release
def test_a_failed_load_can_look_like_a_good_one(abi: str, bench: Bench) -> None:
    model = bench.try_to_load(abi, hash_model(bench.folder, "fault null_handle"))
    assert (model.ret, model.handle.value) == (0, None)


def test_a_load_can_be_slow(bench: Bench) -> None:
    start = time.monotonic()
    bench.load("1.3.0", hash_model(bench.folder, "fault load_ms=60", "load_ms 50"))
    assert time.monotonic() - start >= 0.110


# --- in a run ---


@every_release
def test_an_error_before_a_token(abi: str, bench: Bench) -> None:
    model = bench.load(abi, hash_model(bench.folder, "fault error_at=3"))
    outcome = model.run([1])
    assert (outcome.ret, outcome.states) == (-1, ["normal", "normal", "error"])
    assert bench.last_run()["end"] == "error"


@every_release
def test_a_run_can_fail_without_a_word(abi: str, bench: Bench) -> None:
    outcome = bench.load(abi, hash_model(bench.folder, "fault run_fails")).run([1])
    assert (outcome.ret, outcome.calls) == (-1, [])
    assert bench.last_run()["ret"] == -1


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("segv_at=3", -signal.SIGSEGV),
        ("kill_at=3", -signal.SIGKILL),
        ("exit_at=3", 1),
        ("segv_at=0", -signal.SIGSEGV),
        ("kill_at=0", -signal.SIGKILL),
        ("exit_at=0", 1),
    ],
)
def test_a_run_can_take_its_process_down(fault: str, code: int, bench: Bench) -> None:
    other = Other(bench, "1.2.3", hash_model(bench.folder, f"fault {fault}"), prompt=[1, 2])
    assert other.says() == "loaded"
    assert other.says() == ""
    assert other.ended() == code
    assert len(bench.calls("rkllm_run")) == 1


def test_a_run_can_hang_deaf_to_abort(bench: Bench) -> None:
    other = Other(bench, "1.3.0", script_model(bench.folder, 'text "abc"', settings=["fault hang_at=2"]), prompt=[1])
    assert other.says() == "loaded"
    until(lambda: bool(bench.calls("rkllm_run", "enter")))
    assert other.process.poll() is None
    other.process.kill()
    assert other.says() == ""
    assert other.ended() == -signal.SIGKILL
    assert not bench.calls("rkllm_run", "return")


def aborted_run(model: Model) -> sim_ctypes.Outcome:
    return model.run([1], answer=lambda call: model.call("abort") if len(model.calls) == 2 else 0)


@every_release
@pytest.mark.parametrize(
    ("ends", "ret", "last"), [("finish", 0, ["finish"]), ("nothing", 0, []), ("error", -1, ["error"])]
)
def test_what_an_aborted_run_does(abi: str, ends: str, ret: int, last: list[str], bench: Bench) -> None:
    model = bench.load(abi, hash_model(bench.folder, f"fault abort_ends={ends}"))
    outcome = aborted_run(model)
    assert (outcome.ret, outcome.states) == (ret, ["normal", "normal", *last])


@every_release
def test_an_abort_can_take_effect_late(abi: str, bench: Bench) -> None:
    model = bench.load(abi, script_model(bench.folder, "pad endless", settings=["fault abort_ignored_ms=50"]))
    run = threading.Thread(target=model.run, args=([1],))
    run.start()
    until(lambda: bool(model.calls))
    asked = time.monotonic()
    model.call("abort")
    run.join(30)
    assert bench.last_run()["t"] >= asked + 0.050


@every_release
def test_padding_without_end(abi: str, bench: Bench) -> None:
    model = bench.load(abi, hash_model(bench.folder, "fault pad_endless_at=3"), max_new_tokens=200)
    outcome = model.run([1, 2])
    assert outcome.ids == [*hash_answer([1, 2])[:2], *[PAD] * 198]
    assert outcome.calls[5].text == b"[PAD151935]"


@every_release
def test_every_character_can_come_in_bytes(abi: str, bench: Bench) -> None:
    path = script_model(bench.folder, 'text "a é w1"', settings=["fault split_utf8"])
    outcome = bench.load(abi, path).run([1])
    assert outcome.text == "a é w1"
    assert outcome.states == ["normal", "normal", "waiting", "normal", "normal", "finish"]
    assert outcome.ids == [ord("a"), 322, 0xA9, FIRST_WORD + 1]


@every_release
def test_a_token_can_come_without_text(abi: str, bench: Bench) -> None:
    outcome = bench.load(abi, hash_model(bench.folder, "fault text_null_at=2")).run([1])
    assert [call.text is None for call in outcome.calls[:4]] == [False, True, False, False]
    assert outcome.ids == hash_answer([1])


@every_release
@pytest.mark.parametrize(("skip", "text"), [(False, "ab<|end|>"), (True, "ab")])
def test_the_end_token_can_have_a_text(abi: str, *, skip: bool, text: str, bench: Bench) -> None:
    path = script_model(bench.folder, 'text "ab"', settings=["fault eos_text"])
    assert bench.load(abi, path, skip_special_token=skip).run([1]).text == text
    assert bench.last_run()["generated"] == 2


# --- memory for a second model ---


def test_a_second_model_in_the_process_finds_no_memory(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RKLLM_SIM_BOARD", raising=False)
    path = hash_model(bench.folder, "fault oom_second_init")
    first = bench.load("1.3.0", path)
    assert bench.try_to_load("1.3.0", path).ret == -1
    assert first.destroy() == 0
    bench.loaded.clear()
    assert bench.load("1.3.0", path).run([1]).ret == 0


def test_a_board_is_shared_by_processes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RKLLM_SIM_BOARD", str(bench.folder))
    plain, oom = hash_model(bench.folder), hash_model(bench.folder, "fault oom_second_init", name="oom.rkllm")
    others = [Other(bench, abi, plain) for abi in ("1.2.3", "1.3.0")]
    assert [other.says() for other in others] == ["loaded", "loaded"]
    assert bench.try_to_load("1.3.0", oom).ret == -1
    others[0].process.kill()
    others[0].ended()
    assert bench.try_to_load("1.3.0", oom).ret == -1
    assert others[1].ended() == 0
    assert bench.load("1.3.0", oom).ret == 0


def test_a_second_load_can_crash(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RKLLM_SIM_BOARD", str(bench.folder))
    first = bench.load("1.3.0", hash_model(bench.folder))
    crash = hash_model(bench.folder, "fault oom_second_init=crash", name="crash.rkllm")
    other = Other(bench, "1.3.0", crash)
    assert other.says() == ""
    assert other.ended() == -signal.SIGSEGV
    assert first.run([1]).ret == 0


# --- where faults come from ---


def test_a_fault_can_depend_on_the_prompt(bench: Bench) -> None:
    model = bench.load("1.3.0", hash_model(bench.folder, 'fault run_fails when "bad w1"', 'fault load_fails when "x"'))
    assert [model.run(prompt).ret for prompt in ("good", "a bad w1!", [*b"bad", FIRST_WORD + 1])] == [0, -1, -1]


def test_faults_of_the_environment_add_up(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    model = bench.load("1.2.3", hash_model(bench.folder, "fault text_null_at=1"))
    monkeypatch.setenv("RKLLM_SIM_FAULTS", "pad_endless_at=2,error_at=4")
    outcome = model.run([1])
    assert outcome.states == ["normal"] * 3 + ["error"]
    assert [call.text for call in outcome.calls] == [None, b"[PAD151935]", b"[PAD151935]", None]


def test_a_file_of_faults_is_read_anew_for_each_run(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    file = bench.folder / "faults"
    monkeypatch.setenv("RKLLM_SIM_FAULTS_FILE", str(file))
    model = bench.load("1.3.0", hash_model(bench.folder))
    assert model.run([1]).ret == 0
    file.write_text('# one\n\nrun_fails when "x"\n', encoding="utf-8")
    assert [model.run(prompt).ret for prompt in ("x", "y")] == [-1, 0]
    file.write_text("fault load_fails\n", encoding="utf-8")
    assert bench.try_to_load("1.3.0", hash_model(bench.folder)).ret == -1
    file.unlink()
    assert model.run("x").ret == 0


@pytest.mark.parametrize(
    ("faults", "words"),
    [
        ("no_such", "no fault named no_such"),
        ("error_at", "error_at cannot have the value"),
        ("error_at=x", "error_at cannot have the value x"),
        ("abort_ends=crash", "abort_ends cannot have the value crash"),
        ("run_fails=1", "run_fails cannot have the value 1"),
        ("=3", "cannot understand the fault: =3"),
    ],
)
def test_a_fault_that_is_not_known_fails_everything(
    faults: str, words: str, bench: Bench, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path = hash_model(bench.folder)
    model = bench.load("1.3.0", path)
    monkeypatch.setenv("RKLLM_SIM_FAULTS", faults)
    assert model.run([1]).ret == -1
    assert bench.try_to_load("1.3.0", path).ret == -1
    assert capfd.readouterr().err.count(words) == 2
