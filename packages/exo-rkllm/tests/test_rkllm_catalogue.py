"""Which models there are, by which names, and what is told of them."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from exo.models import ModelStore, cards_by_id
from exo.types import ModelCard
from exo_rkllm import catalogue as module
from exo_rkllm.catalogue import Catalogue
from exo_rkllm.models import RKLLM_MODELS
from exo_rkllm.names import assign_names
from exo_rkllm.settings import NpuSettings

CARDS, _ = cards_by_id([("exo-rkllm", RKLLM_MODELS)])


def add(root: Path, name: str, modelfile: str | None = None, **files: str) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "model.rkllm").write_bytes(b"x" * 100)
    if modelfile is not None:
        (folder / "Modelfile").write_text(modelfile)
    for file, text in files.items():
        (folder / file.replace("__", ".")).write_text(text)
    return folder


def catalogue(*roots: Path) -> Catalogue:
    return Catalogue([ModelStore(root) for root in roots], CARDS, NpuSettings.from_env({"HOME": "/home/me"}))


def names(found: Catalogue) -> dict[str, tuple[str, ...]]:
    return {card.id: card.aliases for card in found.cards()}


def test_a_folder_is_its_models_id_card_or_no_card(tmp_path: Path) -> None:
    add(tmp_path, "mine")
    add(tmp_path, "qwen2.5-3b-rkllm")
    found = catalogue(tmp_path)
    cards = {card.id: card for card in found.cards()}
    assert list(cards) == ["mine", "qwen2.5-3b-rkllm"]
    assert (cards["mine"].family, cards["qwen2.5-3b-rkllm"].family) == ("", "qwen2")


@pytest.mark.parametrize(
    ("folder", "modelfile"),
    [
        ("QWEN2.5-3B", None),  # an alias of the card, in other case
        ("anything", 'HUGGINGFACE_PATH="qwen/QWEN2.5-3b-instruct"'),
        ("any.thing_else", "HUGGINGFACE_PATH=Qwen/Qwen2.5-3B-Instruct\nNUM_CTX=1024"),
    ],
)
def test_a_cards_id_matches_a_folder(tmp_path: Path, folder: str, modelfile: str | None) -> None:
    add(tmp_path, folder, modelfile)
    found = catalogue(tmp_path)
    for name in ("qwen2.5-3b-rkllm", "Qwen2.5-3B-RKLLM", folder, folder.upper(), folder.lower()):
        assert found.resolve(name) == folder
    assert found.resolve("qwen2.5-7b-rkllm") is None
    (card,) = found.cards()
    assert (card.id, card.family, card.parameters) == (folder, "qwen2", 3_085_938_688)


def test_a_name_belongs_to_one_folder_only(tmp_path: Path) -> None:
    add(tmp_path, "a-copy", "HUGGINGFACE_PATH=Qwen/Qwen2.5-3B-Instruct")
    add(tmp_path, "Qwen2.5-3B-Instruct")
    found = names(catalogue(tmp_path))
    everything = [name.lower() for own in found.values() for name in own]
    assert len(everything) == len(set(everything))
    assert "qwen2.5-3b-rkllm" in found["Qwen2.5-3B-Instruct"]
    assert "qwen2.5:3b" in found["Qwen2.5-3B-Instruct"]
    assert not any("qwen2.5:3b" in own for name, own in found.items() if name != "Qwen2.5-3B-Instruct")


def test_friendly_names(tmp_path: Path) -> None:
    add(tmp_path, "Qwen2.5-1.5B-Instruct-rk3588-w8a8-opt-0-hybrid-ratio-1.0")
    found = catalogue(tmp_path)
    for name in ("qwen2.5:1.5b", "Qwen2.5:1.5B", "qwen2.5-instruct:1.5b"):
        assert found.resolve(name) == "Qwen2.5-1.5B-Instruct-rk3588-w8a8-opt-0-hybrid-ratio-1.0"


def test_the_first_store_of_a_name_counts(tmp_path: Path) -> None:
    add(tmp_path / "one", "m", "NUM_CTX=111")
    add(tmp_path / "two", "m", "NUM_CTX=222")
    add(tmp_path / "two", "n")
    found = catalogue(tmp_path / "one", tmp_path / "two")
    assert list(found.scan()) == ["m", "n"]
    assert found.describe("m").context_length == 111
    assert len(catalogue(tmp_path / "one", tmp_path / "one").roots) == 1


def test_what_is_told_of_a_model(tmp_path: Path) -> None:
    text = 'FROM model.rkllm\nNUM_CTX=2048\nTEMPERATURE=0.5\nSTOP="x"\nSYSTEM="Be brief."\nLICENSE="MIT"\n'
    add(tmp_path, "DeepSeek-R1-Distill-Qwen-1.5B_W8A8_RK3588", text)
    found = catalogue(tmp_path).describe("DeepSeek-R1-Distill-Qwen-1.5B_W8A8_RK3588")
    assert (found.size, found.format, found.context_length) == (100, "rkllm", 2048)
    assert (found.quantization, found.parameter_size, found.family) == ("W8A8", "1.5B", "deepseek-r1")
    assert (found.system, found.licence, found.modelfile) == ("Be brief.", "MIT", text)
    assert found.parameters == {"num_ctx": 2048, "temperature": 0.5, "stop": ["x"]}
    assert found.capabilities == ("completion", "tools", "thinking")
    assert "<think>" in found.template
    assert len(found.digest) == 64


def test_a_model_for_vectors_is_told_as_one(tmp_path: Path) -> None:
    add(tmp_path, "vectors")
    cards = {"vectors": ModelCard(id="vectors", pooling="last")}
    settings = NpuSettings.from_env({"HOME": "/home/me"})
    found = Catalogue([ModelStore(tmp_path)], cards, settings).describe("vectors")
    assert found.capabilities == ("embedding",)


def test_a_models_own_template_tells_whether_it_thinks(tmp_path: Path) -> None:
    add(tmp_path, "a", tokenizer_config__json=json.dumps({"chat_template": "{{ messages }}"}))
    add(tmp_path, "b", chat_template__jinja="{{ messages }}</think>")
    add(tmp_path, "c", tokenizer_config__json="[")
    add(tmp_path, "d", "TEMPLATE {{ .Prompt }}", chat_template__jinja="</think>")
    found = {name: catalogue(tmp_path).describe(name) for name in "abcd"}
    assert [("thinking" in one.capabilities) for one in found.values()] == [False, True, False, False]
    assert [found["a"].template, found["b"].template, found["d"].template] == [
        "{{ messages }}",
        "{{ messages }}</think>",
        "{{ .Prompt }}",
    ]


def test_a_faulty_modelfile_hides_nothing(tmp_path: Path) -> None:
    add(tmp_path, "m", "NUM_CTX=many")
    found = catalogue(tmp_path)
    assert [card.id for card in found.cards()] == ["m"]
    assert found.describe("m").context_length == 4096


def set_age(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds,) * 2)


def test_a_changed_modelfile_is_read_again_and_an_unchanged_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = add(tmp_path, "m", "NUM_CTX=1000")
    set_age(folder / "Modelfile", 100)
    found = catalogue(tmp_path)
    assert found.describe("m").context_length == 1000
    digest = found.describe("m").digest
    reads: list[Path] = []
    monkeypatch.setattr(module, "read_modelfile", reads.append)
    assert found.describe("m").context_length == 1000
    assert reads == []
    monkeypatch.undo()
    (folder / "Modelfile").write_text("NUM_CTX=2000")
    assert found.describe("m").context_length == 2000
    assert found.describe("m").digest != digest


def test_a_modelfile_that_is_older_than_the_last_one_is_read_again(tmp_path: Path) -> None:
    folder = add(tmp_path, "m", "NUM_CTX=1000")  # the model's file is newer than each of its Modelfiles
    set_age(folder / "Modelfile", 100)
    found = catalogue(tmp_path)
    assert found.describe("m").context_length == 1000
    (folder / "older").write_text("NUM_CTX=2000")
    set_age(folder / "older", 200)
    (folder / "older").rename(folder / "Modelfile")
    assert found.describe("m").context_length == 2000
    (folder / "Modelfile").unlink()
    assert found.describe("m").context_length == 4096


def test_a_modelfile_that_has_just_been_written_may_change_within_the_same_tick(tmp_path: Path) -> None:
    path = add(tmp_path, "m", "NUM_CTX=1000") / "Modelfile"
    before = path.stat()
    found = catalogue(tmp_path)
    assert found.describe("m").context_length == 1000
    path.write_text("NUM_CTX=2000")
    os.utime(path, ns=(before.st_mtime_ns, before.st_mtime_ns))
    assert found.describe("m").context_length == 2000


def test_names_are_made_once_for_the_same_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Mapping[str, str]] = []

    def assign(folders: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
        made.append(folders)
        return assign_names(folders)

    monkeypatch.setattr(module, "assign_names", assign)
    add(tmp_path, "Qwen2.5-1.5B")
    found = catalogue(tmp_path)
    assert found.cards() == found.cards()
    assert len(made) == 1
    folder = add(tmp_path, "any")
    assert found.resolve("qwen2.5:3b") is None
    (folder / "Modelfile").write_text("HUGGINGFACE_PATH=Qwen/Qwen2.5-3B")
    assert found.resolve("qwen2.5:3b") == "any"
    assert len(made) == 3


def test_the_original_of_a_model(tmp_path: Path) -> None:
    add(tmp_path, "a", "HUGGINGFACE_PATH=me/mine")
    add(tmp_path, "Phi-3-mini")
    found = catalogue(tmp_path)
    assert [found.original_of(name) for name in ("a", "Phi-3-mini", "nothing")] == [
        "me/mine",
        "microsoft/Phi-3-mini-4k-instruct",
        "",
    ]
    assert found.original_of("qwen2.5-7b-rkllm") == "Qwen/Qwen2.5-7B-Instruct"  # before it is pulled


@pytest.mark.parametrize("file", ["tokenizer_config.json", "chat_template.jinja"])
def test_a_pipe_in_place_of_a_file_holds_nobody_up(tmp_path: Path, file: str) -> None:
    import os

    os.mkfifo(add(tmp_path, "m") / file)
    assert catalogue(tmp_path).describe("m").format == "rkllm"
