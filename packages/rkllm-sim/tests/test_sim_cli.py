"""The command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rkllm_sim import __version__, cli

RKLLM_SIM = Path(sys.executable).with_name("rkllm-sim")


def fails(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """What a command prints to stderr that ends with 2."""
    try:
        code = cli.main([str(argument) for argument in arguments])
    except SystemExit as ended:
        code = int(str(ended.code))
    assert code == 2
    out, err = capsys.readouterr()
    assert not out
    return err


def works(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    assert cli.main([str(argument) for argument in arguments]) == 0
    out, err = capsys.readouterr()
    assert not err
    return out


def test_a_model_with_every_option_of_hash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "tiny"
    options = "--thinking --seed 3 --answer 1 2 --context 128 --platform rk3576 --toolkit 1.1.4 --name other"
    faults = ("--fault", 'error_at=2 when "x y"', "--fault", "split_utf8")
    out = works(capsys, "model", folder, *options.split(), *faults, "--pace", "1.5,20")
    assert out == f"pace: 1.50 ms for a prompt token, 20.00 ms for a new one\n{folder / 'other.rkllm'}\n"
    lines = (folder / "other.rkllm").read_text(encoding="utf-8").splitlines()
    expected = {
        *("seed 3", "answer 1 2", "max_context 128", "platform rk3576", "toolkit 1.1.4"),
        *('fault error_at=2 when "x y"', "fault split_utf8", "prefill_ms 1.5", "decode_ms 20"),
    }
    assert expected <= set(lines)
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert "enable_thinking" in config["chat_template"]


def test_a_script_and_no_tokenizer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "script.txt"
    script.write_text('text "Hi"\n', encoding="utf-8")
    works(capsys, "model", tmp_path / "tiny", "--lm", "script", "--script", script, "--no-tokenizer")
    assert sorted(one.name for one in (tmp_path / "tiny").iterdir()) == ["Modelfile", "tiny.rkllm"]


def test_a_profile_decides_chip_and_type_unless_a_chip_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = works(capsys, "model", tmp_path / "tiny", "--pace", "rk3576:qwen2-0.5b:w4a16:1.3.0")
    assert out.startswith(
        "pace: rk3576:qwen2-0.5b:w4a16:1.3.0  2.67 ms for a prompt token, 30.71 ms for a new one, 443 MB\n"
    )
    assert "\nplatform rk3576\n" in (tmp_path / "tiny" / "tiny.rkllm").read_text(encoding="utf-8")
    assert cli.main(["model", str(tmp_path / "b"), "--pace", "rk3576:qwen2-0.5b", "--platform", "rk3588"]) == 2
    assert "w4a16 is for RK3576" in capsys.readouterr().err


def test_the_profiles_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    lines = works(capsys, "profiles").splitlines()
    assert any(line.startswith("rk3588:qwen3-0.6b:w8a8:1.3.0 ") for line in lines)
    assert len({line.index(" ms for a prompt") - len(line.split()[1]) for line in lines}) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "required: COMMAND"),
        (("fly",), "invalid choice: 'fly'"),
        (("build", "--abi", "9.9", "--output", "x"), "There is no layout for --abi 9.9"),
        (("build", "--abi", "1.2.3"), "--output"),
        (("model",), "DIR"),
        (("model", "x", "--lm", "magic"), "invalid choice: 'magic'"),
        (("model", "x", "--answer", "1"), "expected 2 arguments"),
        (("model", "x", "--lm", "llama"), "rkllm-sim: The language model llama needs --gguf FILE."),
        (("model", "x", "--lm", "script", "--script", "none.txt"), "rkllm-sim: none.txt: No such file or directory"),
        (("model", "x", "--pace", "rk3588:nothing"), "rkllm-sim: No profile is called 'rk3588:nothing'."),
        (("model", "x", "--platform", "rk1"), "rkllm-sim: Nothing is known of a chip 'rk1'."),
        (("model", "x", "--fault", "boom"), "rkllm-sim: There is no fault 'boom'."),
        (("model", "x", "--tokenizer", "none"), "rkllm-sim: none holds no tokenizer.json"),
    ],
)
def test_bad_use_ends_with_2_and_one_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    err = fails(capsys, *arguments)
    assert said in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"rkllm-sim {__version__}\n"


def test_a_reader_that_goes_away_is_no_error() -> None:
    with subprocess.Popen([str(RKLLM_SIM), "profiles"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=30) == 0


@pytest.mark.slow
def test_the_library_is_built(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = works(capsys, "build", "--abi", "1.2.3", "--output", tmp_path / "lib")
    assert out == f"{tmp_path / 'lib' / 'librkllmrt.so'}\n"
    assert (tmp_path / "lib" / "librkllmrt.so").read_bytes().startswith(b"\x7fELF")
