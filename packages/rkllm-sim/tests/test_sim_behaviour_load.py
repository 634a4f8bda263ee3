"""rkllm_init of the simulated library: its log lines, its checks, and model files that are not right."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

import pytest
import sim_ctypes
from sim_ctypes import Bench, every_release, releases
from sim_models import hash_model, model_text, script_model

from rkllm_facts.abi import SUPPORTED

libraries, bench = sim_ctypes.libraries, sim_ctypes.bench

with_cpus = releases(*SUPPORTED[1:])
Output = pytest.CaptureFixture[str]


@every_release
def test_the_first_lines_are_those_of_the_release(abi: str, bench: Bench, capfd: Output) -> None:
    path = hash_model(bench.folder, "dtype w8a8_g128", "npu_cores 2")
    bench.load(abi, path)
    lines = capfd.readouterr().out.splitlines()
    dtype = ", model_dtype: W8A8_G128" if abi in {"1.2.3", "1.3.0"} else ""
    limits = "max_context_limit: 256, npu_core_num: 2"
    expected = [
        f"I rkllm: rkllm-runtime version: {abi}, rknpu driver version: 0.9.8, platform: RK3588",
        f"I rkllm: loading rkllm model from {path}",
        f"I rkllm: rkllm-toolkit version: 1.1.0, {limits}, target_platform: RK3588{dtype}",
        "I rkllm: Enabled cpus: [4, 5, 6, 7]",
        "I rkllm: Enabled cpus num: 4",
    ]
    if abi == "1.1.4":
        del expected[1]
    assert lines == expected


@pytest.mark.parametrize(("driver", "warned"), [("0.9.6", True), ("0.8.2", True), ("0.9.7", False), ("0.9.8", False)])
def test_an_old_driver_is_warned_of(
    driver: str, *, warned: bool, bench: Bench, monkeypatch: pytest.MonkeyPatch, capfd: Output
) -> None:
    monkeypatch.setenv("RKLLM_SIM_DRIVER", driver)
    bench.load("1.3.0", hash_model(bench.folder))
    first, *others = capfd.readouterr().out.splitlines()
    assert first.startswith("W rkllm: Warning: Your rknpu driver version is too low") == warned
    assert f"rknpu driver version: {driver}" in (others[0] if warned else first)


def test_the_second_log_level_tells_about_prompts(bench: Bench, monkeypatch: pytest.MonkeyPatch, capfd: Output) -> None:
    model = bench.load("1.3.0", hash_model(bench.folder))
    model.run("hello")
    assert "hello" not in capfd.readouterr().out
    monkeypatch.setenv("RKLLM_LOG_LEVEL", "2")
    model.run("hello")
    out = capfd.readouterr().out
    assert "prompt: 5 tokens" in out
    assert re.search("prefill 1 tokens in .* memory 900 MB", out)


def refused(bench: Bench, abi: str, path: Path, capfd: Output, **settings: object) -> str:
    """The error line of an init that fails."""
    model = bench.try_to_load(abi, path, **settings)
    assert (model.ret, model.handle.value) == (-1, None)
    errors = [line for line in capfd.readouterr().out.splitlines() if line.startswith("E rkllm: ")]
    assert len(errors) == 1
    return errors[0]


@every_release
def test_a_context_above_the_models_is_refused(abi: str, bench: Bench, capfd: Output) -> None:
    path = hash_model(bench.folder)
    assert "257 is above the model's max_context_limit 256" in refused(bench, abi, path, capfd, max_context_len=257)
    assert bench.load(abi, path, max_context_len=256).ret == 0
    capfd.readouterr()
    assert "max_context_len is 0" in refused(bench, abi, path, capfd, max_context_len=0)


@with_cpus
def test_n_keep_has_to_be_less_than_the_context(abi: str, bench: Bench, capfd: Output) -> None:
    path = hash_model(bench.folder)
    assert "n_keep 64" in refused(bench, abi, path, capfd, max_context_len=64, n_keep=64)
    assert bench.load(abi, path, max_context_len=64, n_keep=63).ret == 0


@with_cpus
@pytest.mark.parametrize(
    ("number", "mask", "words"),
    [
        (4, 0xF, ""),
        (3, 0xE0, ""),
        (4, 0x70, "has 3 CPUs, enabled_cpus_num is 4"),
        (2, 0xC0, "2 CPUs are fewer than the 3 NPU cores"),
        (0, 0, "0 CPUs are fewer"),
    ],
)
def test_cpus_have_to_agree_and_suffice(
    abi: str, number: int, mask: int, words: str, *, bench: Bench, capfd: Output
) -> None:
    path = hash_model(bench.folder)
    chosen = {"enabled_cpus_num": number, "enabled_cpus_mask": mask}
    if words:
        assert words in refused(bench, abi, path, capfd, **chosen)
    else:
        assert bench.load(abi, path, **chosen).ret == 0


@pytest.mark.parametrize(
    ("abi", "toolkit", "fits"),
    [
        pytest.param("1.1.4", "1.1.4", True, marks=pytest.mark.slow),
        pytest.param("1.1.4", "1.2.0", False, marks=pytest.mark.slow),
        pytest.param("1.2.1b1", "1.2.1b1", True, marks=pytest.mark.slow),
        pytest.param("1.2.1b1", "1.2.1", False, marks=pytest.mark.slow),
        pytest.param("1.2.2", "1.2.1b1", True, marks=pytest.mark.slow),
        pytest.param("1.2.2", "1.2.3", False, marks=pytest.mark.slow),
        ("1.3.0", "1.2.3", True),
        ("1.3.0", "1.3.1", False),
        ("1.3.0", "1.0.1", False),
    ],
)
def test_a_model_of_a_newer_toolkit_is_refused(abi: str, toolkit: str, *, fits: bool, bench: Bench) -> None:
    assert (bench.try_to_load(abi, hash_model(bench.folder, toolkit=toolkit)).ret == 0) == fits


@every_release
def test_a_model_for_another_chip_is_refused(
    abi: str, bench: Bench, monkeypatch: pytest.MonkeyPatch, capfd: Output
) -> None:
    path = hash_model(bench.folder, "platform rk3576")
    assert "made for rk3576, this board is rk3588" in refused(bench, abi, path, capfd)
    monkeypatch.setenv("RKLLM_SIM_PLATFORM", "rk3576")
    bench.load(abi, path)
    assert "platform: RK3576" in capfd.readouterr().out


@releases("1.2.3", "1.3.0")
def test_batches_are_refused(abi: str, bench: Bench, capfd: Output) -> None:
    path = hash_model(bench.folder)
    assert "n_batch is 2" in refused(bench, abi, path, capfd, n_batch=2)
    assert bench.load(abi, path, n_batch=0).ret == 0


@every_release
def test_missing_arguments_are_refused(abi: str, bench: Bench, capfd: Output) -> None:
    model = bench.load(abi, hash_model(bench.folder))
    third = ctypes.byref(model.struct) if abi == "1.3.0" else model.callback
    handle = ctypes.c_void_p(77)
    init, param = model.lib.rkllm_init, ctypes.byref(model.param)
    assert init(None, param, third) == -1
    assert init(ctypes.byref(handle), None, third) == -1
    assert handle.value is None
    assert init(ctypes.byref(handle), param, None) == -1
    if abi == "1.3.0":
        assert init(ctypes.byref(handle), param, ctypes.byref(model.types.Callback())) == -1
    model.param.model_path = None
    assert init(ctypes.byref(handle), param, third) == -1
    assert len(bench.calls("rkllm_init")) == (6 if abi == "1.3.0" else 5)


# --- model files ---


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("rkllm-sim model 1", "RKLLM", "is not a model of rkllm-sim"),
        ("max_context 256", "max_context many", "line 4: cannot be understood"),
        ("max_context 256", "max_kontext 256", "line 4: cannot be understood"),
        ("lm hash", "lm gpt", "cannot be understood"),
        ("lm hash", "lm script", "lacks a script"),
        ("lm hash", "lm llama", "lacks a line `gguf` or `child`"),
        ("lm hash\n", "", "lacks a line `lm`"),
        ("words 256 64\n", "", "lacks a line `words`"),
        ("\n7a\n", "\n7\n", "line 131: cannot be understood"),
        ("vocab 324", "vocab 9999", "cannot be understood"),
        ("rkllm-toolkit version: 1.1.0\n", "", "the file is cut off"),
        ("rkllm-toolkit version: 1.1.0\n", "rkllm-toolkit version: 1.1.1\n", "does not name the toolkit"),
        ("version: 1.1.0\n", "version: 1.1.0\nmore\n", "does not name the toolkit"),
        ("toolkit 1.1.0\n", "", "does not name the toolkit"),
        ("special 321", "fault", "cannot be understood"),
        ("special 321", 'fault error_at=3 when "', "cannot be understood"),
        ("special 321", "answer 9 3", "cannot be understood"),
    ],
)
def test_a_file_that_is_not_right_is_refused_with_its_line(
    old: str, new: str, words: str, bench: Bench, capfd: Output
) -> None:
    text = model_text()
    assert text.count(old) >= 1
    path = bench.folder / "bad.rkllm"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    error = refused(bench, "1.3.0", path, capfd)
    assert words in error
    assert str(path) in error


@pytest.mark.parametrize("cut", [0, 10, 400, -1])
def test_a_file_that_is_cut_off_is_refused(cut: int, bench: Bench, capfd: Output) -> None:
    path = bench.folder / "cut.rkllm"
    path.write_text(model_text()[:cut], encoding="utf-8")
    assert str(path) in refused(bench, "1.3.0", path, capfd)


def test_a_missing_file_and_a_folder_are_refused(bench: Bench, capfd: Output) -> None:
    assert "cannot read" in refused(bench, "1.3.0", bench.folder / "none.rkllm", capfd)
    refused(bench, "1.3.0", bench.folder, capfd)


@pytest.mark.parametrize(
    "record",
    ['text "a', "text a", "token x", "token", "pad", "repeat 3", 'repeat x "a"', "bytes 1", "wait", "play", "null 3"],
)
def test_a_record_that_is_not_right_is_refused_with_its_line(record: str, bench: Bench, capfd: Output) -> None:
    path = script_model(bench.folder, 'text "fine"', record)
    line = path.read_text(encoding="utf-8").splitlines().index(record) + 1
    assert f"line {line}: cannot be understood" in refused(bench, "1.3.0", path, capfd)


def test_a_record_with_text_that_has_no_tokens_is_refused(bench: Bench, capfd: Output) -> None:
    path = script_model(bench.folder, 'text "z"')
    path.write_text(path.read_text(encoding="utf-8").replace("\n7a\n", "\n-\n"), encoding="utf-8")
    assert "no token for the byte 0x7a" in refused(bench, "1.3.0", path, capfd)


def test_a_large_vocabulary_loads(bench: Bench) -> None:
    """151,936 entries, some with the same text, as real ones have."""
    entries = [f"{number:08x}" if number % 7 else "2077" for number in range(1, 151_613)]
    text = model_text().replace("vocab 324", "vocab 151936")
    head, tail = text.split("rkllm-toolkit version")
    path = bench.folder / "large.rkllm"
    path.write_text(head + "\n".join([*entries, ""]) + "rkllm-toolkit version" + tail, encoding="utf-8")
    model = bench.load("1.3.0", path)
    assert model.run("x w1 wy").ret == 0
    assert bench.calls("rkllm_run", "enter")[0]["tokens"] == [ord("x"), 257, 330, ord("y")]
