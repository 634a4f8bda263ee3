"""Changes where models come from two stores: the node's own, which comes first, and rkllama's, for what is new."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
import pytest
from fake_hub import FakeHub

from exo.models import ModelStore, cards_by_id, read_modelfile
from exo.types import ModelCard, ModelExists, StoreError
from exo_rkllm.catalogue import Catalogue
from exo_rkllm.library import NpuLibrary
from exo_rkllm.models import RKLLM_MODELS
from exo_rkllm.settings import NpuSettings

CARDS, _ = cards_by_id([("exo-rkllm", RKLLM_MODELS)])
FILES = {"both": b"the node's", "theirs": b"only the node's"}


@pytest.fixture
def node(tmp_path: Path) -> Path:
    return fill(tmp_path / "node", FILES)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return fill(tmp_path / "own", {"both": b"rkllama's", "mine": b"only rkllama's"})


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as hub:
        yield hub


def fill(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).mkdir(parents=True)
        (root / name / "x.rkllm").write_bytes(content)
    return root


def library(node: Path, own: Path, cards: Mapping[str, ModelCard] = CARDS, **env: str) -> NpuLibrary:
    stores = ModelStore(node), ModelStore(own)
    catalogue = Catalogue(stores, cards, NpuSettings.from_env({"HOME": "/home/me"}))
    return NpuLibrary(stores[1], catalogue, cards=cards, env=env)


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if not path.name.startswith("."))


def test_what_is_served_is_deleted(node: Path, own: Path) -> None:
    models = library(node, own)
    assert models.delete("theirs") == []
    assert models.delete("both") == []
    assert (names(node), names(own)) == ([], ["both", "mine"])
    models.delete("both")
    models.delete("mine")
    assert names(own) == []
    with pytest.raises(StoreError, match="'nobody'"):
        models.delete("nobody")


def test_what_is_served_is_copied_into_rkllamas_store(node: Path, own: Path) -> None:
    models = library(node, own)
    for source, content in {**FILES, "mine": b"only rkllama's"}.items():
        models.copy(source, f"{source}-copy")
        assert (own / f"{source}-copy/x.rkllm").read_bytes() == content
    assert names(node) == ["both", "theirs"]


def test_a_new_model_may_be_made_of_one_of_either_store(node: Path, own: Path) -> None:
    (node / "theirs/Modelfile").write_text("SYSTEM Be brief.\n")
    models = library(node, own)
    made = models.create("new", "FROM theirs\nPARAMETER num_ctx 512\n")
    assert (made.path, made.path.read_bytes()) == (own / "new/x.rkllm", FILES["theirs"])
    found = read_modelfile(own / "new")
    assert (found.system, found.parameters.num_ctx) == ("Be brief.", 512)


@pytest.mark.parametrize("name", ["theirs", "both", "mine"])
def test_a_name_that_a_store_has_is_taken(node: Path, own: Path, hub: FakeHub, name: str) -> None:
    models = library(node, own, HF_ENDPOINT=hub.url)
    hub.add("a/b", {f"{name}.rkllm": b"new"})
    before = {path: path.read_bytes() for root in (node, own) for path in root.rglob("*.rkllm")}
    with pytest.raises(ModelExists, match=f"'{name}'"):
        models.create(name, "FROM mine\n")
    with pytest.raises(ModelExists, match=f"'{name}'"):
        models.copy("mine", name)
    for reference in (f"a/b/{name}.rkllm", f"a/b:{name}"):
        with pytest.raises(ModelExists, match=name):
            models.pull(reference)
    assert {path: path.read_bytes() for root in (node, own) for path in root.rglob("*.rkllm")} == before
    assert hub.requests == []


def test_with_force_a_model_is_replaced_where_it_is_served(node: Path, own: Path, hub: FakeHub) -> None:
    models = library(node, own, HF_ENDPOINT=hub.url)
    models.create("theirs", "FROM mine\n", force=True)
    models.copy("mine", "both", force=True)
    assert [(node / name / "x.rkllm").read_bytes() for name in ("theirs", "both")] == [b"only rkllama's"] * 2
    assert (own / "both/x.rkllm").read_bytes() == b"rkllama's"
    hub.add("a/b", {"theirs.rkllm": b"pulled"})
    models.pull("a/b/theirs.rkllm", force=True)
    assert (node / "theirs/theirs.rkllm").read_bytes() == b"pulled"
    assert names(own) == ["both", "mine"]


def test_a_card_is_pulled_to_where_its_model_is_served(node: Path, own: Path, hub: FakeHub) -> None:
    card = msgspec.structs.replace(CARDS["qwen2.5-3b-rkllm"], files={"rkllm": "a/b/c.rkllm"})
    fill(node, {card.id: b"x"})
    hub.add("a/b", {"c.rkllm": b"pulled"})
    models = library(node, own, {card.id: card}, HF_ENDPOINT=hub.url)
    with pytest.raises(ModelExists, match=card.id):
        models.pull("Qwen2.5-3B")
    models.pull("Qwen2.5-3B", force=True)
    assert (node / card.id / "c.rkllm").read_bytes() == b"pulled"
    assert names(own) == ["both", "mine"]


def test_tokenizers_and_modelfiles_come_to_the_model_that_is_served(node: Path, own: Path, hub: FakeHub) -> None:
    hub.add("a/original", {"tokenizer.json": b"{}"})
    models = library(node, own, HF_ENDPOINT=hub.url)
    for name, root in {"theirs": node, "both": node, "mine": own}.items():
        assert models.pull_tokenizer(name, "a/original") == ["tokenizer.json"]
        models.add_modelfile(name, from_="", huggingface_path="a/original")
        assert names(root / name) == ["Modelfile", "tokenizer.json", "x.rkllm"]
    assert names(own / "both") == ["x.rkllm"]


def test_where_both_stores_are_the_same_folder(own: Path) -> None:
    models = library(own, own)
    models.copy("mine", "copy")
    models.delete("mine")
    assert names(own) == ["both", "copy"]
