"""Which weights the stand-in takes, and for which types."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from converter_toolkits import BUILD, recorded, small_gguf, small_model, stand_in

GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": True, "desc_act": False}


@pytest.fixture
def problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """Why the last call was refused."""
    monkeypatch.setenv("RKLLM_STANDIN_RECORD", str(tmp_path / "record"))
    return lambda: str(recorded(tmp_path / "record")[-1]["problem"])


def load(tmp_path: Path, **changes: Any) -> tuple[Any, int]:
    toolkit = stand_in("1.3.0").RKLLM()
    return toolkit, toolkit.load_huggingface(model=str(small_model(tmp_path / "model", **changes)))


def load_gguf(path: Path) -> tuple[Any, int]:
    toolkit = stand_in("1.3.0").RKLLM()
    return toolkit, toolkit.load_gguf(model=str(path))


@pytest.mark.parametrize(
    "settings",
    [
        {"quant_method": "awq", "bits": 4, "group_size": 32},
        {"quant_method": "fp8"},
        {"bits": 4},
        {**GPTQ, "bits": 3},
        {**GPTQ, "group_size": 256},
        {**GPTQ, "group_size": -1},
        {**GPTQ, "bits": 8},
        {**GPTQ, "sym": False},
        {**GPTQ, "desc_act": True},
    ],
)
@pytest.mark.parametrize("place", ["here", "text_config"])
def test_weights_that_are_quantised_already(settings: Any, place: str, problem: Any, tmp_path: Path) -> None:
    part = {"quantization_config": settings}
    assert load(tmp_path, **(part if place == "here" else {place: part}))[1] == -1
    assert problem().startswith("model has weights")


def test_weights_of_gptq_become_one_type(problem: Any, tmp_path: Path) -> None:
    toolkit, result = load(tmp_path, quantization_config=GPTQ)
    assert result == 0
    assert toolkit.build(**BUILD) == 0
    for other in ({"quantized_dtype": "w4a16_g64"}, {"quantized_dtype": "w8a8"}, {"do_quantization": False}):
        assert toolkit.build(**{**BUILD, **other}) == -1
        assert problem().endswith("these weights of GPTQ become w4a16_g32")


@pytest.mark.parametrize("kind", [0, 3, 7, 15, 32, None])
def test_gguf_of_other_types(kind: int | None, problem: Any, tmp_path: Path) -> None:
    assert load_gguf(small_gguf(tmp_path / "model.gguf", kind))[1] == -1
    assert f"general.file_type is {kind}, only" in problem()


def test_gguf_of_q4_0_becomes_one_type(problem: Any, tmp_path: Path) -> None:
    toolkit, result = load_gguf(small_gguf(tmp_path / "model.gguf", 2))
    assert result == 0
    assert toolkit.build(**BUILD) == 0
    for other in ({"quantized_dtype": "w4a16_g64"}, {"quantized_dtype": "w8a8"}, {"do_quantization": False}):
        assert toolkit.build(**{**BUILD, **other}) == -1
        assert problem().endswith("a GGUF file of type q4_0 becomes w4a16_g32")


@pytest.mark.parametrize("dtype", ["w4a16_g32", "w4a16_g128", "w8a8"])
def test_gguf_of_f16_is_quantised(dtype: str, tmp_path: Path) -> None:
    toolkit, result = load_gguf(small_gguf(tmp_path / "model.gguf"))
    assert result == 0
    assert toolkit.build(**{**BUILD, "quantized_dtype": dtype}) == 0
    assert toolkit.build(**{**BUILD, "do_quantization": False}) == 0


def test_groups_of_gguf(problem: Any, tmp_path: Path) -> None:
    toolkit, result = load_gguf(small_gguf(tmp_path / "model.gguf", llama__feed_forward_length=2000))
    assert result == 0
    assert toolkit.build(**BUILD) == -1
    assert "32 does not divide 2000" in problem()


@pytest.mark.parametrize("cut", [4, 20, 24, 60, 100])
def test_gguf_that_is_cut_short(cut: int, problem: Any, tmp_path: Path) -> None:
    path = small_gguf(tmp_path / "model.gguf")
    path.write_bytes(path.read_bytes()[:cut])
    assert load_gguf(path)[1] == -1
    assert "its header cannot be read" in problem()


def test_gguf_with_lists(tmp_path: Path) -> None:
    def text(value: bytes) -> bytes:
        return struct.pack("<Q", len(value)) + value

    lists = text(b"a") + struct.pack("<IIQ", 9, 5, 3) + bytes(12)
    lists += text(b"b") + struct.pack("<IIQ", 9, 8, 2) + text(b"x") + text(b"yy")
    kind = text(b"general.file_type") + struct.pack("<II", 4, 1)
    (tmp_path / "m.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 3) + lists + kind)
    assert load_gguf(tmp_path / "m.gguf")[1] == 0


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"intermediate_size": None, "ffn_hidden_size": 2000}, "2000, the output of gate_proj"),
        ({"intermediate_size": [2048, 2048, 2000]}, "2000, the output of gate_proj"),
        ({"llm_config": {"intermediate_size": 2000}}, "2000, the output of gate_proj"),
        ({"text_config": {"intermediate_size": 2000}}, "2000, the output of gate_proj"),
        ({"language_config": {"intermediate_size": 2000}}, "2000, the output of gate_proj"),
        ({"kv_channels": 65, "head_dim": None}, "1040, the output of q_proj"),
        ({"intermediate_size": [2048, 2048]}, None),
        ({"intermediate_size": "wide", "num_attention_heads": True, "hidden_size": []}, None),
    ],
)
def test_where_the_sizes_are(changes: dict[str, Any], told: str | None, problem: Any, tmp_path: Path) -> None:
    toolkit, result = load(tmp_path, **changes)
    assert result == 0
    assert toolkit.build(**BUILD) == (0 if told is None else -1)
    assert told is None or told in problem()


def test_q_k_and_v_are_taken_together(problem: Any, tmp_path: Path) -> None:
    g512 = {**BUILD, "target_platform": "rk3588", "quantized_dtype": "w8a8_g512"}
    shape = {"hidden_size": 2048, "intermediate_size": 5632, "num_attention_heads": 32, "num_key_value_heads": 4}
    toolkit, _ = load(tmp_path, **shape)
    assert toolkit.build(**g512) == 0, "k and v have 256 each"
    toolkit, _ = load(tmp_path, **{**shape, "num_key_value_heads": 2})
    assert toolkit.build(**g512) == -1
    assert "512 does not divide 2304, the output of q_proj, k_proj and v_proj together" in problem()


def test_a_build_that_fails_leaves_nothing_of_the_one_before(problem: Any, tmp_path: Path) -> None:
    toolkit, _ = load(tmp_path)
    assert toolkit.build(**BUILD) == 0
    assert toolkit.build(**{**BUILD, "max_context": 33}) == -1
    assert toolkit.export_rkllm(export_path=str(tmp_path / "out.rkllm")) == -1
    assert problem().startswith("nothing is built")
    assert not (tmp_path / "out.rkllm").exists()
