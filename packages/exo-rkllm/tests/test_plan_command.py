"""`exo plan`: models by name and by file, boards, the page and the record."""

from __future__ import annotations

import argparse
import json
import re
import struct
from pathlib import Path
from typing import Any

import pytest

from exo.cli.entry import CommandParser
from exo.types import ConfigurationError
from exo_rkllm.cli.plan import COMMAND, memory_size
from exo_rkllm.models import RKLLM_MODELS
from rkllm_facts.architecture import known_model

QWEN = "Qwen2.5-1.5B"


def parsed(*arguments: str) -> argparse.Namespace:
    parser = CommandParser(prog="exo plan")
    COMMAND.configure(parser)
    namespace: argparse.Namespace = parser.parse_args(list(arguments))
    return namespace


@pytest.fixture
def nowhere(tmp_path: Path) -> dict[str, str]:
    """The environment of a machine that is no board."""
    return {"RKLLM_ROOT": str(tmp_path / "nowhere")}


@pytest.fixture
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def board(tmp_path: Path) -> dict[str, str]:
    """The environment of an RK3576 with 4 GB."""
    root = tmp_path / "board"
    (root / "proc/device-tree").mkdir(parents=True)
    (root / "proc/device-tree/compatible").write_bytes(b"maker,board\0rockchip,rk3576\0")
    (root / "proc/meminfo").write_text("MemTotal:        4194304 kB\nMemAvailable:    1000000 kB\n")
    return {"RKLLM_ROOT": str(root)}


def record(capsys: pytest.CaptureFixture[str], env: dict[str, str], *arguments: str) -> dict[str, Any]:
    assert COMMAND.run(parsed(*arguments, "--json"), env) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def page(capsys: pytest.CaptureFixture[str], env: dict[str, str], *arguments: str) -> str:
    assert COMMAND.run(parsed(*arguments), env) == 0
    return capsys.readouterr().out


def test_one_object_with_the_figures(capsys: pytest.CaptureFixture[str], nowhere: dict[str, str]) -> None:
    found = record(capsys, nowhere, QWEN)
    assert found["tokens_per_s"] == pytest.approx(16.7, rel=0.05)
    assert found["ttft_ms"] == pytest.approx(378, rel=0.15)
    assert found["memory_mb"] == pytest.approx(1689 + 102, rel=0.05)  # more context than was measured
    assert found["file_mb"] == pytest.approx(2.04e9 / 2**20, rel=0.02)
    assert found["fits"] is None
    assert (found["model"], found["platform"], found["quant"]) == (QWEN, "rk3588", "w8a8")
    assert (found["context"], found["prompt_tokens"], found["remedies"]) == (4096, 128, [])
    assert sum(found["parts"]["memory_mb"].values()) == pytest.approx(found["memory_mb"], abs=0.1)
    assert set(found["expected_errors"]) == {"tokens_per_s", "ttft_ms", "memory_mb"}
    assert set(found["expected_errors"]["memory_mb"]) == {"half", "most"}
    assert record(capsys, nowhere, QWEN, "--quant", "w8a8_g256")["expected_errors"] is None


@pytest.mark.parametrize("ram", ["8G", "8192M", "8GiB", "8gb", "8.0 G"])
def test_memory_may_be_written_in_several_ways(
    capsys: pytest.CaptureFixture[str], nowhere: dict[str, str], ram: str
) -> None:
    found = record(capsys, nowhere, QWEN, "--ram", ram)
    assert (found["ram_mb"], found["fits"], found["reserved_mb"]) == (8192, True, 819.2)


@pytest.mark.parametrize("ram", ["8", "much", "0G", "-1G", "8T", "1e3G", ""])
def test_what_is_no_memory_is_refused(ram: str) -> None:
    with pytest.raises(ConfigurationError, match="say 8G or 8192M"):
        memory_size(ram)


def test_what_does_not_fit_comes_with_remedies(capsys: pytest.CaptureFixture[str], nowhere: dict[str, str]) -> None:
    found = record(capsys, nowhere, "Phi-3-mini", "--ram", "6G", "--context", "16384", "--no-embed-flash")
    assert found["fits"] is False
    assert {one["kind"] for one in found["remedies"]} >= {"context", "board"}
    (shorter,) = (one for one in found["remedies"] if one["kind"] == "context")
    assert shorter["context"] < 16384
    assert shorter["memory_mb"] <= 6144 * 0.9
    assert shorter["tokens_per_s"] == found["tokens_per_s"]


