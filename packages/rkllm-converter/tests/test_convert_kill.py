"""SIGKILL in every phase of a conversion: no half made folder has a model's name, and the next run makes it whole."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from converter_models import small_model
from converter_processes import children, is_alive, wait_for

from rkllm_converter.result.verify import verify
from rkllm_converter.standin import write_stand_in

pytestmark = pytest.mark.slow

DRIVER = Path(__file__).parent / "support/converter_driver.py"
PLACES = [
    ("rkllm_converter.prepare:look", "before"),
    ("rkllm_converter.prepare:preflight", "after"),
    ("rkllm_converter.convert:fetch", "after"),
    ("rkllm_converter.convert:copy_tokenizer", "after"),
    ("rkllm_converter.convert:build", "after"),
    ("rkllm_converter.convert:_Conversion._check_export", "before"),
    ("rkllm_converter.convert:modelfile_text", "before"),
    ("rkllm_converter.convert:write_record", "before"),
    ("rkllm_converter.convert:write_record", "after"),
    ("rkllm_converter.result.staging:_sync", "before"),
    ("rkllm_converter.result.staging:Staging.place", "after"),
    ("rkllm_converter.result.staging:Staging.finish", "before"),
]
METHODS = ["load_huggingface", "build", "export_rkllm"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return small_model(tmp_path / "source/small")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    standin = write_stand_in(tmp_path / "standin", "1.3.0")
    assert standin.exists()
    own = {name: value for name, value in os.environ.items() if not name.startswith("RKLLM_")}
    return {**own, "PYTHONPATH": str(tmp_path / "standin"), "RKLLM_STANDIN_RECORD": str(tmp_path / "record")}


def command(model: Path, output: Path, *more: str, place: str = "-", when: str = "-") -> list[str]:
    machine = ["--ignore", "memory", "--ignore", "disk"]  # that runs the tests: it may be small
    asked = ["model", "--model", str(model), "--output", str(output), "--platform", "rk3588", *machine, *more]
    return [sys.executable, str(DRIVER), place, when, *asked]


def listed(store: Path) -> list[str]:
    """The folders that a server takes for models: those with a name that a model may have, and a .rkllm in them."""
    return sorted(path.parent.name for path in store.glob("*/*.rkllm") if not path.parent.name.startswith("."))


def run(arguments: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(("place", "when"), PLACES)
def test_a_killed_conversion_is_never_listed_half_made(
    model: Path, tmp_path: Path, environment: dict[str, str], place: str, when: str
) -> None:
    store = tmp_path / "models"
    killed = run(command(model, store / "m", place=place, when=when), environment)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    for name in listed(store):  # in its place: then it is whole
        verify(store / name)
    again = run(command(model, store / "m", "--if-changed", "--json"), environment)
    assert again.returncode == 0, again.stderr
    verify(store / "m")
    assert [path.name for path in store.iterdir()] == ["m"]


@pytest.mark.parametrize("method", METHODS)
def test_a_conversion_that_is_killed_takes_the_toolkit_along(
    model: Path, tmp_path: Path, environment: dict[str, str], method: str
) -> None:
    store, record = tmp_path / "models", tmp_path / "record"
    process = subprocess.Popen(
        command(model, store / "m"),
        env={**environment, "RKLLM_STANDIN_STALL": method},
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: record.exists() and f'"{method}"' in record.read_text())
        toolkits = children(process.pid)
        assert toolkits
    finally:
        process.kill()
        process.wait()
    wait_for(lambda: not any(is_alive(one) for one in toolkits))
    assert listed(store) == []
    done = run(command(model, store / "m"), environment)
    assert done.returncode == 0, done.stderr
    verify(store / "m")


def test_a_killed_replacement_leaves_the_earlier_result(
    model: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    store = tmp_path / "models"
    assert run(command(model, store / "m"), environment).returncode == 0
    before = (store / "m/conversion.json").read_text()
    for place in ("rkllm_converter.convert:_Conversion._check_export", "rkllm_converter.convert:write_record"):
        killed = run(command(model, store / "m", "--force", "--seed", "1", place=place, when="after"), environment)
        assert killed.returncode == -signal.SIGKILL
        assert (store / "m/conversion.json").read_text() == before
        verify(store / "m")
    current = run(command(model, store / "m", "--if-changed", "--json"), environment)
    assert json.loads(current.stdout)["status"] == "unchanged"
    changed = run(command(model, store / "m", "--if-changed", "--json", "--seed", "1"), environment)
    assert json.loads(changed.stdout)["status"] == "done"
    assert (store / "m/conversion.json").read_text() != before


def test_ctrl_c_leaves_nothing_half_made(model: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    store, record = tmp_path / "models", tmp_path / "record"
    process = subprocess.Popen(
        command(model, store / "m"),
        env={**environment, "RKLLM_STANDIN_STALL": "build"},
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            wait_for(lambda: record.exists() and '"build"' in record.read_text())
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 130
        finally:
            process.kill()
        assert process.stderr is not None
        assert "interrupted" in process.stderr.read()
    assert listed(store) == []
    assert not (store / ".m.rkllm-partial").exists()
