"""The folder of a simulated model."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from sim_gguf_files import metadata, write_gguf

from rkllm_sim.errors import BadOptions, SimulatorError
from rkllm_sim.model import ModelOptions, write_model
from rkllm_sim.tokenizer import small


def settings(path: Path) -> dict[str, str]:
    """The lines before the vocabulary, by key; of several with one key the last."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return dict(line.partition(" ")[::2] for line in lines[1 : lines.index(next(filter(is_vocab, lines)))])


def is_vocab(line: str) -> bool:
    return line.startswith("vocab ")


def test_a_hash_model(tmp_path: Path) -> None:
    path = write_model(tmp_path / "tiny")
    assert path == tmp_path / "tiny" / "tiny.rkllm"
    assert sorted(one.name for one in path.parent.iterdir()) == [
        *("Modelfile", "generation_config.json", "tiny.rkllm", "tokenizer.json", "tokenizer_config.json"),
    ]
    assert settings(path) == {
        "toolkit": "1.2.0",
        "platform": "rk3588",
        "max_context": "4096",
        "npu_cores": "3",
        "dtype": "w8a8",
        "memory_mb": "900",
        "embd": "64",
        "lm": "hash",
        "seed": "1",
        "answer": "8 40",
        "words": "256 2000",
        "eos": "2258 2256",
        "special": "2256 2257 2258",
        "prefill_ms": "0",
        "decode_ms": "0",
        "load_ms": "0",
        "prefix": r'"<|im_start|>user\n"',
        "postfix": r'"<|im_end|>\n<|im_start|>assistant\n"',
    }
    text = path.read_text(encoding="utf-8")
    assert text.startswith("rkllm-sim model 1\n")
    assert text.endswith("\nrkllm-toolkit version: 1.2.0\n")
    vocab = text[text.index("vocab ") :].splitlines()[:-1]
    assert vocab[0] == "vocab 2261"
    assert tuple(bytes.fromhex(line) for line in vocab[1:]) == small().vocabulary.pieces


def test_the_modelfile_is_what_older_servers_wrote(tmp_path: Path) -> None:
    path = write_model(tmp_path / "tiny", context=512)
    assert (path.parent / "Modelfile").read_text(encoding="utf-8") == (
        'FROM="tiny.rkllm"\nHUGGINGFACE_PATH=""\nSYSTEM=""\nTEMPERATURE=0.8\nNUM_CTX=512\n'
    )
    assert settings(path)["max_context"] == "512"


def test_every_option_reaches_the_file(tmp_path: Path) -> None:
    options = ModelOptions(
        name="other",
        seed=2**64 - 1,
        answer=(0, 3),
        context=64,
        platform="RK3576",
        toolkit="1.1.4",
        dtype="w4a16_g128",
        memory_mb=5,
        embd=8,
        prefill_ms=2.95,
        decode_ms=60,
        load_ms=7,
        faults=("segv_at=3", 'load_ms=50 when "a b"'),
    )
    path = write_model(tmp_path / "tiny", options, seed=2)
    assert path.name == "other.rkllm"
    found = settings(path)
    text = path.read_text(encoding="utf-8")
    assert '\nfault segv_at=3\nfault load_ms=50 when "a b"\n' in text
    assert text.endswith("\nrkllm-toolkit version: 1.1.4\n")
    assert (found["platform"], found["npu_cores"], found["dtype"]) == ("rk3576", "2", "w4a16_g128")
    assert (found["seed"], found["answer"], found["toolkit"]) == ("2", "0 3", "1.1.4")
    assert [found[key] for key in ("prefill_ms", "decode_ms", "load_ms")] == ["2.95", "60", "7"]
    assert [found[key] for key in ("max_context", "memory_mb", "embd")] == ["64", "5", "8"]


def test_a_script_stands_behind_the_vocabulary(tmp_path: Path) -> None:
    path = write_model(tmp_path / "tiny", lm="script", script='text "Hi"\npad 3')
    assert "words" not in settings(path)
    assert path.read_text(encoding="utf-8").splitlines()[-5:] == [
        *("script", 'text "Hi"', "pad 3", "end", "rkllm-toolkit version: 1.2.0"),
    ]


def test_a_llama_model_takes_everything_from_its_gguf(tmp_path: Path) -> None:
    gguf = write_gguf(tmp_path / "m.gguf", metadata())
    path = write_model(tmp_path / "tiny", lm="llama", gguf=gguf)
    found = settings(path)
    assert (found["gguf"], found["max_context"], found["embd"], found["eos"]) == (str(gguf), "2048", "96", "260")
    assert found["child"] == f'"{sys.executable}" "-m" "rkllm_sim.llama"'
    assert (path.parent / "Modelfile").read_text(encoding="utf-8").endswith("NUM_CTX=2048\n")
    assert (path.parent / "tokenizer.json").is_file()
    assert settings(write_model(tmp_path / "tiny", lm="llama", gguf=gguf, context=4096))["max_context"] == "4096"


