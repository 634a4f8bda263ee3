"""`rkllm-convert model`: every flag on its way to the toolkit and into the result, and what is printed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from converter_gguf import write_gguf
from converter_models import small_model

from rkllm_converter.cli.main import main, make_parser
from rkllm_converter.result.modelfile import read_keys
from rkllm_converter.standin import write_stand_in

MACHINE = ("--ignore", "memory", "--ignore", "disk")
"""The machine that runs the tests may be small."""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return small_model(tmp_path / "source/small")


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("RKLLM_", "HF_"))]:
        monkeypatch.delenv(name)


def run(*arguments: str | Path, version: str, tmp_path: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """The command, in a process that has the stand-in of that version."""
    standin = tmp_path / "standin"
    if not standin.exists():
        write_stand_in(standin, version)
        (standin / "torch.py").write_text("class cuda:\n    is_available = staticmethod(lambda: True)\n")
    record = tmp_path / "record"
    record.unlink(missing_ok=True)
    return subprocess.run(
        [sys.executable, "-m", "rkllm_converter", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path_with(standin), "RKLLM_STANDIN_RECORD": str(record), **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def path_with(folder: Path) -> str:
    return os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])


def recorded(tmp_path: Path) -> dict[str, dict[str, Any]]:
    """By method, what the toolkit was given."""
    lines = (tmp_path / "record").read_text().splitlines()
    return {one["method"]: one["arguments"] for one in map(json.loads, lines) if one["method"] != "RKLLM"}


@pytest.mark.slow
def test_every_flag_reaches_the_toolkit_and_the_result(model: Path, tmp_path: Path) -> None:
    lora = tmp_path / "lora"
    lora.mkdir()
    (lora / "adapter_config.json").write_text('{"r": 8}')
    (lora / "adapter_model.safetensors").write_text("weights")
    (tmp_path / "own.json").write_text("{}")
    (tmp_path / "x.qparams").write_text("parameters")
    (tmp_path / "texts.txt").write_text("".join(f"Question {number}?\n\n" for number in range(30)))
    output = tmp_path / "models/all-flags"
    done = run(
        *("model", "--model", model, "--output", output, "--platform", "RK3576", "--quant", "W4A16_G32"),
        *("--algorithm", "grq_r8", "--opt-level", "0", "--npu-cores", "1", "--max-context", "512"),
        *("--hybrid-rate", "0.25", "--device", "cuda", "--dtype", "bfloat16", "--lora", lora),
        *("--custom-config", tmp_path / "own.json", "--qparams", tmp_path / "x.qparams"),
        *("--dataset", tmp_path / "texts.txt", "--samples", "24", "--seed", "5", "--max-new-tokens", "99"),
        *("--no-export-embedding", "--export-tokenizer", "--ram", "4G", "--json", *MACHINE),
        version="1.3.0",
        tmp_path=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    given = recorded(tmp_path)
    assert given["load_huggingface"] == {
        "model": str(model),
        "model_lora": str(lora),
        "device": "cuda",
        "dtype": "bfloat16",
        "custom_config": str(tmp_path / "own.json"),
        "load_weight": True,
    }
    dataset = given["build"].pop("dataset")
    assert Path(dataset).name == "calibration.json"
    assert given["build"] == {
        "do_quantization": True,
        "optimization_level": 0,
        "target_platform": "rk3576",
        "num_npu_core": 1,
        "max_context": 512,
        "quantized_dtype": "w4a16_g32",
        "quantized_algorithm": "grq_r8",
        "extra_qparams": str(tmp_path / "x.qparams"),
        "hybrid_rate": 0.25,
    }
    exported = given["export_rkllm"]
    assert Path(exported.pop("export_path")).name == "small-rk3576-w4a16_g32.rkllm"
    assert exported == {"export_tokenizer": True, "export_embedding": False}
    keys = read_keys((output / "Modelfile").read_text())
    assert (keys["NUM_CTX"], keys["MAX_NEW_TOKENS"]) == (["512"], ["99"])
    assert keys["ADAPTER"] == ["small-rk3576-w4a16_g32_lora.rkllm"]
    said = json.loads((output / "conversion.json").read_text())
    assert said["calibration"] | {"sha256": ""} == {"dataset": "texts.txt", "sha256": "", "samples": 24, "seed": 5}
    assert said["inputs"]["files"]["qparams"]
    assert said["inputs"]["lora"].keys() == {"adapter_config.json", "adapter_model.safetensors"}
    assert said["ignored"] == ["disk", "memory"]
    answer = json.loads(done.stdout)
    assert (answer["status"], answer["is_stand_in"]) == ("done", True)
    assert answer["preflight"]["board"]["ram_mb"] == 4096


@pytest.mark.slow
def test_the_older_toolkit_is_asked_in_its_own_words(model: Path, tmp_path: Path) -> None:
    asked = ("model", "--model", model, "--output", tmp_path / "m", "--platform", "rk3576", *MACHINE)
    done = run(*asked, "--algorithm", "gdq", "--device", "cuda", version="1.2.3", tmp_path=tmp_path)
    assert done.returncode == 0, done.stderr
    given = recorded(tmp_path)
    assert given["build"]["quantized_algorithm"] == "gdq"
    assert given["export_rkllm"].keys() == {"export_path"}
    refused = run(*asked, "--export-tokenizer", "--force", version="1.2.3", tmp_path=tmp_path)
    assert refused.returncode == 2
    assert "--export-tokenizer" in refused.stderr


@pytest.mark.slow
def test_the_type_of_a_gguf_decides_where_no_other_is_named(model: Path, tmp_path: Path) -> None:
    gguf = write_gguf(model / "m.gguf", general__file_type=2)
    asked = ("model", "--model", gguf, "--platform", "rk3576", "--output", tmp_path / "m", *MACHINE)
    done = run(*asked, version="1.3.0", tmp_path=tmp_path)
    assert done.returncode == 0, done.stderr
    assert recorded(tmp_path)["load_gguf"] == {"model": str(gguf)}
    assert recorded(tmp_path)["build"]["quantized_dtype"] == "w4a16_g32"
    other = run(*asked, "--platform", "rk3588", "--force", version="1.3.0", tmp_path=tmp_path)
    assert other.returncode == 2
    assert "q4_0" in other.stderr


@pytest.mark.slow
def test_what_is_printed_says_what_to_expect_and_that_it_is_no_model(model: Path, tmp_path: Path) -> None:
    asked = ("model", "--model", model, "--platform", "rk3588", "--output", tmp_path / "models/m", *MACHINE)
    planned = run(*asked, "--dry-run", version="1.3.0", tmp_path=tmp_path)
    assert planned.returncode == 0, planned.stderr
    assert "RK3588" in planned.stdout
    assert "nothing was done yet" in planned.stdout
    assert not (tmp_path / "models").exists()
    done = run(*asked, version="1.3.0", tmp_path=tmp_path)
    assert "RK3588" in done.stderr
    assert "STAND-IN" in done.stderr
    assert "no NPU runs it" in done.stdout
    again = run(*asked, "--if-changed", version="1.3.0", tmp_path=tmp_path)
    assert "is current" in again.stdout


@pytest.mark.slow
def test_progress_that_nobody_reads_ends_nothing(model: Path, tmp_path: Path) -> None:
    write_stand_in(tmp_path / "standin", "1.3.0")
    command = f'"{sys.executable}" -m rkllm_converter model --model "{model}" --platform rk3588 {" ".join(MACHINE)}'
    environment = {**os.environ, "PYTHONPATH": path_with(tmp_path / "standin")}
    for name, rest in (("m", "2>&1 >/dev/null | true"), ("n", ">&- 2>&-"), ("o", "| true")):
        script = f'set -o pipefail; {command} --output "{tmp_path / name}" {rest}'
        assert subprocess.run(["bash", "-c", script], env=environment, timeout=60, check=False).returncode == 0, rest
        assert (tmp_path / name / "conversion.json").exists(), rest


def test_a_refusal_is_exit_code_two_and_one_line_for_each_reason(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["model", "--model", str(model), "--output", str(tmp_path / "m"), "--dry-run"]
    assert main([*asked, "--platform", "rk3588", "--quant", "w4a16", "--max-context", "100"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("rkllm-convert: --") for line in lines)


def test_problems_are_shown_once_with_what_would_pass_over_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = small_model(tmp_path / "source", model_type="mistral")
    asked = ["model", "--model", str(model), "--output", str(tmp_path / "m"), "--platform", "rk3588", "--dry-run"]
    assert main([*asked, *MACHINE]) == 2
    told = capsys.readouterr()
    assert told.out.count("Models of the family 'mistral'") == 1
    assert "Models of" not in told.err
    assert told.err.splitlines()[-1].endswith("To go on in spite of them: --ignore architecture")
    assert main([*asked, *MACHINE, "--ignore", "architecture"]) == 0
    capsys.readouterr()
    assert main([*asked, *MACHINE, "--json"]) == 2
    assert "mistral" in json.loads(capsys.readouterr().out)["error"]["message"]


def test_every_error_comes_as_json_too(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["model", "--platform", "rk3588", "--dry-run", "--json"]
    cases = {
        "ModelNotFound": ["--model", str(tmp_path / "none"), "--output", str(tmp_path / "m")],
        "FolderError": ["--model", str(model), "--output", "/"],
        "OSError": ["--model", str(model), "--output", str(tmp_path / ("x" * 300))],
        "IllegalOptions": ["--model", str(model), "--output", str(tmp_path / "m"), "--quant", "w9"],
    }
    for kind, more in cases.items():
        assert main([*asked, *more]) in (1, 2)
        answer = json.loads(capsys.readouterr().out)
        assert (answer["status"], answer["error"]["type"]) == ("failed", kind)


def test_what_others_wrote_cannot_move_the_cursor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "\x1b]0;evil\x07"
    assert main(["verify", str(folder)]) == 1
    assert "\x1b" not in capsys.readouterr().err


def test_the_help_has_every_option_of_the_issue() -> None:
    flags = (
        "model output platform quant algorithm opt-level npu-cores max-context hybrid-rate dataset device dtype lora"
    )
    parser = make_parser()
    assert parser._subparsers is not None
    (commands,) = [action for action in parser._actions if action.dest == "command" or action.choices]
    assert commands.choices is not None
    text = dict(commands.choices)["model"].format_help()
    assert all(f"--{flag}" in text for flag in flags.split())
