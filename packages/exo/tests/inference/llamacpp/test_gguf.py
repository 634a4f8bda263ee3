from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import pytest

from exo.inference import EngineContext
from exo.inference.llamacpp.engine import LlamaCppEngine
from exo.inference.llamacpp.gguf import GgufFacts, facts_of
from exo.models import ModelStore, StoredModel
from exo.types import ModelCard, ThinkingMarkers

NUMBER, TEXT = 4, 8
TEMPLATE = "tokenizer.chat_template"
WRITTEN = "{{ a }}</think>é"
QWEN: dict[str, str | int] = {"general.architecture": "qwen3", "qwen3.embedding_length": 1024, TEMPLATE: WRITTEN}


def entry(key: str, value: str | int) -> bytes:
    name = struct.pack("<Q", len(key)) + key.encode()
    if isinstance(value, int):
        return name + struct.pack("<II", NUMBER, value)
    return name + struct.pack("<IQ", TEXT, len(value.encode())) + value.encode()


def stored(folder: Path, content: bytes) -> StoredModel:
    path = folder / "m.gguf"
    path.write_bytes(content)
    return StoredModel("m", path, len(content), path.stat().st_mtime_ns / 1e9)


def file_of(facts: dict[str, str | int]) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, 0, len(facts)) + b"".join(entry(*one) for one in facts.items())


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (QWEN, GgufFacts("qwen3", WRITTEN, 1024)),
        ({"general.architecture": "bert", "bert.pooling_type": 2}, GgufFacts("bert", pools=True)),
        ({"general.architecture": "qwen3", "qwen3.pooling_type": 0}, GgufFacts("qwen3")),
        ({"general.architecture": "llama", "qwen3.embedding_length": 7}, GgufFacts("llama")),
        ({"general.name": TEMPLATE}, GgufFacts()),
        ({}, GgufFacts()),
    ],
)
def test_what_a_file_says(tmp_path: Path, facts: dict[str, str | int], expected: GgufFacts) -> None:
    assert facts_of(stored(tmp_path, file_of(facts))) == expected


def test_a_vocabulary_in_front_of_the_template_is_no_hindrance(tmp_path: Path) -> None:
    content = file_of({"general.architecture": "qwen3"}) + bytes(1 << 23) + entry(TEMPLATE, "x")
    assert facts_of(stored(tmp_path, content)).template == "x"


@pytest.mark.parametrize("content", [b"", b"GGUF", file_of({"general.architecture": "bert"})[:-9]])
def test_a_broken_file_says_nothing(tmp_path: Path, content: bytes) -> None:
    assert facts_of(stored(tmp_path, content)) == GgufFacts()


def test_a_file_that_is_cut_off_in_a_number(tmp_path: Path) -> None:
    content = file_of({"general.architecture": "bert", "bert.embedding_length": 1})[:-2]
    assert facts_of(stored(tmp_path, content)) == GgufFacts()


def test_a_file_that_is_gone_says_nothing(tmp_path: Path) -> None:
    model = stored(tmp_path, file_of(QWEN))
    model.path.unlink()
    assert facts_of(model) == GgufFacts()


def test_a_file_that_has_changed_is_read_again(tmp_path: Path) -> None:
    assert facts_of(stored(tmp_path, file_of(QWEN))).architecture == "qwen3"
    changed = stored(tmp_path, file_of({**QWEN, "general.architecture": "qwen2"}))
    os.utime(changed.path, (1, 1))
    assert facts_of(StoredModel("m", changed.path, changed.size, 1.0)).architecture == "qwen2"


@pytest.mark.parametrize(
    ("facts", "card", "capabilities"),
    [
        (QWEN, {}, ("completion", "tools", "thinking")),
        ({**QWEN, TEMPLATE: "{{ a }}"}, {}, ("completion", "tools")),
        ({**QWEN, TEMPLATE: "{{ a }}"}, {"thinking": ThinkingMarkers()}, ("completion", "tools", "thinking")),
        ({**QWEN, "qwen3.pooling_type": 3}, {}, ("embedding",)),
        ({"general.architecture": "bert"}, {"pooling": "mean"}, ("embedding",)),
    ],
)
async def test_what_a_model_can_do_is_told_without_loading_it(
    tmp_path: Path, facts: dict[str, str | int], card: dict[str, Any], capabilities: tuple[str, ...]
) -> None:
    stored(tmp_path, file_of(facts))
    cards = {"m": ModelCard(id="m", **card)}
    found = await LlamaCppEngine(EngineContext(store=ModelStore(tmp_path), cards=cards)).describe("m")
    assert found.capabilities == capabilities
    assert (found.family, found.template) == (facts["general.architecture"], facts.get(TEMPLATE, ""))
