"""What several modules of these tests begin with; they name it as a plugin of pytest."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from converter_hub import ConverterHub
from converter_toolkits import small_model

from rkllm_converter.options import Options
from rkllm_converter.standin import write_stand_in
from rkllm_converter.toolkit.calls import Call, Inputs, calls
from rkllm_converter.toolkit.door import Found
from rkllm_converter.toolkit.versions import toolkit


@pytest.fixture
def no_toolkit(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYTHONPATH", "PYTHONUNBUFFERED"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """The packages of that folder are installed."""
    return lambda folder: monkeypatch.setenv("PYTHONPATH", str(folder))


@pytest.fixture
def whole(tmp_path: Path) -> tuple[Call, ...]:
    """The calls of a small conversion."""
    inputs = Inputs(model=small_model(tmp_path / "model"), export_path=tmp_path / "out.rkllm")
    return calls(Options(platform="rk3588", quant="w8a8"), inputs, toolkit("1.3.0"))


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a stand-in writes down what it is asked for."""
    file = tmp_path / "record"
    monkeypatch.setenv("RKLLM_STANDIN_RECORD", str(file))
    return file


@pytest.fixture
def stand_in(tmp_path: Path, no_toolkit: None, use: Callable[[Path], None]) -> Found:
    use(write_stand_in(tmp_path / "toolkit", "1.3.0"))
    here = (sys.version_info[0], sys.version_info[1])
    return Found(sys.executable, here, "1.3.0", is_stand_in=True, folder=Path(sys.prefix))


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of how the hub is reached from here, which the library reads in part when it is imported."""
    from huggingface_hub import constants

    for name in os.environ:
        if name.upper().startswith(("HF_", "HUGGING")) or name.upper().endswith("_PROXY"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.fixture
def hub(tmp_path: Path, no_hub: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[ConverterHub]:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    with ConverterHub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server
