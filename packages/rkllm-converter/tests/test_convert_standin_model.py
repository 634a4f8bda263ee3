"""The file that the stand-in exports, against the simulator that is to load it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import runtime_sim
from converter_toolkits import SMALL_CONFIG, small_gguf, small_model, stand_in

from rkllm_facts.chips import CHIPS
from rkllm_sim.model import ModelOptions, model_text
from rkllm_sim.tokenizer import copied, small

WEIGHTS = 64
EOS = 2258
"""<|im_end|> of the small tokenizer."""


def with_tokenizer(folder: Path, files: Mapping[str, bytes | dict[str, Any]]) -> Path:
    small_model(folder, eos_token_id=EOS)
    for name, content in files.items():
        data = json.dumps(content).encode() if isinstance(content, dict) else content
        (folder / name).write_bytes(data)
    return folder


def exported(model: Path, *, release: str = "1.3.0", **changes: Any) -> str:
    build: dict[str, Any] = {
        "do_quantization": True,
        "optimization_level": 1,
        "quantized_dtype": "w8a8",
        "quantized_algorithm": "normal",
        "target_platform": "rk3588",
        "num_npu_core": 3,
        "hybrid_rate": 0,
        "max_context": 4096,
    }
    toolkit = stand_in(release).RKLLM()
    load = toolkit.load_gguf if model.suffix == ".gguf" else toolkit.load_huggingface
    assert load(model=str(model)) == 0
    assert toolkit.build(**{**build, **changes}) == 0
    path = model.parent / "out.rkllm"
    assert toolkit.export_rkllm(export_path=str(path)) == 0
    return path.read_text("utf-8")


def simulated(model: Path, **changes: Any) -> str:
    """The same by the simulator."""
    options = {"toolkit": "1.3.0", "memory_mb": 1, "embd": SMALL_CONFIG["hidden_size"], **changes}
    return model_text(ModelOptions(**options), copied(model).vocabulary)


SENTENCEPIECE: dict[str, Any] = {
    "model": {
        "type": "BPE",
        "byte_fallback": True,
        "vocab": {
            "<unk>": 0,
            "<s>": 1,
            "</s>": 2,
            **{f"<0x{byte:02X}>": 3 + byte for byte in range(256)},
            **{f"\u2581{word}": 259 + place for place, word in enumerate(("one", "two", "drei", "quatre"))},
            "\u2581": 264,
        },
    },
    "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
    "added_tokens": [
        {"id": 0, "content": "<unk>", "special": True},
        {"id": 2, "content": "</s>", "special": True},
        {"id": 266, "content": "<|user|>", "special": False},
    ],
}


@pytest.mark.parametrize("thinking", [False, True])
def test_a_byte_level_tokenizer(tmp_path: Path, *, thinking: bool) -> None:
    model = with_tokenizer(tmp_path / "model", small(thinking=thinking).files)
    assert exported(model) == simulated(model)


def test_a_sentencepiece_tokenizer(tmp_path: Path) -> None:
    files: dict[str, Any] = {
        "tokenizer.json": SENTENCEPIECE,
        "tokenizer_config.json": {"eos_token": {"content": "</s>"}},
    }
    model = with_tokenizer(tmp_path / "model", files)
    small_model(model, eos_token_id=[2])
    assert exported(model) == simulated(model)


def test_a_unigram_tokenizer(tmp_path: Path) -> None:
    vocab = [["<unk>", 0.0], ["\u2581a", -1.5], ["b", -2.0]]
    tokenizer = {"model": {"type": "Unigram", "vocab": vocab}, "added_tokens": []}
    files: dict[str, Any] = {"tokenizer.json": tokenizer, "generation_config.json": {"eos_token_id": 0}}
    model = small_model(with_tokenizer(tmp_path / "model", files), eos_token_id=0)
    assert exported(model) == simulated(model)


@pytest.mark.parametrize(
    ("platform", "quant", "context", "cores"),
    [(one.target_platform, quant, 2048, max(one.npu_cores)) for one in CHIPS for quant in one.types],
)
@pytest.mark.parametrize("release", ["1.2.3", "1.3.0"])
def test_what_it_was_built_for(
    tmp_path: Path, *, release: str, platform: str, quant: str, context: int, cores: int
) -> None:
    model = with_tokenizer(tmp_path / "model", small().files)
    build = {"target_platform": platform, "quantized_dtype": quant, "max_context": context, "num_npu_core": cores}
    expected = simulated(model, toolkit=release, platform=platform, dtype=quant, context=context)
    assert exported(model, release=release, **build) == expected


def test_fewer_cores_and_no_quantisation(tmp_path: Path) -> None:
    model = with_tokenizer(tmp_path / "model", small().files)
    lines = exported(model, num_npu_core=1, do_quantization=False, quantized_dtype="W8A8").splitlines()
    assert {"npu_cores 1", "dtype fp16", "platform rk3588"} <= set(lines)


def test_every_file_that_names_an_end_counts(tmp_path: Path) -> None:
    model = with_tokenizer(tmp_path / "model", small().files)
    small_model(model, eos_token_id=[EOS, 300])
    assert "eos 2258 2256 300" in exported(model).splitlines()


@pytest.mark.parametrize(
    "tokenizer",
    [
        None,
        b"{",
        b"[]",
        {"model": {"type": "WordPiece", "vocab": {"a": 0}}},
        {"model": {"type": "BPE", "vocab": {}}, "decoder": {"type": "ByteLevel"}},
        {"model": {"type": "BPE", "vocab": {"\u0100": 0}}, "decoder": {"type": "ByteLevel"}},
    ],
)
def test_bytes_where_no_tokenizer_can_be_used(tokenizer: Any, tmp_path: Path) -> None:
    files = {} if tokenizer is None else {"tokenizer.json": tokenizer}
    assert_bytes(exported(with_tokenizer(tmp_path / "model", files)))


def test_bytes_for_gguf(tmp_path: Path) -> None:
    assert_bytes(exported(small_gguf(tmp_path / "model.gguf")))


def assert_bytes(text: str) -> None:
    lines = text.splitlines()
    assert {"eos 256", "special 256", "words 97 26", "vocab 257"} <= set(lines)
    vocab = lines[lines.index("vocab 257") + 1 : -1]
    assert [bytes.fromhex(one) for one in vocab] == [*(bytes([byte]) for byte in range(256)), b"</s>"]


@pytest.mark.slow
@pytest.mark.parametrize("has_tokenizer", [True, False])
def test_the_library_loads_it_and_answers(tmp_path: Path, *, has_tokenizer: bool) -> None:
    model = with_tokenizer(tmp_path / "model", small().files if has_tokenizer else {})
    exported(model, max_context=512)
    tokens = runtime_sim.Tokens()
    npu = runtime_sim.load("1.3.0", tmp_path / "out.rkllm", max_context=512)
    try:
        outcome = npu.run("Good morning", tokens)
    finally:
        npu.destroy()
    assert outcome.finished
    assert outcome.tokens >= 8
    assert tokens.text.replace(" ", "").isalpha()