def test_the_board_that_this_is_counts(capsys: pytest.CaptureFixture[str], board: dict[str, str]) -> None:
    here = record(capsys, board, QWEN)
    assert (here["platform"], here["quant"], here["ram_mb"], here["fits"]) == ("rk3576", "w4a16", 4096, True)
    other = record(capsys, board, QWEN, "--platform", "RK3588")
    assert (other["platform"], other["ram_mb"], other["fits"]) == ("rk3588", None, None)
    more = record(capsys, board, QWEN, "--ram", "16G", "--quant", "W8A8")
    assert (more["platform"], more["quant"], more["ram_mb"]) == ("rk3576", "w8a8", 16384)


def test_every_type_on_request(capsys: pytest.CaptureFixture[str], nowhere: dict[str, str]) -> None:
    found = record(capsys, nowhere, QWEN, "--platform", "rk3562", "--all")
    assert found["quant"] == "w8a8"
    assert [one["quant"] for one in found["others"]] == ["w4a16_g32", "w4a16_g64", "w4a16_g128", "w4a8_g32"]


@pytest.mark.parametrize(
    "name", [*RKLLM_MODELS, *(name for entry in RKLLM_MODELS.values() for name in entry["aliases"])]
)
def test_every_card_can_be_planned(capsys: pytest.CaptureFixture[str], nowhere: dict[str, str], name: str) -> None:
    repository = next(
        entry["repo"]["RKLLMInferenceEngine"]
        for model_id, entry in RKLLM_MODELS.items()
        if name in (model_id, *entry["aliases"])
    )
    assert record(capsys, nowhere, name)["parameters"] == known_model(repository).architecture.parameters


def test_a_card_of_another_engine(capsys: pytest.CaptureFixture[str], nowhere: dict[str, str]) -> None:
    assert record(capsys, nowhere, "smollm2-135m-instruct")["parameters"] == 134_515_008


@pytest.mark.parametrize("asked", ["folder", "folder/config.json"])
def test_a_folder_with_nothing_but_a_configuration(
    capsys: pytest.CaptureFixture[str], nowhere: dict[str, str], working_folder: Path, asked: str
) -> None:
    (working_folder / "folder").mkdir()
    (working_folder / "folder/config.json").write_text(json.dumps(dict(known_model(QWEN).config)))
    found = record(capsys, nowhere, asked)
    assert (found["model"], found["parameters"]) == ("folder", 1_543_714_304)
    assert found["tokens_per_s"] == record(capsys, nowhere, QWEN)["tokens_per_s"]


def test_a_folder_that_is_named_like_a_known_model(
    capsys: pytest.CaptureFixture[str], nowhere: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "Qwen2.5-1.5B-Instruct-rk3588-w8a8"
    folder.mkdir()
    assert record(capsys, nowhere, str(folder))["parameters"] == 1_543_714_304


def gguf(path: Path, tensors: dict[str, int]) -> None:
    """A header of a model of two layers, in so many tensors of one dimension each; no values behind it."""
    numbers = {
        "block_count": 2,
        "embedding_length": 64,
        "feed_forward_length": 256,
        "attention.head_count": 4,
        "vocab_size": 100,
    }
    content = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(numbers) + 1)
    content += text("general.architecture") + struct.pack("<I", 8) + text("llama")
    for name, number in numbers.items():
        content += text(f"llama.{name}") + struct.pack("<II", 4, number)
    for name, values in tensors.items():
        content += text(name) + struct.pack("<IQIQ", 1, values, 0, 0)
    path.write_bytes(content)


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


OF_BOTH_LAYERS = 2 * (4 * 64 * 64 + 3 * 64 * 256 + 2 * 64) + 64


@pytest.mark.parametrize("asked", ["m", "m/a-00001-of-00002.gguf", "m/a-00002-of-00002.gguf"])
def test_a_gguf_model_in_two_files_with_another_that_sees(
    capsys: pytest.CaptureFixture[str], nowhere: dict[str, str], working_folder: Path, asked: str
) -> None:
    folder = working_folder / "m"
    folder.mkdir()
    gguf(folder / "a-00001-of-00002.gguf", {"token_embd.weight": 6400})
    gguf(folder / "a-00002-of-00002.gguf", {"rest": OF_BOTH_LAYERS})
    gguf(folder / "mmproj-a.gguf", {"v.weight": 99})
    assert record(capsys, nowhere, asked)["parameters"] == 6400 + OF_BOTH_LAYERS
    (folder / "a-00001-of-00002.gguf").unlink()
    with pytest.raises(ConfigurationError, match=r"a-00001-of-00002\.gguf is not there"):
        COMMAND.run(parsed(asked), nowhere)


