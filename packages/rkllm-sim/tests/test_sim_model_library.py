"""What is written here, loaded by the library: each language model answers, and the tokenizer understands it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sim_ctypes import Model
from sim_gguf_files import real_model
from tokenizers import Tokenizer

from rkllm_facts.abi import SUPPORTED
from rkllm_sim.build import build
from rkllm_sim.model import write_model

pytestmark = pytest.mark.slow

QUESTION = "<|im_start|>user\nWhat is a river?<|im_end|>\n<|im_start|>assistant\n"
SCRIPT = """
when "river"
text "<think>\\nHm.\\n</think>\\n\\nWater \\ud83d\\ude00."
pad 2
otherwise
text "What?"
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("1.2.3", tmp_path_factory.mktemp("library"))


def tokenizer_of(path: Path) -> Any:
    return Tokenizer.from_file(str(path.parent / "tokenizer.json"))


@pytest.mark.parametrize("abi", SUPPORTED)
def test_an_answer_of_the_hash_language_is_encoded_to_its_ids(abi: str, tmp_path: Path) -> None:
    path = write_model(tmp_path / "tiny", toolkit="1.1.4", answer=(30, 30))
    tokenizer = tokenizer_of(path)
    model = Model(build(abi, tmp_path / "library"), abi, model_path=path)
    assert model.ret == 0
    found = model.run(tokenizer.encode(QUESTION).ids)
    assert (found.ret, len(found.ids)) == (0, 30)
    assert tokenizer.encode(found.text).ids == found.ids
    assert model.destroy() == 0


def test_the_seed_is_another_language(library: Path, tmp_path: Path) -> None:
    texts = []
    for seed in (1, 2):
        path = write_model(tmp_path / f"tiny{seed}", seed=seed)
        model = Model(library, "1.2.3", model_path=path)
        texts.append(model.run(tokenizer_of(path).encode(QUESTION).ids).text)
        model.destroy()
    assert texts[0] != texts[1]


@pytest.mark.parametrize("files", ["with", "without"])
def test_a_text_prompt_is_framed_like_the_first_turn_of_a_chat(library: Path, tmp_path: Path, files: str) -> None:
    path = write_model(tmp_path / "tiny", with_tokenizer=files == "with")
    tokenizer = tokenizer_of(write_model(tmp_path / "other"))
    model = Model(library, "1.2.3", model_path=path, max_context_len=256)
    assert model.run("What is a river?").ids == model.run(tokenizer.encode(QUESTION).ids).ids
    model.destroy()


def test_a_script_is_played(library: Path, tmp_path: Path) -> None:
    path = write_model(tmp_path / "tiny", lm="script", script=SCRIPT)
    tokenizer = tokenizer_of(path)
    model = Model(library, "1.2.3", model_path=path)
    assert model.run("river").text == "<think>\nHm.\n</think>\n\nWater \U0001f600.[PAD151935][PAD151935]"
    assert tokenizer.token_to_id("<think>") in model.run("river").ids
    assert model.run("lake").text == "What?"
    model.destroy()


def test_the_vocabulary_of_a_copied_tokenizer_is_understood(library: Path, tmp_path: Path) -> None:
    source = write_model(tmp_path / "source").parent
    path = write_model(tmp_path / "tiny", tokenizer=source, answer=(20, 20))
    model = Model(library, "1.2.3", model_path=path)
    found = model.run(tokenizer_of(path).encode(QUESTION).ids)
    assert (len(found.ids), tokenizer_of(path).decode(found.ids)) == (20, found.text)
    model.destroy()


def test_a_real_model_answers_through_the_library(library: Path, tmp_path: Path) -> None:
    path = write_model(tmp_path / "smollm", lm="llama", gguf=real_model())
    tokenizer = tokenizer_of(path)
    model = Model(library, "1.2.3", model_path=path, max_new_tokens=20, top_k=1, repeat_penalty=1.0)
    assert model.ret == 0
    first = model.run(tokenizer.encode(QUESTION).ids)
    assert "river" in first.text
    assert tokenizer.decode(first.ids) == first.text
    assert model.run(tokenizer.encode(QUESTION).ids).ids == first.ids
    assert model.destroy() == 0