def test_a_model_with_the_tokenizer_of_another_one(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "real", thinking=True).parent
    (folder / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")
    path = write_model(tmp_path / "tiny", tokenizer=folder)
    assert settings(path)["words"] == "256 2000"
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja"):
        assert (path.parent / name).read_bytes() == (folder / name).read_bytes()


def test_a_tokenizer_that_has_no_plain_token_cannot_make_a_hash_language(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(
        json.dumps(
            {"model": {"type": "Unigram", "vocab": [["</s>", 0]]}, "added_tokens": [{"id": 0, "content": "</s>"}]}
        )
    )
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    with pytest.raises(SimulatorError, match="no token is plain text"):
        write_model(tmp_path / "tiny", tokenizer=tmp_path)


def test_without_tokenizer_only_the_model_and_its_modelfile_are_there(tmp_path: Path) -> None:
    path = write_model(tmp_path / "tiny", with_tokenizer=False)
    assert sorted(one.name for one in path.parent.iterdir()) == ["Modelfile", "tiny.rkllm"]
    assert "\nvocab 2261\n" in path.read_text(encoding="utf-8")


def test_a_simulated_model_is_replaced_with_all_that_lay_beside_it(tmp_path: Path) -> None:
    write_model(tmp_path / "tiny")
    path = write_model(tmp_path / "tiny", with_tokenizer=False, seed=5)
    assert sorted(one.name for one in path.parent.iterdir()) == ["Modelfile", "tiny.rkllm"]
    assert settings(path)["seed"] == "5"


def test_the_template_for_thinking(tmp_path: Path) -> None:
    configs = [
        json.loads((write_model(tmp_path / "tiny", thinking=on).parent / "tokenizer_config.json").read_text())
        for on in (False, True)
    ]
    assert ["enable_thinking" in config["chat_template"] for config in configs] == [False, True]


def test_a_real_model_is_left_alone(tmp_path: Path) -> None:
    real = tmp_path / "tiny" / "model.rkllm"
    real.parent.mkdir()
    real.write_bytes(b"RKLLM\x00\x01")
    with pytest.raises(BadOptions, match=r"model\.rkllm is no simulated model"):
        write_model(real.parent)
    assert [one.name for one in real.parent.iterdir()] == ["model.rkllm"]


def test_two_models_in_one_folder_are_refused(tmp_path: Path) -> None:
    write_model(tmp_path / "tiny")
    with pytest.raises(BadOptions, match=r"holds another model, tiny\.rkllm"):
        write_model(tmp_path / "tiny", name="other")


def test_a_file_in_the_folders_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tiny").write_text("x")
    with pytest.raises(BadOptions, match="is a file"):
        write_model(tmp_path / "tiny")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"lm": "script"}, "needs --script FILE"),
        ({"lm": "llama"}, "needs --gguf FILE"),
        ({"script": 'text "a"'}, "is for --lm script"),
        ({"gguf": Path("m.gguf")}, "is for --lm llama"),
        ({"lm": "llama", "gguf": Path("m.gguf"), "tokenizer": Path("t")}, "its own tokenizer"),
        ({"tokenizer": Path("t"), "thinking": True}, "a real tokenizer brings its own"),
        ({"name": "a/b"}, "cannot be the name"),
        ({"name": ""}, "cannot be the name"),
        ({"answer": (5, 4)}, "5 to 4 tokens"),
        ({"answer": (-1, 4)}, "-1 to 4 tokens"),
        ({"context": 0}, "context of 0"),
        ({"seed": -1}, "no seed"),
        ({"decode_ms": -1.0}, "negative"),
        ({"platform": "rk1"}, "RK3588"),
        ({"dtype": "w4a16"}, "w8a8"),
        ({"toolkit": "new"}, "not a version"),
        ({"faults": ("explode",)}, "no fault 'explode'"),
        ({"lm": "script", "script": "say"}, "Line 1 of the script"),
    ],
)
def test_options_that_cannot_be_are_refused_before_anything_is_written(
    tmp_path: Path, options: dict[str, Any], why: str
) -> None:
    with pytest.raises(SimulatorError, match=why):
        write_model(tmp_path / "tiny", **options)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_option_is_the_callers_mistake(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="sead"):
        write_model(tmp_path / "tiny", sead=1)