def test_of_two_gguf_models_in_a_folder_one_has_to_be_named(nowhere: dict[str, str], working_folder: Path) -> None:
    (working_folder / "m").mkdir()
    for name in "ab":
        gguf(working_folder / f"m/{name}.gguf", {"token_embd.weight": 6400, "rest": OF_BOTH_LAYERS})
    with pytest.raises(ConfigurationError, match=r"more than one model: name one of a\.gguf, b\.gguf"):
        COMMAND.run(parsed("m"), nowhere)


@pytest.mark.parametrize(
    ("files", "asked", "said"),
    [
        ({}, "nonsense-9B", r"'nonsense-9B' is not known here.*config\.json"),
        ({}, "missing/config.json", "is not there"),
        ({}, "missing.gguf", "is not there"),
        ({"empty/readme": b""}, "empty", r"folder empty has no config\.json"),
        ({"config.json": b"{"}, "config.json", "no configuration in JSON"),
        ({"config.json": b"[1]"}, "config.json", "has to be a JSON object"),
        ({"config.json": b'{"hidden_size": 8}'}, "config.json", r"config\.json: .*'num_hidden_layers'"),
        ({"m.gguf": b"GGUF" + struct.pack("<IQQ", 3, 0, 0)}, "m.gguf", r"m\.gguf does not describe"),
        ({"m.gguf": b"nothing"}, "m.gguf", "does not begin with GGUF"),
    ],
)
def test_models_that_cannot_be_planned_are_refused_with_what_to_do(
    nowhere: dict[str, str], working_folder: Path, files: dict[str, bytes], asked: str, said: str
) -> None:
    for name, content in files.items():
        (working_folder / name).parent.mkdir(exist_ok=True)
        (working_folder / name).write_bytes(content)
    with pytest.raises(ConfigurationError, match=said):
        COMMAND.run(parsed(asked), nowhere)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--quant", "w4a16"], r"RK3588 does not run .*w8a8, w8a8_g128, w8a8_g256, w8a8_g512.*RK3576"),
        (["--platform", "rk3399"], "Known chips: RK3588"),
        (["--context", "99999"], "1 to 16384"),
        (["--prompt", "4096"], "shorter prompt"),
        (["--ram", "lots"], "8G or 8192M"),
    ],
)
def test_values_that_cannot_be_are_refused(nowhere: dict[str, str], arguments: list[str], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        COMMAND.run(parsed(QWEN, *arguments), nowhere)


def test_the_page_begins_with_the_answer(capsys: pytest.CaptureFixture[str], nowhere: dict[str, str]) -> None:
    lines = page(capsys, nowhere, QWEN, "--ram", "8G").splitlines()
    assert lines[0] == f"{QWEN} as w8a8 on RK3588"
    assert "no Rockchip board" in lines[1]
    assert lines[3].startswith("FITS: 1,")
    assert re.fullmatch(
        r"  speed        1\d\.\d tokens/s  half of the models within \d+%, nine of ten within \d+%", lines[5]
    )
    types = [line.split()[0] for line in lines if line.startswith("  w8a8")]
    assert types == ["w8a8", "w8a8_g128", "w8a8_g256", "w8a8_g512"]
    assert [line.endswith("not measured") for line in lines if line.startswith("  w8a8")] == [False, True, True, True]
    (parts,) = (line for line in lines if line.startswith("  memory") and " = " in line)
    whole, *each = (float(number.replace(",", "")) for number in re.findall(r"([\d,]+) MB", parts))
    assert sum(each) == pytest.approx(whole, abs=2)


def test_the_page_of_one_type_has_no_others(capsys: pytest.CaptureFixture[str], nowhere: dict[str, str]) -> None:
    shown = page(capsys, nowhere, QWEN, "--quant", "w8a8")
    assert "types that this chip runs" not in shown
    assert "say --ram 8G" in shown


def test_the_page_says_what_would_help(capsys: pytest.CaptureFixture[str], nowhere: dict[str, str]) -> None:
    shown = page(capsys, nowhere, "Qwen2.5-7B", "--platform", "rk3576", "--quant", "w8a8", "--ram", "8G")
    assert "FITS, BUT ONLY JUST" in shown
    shown = page(capsys, nowhere, "Qwen2.5-7B", "--platform", "rk3576", "--quant", "w8a8", "--ram", "6G")
    assert "DOES NOT FIT: 7," in shown
    assert re.search(r"quantised as w4a16 +3,\d{3} MB", shown)
    assert "a board with RK3576 and 8 GB" in shown


def test_a_name_cannot_steer_the_terminal(
    capsys: pytest.CaptureFixture[str], nowhere: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "red\x1b[31m\nname"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(dict(known_model(QWEN).config)))
    first, *_ = page(capsys, nowhere, str(folder)).splitlines()
    assert first.startswith(r"red\x1b[31m\nname as w8a8 on RK3588")
